//go:build unix && !aix && !solaris

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

// releaseTimeout limits the release at the end, which delays the exit.
const releaseTimeout = 5 * time.Second

// untilSignal returns a context that ends at a signal, or after most unless that is Forever. The
// caller calls settle at the end; it returns the failure to exit with if a signal has come.
func (r *run) untilSignal(signals <-chan os.Signal, most time.Duration) (ctx context.Context,
	settle func() error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	settled := make(chan struct{})
	interrupted := make(chan error, 1)
	var late <-chan time.Time
	if most != lock.Forever {
		late = time.After(most)
	}
	go func() {
		defer close(interrupted)
		for {
			select {
			case sig := <-signals:
				err := r.interrupted(sig)
				interrupted <- err
				cancel(err)
				return
			case <-late:
				late = nil
				cancel(fmt.Errorf("no answer within %v", most))
			case <-settled:
				return
			}
		}
	}()
	return ctx, func() error {
		close(settled)
		return <-interrupted
	}
}

// interrupted is the failure to exit with if a signal came before the command began.
func (r *run) interrupted(sig os.Signal) error {
	return &failure{exitSignal + int(sig.(syscall.Signal)),
		fmt.Errorf("%s: ended by a signal (%v) before the command began", r.name(), sig)}
}

// acquire connects and acquires the lock, unless a signal comes first. The caller calls done when
// it no longer needs the database.
func (r *run) acquire(o lock.Options, job lock.Job, signals <-chan os.Signal) (lease *lock.Lease,
	done func(), err error) {
	most := lock.Forever
	if job.Wait != lock.Forever {
		most = job.Wait + callTimeout
	}
	ctx, settle := r.untilSignal(signals, most)
	l, done, err := r.connect(ctx, o)
	if err == nil {
		lease, err = r.await(ctx, l, job)
	}
	stopped := settle()
	switch {
	case lease != nil && stopped == nil:
		return lease, done, nil
	case lease != nil:
		err = r.giveBack(lease)
	case errors.Is(err, lock.ErrOutcomeUnknown):
		job.ComponentID = r.asked // a tick's has a random suffix
		err = r.settle(l, job, err)
	case stopped != nil:
		err = nil
	default:
		err = explain(ctx, judge(err))
	}
	if stopped != nil {
		if err != nil {
			r.says.warn(err.Error())
		}
		err = stopped
	}
	return nil, nil, err
}

// await acquires the lock. If it may have to wait, it first looks why, and says so: with
// --verbose if another holds the lock, always if the database is away. It acquires with one call,
// which knows the outcome of all its attempts.
func (r *run) await(ctx context.Context, l *lock.Lock, job lock.Job) (*lock.Lease, error) {
	if job.Wait > 0 {
		r.tellWait(ctx, l, job)
	}
	lease, err := l.Acquire(ctx, job)
	if err != nil || job.Wait == 0 {
		return lease, err
	}
	// The guard must count from the acquisition, but the event of Acquire includes the wait.
	if err = lease.Renew(ctx); err != nil {
		return nil, errors.Join(err, r.giveBack(lease))
	}
	return lease, nil
}

func (r *run) tellWait(ctx context.Context, l *lock.Lock, job lock.Job) {
	looking, cancel := within(ctx, callTimeout)
	defer cancel()
	s, err := l.Status(looking, job.ComponentName, job.JobName)
	var f *failure
	switch {
	case ctx.Err() != nil:
	case errors.As(explain(looking, judge(err)), &f):
		r.says.warn(f.words() + "; waiting")
	case s.Locked:
		r.says.info(fmt.Sprintf("%s is held by %s, acquired or renewed %s; waiting", r.name(),
			holderWords(s.Holder), agoWords(s.Holder.Age)))
	}
}

// giveBack releases a lock before its run has begun, and leaves its tick free. The error says
// that this failed.
func (r *run) giveBack(lease *lock.Lease) error {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	job := lease.Job()
	if err := lease.GiveBack(ctx); err != nil && !errors.Is(err, lock.ErrLost) {
		return r.inVain(job, bare(err))
	}
	return nil
}

// settle finds out whether an acquisition whose answer was lost took effect, and undoes it. The
// library has already tried to for a tick; anything else would make the tick count as run.
func (r *run) settle(l *lock.Lock, job lock.Job, lost error) error {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	var err error
	if job.Tick.IsZero() {
		err = l.UnlockContext(ctx, job.ComponentName, job.ComponentID, job.JobName, job.JobID)
	} else {
		var s lock.Status
		s, err = l.Status(ctx, job.ComponentName, job.JobName)
		if err == nil && s.Locked && s.Holder.ComponentID == job.ComponentID {
			err = errors.New("it is held")
		}
	}
	if err == nil || errors.As(err, new(*lock.ErrUnauthorised)) {
		return fail(exitDatabase, lost)
	}
	return fail(exitDatabase, r.inVain(job, lost))
}

// inVain is the error of a lock that may be held by a run that never begins. It names the IDs,
// which nobody else knows.
func (r *run) inVain(job lock.Job, err error) error {
	words := fmt.Sprintf("it expires after %v", job.TTL)
	if job.TTL == lock.Forever {
		words = fmt.Sprintf("it never expires: "+
			"lock release %q --component %q --holder %q --run %q --force", job.JobName,
			job.ComponentName, job.ComponentID, r.runID(job))
		if !job.Tick.IsZero() {
			words += ", and lock forget, or its tick counts as run"
		}
	}
	return fmt.Errorf("%s: %w; the lock may be held by %s (run %s), which does nothing; %s",
		r.name(), err, visible(job.ComponentID), visible(r.runID(job)), words)
}

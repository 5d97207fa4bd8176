package lock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// releaseTimeout limits how long Run takes to release the lock.
const releaseTimeout = 5 * time.Second

// Acquire acquires the lock of a job and renews it in the background until [Lease.Release] is
// called, ctx ends or the lease is lost. With [Job.Wait] it waits for the lock.
//
// The error is an *[ErrUnauthorised] if another holds the lock, also at the end of the wait; an
// *[ErrDisabled], for which Acquire never waits; an *[ErrAlreadyRun]; an *[ErrTickAhead]; or it
// says what is wrong with the Job or the database. While it waits, Acquire tolerates timeouts and
// a database that is away.
//
// If a reply is lost and the outcome stays unknown, Acquire gives back what it may have acquired,
// in the background if the database is away. If the caller has named the run, Acquire leaves it
// as it is: repeat the call to settle it.
//
// Renewals need a connection now and then, so the pool must have one more than the job uses. On
// SQLite they write: a transaction of the job that writes must be shorter than the TTL.
//
// Acquire returns an error if the Storage is a transaction.
func (l *Lock) Acquire(ctx context.Context, job Job) (*Lease, error) {
	ctx = limited(ctx)
	// a tick has something random in its ComponentID
	unique := job.ComponentID == "" || job.JobID == ""
	r := job.request("Acquire")
	if err := l.begin(ctx, r); err != nil {
		return nil, err
	}
	if err := job.check(); err != nil {
		return nil, r.Wrap(err)
	}
	if t, ok := l.store.(*store.Table); ok && t.InTransaction() {
		return nil, r.Wrap(errors.New("a lease can't be renewed in a transaction: " +
			"use a Lock on the *sql.DB"))
	}
	asked := time.Now()
	job = job.fill(asked)
	r = job.request("Acquire")
	doubt := false
	w := newWaiter(l, job)
	defer w.close()
	for {
		sent := time.Now()
		res, e := l.acquire(ctx, r, job.conditions(), doubt)
		doubt = doubt || errors.Is(e.Err, ErrOutcomeUnknown)
		if e.Err != nil && w.wait(ctx, e.Err) {
			continue // refusals during the wait are no events
		}
		if err := ctx.Err(); err != nil && e.Err != nil && !errors.Is(e.Err, err) {
			e.Err = r.Wrap(fmt.Errorf("%w while waiting: %w", err, e.Err))
		}
		if l.ended(ctx, r, e, asked, e.Err) != nil {
			if doubt && !errors.Is(e.Err, ErrRefused) {
				l.giveBack(ctx, job, unique)
			}
			return nil, e.Err
		}
		le := newLease(ctx, l, job, unique, res, e, sent)
		if le.Err() == nil {
			go le.keep()
			return le, nil
		}
		err := fmt.Errorf("%w: the answer came too late, after %v", ErrLost, time.Since(sent))
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, r.Wrap(errors.Join(err, le.within(ctx, le.GiveBack)))
	}
}

// limited returns a context that makes the statements use the methods that take one, so that each
// attempt is limited.
func limited(ctx context.Context) context.Context {
	if ctx == store.Background {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// giveBack gives back a lock that may have been acquired, if nobody else knows the IDs of the
// run. If the database is away, it retries until the lock has expired.
func (l *Lock) giveBack(ctx context.Context, job Job, unique bool) {
	if !unique {
		return
	}
	r := job.request("GiveBack")
	try := func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		res, err := l.store.Release(ctx, r, store.Term{}, job.givenBack())
		if res.Done {
			l.hub.released(r)
		}
		return err
	}
	err := try()
	if err == nil {
		return
	}
	until := time.Now().Add(min(job.TTL, time.Hour))
	go func() {
		for err != nil && !store.Closed(err) && time.Now().Before(until) {
			time.Sleep(min(time.Second, job.TTL/10))
			err = try()
		}
	}()
}

// Run acquires the lock of a job (see [Lock.Acquire]), calls f, keeps the lock while f runs, and
// releases it.
//
// The context of f ends when the lease is lost. Then f must return within [Job.Margin].
// [LeaseFrom] returns the lease from that context.
//
// If Acquire fails, Run returns its error. Otherwise it returns the errors of f, of a lost lease
// ([ErrLost]) and of the release, joined, or nil if there are none. Run releases the lock even if
// ctx has ended or f panics. If ctx ends before f is called, a tick stays free.
func (l *Lock) Run(ctx context.Context, job Job, f func(ctx context.Context) error) (err error) {
	le, err := l.Acquire(ctx, job)
	if err != nil {
		return err
	}
	release := le.GiveBack // until f has begun, and if f fails and may be repeated
	defer func() {
		lost := le.Err()
		released := le.within(ctx, release)
		if !errors.Is(lost, ErrLost) {
			lost = nil
		} else if errors.Is(released, ErrLost) {
			released = nil // the same error twice
		}
		err = errors.Join(err, le.job.request("Run").Wrap(lost), released)
	}()
	if ctx.Err() != nil {
		return le.job.request("Run").Wrap(context.Cause(ctx))
	}
	if !job.RetryFailed {
		release = le.Release
	}
	if err := f(context.WithValue(le.Context(), leaseKey{}, le)); err != nil {
		return err
	}
	release = le.Release
	return nil
}

// within calls release with a time limit, even if ctx has ended or the Storage ignores contexts.
func (le *Lease) within(ctx context.Context, release func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- release(ctx) }()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return le.job.request("Release").Wrap(ctx.Err())
	}
}

type leaseKey struct{}

// LeaseFrom returns the lease from the context that [Lock.Run] gives its function. For other
// contexts it returns nil, whose methods return an error.
func LeaseFrom(ctx context.Context) *Lease {
	le, _ := ctx.Value(leaseKey{}).(*Lease)
	return le
}

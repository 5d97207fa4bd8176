package lock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// releaseTimeout limits how long Run takes to release the lock of a job that has ended, or whose
// context has.
const releaseTimeout = 5 * time.Second

// Acquire acquires the lock of a job, and keeps it by renewing it in the background until
// [Lease.Release] is called, ctx ends or the lease is lost. It waits for the lock if the Job says
// so.
//
// The error is an *[ErrUnauthorised] if another holds the lock, also at the end of [Job.Wait]; an
// *[ErrDisabled], for which Acquire never waits; an *[ErrAlreadyRun]; an *[ErrTickAhead]; or it
// says what is wrong with the Job or with the database. While it waits, Acquire puts up with a
// database that is away, and with timeouts. If a reply is lost and the outcome stays unknown,
// Acquire gives back what it may have acquired, in the background if the database is away, unless
// the caller has named the run: then the same call, repeated, settles it.
//
// The renewals need a connection now and then, so the pool must have one more than the job uses.
// On SQLite they need to write: a transaction of the job's that writes must be shorter than the
// TTL there.
//
// A lease can't be had from the Storage of a transaction.
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
			continue // what it is told while it waits is no news
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

// limited returns a context with which the statements use the methods that take one, so that each
// attempt is limited.
func limited(ctx context.Context) context.Context {
	if ctx == store.Background {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// giveBack gives back a lock that may have been acquired, and may have not, if nobody else knows
// the IDs of the run. If the database is away, it goes on trying until the lock has expired by
// itself.
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
// The context that f gets ends when the lease is lost: f must return then, soon enough for
// [Job.Margin]. The lease itself is [LeaseFrom] of it. Run returns the error of Acquire, if that
// fails; otherwise the errors of f, of a lost lease ([ErrLost]) and of the release, joined (see
// [errors.Is]), and nil if there are none. It releases the lock even if ctx has ended, and if f
// panics; the panic goes on. If ctx ends before f is called, a tick stays free.
func (l *Lock) Run(ctx context.Context, job Job, f func(ctx context.Context) error) (err error) {
	le, err := l.Acquire(ctx, job)
	if err != nil {
		return err
	}
	release := le.GiveBack // until f has begun, and if it fails and may be repeated
	defer func() {
		lost := le.Err()
		released := le.within(ctx, release)
		if !errors.Is(lost, ErrLost) {
			lost = nil
		} else if errors.Is(released, ErrLost) {
			released = nil // says it twice
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

// within calls release within the time that is left for it, whatever has become of ctx, and
// whether the Storage heeds a context or not.
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

// LeaseFrom returns the lease for which [Lock.Run] has called a function with ctx, for its token
// and its Check. Elsewhere it returns nil, whose methods return an error.
func LeaseFrom(ctx context.Context) *Lease {
	le, _ := ctx.Value(leaseKey{}).(*Lease)
	return le
}

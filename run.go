package lock

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// releaseTimeout bounds how long Run takes to release the lock of a job that has ended, or whose context has.
const releaseTimeout = 5 * time.Second

// Run acquires the lock of a job (see [Lock.Acquire]), calls f, keeps the lock while f runs, and releases it.
//
// The context that f gets ends when the lease is lost: f must return then, soon enough for [Job.Margin]. The lease itself is
// [LeaseFrom] of it. Run returns the error of Acquire, if that fails; otherwise the errors of f, of a lost lease ([ErrLost]) and of
// the release, joined (see [errors.Is]), and nil if there are none. It releases the lock even if ctx has ended, and if f panics; the
// panic goes on.
func (l *Lock) Run(ctx context.Context, job Job, f func(ctx context.Context) error) (err error) {
	lease, err := l.Acquire(ctx, job)
	if err != nil {
		return err
	}
	defer func() {
		_, lost := lease.term()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		answer := make(chan error, 1)
		go func() { answer <- lease.Release(ctx) }()
		var released error
		select {
		case released = <-answer:
		case <-ctx.Done(): // the Storage may know no contexts
			released = lease.identity("Release").fail(ctx.Err())
		}
		if errors.Is(released, ErrLost) && lost != nil {
			released = nil // says it twice
		}
		if lost != nil {
			lost = lease.identity("Run").fail(lost)
		}
		err = errors.Join(err, lost, released)
	}()
	return f(context.WithValue(lease.Context(), leaseKey{}, lease))
}

type leaseKey struct{}

// LeaseFrom returns the lease for which [Lock.Run] has called a function with ctx, for its token and its Check, or nil.
func LeaseFrom(ctx context.Context) *Lease {
	lease, _ := ctx.Value(leaseKey{}).(*Lease)
	return lease
}

// waiting is the state of an Acquire that waits.
type waiting struct {
	job   Job
	until time.Time // zero: as long as the context
	poll  time.Duration
}

func newWaiting(job Job) *waiting {
	w := &waiting{job: job, poll: job.Poll / 8}
	if job.Wait > 0 {
		w.until = time.Now().Add(job.Wait)
	}
	return w
}

// wait waits for the next attempt, and says whether there is to be one after this error.
func (w *waiting) wait(ctx context.Context, err error) bool {
	var held *ErrUnauthorised
	refused := errors.As(err, &held)
	if w.job.Wait == 0 || !refused && !curable(err) {
		return false
	}
	w.poll = min(2*w.poll, w.job.Poll)
	d := w.poll/2 + rand.N(w.poll+1)
	if refused && w.job.MaxDuration > 0 {
		// Many may be waiting for this moment: not all at once.
		if left := w.job.MaxDuration - held.holder.Age; left < d {
			d = max(left, 0) + time.Millisecond + rand.N(w.job.Poll/8+1)
		}
	}
	if !w.until.IsZero() {
		left := time.Until(w.until)
		if left <= 0 {
			return false
		}
		d = min(d, left)
	}
	return sleep(ctx, d)
}

package lock

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/lease"
	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// Lease is an acquired lock that is renewed in the background. It is safe for concurrent use. The
// methods of a nil Lease return an error; its Context has ended, and its Token is 0.
type Lease struct {
	l      *Lock
	job    Job
	token  int64
	unique bool // nobody else has ever used the IDs
	from   *Holder
	since  time.Time // on our clock, before the lock was asked for

	ctx    context.Context
	cancel context.CancelCauseFunc
	turn   chan struct{} // holds one value while a statement of the lease is under way
	wake   chan struct{} // tells the keeper that the state has changed

	mu      sync.Mutex
	state   lease.State
	ended   error        // why the lease can't be used any more: ErrLost or ErrReleased
	release releaseDoubt // of the first Release whose outcome is unknown
}

// A releaseDoubt records whether a release may have taken effect, and whether the lease was
// trusted when it was sent.
type releaseDoubt struct{ sent, trusted bool }

// newLease returns the Lease of a lock that was asked for at sent and granted.
func newLease(ctx context.Context, l *Lock, job Job, unique bool, res store.Result, e Event,
	sent time.Time) *Lease {
	le := &Lease{l: l, job: job, token: e.Token, unique: unique, since: sent,
		turn: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
	if e.Kind == TakenOver {
		le.from = &e.Holder
	}
	var age time.Duration
	if !res.Done { // the lock was already held, for some time
		age = res.Prev.Now.Sub(res.Written)
	}
	if res.Sent.After(sent) {
		sent = res.Sent // without the time of earlier attempts
	}
	le.state = lease.New(finite(job.TTL), job.Margin, sent, res.Written, age)
	le.ctx, le.cancel = context.WithCancelCause(ctx)
	return le
}

// Context returns a context that ends when the lease is lost or released, and when the context
// given to Acquire ends. If the lease is lost, [context.Cause] matches [ErrLost]. The context
// ends a [Job.Margin] before another can acquire the lock, unless the lock was released by force.
// In a process that was stopped, it ends as soon as the process continues; [Lease.Err] is exact
// even at that moment.
func (le *Lease) Context() context.Context {
	if le == nil {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(errNoLease)
		return ctx
	}
	return le.ctx
}

// Err returns nil while the lease can be trusted. It compares the present time with the deadline.
// Otherwise it returns an error that matches [ErrLost] or [ErrReleased], or the cause of the
// context given to Acquire.
func (le *Lease) Err() error {
	if le == nil {
		return errNoLease
	}
	le.mu.Lock()
	defer le.mu.Unlock()
	return le.err()
}

// err is Err with the mutex held.
func (le *Lease) err() error {
	switch {
	case le.ended != nil:
		return le.ended
	case !le.state.Trusted(time.Now()):
		return errExpired
	}
	return context.Cause(le.ctx)
}

var errExpired = fmt.Errorf("%w: it could not be renewed in time", ErrLost)

// Token returns the fencing token of the lease: the lock time of its acquisition, in microseconds
// since 1970. It is larger than that of every earlier lease of the job, and a renewal doesn't
// change it.
func (le *Lease) Token() int64 {
	if le == nil {
		return 0
	}
	return le.token
}

// TakenFrom returns the holder whose expired lock this lease took over; that holder may have left
// work half done. It is nil if the lock was free, or if the reply that said so was lost.
func (le *Lease) TakenFrom() *Holder {
	if le == nil {
		return nil
	}
	return le.from
}

// Job returns the Job given to Acquire, with its defaults filled in.
func (le *Lease) Job() Job {
	if le == nil {
		return Job{}
	}
	return le.job
}

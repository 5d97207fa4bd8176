package lock

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/lease"
	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// Lease is a lock that was acquired and is kept. It is safe for concurrent use. The methods of a
// nil Lease return an error; its Context has ended, and its Token is 0.
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

// A releaseDoubt tells whether a release may have taken effect, unseen, and whether the lease was
// trusted when it was sent.
type releaseDoubt struct{ sent, trusted bool }

// newLease makes a Lease of a lock that was asked for at sent and granted, and keeps it.
func newLease(ctx context.Context, l *Lock, job Job, unique bool, res store.Result, e Event,
	sent time.Time) *Lease {
	le := &Lease{l: l, job: job, token: e.Token, unique: unique, since: sent,
		turn: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
	if e.Kind == TakenOver {
		le.from = &e.Holder
	}
	var age time.Duration
	if !res.Done { // the lock was held already, and is some way into its time
		age = res.Prev.Now.Sub(res.Written)
	}
	if res.Sent.After(sent) {
		sent = res.Sent // what the attempts before it took is no part of the lease's time
	}
	le.state = lease.New(finite(job.TTL), job.Margin, sent, res.Written, age)
	le.ctx, le.cancel = context.WithCancelCause(ctx)
	return le
}

// Context returns a context that ends when the lease is lost, when it is released, and when the
// context given to Acquire ends. If the lease is lost, [context.Cause] matches [ErrLost]; that is
// before another can hold the lock, by [Job.Margin], unless it was taken away by force. That
// holds for a process that was stopped, too: its context ends as soon as it goes on. [Lease.Err]
// is exact even in that moment.
func (le *Lease) Context() context.Context {
	if le == nil {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(errNoLease)
		return ctx
	}
	return le.ctx
}

// Err returns nil while the lease can be trusted: it compares the clock with the deadline at this
// moment. Otherwise it returns an error that matches [ErrLost] or [ErrReleased], or the cause
// with which the context given to Acquire has ended.
func (le *Lease) Err() error {
	if le == nil {
		return errNoLease
	}
	le.mu.Lock()
	defer le.mu.Unlock()
	return le.err()
}

// err is Err for who holds the mutex.
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

// Token returns the fencing token of the lease: it is larger than that of every lease of the job
// before it, and stays when the lease is renewed. It is the lock time of the acquisition in
// microseconds since
// 1970.
func (le *Lease) Token() int64 {
	if le == nil {
		return 0
	}
	return le.token
}

// TakenFrom returns the holder whose expired lock this lease has taken over: there may be work
// that it has left half done. It is nil if the lock was free, and if the reply that said so was
// lost.
func (le *Lease) TakenFrom() *Holder {
	if le == nil {
		return nil
	}
	return le.from
}

// Job returns what Acquire was asked for, with what it left out filled in.
func (le *Lease) Job() Job {
	if le == nil {
		return Job{}
	}
	return le.job
}

package lock

import (
	"context"
	"errors"
	"fmt"
	"reflect"
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

// A releaseDoubt says whether a release may have taken effect, unseen, and whether the lease was
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

// keep renews the lease until it ends.
func (le *Lease) keep() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-le.ctx.Done():
			return
		case <-timer.C:
		case <-le.wake:
		}
		now := time.Now()
		le.mu.Lock()
		action, next := le.state.Tick(now)
		by := le.state.By(now)
		le.mu.Unlock()
		switch action {
		case lease.Expire:
			le.lose(errExpired)
			return
		case lease.Renew:
			go func() {
				ctx, cancel := context.WithDeadline(le.ctx, by)
				defer cancel()
				le.Renew(ctx)
			}()
		}
		timer.Reset(time.Until(next))
	}
}

// changed wakes the keeper.
func (le *Lease) changed() {
	select {
	case le.wake <- struct{}{}:
	default:
	}
}

// lose ends the lease, unless it has ended, and tells so.
func (le *Lease) lose(why error) {
	le.mu.Lock()
	first := le.ended == nil && le.ctx.Err() == nil
	if le.ended == nil {
		le.ended = why
	}
	le.mu.Unlock()
	le.cancel(why)
	if first {
		e := le.event(Lost)
		e.Err = why
		le.l.tell(context.WithoutCancel(le.ctx), le.job.request("Renew"), e)
	}
}

// event returns what the observer is told of the lease.
func (le *Lease) event(kind EventKind) Event {
	return Event{Kind: kind, Token: le.token, TTL: finite(le.job.TTL), Held: time.Since(le.since)}
}

// enter waits until no statement of the lease is under way.
func (le *Lease) enter(ctx context.Context) error {
	select {
	case le.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (le *Lease) leave() { <-le.turn }

// Renew renews the lease now; its TTL begins anew. Nobody has to call it: that is done in the
// background. An error that matches [ErrLost] or [ErrReleased] is final. After another the lease
// may still be renewed until its time is up.
func (le *Lease) Renew(ctx context.Context) error {
	if le == nil {
		return errNoLease
	}
	r := le.job.request("Renew")
	start := time.Now()
	res, err := le.renew(ctx, r)
	le.changed()
	switch {
	case errors.Is(err, ErrLost):
		le.lose(err)
		return r.Wrap(err)
	case errors.Is(err, ErrReleased):
		return r.Wrap(err)
	case err == nil && le.job.StopWhenDisabled && !res.Prev.Enabled:
		err = fmt.Errorf("%w: %w", ErrLost, &ErrDisabled{request: r})
		le.lose(err)
		return r.Wrap(err)
	}
	if err == nil || le.ctx.Err() == nil { // one that the release has cut short is no news
		le.l.ended(ctx, r, le.event(Renewed), start, err)
	}
	return err
}

// renew sends a renewal and notes its answer.
func (le *Lease) renew(ctx context.Context, r store.Request) (store.Result, error) {
	if err := le.enter(ctx); err != nil {
		le.mu.Lock()
		defer le.mu.Unlock()
		le.state.Failed(time.Now(), false)
		return store.Result{}, r.Wrap(err)
	}
	defer le.leave()

	le.mu.Lock()
	if err := le.err(); err != nil {
		le.mu.Unlock()
		if !errors.Is(err, ErrLost) && !errors.Is(err, ErrReleased) {
			err = r.Wrap(err)
		}
		return store.Result{}, err
	}
	term, deadline := le.state.Term(), le.state.Deadline()
	le.state.Sent(time.Now())
	le.mu.Unlock()

	if deadline.IsZero() {
		deadline = time.Now().Add(time.Hour)
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	defer context.AfterFunc(le.ctx, cancel)() // a release cuts it short
	res, err := le.l.store.Renew(ctx, r, term)

	le.mu.Lock()
	defer le.mu.Unlock()
	switch {
	case err != nil:
		le.state.Failed(time.Now(), errors.Is(err, ErrOutcomeUnknown))
		return res, err
	case res.Done && le.ended != nil:
		return res, le.ended // too late
	case res.Done:
		le.state.Answered(res.Written, res.Doubt)
		return res, nil
	}
	if res.Doubt {
		term = term.Widen()
	}
	if term.Holds(r, res.Prev) {
		return res, fmt.Errorf("%w: it has expired", ErrLost)
	}
	return res, lostTo(r, res.Prev)
}

// lostTo returns the error of a lease whose lock is another's.
func lostTo(r store.Request, rec store.Record) error {
	if rec.Locked {
		return fmt.Errorf("%w: %w", ErrLost, &ErrUnauthorised{request: r, holder: holderOf(rec)})
	}
	return fmt.Errorf("%w: it was released by another", ErrLost)
}

// Release releases the lock and ends the lease's context. It returns nil if the lock is released,
// also for the second time. If the lease has been lost to another, the error matches [ErrLost],
// and nothing is taken from the other. After an error that matches [ErrOutcomeUnknown], Release
// can be repeated.
func (le *Lease) Release(ctx context.Context) error {
	return le.end(ctx, "Release", le.Job().JobID)
}

// GiveBack releases the lock like [Lease.Release], for a run that has not begun: its tick is free
// to be run by another. Without a [Job.Tick] it is Release.
func (le *Lease) GiveBack(ctx context.Context) error {
	return le.end(ctx, "GiveBack", le.Job().givenBack())
}

// end releases the lock and leaves run in the row.
func (le *Lease) end(ctx context.Context, operation, run string) error {
	if le == nil {
		return errNoLease
	}
	r := le.job.request(operation)
	ctx = limited(ctx)
	le.cancel(ErrReleased) // cuts a renewal short that is under way
	start := time.Now()
	e := le.event(Released)
	res, err, again := le.free(ctx, r, run)
	if again {
		return nil
	}
	if errors.Is(err, ErrLost) {
		e.Kind = Refused
		if res.Prev.Locked {
			e.Holder = holderOf(res.Prev)
		}
	}
	return le.l.ended(ctx, r, e, start, err)
}

// free sends a release, and reads its answer. It reports whether the lease had been released
// before.
func (le *Lease) free(ctx context.Context, r store.Request, run string) (
	res store.Result, err error, again bool) {
	if err := le.enter(ctx); err != nil {
		return res, r.Wrap(err), false
	}
	defer le.leave()

	le.mu.Lock()
	if errors.Is(le.ended, ErrReleased) {
		le.mu.Unlock()
		return res, nil, true
	}
	doubt, lost := le.release, le.ended != nil
	if !doubt.sent {
		doubt.trusted = !lost && le.state.Trusted(time.Now())
	}
	term := le.state.Term()
	if le.unique {
		term.Last = time.Time{} // also what a late attempt of its own has acquired again
	}
	le.mu.Unlock()

	res, err = le.l.store.Release(ctx, r, term, run)
	doubt.sent = doubt.sent || res.Doubt || errors.Is(err, ErrOutcomeUnknown)
	if res.Done || doubt.sent {
		le.l.hub.released(r)
	}
	prev := res.Prev
	mine := prev.ComponentID == r.ComponentID && (prev.JobID == r.JobID || prev.JobID == run)
	switch {
	case err != nil:
	case res.Done, !prev.Locked && mine && !lost:
	case doubt.sent && !le.job.Tick.IsZero() && prev.JobID <= r.JobID:
		err = r.Wrap(lostTo(r, prev)) // the tick was run again: it was not released in time
	case doubt.sent && doubt.trusted:
	case doubt.sent:
		err = unknown(r, prev)
	default:
		err = r.Wrap(lostTo(r, prev))
	}
	le.mu.Lock()
	defer le.mu.Unlock()
	le.release = doubt
	if err == nil {
		le.ended = ErrReleased
	}
	return res, err, false
}

// Transaction is what [Lease.Check] needs of a transaction: *sql.Tx is one.
type Transaction = store.Transaction

// Check makes sure, within the transaction in which the job writes its results, that this lease
// holds the lock and goes on holding it until the transaction ends: it locks the row. The
// transaction of a job that has lost its lock can't commit then, even if the job doesn't know
// yet. tx must be a transaction of the same database. If the lease is lost, the error matches
// [ErrLost]; after any error the transaction must be rolled back.
//
// Until the transaction ends, the lease can't be renewed, nor another take over: call Check at
// its end, just before Commit. At the isolation levels REPEATABLE READ and SERIALIZABLE it may
// fail with the database's serialization error, like any statement; then repeat the transaction.
// A lease in memory is checked at this moment, and tx is not used.
func (le *Lease) Check(ctx context.Context, tx Transaction) error {
	if le == nil {
		return errNoLease
	}
	r := le.job.request("Check")
	if err := le.fences(tx); err != nil {
		return r.Wrap(err)
	}
	if err := le.Err(); errors.Is(err, ErrLost) || errors.Is(err, ErrReleased) {
		return r.Wrap(err)
	}
	if le.l == noop {
		return nil
	}
	for {
		before := le.term()
		rec, err := le.l.store.Fence(ctx, tx, r)
		if err != nil {
			return err
		}
		// The row stays as it is now. A renewal may have moved its lock time before.
		now := le.term()
		switch {
		case now.Holds(r, rec):
			return nil
		case now == before:
			return r.Wrap(lostTo(r, rec))
		}
	}
}

func (le *Lease) term() store.Term {
	le.mu.Lock()
	defer le.mu.Unlock()
	return le.state.Term()
}

// fences finds what keeps a transaction from fencing anything.
func (le *Lease) fences(tx Transaction) error {
	if _, table := le.l.store.(*store.Table); !table {
		return nil
	}
	if store.Absent(tx) {
		return errors.New("there is no transaction: it is nil")
	}
	// What can begin a transaction is none, unless it can end one, too. The signatures of those
	// that wrap
	// *sql.DB differ.
	if _, begins := reflect.TypeOf(tx).MethodByName("BeginTx"); begins && !store.IsTransaction(tx) {
		return fmt.Errorf("a %T is not a transaction: nothing would be locked", tx)
	}
	return nil
}

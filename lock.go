package lock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// Forever is a TTL that never ends, and a wait that lasts as long as the context.
const Forever time.Duration = 1<<63 - 1

// Locker has the four calls of the 2018 package. *[Lock] and *[NoopLocker] implement it.
type Locker interface {
	Disable(componentName, jobName string) error
	Enable(componentName, jobName string) error
	Lock(componentName, componentID, jobName, jobID string, jobMaxDuration time.Duration) error
	Unlock(componentName, componentID, jobName, jobID string) error
}

// Lock acquires and releases the locks of one table. Create it with [New], [NewWith] or
// [NewMemory]; the calls of the zero Lock return an error. It is safe for concurrent use if its
// Storage is, as *sql.DB is.
type Lock struct {
	store store.Store
	hub   *hub
	o     Options
}

// New returns a Lock that keeps its locks in the table locks of s. It creates the table if it is
// missing.
//
// If that fails or takes longer than five seconds, New returns all the same. The Lock works if
// the table exists; otherwise the first call tries again to create it, and its error says why
// that failed. In a transaction (see [Storage]) New creates nothing, since a failing statement
// would abort the transaction. With a nil Storage every call returns an error.
func New(s Storage) *Lock {
	l, _ := NewWith(s, Options{}) // the zero Options are valid
	return l
}

// Lock acquires the lock of a job for componentID and jobID. It doesn't wait for the lock.
//
// The lock is granted if nobody holds it, or if its holder acquired it more than jobMaxDuration
// ago by the database's clock. 0 and [Forever] mean that it is never taken over.
//
// If the caller already holds the lock, Lock returns nil and changes nothing, unless the lock has
// expired; then its time begins anew. So a call whose reply was lost can be repeated. No two
// instances may use the same component ID and job ID, and at least one of the two must not be
// empty.
//
// The time of the lock begins within the call, which may take seconds if the database is busy or
// away. Count the longest duration of a job from before the call.
//
// The error is an *[ErrUnauthorised] that names the holder; an *[ErrDisabled], for the holder
// too; or it says what else went wrong: a duration that is negative or below a microsecond, a
// name or ID that no database can hold (a NUL byte, invalid UTF-8), or a failing database.
func (l *Lock) Lock(componentName, componentID, jobName, jobID string,
	jobMaxDuration time.Duration) error {
	return l.LockContext(store.Background, componentName, componentID, jobName, jobID, jobMaxDuration)
}

// Unlock releases the lock of a job. It returns nil if componentID and jobID held it, even if the
// job is disabled, and if nobody did. If another holds the lock, because the caller took longer
// than its longest duration and was taken over, Unlock changes nothing and returns an
// *[ErrUnauthorised]. If a reply was lost before that, the caller may have released the lock, and
// the error is [ErrOutcomeUnknown].
func (l *Lock) Unlock(componentName, componentID, jobName, jobID string) error {
	return l.UnlockContext(store.Background, componentName, componentID, jobName, jobID)
}

// Enable allows a job to be locked again after [Lock.Disable]. Jobs are enabled by default.
// Enable doesn't change a lock that is held.
func (l *Lock) Enable(componentName, jobName string) error {
	return l.EnableContext(store.Background, componentName, jobName)
}

// Disable keeps everybody from locking a job until [Lock.Enable]: Lock returns an *[ErrDisabled].
// Disable doesn't change a lock that is held; its holder can still unlock it.
func (l *Lock) Disable(componentName, jobName string) error {
	return l.DisableContext(store.Background, componentName, jobName)
}

// LockContext is [Lock.Lock] with a context. If the Storage has ExecContext and QueryRowContext,
// as *sql.DB has, the end of ctx cancels the statement; otherwise ctx is checked before each
// attempt. An error because of ctx matches ctx.Err(), and also [ErrOutcomeUnknown] unless the
// call is known to have changed nothing.
func (l *Lock) LockContext(ctx context.Context, componentName, componentID, jobName, jobID string,
	jobMaxDuration time.Duration) error {
	r := store.Request{Operation: "Lock", ComponentName: componentName, ComponentID: componentID,
		JobName: jobName, JobID: jobID}
	if err := l.begin(ctx, r); err != nil {
		return err
	}
	if err := validTTL("the longest duration", jobMaxDuration); err != nil {
		return r.Wrap(err)
	}
	start := time.Now()
	_, event := l.acquire(ctx, r, store.Conditions{TTL: finite(jobMaxDuration)}, false)
	return l.ended(ctx, r, event, start, event.Err)
}

// UnlockContext is [Lock.Unlock] with a context, as in [Lock.LockContext].
func (l *Lock) UnlockContext(ctx context.Context,
	componentName, componentID, jobName, jobID string) error {
	return l.release(ctx, store.Request{Operation: "Unlock", ComponentName: componentName,
		ComponentID: componentID, JobName: jobName, JobID: jobID}, store.Term{})
}

// EnableContext is [Lock.Enable] with a context, as in [Lock.LockContext].
func (l *Lock) EnableContext(ctx context.Context, componentName, jobName string) error {
	return l.enable(ctx, store.Request{Operation: "Enable", ComponentName: componentName,
		JobName: jobName}, true)
}

// DisableContext is [Lock.Disable] with a context, as in [Lock.LockContext].
func (l *Lock) DisableContext(ctx context.Context, componentName, jobName string) error {
	return l.enable(ctx, store.Request{Operation: "Disable", ComponentName: componentName,
		JobName: jobName}, false)
}

// begin returns an error if a call can't be made at all.
func (l *Lock) begin(ctx context.Context, r store.Request) error {
	if l == nil || l.store == nil {
		return r.Wrap(store.ErrNoStorage)
	}
	if err := valid(r); err != nil {
		return r.Wrap(err)
	}
	switch r.Operation {
	case "Lock", "Unlock":
		if r.ComponentID == "" && r.JobID == "" {
			return r.Wrap(errors.New("both IDs are empty: one of them must identify the holder"))
		}
	}
	return r.Wrap(ctx.Err())
}

// ended completes and tells the event of a call that began at start, and returns err.
func (l *Lock) ended(ctx context.Context, r store.Request, e Event, start time.Time,
	err error) error {
	if e.Err = err; err != nil && e.Kind != Refused {
		e.Kind = Failed
	}
	e.Took = time.Since(start)
	l.tell(ctx, r, e)
	return err
}

// acquire asks for the lock and returns its outcome as an event, which the caller reports. If an
// earlier attempt of the caller is in doubt, a lock that the caller holds may come from that
// attempt.
func (l *Lock) acquire(ctx context.Context, r store.Request, cond store.Conditions, doubt bool) (
	store.Result, Event) {
	res, err := l.store.Acquire(ctx, r, cond)
	e := Event{Kind: Acquired, TTL: cond.TTL, Holder: holderOf(res.Prev)}
	mine := res.Prev.HeldBy(r) && (!cond.Tick || doubt || res.Doubt)
	switch {
	case err != nil:
		return res, Event{Kind: Failed, TTL: cond.TTL, Err: err}
	case res.Done && res.Prev.Locked:
		e.Kind = TakenOver
	case res.Done:
		e.Holder = Holder{}
	case res.Refusal == store.Held && mine:
		res.Written, e.Holder = res.Prev.LockTime, Holder{}
	case res.Refusal == store.Disabled:
		e.Err = &ErrDisabled{request: r}
	case res.Refusal == store.Ahead:
		tick, _ := time.Parse(store.TickLayout, r.JobID)
		err := &ErrTickAhead{request: r, tick: tick, by: tick.Sub(res.Prev.Now)}
		return res, Event{Kind: Failed, TTL: cond.TTL, Err: err}
	case res.Refusal == store.Already || cond.Tick && res.Prev.JobID == r.JobID:
		e.Err = &ErrAlreadyRun{request: r, last: e.Holder, running: res.Prev.Locked}
	default:
		e.Err = &ErrUnauthorised{request: r, holder: e.Holder}
	}
	if e.Err != nil {
		e.Kind = Refused
		return res, e
	}
	e.Token = res.Written.UnixMicro()
	return res, e
}

func (l *Lock) release(ctx context.Context, r store.Request, t store.Term) error {
	if err := l.begin(ctx, r); err != nil {
		return err
	}
	start := time.Now()
	res, err := l.store.Release(ctx, r, t, r.JobID)
	event := Event{Kind: Released}
	if res.Done || errors.Is(err, ErrOutcomeUnknown) {
		l.hub.released(r)
	}
	return l.freed(ctx, r, event, start, res, err)
}

// freed completes and tells the event of a release or a deletion, which another's lock refuses.
func (l *Lock) freed(ctx context.Context, r store.Request, e Event, start time.Time,
	res store.Result, err error) error {
	switch {
	case err != nil || res.Done || !res.Prev.Locked:
	case res.Doubt:
		err = unknown(r, res.Prev)
	default:
		e.Kind, e.Holder = Refused, holderOf(res.Prev)
		err = &ErrUnauthorised{request: r, holder: e.Holder}
	}
	return l.ended(ctx, r, e, start, err)
}

// unknown is the error of a release whose first attempt may have released a lock that another
// holds now.
func unknown(r store.Request, rec store.Record) error {
	now := "nobody holds it now"
	if rec.Locked {
		now = holderOf(rec).holds()
	}
	return r.Wrap(fmt.Errorf("%w; %s", ErrOutcomeUnknown, now))
}

func (l *Lock) enable(ctx context.Context, r store.Request, enabled bool) error {
	if err := l.begin(ctx, r); err != nil {
		return err
	}
	event := Event{Kind: Disabled}
	if enabled {
		event.Kind = Enabled
	}
	start := time.Now()
	err := l.store.Enable(ctx, r, enabled)
	if enabled {
		l.hub.released(r)
	}
	return l.ended(ctx, r, event, start, err)
}

// finite converts a duration for the store, where 0 means without an end.
func finite(d time.Duration) time.Duration {
	if d == Forever {
		return 0
	}
	return d
}

package lock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// Forever is a TTL after which a lock never expires, and a wait that lasts as long as the context.
const Forever time.Duration = 1<<63 - 1

// Locker is the four calls of the 2018 package. *[Lock] and *[NoopLocker] are Lockers.
type Locker interface {
	Disable(componentName, jobName string) error
	Enable(componentName, jobName string) error
	Lock(componentName, componentID, jobName, jobID string, jobMaxDuration time.Duration) error
	Unlock(componentName, componentID, jobName, jobID string) error
}

// Lock acquires and releases the locks of one table. Make it with [New], [NewWith] or
// [NewMemory]; the calls of the zero Lock return an error. It is safe for concurrent use if its
// Storage is, as *sql.DB is.
type Lock struct {
	store store.Store
	hub   *hub
	o     Options
}

// New returns a Lock that keeps its locks in the table locks of s, and creates the table if it is
// missing.
//
// If that fails, or takes longer than five seconds, New returns all the same: the Lock works if
// the table is there, and if it is not, the first call tries again and its error says why. In a
// transaction (see [Storage]) New creates nothing, since a statement that fails would abort the
// transaction. With a nil Storage every call returns an error.
func New(s Storage) *Lock {
	l, _ := NewWith(s, Options{}) // the zero Options are valid
	return l
}

// Lock acquires the lock of a job for componentID and jobID. It doesn't wait for the lock.
//
// The lock is granted if nobody holds it, or if its holder acquired it more than jobMaxDuration
// ago by the database's clock. 0 and [Forever] mean that it is not taken over, however old it is.
// If the caller already holds the lock, Lock returns nil and changes nothing, unless the lock has
// expired; then it begins anew. So a call whose reply was lost can be repeated, and no two
// instances may use the same component ID and job ID. At least one of the two must not be empty.
//
// The time of the lock begins within the call, which may take seconds if the database is busy or
// away: a job that heeds its longest duration counts it from before the call.
//
// The error is an *[ErrUnauthorised] that names the holder, an *[ErrDisabled] (for the holder
// too), or says what else went wrong: a duration that is negative or below a microsecond, a name
// or ID that no database can hold (a NUL byte, invalid UTF-8), a failing database.
func (l *Lock) Lock(componentName, componentID, jobName, jobID string,
	jobMaxDuration time.Duration) error {
	return l.LockContext(store.Background, componentName, componentID, jobName, jobID, jobMaxDuration)
}

// Unlock releases the lock of a job. It returns nil if componentID and jobID held it, whether the
// job is enabled or disabled, and if nobody did. If another holds it, Unlock changes nothing and
// returns an *[ErrUnauthorised] that names it: the caller has taken longer than the longest
// duration, and somebody has taken over. If another holds it after a reply was lost, the caller
// may have released it before: then the error is [ErrOutcomeUnknown].
func (l *Lock) Unlock(componentName, componentID, jobName, jobID string) error {
	return l.UnlockContext(store.Background, componentName, componentID, jobName, jobID)
}

// Enable lets a job be locked again after [Lock.Disable]. Jobs are enabled from the beginning. It
// doesn't touch a lock that is held.
func (l *Lock) Enable(componentName, jobName string) error {
	return l.EnableContext(store.Background, componentName, jobName)
}

// Disable keeps everybody from locking a job until [Lock.Enable]: Lock returns an *[ErrDisabled].
// It doesn't touch a lock that is held; its holder can still unlock it.
func (l *Lock) Disable(componentName, jobName string) error {
	return l.DisableContext(store.Background, componentName, jobName)
}

// LockContext is [Lock.Lock] within ctx. With a Storage that has ExecContext and QueryRowContext,
// as *sql.DB has, the end of ctx cancels the statement; with another it is heeded before the call
// and between its attempts. The error of a call that ctx has cut short matches ctx.Err(), and
// [ErrOutcomeUnknown] unless the call is known to have changed nothing.
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

// UnlockContext is [Lock.Unlock] within ctx, which it heeds like [Lock.LockContext].
func (l *Lock) UnlockContext(ctx context.Context,
	componentName, componentID, jobName, jobID string) error {
	return l.release(ctx, store.Request{Operation: "Unlock", ComponentName: componentName,
		ComponentID: componentID, JobName: jobName, JobID: jobID}, store.Term{})
}

// EnableContext is [Lock.Enable] within ctx, which it heeds like [Lock.LockContext].
func (l *Lock) EnableContext(ctx context.Context, componentName, jobName string) error {
	return l.enable(ctx, store.Request{Operation: "Enable", ComponentName: componentName,
		JobName: jobName}, true)
}

// DisableContext is [Lock.Disable] within ctx, which it heeds like [Lock.LockContext].
func (l *Lock) DisableContext(ctx context.Context, componentName, jobName string) error {
	return l.enable(ctx, store.Request{Operation: "Disable", ComponentName: componentName,
		JobName: jobName}, false)
}

// begin finds what keeps a call from being made at all.
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

// ended completes the event of a call that began at start, tells it, and returns err.
func (l *Lock) ended(ctx context.Context, r store.Request, e Event, start time.Time,
	err error) error {
	if e.Err = err; err != nil && e.Kind != Refused {
		e.Kind = Failed
	}
	e.Took = time.Since(start)
	l.tell(ctx, r, e)
	return err
}

// acquire asks for the lock, and returns the outcome as an event, of which nobody has been told.
// If an attempt of the caller's is in doubt, a lock that the caller holds may be what that
// attempt acquired.
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
	switch {
	case err != nil || res.Done || !res.Prev.Locked:
	case res.Doubt:
		err = unknown(r, res.Prev)
	default:
		event.Kind, event.Holder = Refused, holderOf(res.Prev)
		err = &ErrUnauthorised{request: r, holder: event.Holder}
	}
	return l.ended(ctx, r, event, start, err)
}

// unknown is the error of a release whose first attempt may have released the lock, which has
// come to be another's since.
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

// finite returns a duration as the store takes it, where 0 means without an end.
func finite(d time.Duration) time.Duration {
	if d == Forever {
		return 0
	}
	return d
}

package lock

import (
	"context"
	"fmt"
	"time"
)

// Locker is the four calls of the 2018 package. *[Lock] and *[NoopLocker] are Lockers.
type Locker interface {
	Disable(componentName, jobName string) error
	Enable(componentName, jobName string) error
	Lock(componentName, componentID, jobName, jobID string, jobMaxDuration time.Duration) error
	Unlock(componentName, componentID, jobName, jobID string) error
}

// Lock hands out the locks of one table. Make it with [New], [NewWith] or [NewLocal]; the calls of the zero Lock return an
// error. It is safe for concurrent use if its Storage is, as *sql.DB is.
type Lock struct {
	rows rows
	o    Options
}

// New returns a Lock that keeps its locks in the table locks of s, and creates the table if it is missing.
//
// Where that fails, New returns all the same: the Lock works if the table is there, and if it is not, the error of the
// first call says why. In a transaction (see [Storage]) New creates nothing, since a statement that fails would abort the
// transaction. With a nil Storage every call returns an error.
func New(s Storage) *Lock {
	l, _ := NewWith(s, Options{}) // the zero Options are valid
	return l
}

// Lock takes the lock of a job for componentID and jobID and returns nil, or returns why it did not. It doesn't wait for
// the lock.
//
// The lock is granted if nobody holds it, or if its holder took it more than jobMaxDuration ago by the database's clock. 0
// means that the job has no longest duration: its lock is not taken over however old it is. Durations count in whole
// microseconds. To a caller that holds the lock already, with the same two IDs, Lock returns nil and leaves the row as it
// is, unless the lock has expired, in which case it begins anew: a call whose reply was lost can be repeated. So no two
// instances may use the same component ID and job ID.
//
// The time of the lock begins within the call, which may take seconds where the database is busy or away: a job that
// heeds its longest duration counts it from before the call.
//
// The error is an *[ErrUnauthorised] that names the holder, an *[ErrDisabled] (for the holder too), or says what else went
// wrong: a negative duration, a name or ID that no database can hold (a NUL byte, invalid UTF-8), a failing database.
func (l *Lock) Lock(componentName, componentID, jobName, jobID string, jobMaxDuration time.Duration) error {
	return l.LockContext(background, componentName, componentID, jobName, jobID, jobMaxDuration)
}

// Unlock gives back the lock of a job. It returns nil if componentID and jobID held it, whether the job is enabled or
// disabled, and if nobody did. If another holds it, Unlock changes nothing and returns an *[ErrUnauthorised] that names it:
// the caller has taken longer than the longest duration, and somebody has taken over.
func (l *Lock) Unlock(componentName, componentID, jobName, jobID string) error {
	return l.UnlockContext(background, componentName, componentID, jobName, jobID)
}

// Enable lets a job be locked again after [Lock.Disable]. Jobs are enabled from the beginning. It doesn't touch a lock
// that is held.
func (l *Lock) Enable(componentName, jobName string) error {
	return l.EnableContext(background, componentName, jobName)
}

// Disable keeps everybody from locking a job until [Lock.Enable]: Lock returns an *[ErrDisabled]. It doesn't touch a lock
// that is held; its holder can still unlock it.
func (l *Lock) Disable(componentName, jobName string) error {
	return l.DisableContext(background, componentName, jobName)
}

// LockContext is [Lock.Lock] within ctx. With a Storage that has ExecContext and QueryRowContext, as *sql.DB has, the end of
// ctx cancels the statement; with another it is heeded before the call and between its attempts. The error of a call that
// ctx has cut short matches ctx.Err(), and [ErrOutcomeUnknown] unless the database is known not to have carried it out.
func (l *Lock) LockContext(ctx context.Context, componentName, componentID, jobName, jobID string, jobMaxDuration time.Duration) error {
	_, err := l.take(ctx, identity{"Lock", componentName, componentID, jobName, jobID}, claim{longest: jobMaxDuration})
	return err
}

// UnlockContext is [Lock.Unlock] within ctx, which it heeds like [Lock.LockContext].
func (l *Lock) UnlockContext(ctx context.Context, componentName, componentID, jobName, jobID string) error {
	return l.unlock(ctx, identity{"Unlock", componentName, componentID, jobName, jobID})
}

// EnableContext is [Lock.Enable] within ctx, which it heeds like [Lock.LockContext].
func (l *Lock) EnableContext(ctx context.Context, componentName, jobName string) error {
	return l.set(ctx, identity{verb: "Enable", componentName: componentName, jobName: jobName}, true)
}

// DisableContext is [Lock.Disable] within ctx, which it heeds like [Lock.LockContext].
func (l *Lock) DisableContext(ctx context.Context, componentName, jobName string) error {
	return l.set(ctx, identity{verb: "Disable", componentName: componentName, jobName: jobName}, false)
}

// begin finds what keeps a call from being made at all.
func (l *Lock) begin(ctx context.Context, id identity) error {
	if l == nil || l.rows == nil {
		return id.fail(errNoStorage)
	}
	if err := id.check(); err != nil {
		return id.fail(err)
	}
	if err := ctx.Err(); err != nil {
		return id.fail(err)
	}
	return nil
}

func (l *Lock) take(ctx context.Context, id identity, c claim) (reading, error) {
	if err := l.begin(ctx, id); err != nil {
		return reading{}, err
	}
	if c.longest < 0 {
		return reading{}, id.fail(fmt.Errorf("the longest duration %v is negative; 0 means none", c.longest))
	}
	start := time.Now()
	r, event := l.ask(ctx, id, c)
	event.Took = time.Since(start)
	l.tell(ctx, id, event)
	return r, event.Err
}

// ask asks for the lock, and returns what it has come to as an event, of which nobody has been told.
func (l *Lock) ask(ctx context.Context, id identity, c claim) (reading, Event) {
	r, err := l.rows.take(ctx, id, c)
	if err != nil {
		return r, Event{Kind: Failed, MaxDuration: c.longest, Err: err}
	}
	verdict := c.judge(id, r)
	switch verdict {
	case disabled:
		err = &ErrDisabled{id: id}
	case already:
		err = &ErrAlreadyRun{id: id, last: r.holder()}
	case held:
		err = &ErrUnauthorised{id: id, holder: r.holder()}
	}
	event := Event{Kind: Acquired, Token: r.lockTime.UnixMicro(), MaxDuration: c.longest}
	switch {
	case verdict != granted:
		event = Event{Kind: Refused, Holder: r.holder(), MaxDuration: c.longest, Err: err}
	case r.from != nil:
		event.Kind, event.Holder = TakenOver, *r.from
	}
	return r, event
}

func (l *Lock) unlock(ctx context.Context, id identity) error {
	if err := l.begin(ctx, id); err != nil {
		return err
	}
	start := time.Now()
	r, err := l.rows.free(ctx, id, term{})
	event := Event{Kind: Released, Took: time.Since(start)}
	switch {
	case err != nil:
		event.Kind = Failed
	case !r.won && r.locked:
		err = &ErrUnauthorised{id: id, holder: r.holder()}
		event.Kind, event.Holder = Refused, r.holder()
	}
	event.Err = err
	l.tell(ctx, id, event)
	return err
}

func (l *Lock) set(ctx context.Context, id identity, enabled bool) error {
	if err := l.begin(ctx, id); err != nil {
		return err
	}
	start := time.Now()
	err := l.rows.set(ctx, id, enabled)
	event := Event{Kind: Disabled, Took: time.Since(start), Err: err}
	switch {
	case err != nil:
		event.Kind = Failed
	case enabled:
		event.Kind = Enabled
	}
	l.tell(ctx, id, event)
	return err
}

package lock

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// ErrOutcomeUnknown is in the chain of an error (see [errors.Is]) after which nobody can tell whether the call took effect:
// the connection broke, or the context ended, after the statement was sent. The same call with the same IDs, repeated,
// settles it.
var ErrOutcomeUnknown = errors.New("whether it took effect is unknown: the same call, repeated, settles it")

// ErrLost is in the chain of the cause (see [context.Cause]) with which the context of a [Lease] ends when the lease is lost,
// and in the chain of the errors of its Renew, Release and Check from then on.
var ErrLost = errors.New("the lease is lost")

var (
	errNoStorage = errors.New("there is no Storage: New was given none, or was not called")
	errNoAnswer  = errors.New("the Storage gave no row: it is one that does nothing")
)

// ErrUnauthorised is the error of a [Lock.Lock] or [Lock.Unlock] that was refused because another holds the lock. It is
// returned as *ErrUnauthorised, unwrapped.
type ErrUnauthorised struct {
	id     identity
	holder Holder
}

// Error names the component, the job and the IDs of both sides.
func (e *ErrUnauthorised) Error() string {
	return fmt.Sprintf("lock: %s %s by component ID %s, job ID %s: refused, component ID %s, job ID %s has held it since %s",
		e.id.verb, e.id, short(e.id.componentID), short(e.id.jobID),
		short(e.holder.ComponentID), short(e.holder.JobID), e.holder.Since.Format(time.RFC3339Nano))
}

// ComponentName returns the name of the component whose job was to be locked or unlocked.
func (e *ErrUnauthorised) ComponentName() string { return e.id.componentName }

// JobName returns the name of the job that was to be locked or unlocked.
func (e *ErrUnauthorised) JobName() string { return e.id.jobName }

// Holder returns who holds the lock.
func (e *ErrUnauthorised) Holder() Holder { return e.holder }

// Holder is who holds a lock.
type Holder struct {
	ComponentID string
	JobID       string
	Since       time.Time     // when it took the lock or last renewed it, by the database's clock, in UTC
	Age         time.Duration // the time from Since until the database answered, by its clock
}

// ErrAlreadyRun is the error of a [Lock.Acquire] whose job asks for Once, when the row shows that this run or a later one has
// been made or is being made, or for Spacing, when that has not yet passed. It is returned as *ErrAlreadyRun, unwrapped.
type ErrAlreadyRun struct {
	id   identity
	last Holder
}

// Error names the component, the job and the IDs of both sides.
func (e *ErrAlreadyRun) Error() string {
	return fmt.Sprintf("lock: %s %s by component ID %s, job ID %s: refused, it has been run already: component ID %s, job ID %s, at %s",
		e.id.verb, e.id, short(e.id.componentID), short(e.id.jobID),
		short(e.last.ComponentID), short(e.last.JobID), e.last.Since.Format(time.RFC3339Nano))
}

// ComponentName returns the name of the component whose job was to be locked.
func (e *ErrAlreadyRun) ComponentName() string { return e.id.componentName }

// JobName returns the name of the job that was to be locked.
func (e *ErrAlreadyRun) JobName() string { return e.id.jobName }

// Last returns who has run the job, or runs it now.
func (e *ErrAlreadyRun) Last() Holder { return e.last }

// ErrDisabled is the error of a [Lock.Lock] that was refused because the job is disabled. It is returned as *ErrDisabled,
// unwrapped.
type ErrDisabled struct {
	id identity
}

// Error names the component and the job.
func (e *ErrDisabled) Error() string {
	return fmt.Sprintf("lock: %s %s by component ID %s, job ID %s: refused, the job is disabled",
		e.id.verb, e.id, short(e.id.componentID), short(e.id.jobID))
}

// ComponentName returns the name of the component whose job is disabled.
func (e *ErrDisabled) ComponentName() string { return e.id.componentName }

// JobName returns the name of the job that is disabled.
func (e *ErrDisabled) JobName() string { return e.id.jobName }

// check finds what no database could hold.
func (id identity) check() error {
	for _, part := range []struct{ what, s string }{
		{"component name", id.componentName}, {"component ID", id.componentID},
		{"job name", id.jobName}, {"job ID", id.jobID},
	} {
		if i := strings.IndexByte(part.s, 0); i >= 0 {
			return fmt.Errorf("the %s has a NUL at byte %d, which no database can hold", part.what, i)
		}
		if !utf8.ValidString(part.s) {
			return fmt.Errorf("the %s %s is not valid UTF-8", part.what, short(part.s))
		}
	}
	return nil
}

// short quotes s for a message, and only its beginning where it is long.
func short(s string) string {
	const most = 200
	if len(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q… (%d bytes)", s[:most], len(s))
}

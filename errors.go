package lock

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// ErrOutcomeUnknown is matched by the error of a call that may or may not have taken effect: the
// connection broke, or the context ended, after a statement that writes was sent. Repeat the call
// with the same IDs to settle it.
var ErrOutcomeUnknown = store.ErrOutcomeUnknown

// ErrRefused is matched by the three refusals: *[ErrUnauthorised], *[ErrDisabled] and
// *[ErrAlreadyRun].
var ErrRefused = errors.New("refused")

// ErrLost is matched by the errors of a [Lease] that is lost, and by the cause of its context
// (see [context.Cause]).
var ErrLost = errors.New("the lease is lost")

// ErrReleased is matched by the errors of a [Lease] that has been released.
var ErrReleased = errors.New("the lease is released")

var errNoLease = errors.New("the lease is nil, as LeaseFrom returns it outside of a Run")

// ErrUnauthorised is the error of a call that was refused because another holds the lock. It is
// returned as *ErrUnauthorised, unwrapped.
type ErrUnauthorised struct {
	request store.Request
	holder  Holder
}

// Error names the component, the job and the IDs of both sides.
func (e *ErrUnauthorised) Error() string {
	return fmt.Sprintf("lock: %s %s by %s: refused, %s", e.request.Operation, e.request.Lock(),
		e.request.Caller(), e.holder.holds())
}

// Is reports whether target is [ErrRefused].
func (e *ErrUnauthorised) Is(target error) bool { return target == ErrRefused }

// ComponentName returns the name of the component of the job.
func (e *ErrUnauthorised) ComponentName() string { return e.request.ComponentName }

// JobName returns the name of the job.
func (e *ErrUnauthorised) JobName() string { return e.request.JobName }

// Holder returns who holds the lock.
func (e *ErrUnauthorised) Holder() Holder { return e.holder }

// ErrAlreadyRun is the error of a [Lock.Acquire] that was refused because this tick, or a later
// one, is being run or has been run, or because [Job.Spacing] has not passed. It is returned as
// *ErrAlreadyRun, unwrapped.
type ErrAlreadyRun struct {
	request store.Request
	last    Holder
	running bool
}

// Error names the component, the job and the IDs of both sides.
func (e *ErrAlreadyRun) Error() string {
	what := "it has been run already: " + e.last.String()
	if e.running {
		what = "it is being run: " + e.last.holds()
	}
	return fmt.Sprintf("lock: %s %s by %s: refused, %s", e.request.Operation, e.request.Lock(),
		e.request.Caller(), what)
}

// Is reports whether target is [ErrRefused].
func (e *ErrAlreadyRun) Is(target error) bool { return target == ErrRefused }

// ComponentName returns the name of the component of the job.
func (e *ErrAlreadyRun) ComponentName() string { return e.request.ComponentName }

// JobName returns the name of the job.
func (e *ErrAlreadyRun) JobName() string { return e.request.JobName }

// Last returns the holder that ran the job last, or runs it now.
func (e *ErrAlreadyRun) Last() Holder { return e.last }

// Running reports whether the run of Last was still under way. If its instance dies, the tick can
// be run again once the lock has expired.
func (e *ErrAlreadyRun) Running() bool { return e.running }

// ErrDisabled is the error of a call that was refused because the job is disabled. It is returned
// as *ErrDisabled, unwrapped.
type ErrDisabled struct {
	request store.Request
}

// Error names the component and the job.
func (e *ErrDisabled) Error() string {
	return fmt.Sprintf("lock: %s %s by %s: refused, the job is disabled", e.request.Operation,
		e.request.Lock(), e.request.Caller())
}

// Is reports whether target is [ErrRefused].
func (e *ErrDisabled) Is(target error) bool { return target == ErrRefused }

// ComponentName returns the name of the component whose job is disabled.
func (e *ErrDisabled) ComponentName() string { return e.request.ComponentName }

// JobName returns the name of the job that is disabled.
func (e *ErrDisabled) JobName() string { return e.request.JobName }

// ErrTickAhead is the error of a [Lock.Acquire] whose [Job.Tick] is further ahead of the
// database's clock than [Job.TickAhead]: the clock of this instance is fast, or the tick is
// wrong. Nothing was written. It is returned as *ErrTickAhead, unwrapped. It is not a refusal.
type ErrTickAhead struct {
	request store.Request
	tick    time.Time
	by      time.Duration
}

// Error names the component, the job and the tick.
func (e *ErrTickAhead) Error() string {
	return fmt.Sprintf("lock: %s %s: the tick %s is %v ahead of the database's clock: "+
		"set the clock of this instance, or correct the tick", e.request.Operation,
		e.request.Lock(), tickName(e.tick), e.by.Round(time.Millisecond))
}

// By returns how far the tick is ahead of the database's clock.
func (e *ErrTickAhead) By() time.Duration { return e.by }

// valid returns an error if no database can hold a name or an ID.
func valid(r store.Request) error {
	for _, part := range []struct{ what, s string }{
		{"component name", r.ComponentName}, {"component ID", r.ComponentID},
		{"job name", r.JobName}, {"job ID", r.JobID},
	} {
		if i := strings.IndexByte(part.s, 0); i >= 0 {
			return fmt.Errorf("the %s has a NUL at byte %d, which no database can hold", part.what, i)
		}
		if !utf8.ValidString(part.s) {
			return fmt.Errorf("the %s %s is not valid UTF-8", part.what, store.Quote(part.s))
		}
	}
	return nil
}

// validTTL returns an error if a lock can't expire after d.
func validTTL(what string, d time.Duration) error {
	switch {
	case d < 0:
		return fmt.Errorf("%s, %v, is negative; 0 means that the lock never expires", what, d)
	case d > 0 && d < time.Microsecond:
		return fmt.Errorf("%s, %v, is less than a microsecond: give it a unit, such as time.Second",
			what, d)
	}
	return nil
}

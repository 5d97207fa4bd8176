package observed

import (
	"context"
	"errors"
	"slices"

	"github.com/cloudtrust/go-jobs/lock"
)

// The reasons for which a call was refused or failed, or a lease was lost.
const (
	Held           = "held"        // by another
	Disabled       = "disabled"    // the job is
	AlreadyRun     = "already_run" // the tick, or within Spacing
	Lost           = "lost"        // Unlock, Release or GiveBack, when another has taken over
	Other          = "other"       // a lease that was not renewed in time, or released by force
	UnknownOutcome = "unknown_outcome"
	Cancelled      = "cancelled"
	Timeout        = "timeout"
	TickAhead      = "tick_ahead" // a clock is fast
)

// Refusal is the reason of an event of the kind Refused.
func Refusal(e lock.Event) string {
	switch {
	case slices.Contains([]string{"Unlock", "Release", "GiveBack"}, e.Operation):
		return Lost // by the caller, who expected to hold it
	case is[*lock.ErrDisabled](e.Err):
		return Disabled
	case is[*lock.ErrAlreadyRun](e.Err):
		return AlreadyRun
	}
	return Held
}

// Loss is the reason of an event of the kind Lost.
func Loss(e lock.Event) string {
	switch {
	case is[*lock.ErrUnauthorised](e.Err):
		return Held
	case is[*lock.ErrDisabled](e.Err):
		return Disabled
	}
	return Other
}

// Failure is the reason of an event of the kind Failed, or "".
func Failure(e lock.Event) string {
	switch {
	case is[*lock.ErrTickAhead](e.Err):
		return TickAhead
	case errors.Is(e.Err, lock.ErrOutcomeUnknown):
		return UnknownOutcome
	case errors.Is(e.Err, context.Canceled):
		return Cancelled
	case errors.Is(e.Err, context.DeadlineExceeded):
		return Timeout
	}
	return ""
}

func is[E error](err error) bool {
	var target E
	return errors.As(err, &target)
}

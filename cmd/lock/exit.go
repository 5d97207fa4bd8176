//go:build unix && !aix && !solaris

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cloudtrust/go-jobs/lock"
)

// The exit statuses of our own. They keep clear of those that a command is likely to have itself: 1, 2, and what shells use, 126
// and above. Those up to 78 mean what they mean in sysexits.h.
const (
	exitUsage    = 64
	exitDatabase = 69
	exitInternal = 70
	exitHeld     = 75
	exitDisabled = 80
	exitRun      = 81
	exitLost     = 82
	exitCannot   = 126
	exitNotFound = 127
	exitSignal   = 128 // and the number of the signal
)

// A failure is why we end with a status of our own.
type failure struct {
	code int
	err  error // nil: there is nothing to say, or it has been said
}

func (f *failure) Error() string {
	if f.err == nil {
		return fmt.Sprintf("exit status %d", f.code)
	}
	return f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

// fail gives an error an exit status, unless it has one.
func fail(code int, err error) error {
	var f *failure
	if err == nil || errors.As(err, &f) {
		return err
	}
	return &failure{code, err}
}

func usagef(format string, args ...any) error {
	return &failure{exitUsage, fmt.Errorf(format, args...)}
}

// judge finds the exit status for what the library has answered, and the words for it.
func judge(err error) error {
	var (
		held     *lock.ErrUnauthorised
		disabled *lock.ErrDisabled
		run      *lock.ErrAlreadyRun
		done     *failure
	)
	switch {
	case err == nil, errors.As(err, &done):
		return err
	case errors.As(err, &held):
		return &failure{exitHeld, fmt.Errorf("refused: %s is held by %s, taken or renewed %s ago",
			jobWords(held.ComponentName(), held.JobName()), holderWords(held.Holder()), ageWords(held.Holder().Age))}
	case errors.As(err, &disabled):
		return &failure{exitDisabled, fmt.Errorf("refused: %s is disabled (lock enable switches it on)",
			jobWords(disabled.ComponentName(), disabled.JobName()))}
	case errors.As(err, &run):
		return &failure{exitRun, fmt.Errorf("refused: %s has been run already: by %s, %s ago",
			jobWords(run.ComponentName(), run.JobName()), holderWords(run.Last()), ageWords(run.Last().Age))}
	default:
		return &failure{exitDatabase, err}
	}
}

// bare is the library's error without the call and the job, where the message names these.
func bare(err error) error {
	if inner := errors.Unwrap(err); inner != nil && strings.HasPrefix(err.Error(), "lock: ") {
		return inner
	}
	return err
}

func jobWords(component, job string) string { return visible(component) + "/" + visible(job) }

func holderWords(h lock.Holder) string {
	return fmt.Sprintf("%s (run %s)", visible(h.ComponentID), visible(h.JobID))
}

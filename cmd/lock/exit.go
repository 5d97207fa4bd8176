//go:build unix && !aix && !solaris

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cloudtrust/go-jobs/lock"
)

// The exit statuses of lock itself. They avoid those that a command is likely to have: 1, 2, and
// those of shells, 126 and above. Those up to 78 have the meaning of sysexits.h.
const (
	exitUsage    = 64
	exitDatabase = 69
	exitInternal = 70
	exitHeld     = 75
	exitDisabled = 80
	exitRun      = 81
	exitLost     = 82
	exitAhead    = 83
	exitCannot   = 126
	exitNotFound = 127
	exitSignal   = 128 // and the number of the signal
)

// A failure is an error with an exit status of ours.
type failure struct {
	code int
	err  error // nil: nothing is left to say
}

func (f *failure) Error() string {
	if f.err == nil {
		return fmt.Sprintf("exit status %d", f.code)
	}
	return f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

// words is the message of a failure.
func (f *failure) words() string {
	words := f.err.Error()
	if f.code == exitDatabase {
		words = "the database: " + strings.TrimPrefix(strings.TrimPrefix(words, "lock: "), "List: ")
	}
	return words
}

// fail gives an error an exit status, unless it has one.
func fail(code int, err error) error {
	if err == nil || errors.As(err, new(*failure)) {
		return err
	}
	return &failure{code, err}
}

func usagef(format string, args ...any) error {
	return &failure{exitUsage, fmt.Errorf(format, args...)}
}

// isCode reports whether an error has this exit status.
func isCode(err error, code int) bool {
	var f *failure
	return errors.As(err, &f) && f.code == code
}

// judge returns a library error with its exit status and message.
func judge(err error) error {
	var (
		held     *lock.ErrUnauthorised
		disabled *lock.ErrDisabled
		run      *lock.ErrAlreadyRun
		ahead    *lock.ErrTickAhead
	)
	switch {
	case errors.As(err, &held):
		return &failure{exitHeld, fmt.Errorf("refused: %s is held by %s, acquired or renewed %s",
			jobWords(held.ComponentName(), held.JobName()), holderWords(held.Holder()),
			agoWords(held.Holder().Age))}
	case errors.As(err, &disabled):
		return &failure{exitDisabled, fmt.Errorf(
			"refused: %s is disabled (lock enable allows it again)",
			jobWords(disabled.ComponentName(), disabled.JobName()))}
	case errors.As(err, &run):
		code, words := exitRun, "has been run already: by"
		if run.Running() {
			code, words = exitHeld, "is being run: by"
		}
		return &failure{code, fmt.Errorf("refused: %s %s %s, acquired or renewed %s",
			jobWords(run.ComponentName(), run.JobName()), words, holderWords(run.Last()),
			agoWords(run.Last().Age))}
	case errors.As(err, &ahead):
		return &failure{exitAhead, fmt.Errorf("the tick is %s ahead of the database's clock: "+
			"correct the tick, or set the clock of this machine", spanWords(ahead.By()))}
	}
	return fail(exitDatabase, err)
}

// bare returns the library's error without the call and the job, for messages that name these.
func bare(err error) error {
	if inner := errors.Unwrap(err); inner != nil && strings.HasPrefix(err.Error(), "lock: ") {
		return inner
	}
	return err
}

package locktick

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

// Guard guards the ticks of one job by a lock. The zero Guard runs nothing: every [Result] is
// [Failed]. A Guard is safe for concurrent use if its Report and Now are.
type Guard struct {
	// Lock has the lock. Without a database, use lock.NewMemory.
	Lock *lock.Lock

	// Job describes the lock. It must have a JobName that belongs to this job alone, and no JobID
	// or Tick, which the Guard sets.
	Job lock.Job

	// Report, unless nil, is called with the outcome of each tick before the call returns, from
	// several goroutines at once. Nil means slog.Default(): failures are logged as errors, Held
	// and Disabled as warnings, Stopped at the level info, the rest at the level debug.
	Report func(ctx context.Context, r Result)

	// Now is the clock of this instance. Nil means time.Now. It determines when [Guard.Loop]
	// fires and, with a schedule, which tick fires.
	Now func() time.Time
}

// Outcome is the outcome of a tick on this instance.
type Outcome string

// The outcomes.
const (
	// Ran: it was run here. Result.Err is what the job returned, or the error of its lock.
	Ran Outcome = "ran"
	// AlreadyRun: this tick or a later one has been run, or Spacing has not passed. Result.Err is
	// an *lock.ErrAlreadyRun.
	AlreadyRun Outcome = "already run"
	// Running: this tick or a later one is being run elsewhere. Result.Err is an
	// *lock.ErrAlreadyRun.
	Running Outcome = "running"
	// Held: the run of an earlier tick has not ended. Result.Err is an *lock.ErrUnauthorised.
	Held Outcome = "held"
	// Disabled: the job is disabled. Result.Err is an *lock.ErrDisabled.
	Disabled Outcome = "disabled"
	// Ahead: it was not run, because it is ahead of the database's clock: this instance's clock
	// is fast. Result.Err is an *lock.ErrTickAhead.
	Ahead Outcome = "ahead"
	// Stopped: the context was cancelled before the run or during it, as in a shutdown.
	Stopped Outcome = "stopped"
	// Failed: it was not run here; it is unknown whether it was run elsewhere.
	Failed Outcome = "failed"
)

// Result is the outcome of a tick on this instance, and the reason.
type Result struct {
	ComponentName string
	JobName       string
	Tick          time.Time // its scheduled time; zero if Spacing keeps runs apart
	Outcome       Outcome
	// Err is nil if the job has run without an error. The errors that the outcomes name are not
	// wrapped.
	Err error
}

// Holder returns the holder that runs or has run the job, or holds its lock, if the outcome is
// AlreadyRun, Running or Held.
func (r Result) Holder() (lock.Holder, bool) {
	switch err := r.Err.(type) {
	case *lock.ErrAlreadyRun:
		return err.Last(), true
	case *lock.ErrUnauthorised:
		return err.Holder(), r.Outcome == Held
	}
	return lock.Holder{}, false
}

// Bad reports whether the result needs attention: the run failed, a clock is fast, or the tick
// could not be decided.
func (r Result) Bad() bool {
	return r.Outcome == Failed || r.Outcome == Ahead || r.Outcome == Ran && r.Err != nil
}

// Run calls f if this instance acquires the lock for the tick, keeps the lock while f runs, and
// releases it. tick is the scheduled time, in whole seconds. The zero time means that ticks have
// no names and that Job.Spacing separates the runs.
//
// The context of f ends when ctx ends and when the lease is lost; then f must return.
// [lock.LeaseFrom] returns the lease from it. If f panics, the lock is released, nothing is
// reported, and the panic continues.
func (g Guard) Run(ctx context.Context, tick time.Time, f func(ctx context.Context) error) Result {
	r := Result{ComponentName: g.Job.ComponentName, JobName: g.Job.JobName, Tick: tick}
	r.Outcome, r.Err = g.run(ctx, tick, f)
	g.Tell(ctx, r)
	return r
}

func (g Guard) run(ctx context.Context, tick time.Time, f func(ctx context.Context) error) (Outcome,
	error) {
	if err := g.check(!tick.IsZero()); err != nil {
		return Failed, err
	}
	job := g.Job
	job.Tick = tick
	began := false
	err := g.Lock.Run(ctx, job, func(ctx context.Context) error {
		began = true
		return f(ctx)
	})
	if errors.Is(ctx.Err(), context.Canceled) && cancelled(ctx, err) {
		return Stopped, err
	}
	if began {
		return Ran, err
	}
	switch err := err.(type) {
	case *lock.ErrAlreadyRun:
		if err.Running() {
			return Running, err
		}
		return AlreadyRun, err
	case *lock.ErrUnauthorised:
		return Held, err
	case *lock.ErrDisabled:
		return Disabled, err
	case *lock.ErrTickAhead:
		return Ahead, err
	}
	return Failed, err
}

// cancelled reports whether an error is nothing but the cancellation of ctx.
func cancelled(ctx context.Context, err error) bool {
	var db interface{ SQLState() string }
	return !errors.Is(err, lock.ErrLost) &&
		(errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx)) ||
			errors.As(err, &db) && db.SQLState() == "57014") // a statement that ctx has cancelled
}

// Check returns an error that can be found before the first tick. s is the schedule that all
// instances fire. A schedule that counts from the start of the process is an error, since its
// ticks have no common names. A nil schedule means such ticks, which Job.Spacing must separate.
func (g Guard) Check(s Schedule) error {
	if err := g.check(s != nil); err != nil || s == nil {
		return err
	}
	tick := g.now().Round(0)
	for range 3 { // one of them may be the time into which a tick was shifted
		next := s.Next(tick)
		if next.IsZero() {
			return fmt.Errorf("locktick: job %q: its schedule has no tick after %v", g.Job.JobName, tick)
		}
		if s.Next(next.Add(-1)).Equal(next) {
			return nil
		}
		tick = next
	}
	return fmt.Errorf("locktick: job %q: its schedule begins when the process starts, so its ticks "+
		"have no "+
		"names in common: use one that names times, or set Spacing in the Guard's Job", g.Job.JobName)
}

// check is Check without the schedule. named reports whether there is one.
func (g Guard) check(named bool) error {
	wrong := ""
	switch {
	case g.Lock == nil:
		return errors.New("locktick: the Guard has no Lock")
	case g.Job.JobName == "":
		return errors.New("locktick: the Guard's Job has no JobName")
	case g.Job.JobID != "" || !g.Job.Tick.IsZero():
		wrong = "the Guard's Job has a JobID or a Tick, which the Guard fills in"
	case !named && g.Job.Spacing <= 0:
		wrong = "its ticks have no names in common, and the Guard's Job has no Spacing to keep runs apart"
	case named && g.Job.Spacing != 0:
		wrong = "its ticks have names, so the Guard's Job must have no Spacing"
	case !named && g.Job.RetryFailed:
		wrong = "its ticks have no names, so the Guard's Job must not have RetryFailed"
	default:
		return nil
	}
	return fmt.Errorf("locktick: job %q: %s", g.Job.JobName, wrong)
}

// Tell passes r to Report, or logs it with the default logger. It is for adapters, which have
// results that [Guard.Run] doesn't know.
func (g Guard) Tell(ctx context.Context, r Result) {
	if g.Report != nil {
		g.Report(ctx, r)
		return
	}
	level := slog.LevelDebug
	switch {
	case r.Bad():
		level = slog.LevelError
	case r.Outcome == Held, r.Outcome == Disabled:
		level = slog.LevelWarn
	case r.Outcome == Stopped:
		level = slog.LevelInfo
	}
	attrs := []slog.Attr{slog.String("component", r.ComponentName), slog.String("job", r.JobName)}
	if !r.Tick.IsZero() {
		attrs = append(attrs, slog.Time("tick", r.Tick.UTC()))
	}
	if r.Err != nil {
		attrs = append(attrs, slog.Any("error", r.Err))
	}
	slog.Default().LogAttrs(ctx, level, "tick "+string(r.Outcome), attrs...)
}

func (g Guard) now() time.Time {
	if g.Now == nil {
		return time.Now()
	}
	return g.Now()
}

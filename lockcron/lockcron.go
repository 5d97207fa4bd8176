// Package lockcron runs each tick of a github.com/robfig/cron/v3 once over a fleet, where the cron of every instance fires it.
//
//	c := cron.New()
//	guard := locktick.Guard{Lock: lock.New(db), Job: lock.Job{ComponentName: "shop", JobName: "report", MaxDuration: time.Minute}}
//	if _, err := lockcron.AddFunc(ctx, c, "0 3 * * *", guard, report); err != nil {
//		return err
//	}
//	c.Start()
//
// A tick is known by the time for which it is scheduled, as cron computed it, time zone and all: 03:00 is one tick, whatever the clocks
// of the instances say when they fire it. All must have the same spec and, if it names no time zone, the same [cron.WithLocation].
// Each job needs a JobName of its own. Where a clock is set back in autumn cron fires a tick in the repeated hour twice; these are two
// ticks, and both are run.
//
// What becomes of each tick is told as [locktick.Guard] says; [Report] tells a cron.Logger.
package lockcron

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/cloudtrust/go-jobs/lock/locktick"
)

// AddFunc adds f to c, like c.AddFunc, to be run with each tick that this instance gets the lock for. The context that f gets ends
// when the lease is lost and when ctx ends; then f must return. What f returns is told as [locktick.Guard] says.
//
// An error says what is wrong with the spec or with the guard, and nothing has been added then. A spec like "@every 1h" is
// refused unless the guard's Job has Spacing, since it begins when the process starts and its ticks have no names in common. Spacing
// should be a little less than the period.
func AddFunc(ctx context.Context, c *cron.Cron, spec string, guard locktick.Guard, f func(ctx context.Context) error) (cron.EntryID, error) {
	return addFunc(ctx, c, spec, guard, f, func(t time.Time) time.Time { return t })
}

// addFunc is AddFunc on an instance which takes the times that cron deals with for others.
func addFunc(ctx context.Context, c *cron.Cron, spec string, guard locktick.Guard, f func(ctx context.Context) error,
	sees func(time.Time) time.Time) (cron.EntryID, error) {
	if err := guard.Check(true); err != nil {
		return 0, fmt.Errorf("lockcron: %w", err)
	}
	// Only cron knows its parser, so the entry is added before it is looked at. It may fire at once, and waits until that is done.
	var id cron.EntryID
	var named bool
	added, refused := make(chan struct{}), false
	j := &job{ctx: ctx, guard: guard, f: f, tick: func() (time.Time, error) {
		if !named {
			return time.Time{}, nil
		}
		// Prev is the tick that was fired last, and that is this one: cron sets it before it answers.
		entry := c.Entry(id)
		if entry.Prev.IsZero() {
			return time.Time{}, errors.New("lockcron: the entry was removed, or has never been fired by cron")
		}
		return sees(entry.Prev), nil
	}}
	id, err := c.AddJob(spec, cron.FuncJob(func() {
		if <-added; !refused {
			j.Run()
		}
	}))
	if err != nil {
		return 0, err
	}
	defer close(added)
	named, err = check(guard, c.Entry(id).Schedule)
	if err != nil {
		refused = true
		c.Remove(id)
		return 0, err
	}
	return id, nil
}

// Wrapper returns a wrapper for cron.NewChain, or for cron.WithChain of a cron with one entry, that runs the job with each
// tick of the schedule that this instance gets the lock for. The schedule must be the one by which the job is fired; location is where
// its times are meant if it doesn't say so itself: c.Location() of the cron. nil means time.Local, as for cron. schedule may be nil
// if the guard's Job has Spacing.
//
//	schedule, err := cron.ParseStandard("0 3 * * *")
//	…
//	once, err := lockcron.Wrapper(ctx, guard, schedule, c.Location())
//	…
//	c.Schedule(schedule, cron.NewChain(cron.Recover(logger), once).Then(lockcron.Func(report)))
//
// A wrapper isn't told which tick it is that cron fires: it takes it from the schedule and the instance's clock, see
// [locktick.Last]. Prefer [AddFunc], which knows. Wrappers around this one run on every instance, those within it on the one that
// gets the lock. If the job is a [Func], directly within it, the context that it gets ends when the lease is lost and when ctx ends;
// other jobs don't get to know.
//
// The error is that of [AddFunc].
func Wrapper(ctx context.Context, guard locktick.Guard, schedule cron.Schedule, location *time.Location) (cron.JobWrapper, error) {
	named, err := check(guard, schedule)
	if err != nil {
		return nil, err
	}
	if location == nil {
		location = time.Local
	}
	now := guard.Now
	if now == nil {
		now = time.Now
	}
	tick := func() (time.Time, error) {
		if !named {
			return time.Time{}, nil
		}
		t := locktick.Last(schedule, now().In(location))
		if t.IsZero() {
			return t, errors.New("lockcron: the schedule has had no tick yet")
		}
		return t, nil
	}
	return func(inner cron.Job) cron.Job {
		f, ok := inner.(Func)
		if !ok {
			f = func(context.Context) error {
				inner.Run()
				return nil
			}
		}
		return &job{ctx: ctx, guard: guard, f: f, tick: tick}
	}, nil
}

// check says whether the ticks of a schedule have names, or else what is wrong.
func check(guard locktick.Guard, s cron.Schedule) (named bool, err error) {
	switch s := s.(type) {
	case nil:
	case cron.ConstantDelaySchedule:
		if guard.Job.Spacing <= 0 {
			return false, fmt.Errorf("lockcron: job %q: @every %v begins when the process starts, so its ticks have no names in common: "+
				"use a spec that names times, or set Spacing in the guard's Job", guard.Job.JobName, s.Delay)
		}
	default:
		named = true
	}
	if err := guard.Check(named); err != nil {
		return false, fmt.Errorf("lockcron: %w", err)
	}
	return named, nil
}

// Func is a cron.Job that takes a context, for [Wrapper].
type Func func(ctx context.Context) error

// Run calls f with a context that doesn't end, and forgets its error. It is what cron calls where no [Wrapper] is directly around f.
func (f Func) Run() { f(context.Background()) }

// job is what cron runs.
type job struct {
	ctx   context.Context
	guard locktick.Guard
	f     func(ctx context.Context) error
	tick  func() (time.Time, error)
}

func (j *job) Run() {
	tick, err := j.tick()
	if err != nil {
		about := j.guard.Job
		j.guard.Tell(j.ctx, locktick.Result{ComponentName: about.ComponentName, JobName: about.JobName, Outcome: locktick.Failed, Err: err})
		return
	}
	j.guard.Run(j.ctx, tick, j.f)
}

// Report returns a Report for a [locktick.Guard] that tells logger: ticks that could not be decided, and runs that failed, as errors.
// Everything else is information, which loggers of cron leave out unless they are verbose.
func Report(logger cron.Logger) func(ctx context.Context, r locktick.Result) {
	return func(_ context.Context, r locktick.Result) {
		about := []any{"component", r.ComponentName, "job", r.JobName}
		if !r.Tick.IsZero() {
			about = append(about, "tick", r.Tick)
		}
		switch {
		case r.Outcome == locktick.Failed, r.Outcome == locktick.Ran && r.Err != nil:
			logger.Error(r.Err, "tick "+string(r.Outcome), about...)
		case r.Err != nil:
			logger.Info("tick "+string(r.Outcome), append(about, "reason", r.Err)...)
		default:
			logger.Info("tick "+string(r.Outcome), about...)
		}
	}
}

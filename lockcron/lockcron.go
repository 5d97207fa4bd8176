// Package lockcron runs each tick of a github.com/robfig/cron/v3 once in a fleet, where the cron
// of every instance fires it.
//
//	nightly, err := cron.ParseStandard("0 3 * * *")
//	…
//	guard := locktick.Guard{
//		Lock: lock.New(db),
//		Job:  lock.Job{ComponentName: "shop", JobName: "report"},
//	}
//	job, err := lockcron.New(ctx, guard, nightly, report)
//	…
//	c := cron.New()
//	c.Schedule(job, job)
//	c.Start()
//
// A tick is identified by the time for which cron has scheduled it: 03:00 is one tick, whatever
// the clocks of the instances say. All instances must have the same schedule and, if it names no
// time zone, the same [cron.WithLocation]. Each job needs its own JobName.
//
// When summer time begins, a tick in the skipped hour is fired later (see [locktick.In]): 02:30
// at 03:30. When it ends, cron fires a tick in the repeated hour twice; these are two ticks, and
// both are run.
//
// [locktick.Guard] reports the outcome of each tick; [Report] reports it to a cron.Logger.
package lockcron

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/cloudtrust/go-jobs/lock/locktick"
)

// Job is the schedule and the job of one entry of a cron. Add it by c.Schedule(job, job), or by
// c.Schedule(job, chain.Then(job)) with a [cron.Chain], which then runs on every instance. Create
// a Job with [New]. Its methods are for cron.
type Job struct {
	ctx      context.Context
	guard    locktick.Guard
	f        func(ctx context.Context) error
	schedule cron.Schedule

	mu         sync.Mutex
	last, next time.Time // what cron was told last, and before that
}

// New returns a Job that runs f at each tick of the schedule for which this instance acquires the
// lock. The context of f ends when the lease is lost and when ctx ends; then f must return. The
// guard reports what f returns.
//
// The error says what is wrong with the guard or the schedule. A schedule like "@every 1h" begins
// when the process starts, so its ticks have no common names. It is an error unless the guard's
// Job has a Spacing, which should be a little less than the period.
func New(ctx context.Context, guard locktick.Guard, schedule cron.Schedule,
	f func(ctx context.Context) error) (*Job, error) {
	if schedule == nil {
		return nil, errors.New("lockcron: there is no schedule")
	}
	if s, ok := schedule.(*cron.SpecSchedule); ok {
		schedule = spec{s}
	}
	var err error
	if guard.Job.Spacing > 0 {
		err = guard.Check(nil)
	} else {
		err = guard.Check(schedule)
	}
	if err != nil {
		return nil, fmt.Errorf("lockcron: %w", err)
	}
	return &Job{ctx: ctx, guard: guard, f: f, schedule: schedule}, nil
}

// spec is a schedule that skips no tick when summer begins.
type spec struct{ *cron.SpecSchedule }

func (s spec) Next(t time.Time) time.Time {
	location := s.Location
	if location == time.Local { // it names none: that of the cron, which t has
		location = t.Location()
	}
	local := *s.SpecSchedule
	local.Location = time.Local
	next := locktick.In(location, &local).Next(t)
	if next.IsZero() {
		return next
	}
	return next.In(t.Location())
}

// Next is called by cron when it starts and when it has fired a tick.
func (j *Job) Next(t time.Time) time.Time {
	next := j.schedule.Next(t)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last, j.next = j.next, next
	return next
}

// fired returns the tick that cron has fired: the last one that Next returned and that is due.
// Cron may or may not have asked for the next one already.
func (j *Job) fired() time.Time {
	now := time.Now
	if j.guard.Now != nil {
		now = j.guard.Now
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.next.IsZero() && !j.next.After(now().Round(0)) {
		return j.next
	}
	return j.last
}

// Run is called by cron with each tick.
func (j *Job) Run() {
	var tick time.Time
	if j.guard.Job.Spacing <= 0 {
		if tick = j.fired(); tick.IsZero() {
			about := j.guard.Job
			err := errors.New("lockcron: cron has fired no tick: is the Job the schedule of its entry, too?")
			j.guard.Tell(j.ctx, locktick.Result{ComponentName: about.ComponentName, JobName: about.JobName,
				Outcome: locktick.Failed, Err: err})
			return
		}
	}
	j.guard.Run(j.ctx, tick, j.f)
}

// Report returns a Report for a [locktick.Guard] that logs to logger: failures as errors, and
// everything else as information, which cron's loggers omit unless they are verbose.
func Report(logger cron.Logger) func(ctx context.Context, r locktick.Result) {
	return func(_ context.Context, r locktick.Result) {
		about := []any{"component", r.ComponentName, "job", r.JobName}
		if !r.Tick.IsZero() {
			about = append(about, "tick", r.Tick)
		}
		switch {
		case r.Bad():
			logger.Error(r.Err, "tick "+string(r.Outcome), about...)
		case r.Err != nil:
			logger.Info("tick "+string(r.Outcome), append(about, "reason", r.Err)...)
		default:
			logger.Info("tick "+string(r.Outcome), about...)
		}
	}
}

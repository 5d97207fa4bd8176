package lockgocron

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/robfig/cron/v3"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

// Locker is a gocron.Locker, for gocron.WithDistributedLocker and
// gocron.WithDistributedJobLocker. An instance whose scheduler fires a tick that has been run,
// that another is running, or whose lock can't be acquired for another reason, skips it; gocron
// tells its event listener AfterLockError why, and [locktick.Guard] tells it too. Make a Locker
// with [NewLocker]. It is safe for concurrent use.
//
// gocron tells a Locker which job it is, by its name, and not which tick. So a Locker takes the
// tick from the job's schedule and the instance's clock, see [locktick.Last]: it is the last one
// that is due by the clock by which gocron fires. A clock that is stepped back by a second or
// more while gocron sleeps lets this instance take a tick for the one before, and skip it; it
// never runs one twice.
//
// Of RunNow a Locker knows nothing. It counts as the tick before it, which usually has been run;
// less than a second before a tick it counts as that tick, which is then not run again.
type Locker struct {
	guard locktick.Guard

	mu        sync.Mutex
	schedules map[string]locktick.Schedule
	held      map[string]*held
}

var _ gocron.Locker = (*Locker)(nil)

// held is a lock that gocron holds.
type held struct {
	locker *Locker
	name   string
	ctx    context.Context // which has the lease
	unlock func()
	result chan locktick.Result

	mu     sync.Mutex
	failed error // of the task
}

// NewLocker returns a Locker. The guard's Job must have no JobName: it is the name of gocron's
// job, for which gocron.WithName should be used, since otherwise it is the name of a Go function.
// If the scheduler has a clock of its own, the guard's Now must be that clock's. What a task
// returns is only known, to the guard's Report and to RetryFailed, if it is made by
// [Locker.Func].
func NewLocker(guard locktick.Guard) (*Locker, error) {
	switch {
	case guard.Lock == nil:
		return nil, errors.New("lockgocron: NewLocker: the Guard has no Lock")
	case guard.Job.JobName != "":
		return nil, fmt.Errorf("lockgocron: NewLocker: the Guard's Job has the JobName %q, "+
			"which is where the name of gocron's job goes", guard.Job.JobName)
	}
	return &Locker{guard: guard, schedules: map[string]locktick.Schedule{},
		held: map[string]*held{}}, nil
}

// Schedule says by which schedule the job of that name is fired: [Crontab] for a gocron.CronJob;
// [locktick.Every] for a gocron.DurationJob, which needs to begin at one of its ticks:
// gocron.WithStartAt(gocron.WithStartDateTime(every.Next(time.Now()))). Daily, weekly and monthly
// jobs can be told as crontabs. Call it before the job is added, and again before it is updated;
// the scheduler may be running.
//
// The error says what is wrong with the schedule, such as one that begins when the process
// starts. A job that has no schedule here needs Spacing in the guard's Job, which keeps its runs
// apart; without it, its runs are refused. So it is for jobs with random intervals and with
// intervals that count from the completion of a run.
func (l *Locker) Schedule(name string, s locktick.Schedule) error {
	if s == nil {
		return fmt.Errorf("lockgocron: job %q: there is no schedule", name)
	}
	if err := l.of(name, true).Check(s); err != nil {
		return fmt.Errorf("lockgocron: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.schedules[name] = s
	return nil
}

// of returns the guard of a job, whose ticks are named or not.
func (l *Locker) of(name string, named bool) locktick.Guard {
	guard := l.guard
	guard.Job.JobName = name
	if named {
		guard.Job.Spacing = 0
	} else {
		guard.Job.RetryFailed = false
	}
	return guard
}

// Lock acquires the lock of the job of that name for the tick that fires now. It is called by
// gocron. The lock is kept, also while gocron shuts down and waits for the job, until Unlock.
func (l *Locker) Lock(ctx context.Context, name string) (gocron.Lock, error) {
	guard, tick, err := l.tick(name)
	if err != nil {
		guard.Tell(ctx, locktick.Result{ComponentName: guard.Job.ComponentName, JobName: name,
			Outcome: locktick.Failed, Err: err})
		return nil, err
	}
	end := make(chan struct{})
	h := &held{locker: l, name: name, unlock: sync.OnceFunc(func() { close(end) }),
		result: make(chan locktick.Result, 1)}
	got := make(chan struct{})
	// Until the lock is acquired, ctx counts. Then gocron ends it long before the job, when it
	// shuts down.
	own, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	detach := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	go func() {
		defer cancel(nil)
		h.result <- guard.Run(own, tick, func(lease context.Context) error {
			if !detach() {
				return context.Cause(ctx)
			}
			h.ctx = lease
			close(got)
			<-end
			if ctx.Err() != nil { // gocron has shut down, and the task may say so
				cancel(context.Cause(ctx))
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.failed
		})
	}()
	select {
	case <-got:
	case r := <-h.result:
		detach()
		return nil, r.Err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[name] = h
	return h, nil
}

// tick returns the guard of a job, and its tick that fires now; the zero time if its ticks have no
// names.
func (l *Locker) tick(name string) (guard locktick.Guard, tick time.Time, err error) {
	l.mu.Lock()
	s, named := l.schedules[name]
	l.mu.Unlock()
	guard = l.of(name, named)
	if !named {
		if guard.Job.Spacing <= 0 {
			err = fmt.Errorf("lockgocron: job %q has no Schedule in the Locker, and its Job has no Spacing",
				name)
		}
		return guard, tick, err
	}
	now := guard.Now
	if now == nil {
		now = time.Now
	}
	if tick = locktick.Last(s, now()); tick.IsZero() {
		err = fmt.Errorf("lockgocron: job %q fires, but its schedule has had no tick yet", name)
	}
	return guard, tick, err
}

// Unlock releases the lock. gocron calls it when the job has ended, also if it has panicked, and
// doesn't look at the error: [locktick.Guard] tells it. The error matches lock.ErrLost if the
// lease was lost meanwhile. Unlock doesn't heed its context, which has ended if gocron shuts
// down, and takes some seconds at most.
func (h *held) Unlock(context.Context) error {
	h.unlock()
	r := <-h.result
	h.result <- r // for who calls it again
	h.locker.mu.Lock()
	defer h.locker.mu.Unlock()
	if h.locker.held[h.name] == h {
		delete(h.locker.held, h.name)
	}
	return r.Err
}

// Func makes a task of f, for gocron.NewTask, whose context ends when the lease is lost and when
// gocron shuts down; lock.LeaseFrom returns its lease. gocron itself gives a task a context that
// knows nothing of the lease. name is the name of the job. f isn't called if the lease is over
// already.
func (l *Locker) Func(name string,
	f func(ctx context.Context) error) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		l.mu.Lock()
		h := l.held[name]
		l.mu.Unlock()
		if h == nil {
			return fmt.Errorf("lockgocron: job %q runs without a lock: its scheduler doesn't use the "+
				"Locker, or its gocron.WithName is another",
				name)
		}
		failed := errors.New("the task panicked") // unless it returns
		defer func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.failed = failed
		}()
		if err := lock.LeaseFrom(h.ctx).Err(); err != nil {
			failed = err
			return err
		}
		failed = both(h.ctx, ctx, f)
		return failed
	}
}

// both calls f with a context that is lease's, and ends with ctx too.
func both(lease, ctx context.Context, f func(ctx context.Context) error) error {
	lease, cancel := context.WithCancelCause(lease)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
	return f(lease)
}

// Crontab returns the schedule of gocron.CronJob(crontab, withSeconds) of a scheduler with that
// gocron.WithLocation; nil means time.Local, as for gocron. When summer begins, a tick in the hour
// that is left out is due after it, see [locktick.In]: 02:30 at 03:30. gocron fires it if the job
// has gocron.WithDaylightSavingsTimePolicy(gocron.DaylightSavingsTimeRunAfterTransition). A job
// with gocron.WithCronImplementation has that as its schedule.
func Crontab(crontab string, withSeconds bool, location *time.Location) (locktick.Schedule, error) {
	parse := cron.ParseStandard
	if withSeconds {
		parse = cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month |
			cron.Dow | cron.Descriptor).Parse
	}
	s, err := parse(crontab)
	if err != nil {
		return nil, fmt.Errorf("lockgocron: the crontab %q: %w", crontab, err)
	}
	if spec, ok := s.(*cron.SpecSchedule); ok {
		if spec.Location != time.Local { // it names one
			location, spec.Location = spec.Location, time.Local
		}
		s = locktick.In(location, spec)
	}
	if s.Next(time.Now()).IsZero() {
		return nil, fmt.Errorf("lockgocron: the crontab %q has no tick", crontab)
	}
	return s, nil
}

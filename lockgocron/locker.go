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
// gocron.WithDistributedJobLocker. An instance skips a tick that has been run, that another is
// running, or whose lock can't be acquired for another reason. gocron's event listener
// AfterLockError gets the reason, and [locktick.Guard] reports it. Create a Locker with
// [NewLocker]. It is safe for concurrent use.
//
// gocron tells a Locker the name of the job, but not the tick. So a Locker derives the tick from
// the job's schedule and the instance's clock (see [locktick.Last]): it is the last one that is
// due. If the clock is stepped back by a second or more while gocron sleeps, this instance may
// mistake a tick for the one before, and skip it; it never runs one twice.
//
// A Locker doesn't know of RunNow. Such a run counts as the tick before it, which usually has
// been run; less than a second before a tick, it counts as that tick, which is then not run
// again.
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

// NewLocker returns a Locker. The guard's Job must have no JobName: the name of gocron's job is
// used. Set it by gocron.WithName, since it is otherwise the name of a Go function. If the
// scheduler has its own clock, the guard's Now must be the same. The guard's Report and
// RetryFailed only know what a task returns if [Locker.Func] creates the task.
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

// Schedule sets the schedule of the job with that name: [Crontab] for a gocron.CronJob;
// [locktick.Every] for a gocron.DurationJob, which must begin at one of its ticks:
// gocron.WithStartAt(gocron.WithStartDateTime(every.Next(time.Now()))). Write daily, weekly and
// monthly jobs as crontabs. Call Schedule before the job is added, and again before it is
// updated; the scheduler may be running.
//
// The error says what is wrong with the schedule, such as one that begins when the process
// starts. A job without a schedule here needs a Spacing in the guard's Job; otherwise its runs
// are refused. This is the way for jobs with random intervals, or with intervals that count from
// the end of a run.
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

// of returns the guard of a job. named reports whether its ticks have names.
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

// Lock acquires the lock of the job with that name for the tick that fires now. gocron calls it.
// The lock is kept until Unlock, even while gocron shuts down and waits for the job.
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
	// ctx counts until the lock is acquired. At shutdown, gocron ends it long before the job.
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

// tick returns the guard of a job and the tick that fires now, or the zero time if its ticks have
// no names.
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

// Unlock releases the lock. gocron calls it when the job has ended or panicked, and ignores the
// error, which [locktick.Guard] reports. The error matches lock.ErrLost if the lease was lost.
// Unlock ignores its context, which has ended if gocron shuts down, and takes some seconds at
// most.
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

// Func returns a task for gocron.NewTask that calls f with a context that ends when the lease is
// lost and when gocron shuts down. lock.LeaseFrom returns the lease from it; the context that
// gocron itself gives a task doesn't have it. name is the name of the job. f isn't called if the
// lease is already over.
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

// both calls f with the lease's context, which also ends with ctx.
func both(lease, ctx context.Context, f func(ctx context.Context) error) error {
	lease, cancel := context.WithCancelCause(lease)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
	return f(lease)
}

// Crontab returns the schedule of gocron.CronJob(crontab, withSeconds) in a scheduler with
// gocron.WithLocation(location); nil means time.Local, as in gocron. When summer time begins, a
// tick in the skipped hour is due later (see [locktick.In]): 02:30 at 03:30. gocron fires it if
// the job has gocron.WithDaylightSavingsTimePolicy(gocron.DaylightSavingsTimeRunAfterTransition).
// The schedule of a job with gocron.WithCronImplementation is that implementation.
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

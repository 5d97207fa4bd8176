package lockgocron

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-co-op/gocron/v2"

	"github.com/cloudtrust/go-jobs/lock/locktick"
)

// Locker is a gocron.Locker, for gocron.WithDistributedLocker and gocron.WithDistributedJobLocker. An instance whose scheduler fires
// a tick that has been run, that another is running, or whose lock can't be had for another reason, skips it; gocron tells its event
// listener AfterLockError why, and [locktick.Guard] tells it too.
//
// gocron tells a Locker which job it is, by its name, and not which tick. So a Locker takes the tick from the job's schedule and the
// instance's clock, see [locktick.Last]: the tick is the last one that is due by the clock by which gocron fires. A clock that is stepped
// back by a second or more while gocron sleeps lets this instance take a tick for the one before, and skip it; never run one twice. Of
// Job.RunNow a Locker knows nothing: it counts as the tick before it, which has been run already.
//
// A Locker must not be copied after its first use. It is safe for concurrent use.
type Locker struct {
	// Guard has the lock. The JobName of its Job must be "": it is the name of gocron's job, for which gocron.WithName should be
	// used, since it is the name of a Go function otherwise. If the scheduler has a clock of its own, Now must be that clock's. The Results
	// that are told have no errors of the jobs, which gocron keeps to itself, but those of their locks.
	Guard locktick.Guard

	// Schedules has the schedule of each job, by the job's name: that of gocron.CronJob is Crontab; that of gocron.DurationJob is
	// locktick.Every, and the job needs to begin at one of its ticks: gocron.WithStartAt(gocron.WithStartDateTime(every.Next(time.Now()))).
	// Daily, weekly and monthly jobs can be told as crontabs.
	//
	// A job that isn't here needs Spacing in the Guard's Job, which keeps its runs apart; without, its runs are refused. So are all of
	// gocron's jobs with random intervals and with intervals that count from the completion of a run.
	Schedules map[string]locktick.Schedule

	mu   sync.Mutex
	held map[string]*held
}

var _ gocron.Locker = (*Locker)(nil)

// held is a lock that gocron holds.
type held struct {
	locker *Locker
	name   string
	ctx    context.Context // of the lease
	unlock func()
	result chan locktick.Result
}

// Lock takes the lock of the job of that name for the tick that fires now. It is called by gocron. The lock is kept, also while
// gocron shuts down and waits for the job, until Unlock.
func (l *Locker) Lock(ctx context.Context, name string) (gocron.Lock, error) {
	guard := l.Guard
	guard.Job.JobName = name
	tick, err := l.tick(name)
	if err != nil {
		guard.Tell(ctx, locktick.Result{ComponentName: guard.Job.ComponentName, JobName: name, Outcome: locktick.Failed, Err: err})
		return nil, err
	}
	end := make(chan struct{})
	h := &held{locker: l, name: name, unlock: sync.OnceFunc(func() { close(end) }), result: make(chan locktick.Result, 1)}
	got := make(chan struct{})
	// Until the lock is had, ctx counts. Then gocron ends it long before the job, when it shuts down.
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
			return nil
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
	if l.held == nil {
		l.held = map[string]*held{}
	}
	l.held[name] = h
	return h, nil
}

// tick returns the tick of a job that fires now, or the zero time if its ticks have no names.
func (l *Locker) tick(name string) (time.Time, error) {
	if l.Guard.Job.JobName != "" {
		return time.Time{}, fmt.Errorf("lockgocron: the Locker's Job has the JobName %q, which is where the name of gocron's job goes",
			l.Guard.Job.JobName)
	}
	s, ok := l.Schedules[name]
	if !ok {
		if l.Guard.Job.Spacing <= 0 {
			return time.Time{}, fmt.Errorf("lockgocron: job %q is not in the Locker's Schedules, and its Job has no Spacing", name)
		}
		return time.Time{}, nil
	}
	now := l.Guard.Now
	if now == nil {
		now = time.Now
	}
	tick := locktick.Last(s, now())
	if tick.IsZero() {
		return tick, fmt.Errorf("lockgocron: job %q fires, but its schedule has had no tick yet", name)
	}
	return tick, nil
}

// Unlock releases the lock. gocron calls it when the job has ended, also if it has panicked, and doesn't look at the error:
// [locktick.Guard] tells it. The error matches lock.ErrLost if the lease was lost meanwhile. Unlock doesn't heed its context, which has ended if gocron
// shuts down, and takes some seconds at most.
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

// Func makes a task of f, for gocron.NewTask, whose context ends when the lease is lost, as well as when gocron shuts down; lock.LeaseFrom
// gives its lease. gocron itself gives a task a context that knows nothing of the lease. name is the name of the job.
func (l *Locker) Func(name string, f func(ctx context.Context) error) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		l.mu.Lock()
		h := l.held[name]
		l.mu.Unlock()
		if h == nil {
			return fmt.Errorf("lockgocron: job %q runs without a lock: its scheduler doesn't use the Locker, or its gocron.WithName is another",
				name)
		}
		return both(h.ctx, ctx, f)
	}
}

// both calls f with a context that is lease's, and ends with ctx too.
func both(lease, ctx context.Context, f func(ctx context.Context) error) error {
	lease, cancel := context.WithCancelCause(lease)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
	return f(lease)
}

// Crontab returns the schedule of gocron.CronJob(crontab, withSeconds) of a scheduler with that gocron.WithLocation; nil means
// time.Local, as for gocron. A job with gocron.WithCronImplementation has that as its schedule.
func Crontab(crontab string, withSeconds bool, location *time.Location) (locktick.Schedule, error) {
	if location == nil {
		location = time.Local
	}
	c := gocron.NewDefaultCron(withSeconds)
	if err := c.IsValid(crontab, location, time.Now()); err != nil {
		return nil, errors.Join(fmt.Errorf("lockgocron: the crontab %q", crontab), err)
	}
	return zoned{c, location}, nil
}

// zoned is a schedule whose times are meant in a location.
type zoned struct {
	locktick.Schedule
	location *time.Location
}

func (z zoned) Next(t time.Time) time.Time { return z.Schedule.Next(t.In(z.location)) }

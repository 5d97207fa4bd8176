package lockgocron_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/ticktest"
	"github.com/cloudtrust/go-jobs/lock/lockgocron"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

func TestLocker_clocks(t *testing.T) {
	for name, test := range map[string]struct {
		crontab string
		lasts   time.Duration
		takes   time.Duration
		wait    time.Duration
	}{
		"every minute": {"0 * * * * *", 30 * time.Minute, time.Second, 0},
		"several within what clocks differ": {"* * * * * *", time.Minute, 100 * time.Millisecond,
			900 * time.Millisecond},
		"runs that outlive the longest":          {"0 */10 * * * *", 2 * time.Hour, 9 * time.Minute, 0},
		"one a day ahead, one a day behind":      {"0 */10 * * * *", 4 * 24 * time.Hour, time.Second, 0},
		"uneven ones, run before the last clock": {"0 0,1,17,48 3-5,14 * * *", 48 * time.Hour, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(lock.NewMemory(lock.Options{}))
				f.Wait = test.wait
				s := crontab(t, test.crontab)
				start := time.Now()
				over := make(chan struct{})
				clocks := ticktest.Skews
				if strings.Contains(name, "a day") {
					clocks = []time.Duration{0, 24 * time.Hour, time.Second, -24 * time.Hour}
				}
				for _, ahead := range clocks {
					clock := newSkewedClock(ahead)
					locker := f.locker(t, s, clock.Now)
					task := locker.Func("report", func(ctx context.Context) error {
						f.Ran(lock.LeaseFrom(ctx).Job().JobID)
						select {
						case <-time.After(test.takes):
						case <-over:
						}
						return nil
					})
					sched := scheduler(t, clock, gocron.CronJob(test.crontab, true), task,
						gocron.WithDistributedLocker(locker))
					defer sched.Shutdown()
				}
				defer close(over) // gocron waits for its jobs in a loop that doesn't let the bubble's time pass
				time.Sleep(test.lasts)
				synctest.Wait()
				// The first two seconds are those of instances that begin at once with different
				// ticks.
				f.RequireEachOnce(t, s, start.Add(6*time.Second), start.Add(test.lasts-5*time.Second))
				require.Positive(t, f.Told()[locktick.AlreadyRun]+f.Told()[locktick.Running])
				require.Equal(t, slices.Max(clocks) > time.Minute, f.Told()[locktick.Ahead] > 0)
			})
		})
	}
}

func TestLocker_DurationJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewMemory(lock.Options{}))
		every := locktick.Every(5 * time.Minute)
		start := time.Now()
		for _, ahead := range ticktest.Skews {
			clock := newSkewedClock(ahead)
			locker := f.locker(t, every, clock.Now)
			s, err := gocron.NewScheduler(gocron.WithClock(clock), gocron.WithDistributedLocker(locker))
			require.NoError(t, err)
			_, err = s.NewJob(gocron.DurationJob(time.Duration(every)),
				gocron.NewTask(locker.Func("report", f.Run)), gocron.WithName("report"),
				gocron.WithStartAt(gocron.WithStartDateTime(every.Next(clock.Now()))))
			require.NoError(t, err)
			s.Start()
			defer s.Shutdown()
			time.Sleep(7 * time.Second) // not all at once
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		f.RequireEachOnce(t, every, start.Add(time.Minute), start.Add(2*time.Hour))
	})
}

func TestLocker_clock_stepped_back(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewMemory(lock.Options{}))
		clock := newSkewedClock(0)
		s := crontab(t, "0 * * * * *")
		locker := f.locker(t, s, clock.Now)
		start := time.Now()
		sched := scheduler(t, clock, gocron.CronJob("0 * * * * *", true),
			locker.Func("report", f.Run), gocron.WithDistributedLocker(locker))
		defer sched.Shutdown()
		time.Sleep(30 * time.Second)
		for range 20 {
			clock.ahead.Add(-int64(900 * time.Millisecond)) // while gocron sleeps
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		f.RequireEachOnce(t, s, start, clock.Now().Add(-time.Minute))
	})
}

func TestLocker_Spacing(t *testing.T) {
	for name, test := range map[string]struct {
		spacing time.Duration
		runs    int
	}{
		"without it is refused": {0, 0}, "with it is kept apart": {50 * time.Second, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(lock.NewMemory(lock.Options{}))
				for range 3 {
					clock := newSkewedClock(0)
					locker := f.locker(t, nil, clock.Now, func(g *locktick.Guard) { g.Job.Spacing = test.spacing })
					sched := scheduler(t, clock, gocron.DurationJob(time.Minute), func() { f.Ran("") },
						gocron.WithDistributedLocker(locker))
					defer sched.Shutdown()
					time.Sleep(10 * time.Second)
				}
				time.Sleep(3 * time.Minute)
				synctest.Wait()
				require.Equal(t, test.runs, f.Runs()[""])
				require.Equal(t, test.spacing == 0, f.Told()[locktick.Failed] > 0)
				for _, err := range f.Errs() {
					require.ErrorContains(t, err, `job "report" has no Schedule in the Locker`)
				}
			})
		})
	}
}

func TestNewLocker_error(t *testing.T) {
	_, err := lockgocron.NewLocker(locktick.Guard{})
	require.ErrorContains(t, err, "no Lock")
	l := lock.NewMemory(lock.Options{})
	_, err = lockgocron.NewLocker(locktick.Guard{Lock: l, Job: lock.Job{JobName: "all of them"}})
	require.ErrorContains(t, err, `has the JobName "all of them"`)
}

func TestLocker_Schedule_error(t *testing.T) {
	locker := newFleet(lock.NewMemory(lock.Options{})).locker(t, nil, nil)
	require.ErrorContains(t, locker.Schedule("report", nil), "no schedule")
	require.ErrorContains(t, locker.Schedule("report", crontab(t, "@every 5s")),
		"begins when the process starts")
	require.NoError(t, locker.Schedule("report", crontab(t, "@hourly")))
}

func TestCrontab_error(t *testing.T) {
	for _, c := range []string{"0 0 30 2 *", "every noon"} {
		never, err := lockgocron.Crontab(c, false, nil)
		require.ErrorContains(t, err, c)
		require.Nil(t, never)
	}
}

// A daily job at 02:30 is run once on each day, also on the one that has no 02:30.
func TestCrontab_summer_begins(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	for how, definition := range map[string]func() gocron.JobDefinition{
		"cron": func() gocron.JobDefinition {
			return gocron.CronJob("30 2 * * *",
				false)
		},
		"cron with a time zone": func() gocron.JobDefinition {
			return gocron.CronJob("CRON_TZ=Europe/Berlin 30 2 * * *", false)
		},
		"daily": func() gocron.JobDefinition {
			return gocron.DailyJob(1, gocron.NewAtTimes(gocron.NewAtTime(2, 30, 0)))
		},
	} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(time.Date(2000, 3, 25, 0, 0, 0, 0, time.UTC)))
				f := newFleet(lock.NewMemory(lock.Options{}))
				daily, err := lockgocron.Crontab("30 2 * * *", false, berlin)
				require.NoError(t, err)
				var at []string
				for range 3 {
					clock := newSkewedClock(0)
					locker := f.locker(t, daily, clock.Now)
					s, err := gocron.NewScheduler(gocron.WithClock(clock), gocron.WithLocation(berlin),
						gocron.WithDistributedLocker(locker))
					require.NoError(t, err)
					_, err = s.NewJob(definition(), gocron.NewTask(func() {
						at = append(at,
							time.Now().In(berlin).Format("02 15:04"))
					}),
						gocron.WithName("report"),
						gocron.WithDaylightSavingsTimePolicy(gocron.DaylightSavingsTimeRunAfterTransition))
					require.NoError(t, err)
					s.Start()
					defer s.Shutdown()
				}
				time.Sleep(3 * 24 * time.Hour)
				synctest.Wait()
				require.Equal(t, []string{"25 02:30", "26 03:30", "27 02:30"}, at)
			})
		})
	}
}

// Jobs are added and updated while the scheduler runs.
func TestLocker_Schedule_running(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewMemory(lock.Options{}))
		clock := newSkewedClock(0)
		locker := f.locker(t, crontab(t, "0 0 * * * *"), clock.Now)
		task := locker.Func("report", f.Run)
		s := scheduler(t, clock, gocron.CronJob("0 0 * * * *", true), task,
			gocron.WithDistributedLocker(locker))
		defer s.Shutdown()
		time.Sleep(3*time.Hour + time.Second)
		require.Len(t, f.Ticks(), 3)

		require.NoError(t, locker.Schedule("report", crontab(t, "0 * * * * *")))
		_, err := s.Update(s.Jobs()[0].ID(), gocron.CronJob("0 * * * * *", true), gocron.NewTask(task),
			gocron.WithName("report"))
		require.NoError(t, err)
		stop := make(chan struct{})
		go func() { // others are added meanwhile
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
					locker.Schedule("another", locktick.Every(time.Minute))
				}
			}
		}()
		time.Sleep(30 * time.Minute)
		close(stop)
		synctest.Wait()
		require.Len(t, f.Ticks(), 3+30)
		require.Equal(t, map[locktick.Outcome]int{locktick.Ran: 3 + 30}, f.Told())
	})
}

// RunNow counts as the tick before it, and less than a second before a tick as that one.
func TestLocker_RunNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewMemory(lock.Options{}))
		clock := newSkewedClock(0)
		locker := f.locker(t, crontab(t, "0 * * * * *"), clock.Now)
		s := scheduler(t, clock, gocron.CronJob("0 * * * * *", true),
			locker.Func("report", f.Run), gocron.WithDistributedLocker(locker))
		defer s.Shutdown()
		told := func() map[locktick.Outcome]int {
			synctest.Wait()
			return f.Told()
		}
		time.Sleep(time.Minute + 30*time.Second)
		require.NoError(t, s.Jobs()[0].RunNow())
		require.Equal(t, map[locktick.Outcome]int{locktick.Ran: 1, locktick.AlreadyRun: 1}, told())
		time.Sleep(29*time.Second + 100*time.Millisecond) // 900 ms before the second tick
		require.NoError(t, s.Jobs()[0].RunNow())
		require.Equal(t, map[locktick.Outcome]int{locktick.Ran: 2, locktick.AlreadyRun: 1}, told())
		time.Sleep(time.Second)
		require.Equal(t, map[locktick.Outcome]int{locktick.Ran: 2, locktick.AlreadyRun: 2}, told(),
			"the tick has been run")
		require.Len(t, f.Ticks(), 2)
	})
}

// A task that fails leaves its tick free, if the Job says so, and is reported.
func TestLocker_Func_failed(t *testing.T) {
	for how, fails := range map[string]func(){"returns": func() {}, "panics": func() { panic("oh") }} {
		for _, retry := range []bool{false, true} {
			t.Run(fmt.Sprint(how, " ", retry), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFleet(lock.NewMemory(lock.Options{}))
					locker := f.locker(t, locktick.Every(time.Hour), time.Now,
						func(g *locktick.Guard) { g.Job.RetryFailed = retry })
					fire := errors.New("the printer is on fire")
					run := func() (unlocked error) {
						held, err := locker.Lock(t.Context(), "report")
						if err != nil {
							return err
						}
						defer func() {
							recover()
							unlocked = held.Unlock(t.Context())
						}()
						require.ErrorIs(t, locker.Func("report", func(context.Context) error {
							fails()
							return fire
						})(t.Context()), fire)
						return nil
					}
					if how == "returns" {
						require.ErrorIs(t, run(), fire)
					} else {
						require.ErrorContains(t, run(), "panicked")
					}
					require.Len(t, f.Errs(), 1)
					var already *lock.ErrAlreadyRun
					require.Equal(t, !retry, errors.As(run(), &already))
				})
			})
		}
	}
}

// gocron calls the task some time after it has acquired the lock: the lease may be over by then.
func TestLocker_Func_lease_over(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewMemory(lock.Options{}))
		locker := f.locker(t, locktick.Every(time.Hour), time.Now)
		held, err := locker.Lock(t.Context(), "report")
		require.NoError(t, err)
		s, err := f.Lock.Status(t.Context(), "shop", "report")
		require.NoError(t, err)
		require.NoError(t, f.Lock.ForceRelease(t.Context(), "shop", "report", s.Holder))
		time.Sleep(time.Minute)
		require.ErrorIs(t, locker.Func("report",
			func(context.Context) error { panic("it is called") })(t.Context()), lock.ErrLost)
		require.ErrorIs(t, held.Unlock(t.Context()), lock.ErrLost)
	})
}

func TestLocker_Func_lost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewMemory(lock.Options{}))
		clock := newSkewedClock(0)
		locker := f.locker(t, crontab(t, "0 * * * * *"), clock.Now)
		ended := make(chan error, 1)
		sched := scheduler(t, clock, gocron.CronJob("0 * * * * *", true),
			locker.Func("report", func(ctx context.Context) error {
				s, err := f.Lock.Status(ctx, "shop", "report")
				if err == nil {
					err = f.Lock.ForceRelease(ctx, "shop", "report", s.Holder)
				}
				if err == nil {
					<-ctx.Done()
					err = context.Cause(ctx)
				}
				ended <- err
				return nil
			}), gocron.WithDistributedLocker(locker))
		require.ErrorIs(t, <-ended, lock.ErrLost)
		require.NoError(t, sched.Shutdown())
		require.Equal(t, 1, f.Told()[locktick.Ran])
		require.ErrorIs(t, f.Errs()[0], lock.ErrLost)
	})
}

func TestLocker_shutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewMemory(lock.Options{}))
		clock := newSkewedClock(0)
		locker := f.locker(t, crontab(t, "0 * * * * *"), clock.Now,
			func(g *locktick.Guard) { g.Job.TTL = 3 * time.Second })
		began, goOn := make(chan struct{}), make(chan struct{})
		sched := scheduler(t, clock, gocron.CronJob("0 * * * * *", true),
			locker.Func("report", func(ctx context.Context) error {
				close(began)
				<-ctx.Done() // ended by gocron
				<-goOn
				return ctx.Err()
			}), gocron.WithDistributedLocker(locker), gocron.WithStopTimeout(time.Minute))
		<-began
		down := make(chan error, 1)
		go func() { down <- sched.StopJobs() }()
		lease, err := f.Lock.Status(t.Context(), "shop", "report")
		require.NoError(t, err)
		require.True(t, lease.Locked)
		close(goOn)
		require.NoError(t, <-down)
		require.NoError(t, sched.Shutdown())
		require.Equal(t, map[locktick.Outcome]int{locktick.Stopped: 1}, f.Told(), "it is no error")
		s, err := f.Lock.Status(t.Context(), "shop", "report")
		require.NoError(t, err)
		require.False(t, s.Locked)
	})
}

// ended is a context that has ended, as gocron's has when it shuts down.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestLocker_Lock_context(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewMemory(lock.Options{}))
		locker := f.locker(t, locktick.Every(time.Hour), time.Now)
		ctx, shutDown := context.WithCancel(t.Context())
		held, err := locker.Lock(ctx, "report")
		require.NoError(t, err)
		shutDown()
		time.Sleep(time.Hour) // MaxDuration is less
		require.ErrorAs(t, f.Lock.Lock("shop", "other", "report", "x", 30*time.Second),
			new(*lock.ErrUnauthorised))

		require.NoError(t, held.Unlock(ended()))
		require.NoError(t, held.Unlock(ended()), "once more")
		require.NoError(t, f.Lock.Lock("shop", "other", "report", "x", 30*time.Second))
		require.ErrorContains(t, locker.Func("report", nil)(t.Context()), "without a lock")
	})
}

func TestLocker_Lock_waiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewMemory(lock.Options{}))
		locker := f.locker(t, locktick.Every(time.Hour), time.Now, func(g *locktick.Guard) {
			g.Job.Wait, g.Job.TTL = lock.Forever, lock.Forever
		})
		require.NoError(t, f.Lock.Lock("shop", "other", "report", "x", 0))
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, errors.New("gocron shuts down"))
		defer cancel()
		_, err := locker.Lock(ctx, "report")
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, map[locktick.Outcome]int{locktick.Stopped: 1}, f.Told())
	})
}

package lockgocron_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/lockgocron"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

func TestEachTickIsRunOnceWhateverTheClocksSay(t *testing.T) {
	for name, test := range map[string]struct {
		crontab string
		lasts   time.Duration
		takes   time.Duration
		wait    time.Duration
	}{
		"every minute":                           {"0 * * * * *", 30 * time.Minute, time.Second, 0},
		"several within what clocks differ":      {"* * * * * *", time.Minute, 100 * time.Millisecond, 900 * time.Millisecond},
		"runs that outlive the longest":          {"0 */10 * * * *", 2 * time.Hour, 9 * time.Minute, 0},
		"uneven ones, run before the last clock": {"0 0,1,17,48 3-5,14 * * *", 48 * time.Hour, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(lock.NewMemory(lock.Options{}))
				f.wait = test.wait
				s := crontab(t, test.crontab)
				start := time.Now()
				over := make(chan struct{})
				for _, ahead := range skews {
					clock := newSkewedClock(ahead)
					locker := f.locker(s, clock.Now)
					task := locker.Func("report", func(ctx context.Context) error {
						f.ran(lock.LeaseFrom(ctx).Job().JobID)
						select {
						case <-time.After(test.takes):
						case <-over:
						}
						return nil
					})
					sched := scheduler(t, clock, gocron.CronJob(test.crontab, true), task, gocron.WithDistributedLocker(locker))
					defer sched.Shutdown()
				}
				defer close(over) // gocron waits for its jobs in a loop that doesn't let the bubble's time pass
				time.Sleep(test.lasts)
				synctest.Wait()
				// The first two seconds are those of instances that begin at once with different ticks.
				f.requireEachOnce(t, s, start.Add(6*time.Second), start.Add(test.lasts-5*time.Second))
				require.Positive(t, f.told[locktick.AlreadyRun])
			})
		})
	}
}

func TestADurationJobThatBeginsAtATickIsRunOnceATick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewMemory(lock.Options{}))
		every := locktick.Every(5 * time.Minute)
		start := time.Now()
		for _, ahead := range skews {
			clock := newSkewedClock(ahead)
			locker := f.locker(every, clock.Now)
			s, err := gocron.NewScheduler(gocron.WithClock(clock), gocron.WithDistributedLocker(locker))
			require.NoError(t, err)
			_, err = s.NewJob(gocron.DurationJob(time.Duration(every)), gocron.NewTask(locker.Func("report", func(ctx context.Context) error {
				f.ran(lock.LeaseFrom(ctx).Job().JobID)
				return nil
			})), gocron.WithName("report"), gocron.WithStartAt(gocron.WithStartDateTime(every.Next(clock.Now()))))
			require.NoError(t, err)
			s.Start()
			defer s.Shutdown()
			time.Sleep(7 * time.Second) // not all at once
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		f.requireEachOnce(t, every, start.Add(time.Minute), start.Add(2*time.Hour))
	})
}

func TestAClockThatIsSteppedBackALittleLosesNoTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewMemory(lock.Options{}))
		clock := newSkewedClock(0)
		s := crontab(t, "0 * * * * *")
		locker := f.locker(s, clock.Now)
		start := time.Now()
		sched := scheduler(t, clock, gocron.CronJob("0 * * * * *", true), locker.Func("report", func(ctx context.Context) error {
			f.ran(lock.LeaseFrom(ctx).Job().JobID)
			return nil
		}), gocron.WithDistributedLocker(locker))
		defer sched.Shutdown()
		for range 20 {
			time.Sleep(time.Minute)
			clock.ahead.Add(-int64(900 * time.Millisecond)) // while gocron sleeps
		}
		synctest.Wait()
		f.requireEachOnce(t, s, start, clock.Now().Add(-time.Minute))
	})
}

func TestAJobThatIsNotInTheSchedulesNeedsSpacing(t *testing.T) {
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
					locker := f.locker(nil, clock.Now)
					locker.Schedules = nil
					locker.Guard.Job.Spacing = test.spacing
					sched := scheduler(t, clock, gocron.DurationJob(time.Minute), func() { f.ran("") }, gocron.WithDistributedLocker(locker))
					defer sched.Shutdown()
					time.Sleep(10 * time.Second)
				}
				time.Sleep(3 * time.Minute)
				synctest.Wait()
				require.Equal(t, test.runs, f.runs[""])
				require.Equal(t, test.spacing == 0, f.told[locktick.Failed] > 0)
				for _, err := range f.errs {
					require.ErrorContains(t, err, `job "report" is not in the Locker's Schedules`)
				}
			})
		})
	}
}

func TestWhatIsWrongWithALockerIsToldToGocronAndToTheReport(t *testing.T) {
	never, err := lockgocron.Crontab("0 0 30 2 *", false, nil)
	require.Error(t, err)
	require.Nil(t, never)

	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewMemory(lock.Options{}))
		clock := newSkewedClock(0)
		locker := f.locker(crontab(t, "* * * * * *"), clock.Now)
		locker.Guard.Job.JobName = "all of them"
		s, err := gocron.NewScheduler(gocron.WithClock(clock), gocron.WithDistributedLocker(locker))
		require.NoError(t, err)
		told := make(chan error, 1)
		_, err = s.NewJob(gocron.CronJob("* * * * * *", true), gocron.NewTask(func() { f.ran("") }), gocron.WithName("report"),
			gocron.WithEventListeners(gocron.AfterLockError(func(_ uuid.UUID, _ string, err error) {
				select {
				case told <- err:
				default:
				}
			})))
		require.NoError(t, err)
		s.Start()
		defer s.Shutdown()
		require.ErrorContains(t, <-told, `has the JobName "all of them"`)
		f.mu.Lock()
		defer f.mu.Unlock()
		require.ErrorContains(t, f.errs[0], `has the JobName "all of them"`)
		require.Empty(t, f.runs)
	})
}

func TestTheContextOfATaskEndsWhenTheLeaseIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewMemory(lock.Options{}))
		clock := newSkewedClock(0)
		locker := f.locker(crontab(t, "0 * * * * *"), clock.Now)
		ended := make(chan error, 1)
		sched := scheduler(t, clock, gocron.CronJob("0 * * * * *", true), locker.Func("report", func(ctx context.Context) error {
			s, err := f.lock.Status(ctx, "shop", "report")
			if err == nil {
				err = f.lock.ForceRelease(ctx, "shop", "report", s.Holder)
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
		require.Equal(t, 1, f.told[locktick.Ran])
		require.ErrorIs(t, f.errs[0], lock.ErrLost)
	})
}

func TestTheLockIsKeptWhileGocronShutsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewMemory(lock.Options{}))
		clock := newSkewedClock(0)
		locker := f.locker(crontab(t, "0 * * * * *"), clock.Now)
		locker.Guard.Job.TTL = 3 * time.Second
		began, goOn := make(chan struct{}), make(chan struct{})
		sched := scheduler(t, clock, gocron.CronJob("0 * * * * *", true), locker.Func("report", func(ctx context.Context) error {
			close(began)
			<-ctx.Done() // ended by gocron
			<-goOn
			return nil
		}), gocron.WithDistributedLocker(locker), gocron.WithStopTimeout(time.Minute))
		<-began
		down := make(chan error, 1)
		go func() { down <- sched.StopJobs() }()
		lease, err := locker.Guard.Lock.Status(t.Context(), "shop", "report")
		require.NoError(t, err)
		require.True(t, lease.Locked)
		close(goOn)
		require.NoError(t, <-down)
		require.NoError(t, sched.Shutdown())
		require.Empty(t, f.errs)
		s, err := f.lock.Status(t.Context(), "shop", "report")
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

func TestALockIsRenewedAndReleasedAfterTheContextOfGocronHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewMemory(lock.Options{}))
		locker := f.locker(locktick.Every(time.Hour), time.Now)
		ctx, shutDown := context.WithCancel(t.Context())
		held, err := locker.Lock(ctx, "report")
		require.NoError(t, err)
		shutDown()
		time.Sleep(time.Hour) // MaxDuration is less
		require.ErrorAs(t, f.lock.Lock("shop", "other", "report", "x", 30*time.Second), new(*lock.ErrUnauthorised))

		require.NoError(t, held.Unlock(ended()))
		require.NoError(t, held.Unlock(ended()), "once more")
		require.NoError(t, f.lock.Lock("shop", "other", "report", "x", 30*time.Second))
		require.ErrorContains(t, locker.Func("report", nil)(t.Context()), "without a lock")
	})
}

func TestALockIsNotWaitedForAfterTheContextOfGocronHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewMemory(lock.Options{}))
		locker := f.locker(locktick.Every(time.Hour), time.Now)
		locker.Guard.Job.Wait = -1
		require.NoError(t, f.lock.Lock("shop", "other", "report", "x", 0))
		locker.Guard.Job.TTL = 0
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, errors.New("gocron shuts down"))
		defer cancel()
		_, err := locker.Lock(ctx, "report")
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 1, f.told[locktick.Failed])
	})
}

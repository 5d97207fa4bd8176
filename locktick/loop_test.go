package locktick_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

// loops runs a loop for each instance until the bubble's clock has gone on by d.
func (f *fleet) loops(t *testing.T, s locktick.Schedule, d time.Duration, job func(ctx context.Context) error) {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var all sync.WaitGroup
	for _, skew := range skews {
		all.Go(func() { require.ErrorIs(t, f.guard(skew).Loop(ctx, s, job), context.DeadlineExceeded) })
	}
	all.Wait()
}

func TestALoopRunsEachTickOnceWhateverTheClocksSay(t *testing.T) {
	for name, test := range map[string]struct {
		every locktick.Every
		takes time.Duration
		wait  time.Duration
	}{
		"a period longer than the clocks differ":         {locktick.Every(time.Minute), time.Second, 0},
		"several ticks within what the clocks differ":    {locktick.Every(time.Second), 100 * time.Millisecond, 900 * time.Millisecond},
		"runs that end just before the next tick":        {locktick.Every(20 * time.Second), 19 * time.Second, 0},
		"runs that outlive the longest lock, renewed":    {locktick.Every(5 * time.Minute), 4 * time.Minute, 0},
		"runs that end before the last clock gets there": {locktick.Every(15 * time.Minute), 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(lock.NewLocal(nil))
				f.wait = test.wait
				start := time.Now().UTC()
				end := start.Add(30 * time.Duration(test.every))
				f.loops(t, test.every, end.Sub(start), func(ctx context.Context) error {
					time.Sleep(test.takes)
					return f.run(ctx)
				})
				// The instances begin at once, with different ticks: only one of these is run. The last ones are cut short.
				first := test.every.Next(test.every.Next(start.Add(4 * time.Second)))
				f.requireEachOnce(t, test.every, first, end.Add(-test.takes-time.Second))
				require.Positive(t, f.told[locktick.AlreadyRun])
			})
		})
	}
}

func TestATickThatIsDueDuringARunWaitsIfItIsToldTo(t *testing.T) {
	for name, test := range map[string]struct {
		wait time.Duration
		runs int
	}{
		"no": {0, 3}, "yes": {-1, 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := lock.NewLocal(nil)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+30*time.Second)
				defer cancel()
				var runs, held atomic.Int64
				var all sync.WaitGroup
				for range 3 {
					guard := locktick.Guard{
						Lock: l,
						Job:  lock.Job{ComponentName: "shop", JobName: "report", MaxDuration: 30 * time.Second, Wait: test.wait},
						Report: func(_ context.Context, r locktick.Result) {
							if r.Outcome == locktick.Held {
								held.Add(1)
							}
						},
					}
					all.Go(func() {
						guard.Loop(ctx, locktick.Every(time.Minute), func(context.Context) error {
							runs.Add(1)
							time.Sleep(61 * time.Second)
							return nil
						})
					})
				}
				all.Wait()
				require.EqualValues(t, test.runs, runs.Load())
				require.Equal(t, test.wait == 0, held.Load() > 0)
			})
		})
	}
}

func TestALoopWaitsForTheWallClock(t *testing.T) {
	for name, test := range map[string]struct {
		every locktick.Every
		step  time.Duration // of the clock, half a minute after the start
		after time.Duration // the first tick fires, counted from the start of the loop
	}{
		"not stepped":               {locktick.Every(time.Minute), 0, time.Minute},
		"stepped back":              {locktick.Every(time.Minute), -5 * time.Second, time.Minute + 5*time.Second},
		"stepped far back":          {locktick.Every(time.Minute), -3 * time.Minute, 4 * time.Minute},
		"stepped beyond it":         {locktick.Every(time.Minute), 2 * time.Minute, time.Minute},
		"stepped beyond a far one":  {locktick.Every(time.Hour), 2 * time.Hour, time.Minute}, // it looks once a minute
		"stepped towards a far one": {locktick.Every(time.Hour), 30 * time.Minute, 30 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				ctx, cancel := context.WithCancel(t.Context())
				var first string
				var after time.Duration
				guard := newFleet(lock.NewLocal(nil)).guard(0)
				guard.Now = func() time.Time {
					now := time.Now()
					if now.Sub(start) >= 30*time.Second {
						now = now.Add(test.step)
					}
					return now
				}
				guard.Loop(ctx, test.every, func(ctx context.Context) error {
					first, after = lock.LeaseFrom(ctx).Job().JobID, time.Since(start)
					cancel()
					return nil
				})
				require.Equal(t, lock.Tick(test.every.Next(start)), first)
				require.Equal(t, test.after, after)
			})
		})
	}
}

func TestAClockThatStepsBackRunsNoTickAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewLocal(nil))
		var back atomic.Int64
		guard := f.guard(0)
		guard.Now = func() time.Time { return time.Now().Add(-time.Duration(back.Load())) }
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		guard.Loop(ctx, locktick.Every(time.Minute), func(ctx context.Context) error {
			back.Add(int64(2 * time.Second)) // within each run
			return f.run(ctx)
		})
		require.Len(t, f.runs, 9)
		require.Equal(t, 9, f.told[locktick.AlreadyRun])
		for tick, times := range f.runs {
			require.Equal(t, 1, times, tick)
		}
	})
}

func TestALoopSaysWhatIsWrongWithIt(t *testing.T) {
	l := lock.NewLocal(nil)
	for name, test := range map[string]struct {
		guard    locktick.Guard
		schedule locktick.Schedule
		says     string
	}{
		"no lock":      {locktick.Guard{Job: lock.Job{JobName: "report"}}, locktick.Every(time.Hour), "no Lock"},
		"no job name":  {locktick.Guard{Lock: l}, locktick.Every(time.Hour), "no JobName"},
		"a job ID":     {locktick.Guard{Lock: l, Job: lock.Job{JobName: "report", JobID: "7"}}, locktick.Every(time.Hour), `JobID "7"`},
		"never a tick": {locktick.Guard{Lock: l, Job: lock.Job{JobName: "report"}}, locktick.Every(0), "no tick after"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.guard.Loop(t.Context(), test.schedule, func(context.Context) error { return errors.New("run") })
			require.ErrorContains(t, err, test.says)
		})
	}
}

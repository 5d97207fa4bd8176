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
	"github.com/cloudtrust/go-jobs/lock/internal/ticktest"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

// loops runs a loop for each instance until the bubble's clock has gone on by d.
func loops(t *testing.T, f *ticktest.Fleet, skews []time.Duration, s locktick.Schedule,
	d time.Duration, job func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for _, skew := range skews {
		all.Go(func() { require.ErrorIs(t, f.Guard(skew).Loop(ctx, s, job), context.Canceled) })
	}
	time.Sleep(d)
	cancel()
	all.Wait()
}

func TestGuard_Loop_clocks(t *testing.T) {
	for name, test := range map[string]struct {
		every locktick.Every
		takes time.Duration
		wait  time.Duration
	}{
		"a period longer than the clocks differ": {locktick.Every(time.Minute), time.Second, 0},
		"several ticks within what the clocks differ": {locktick.Every(time.Second),
			100 * time.Millisecond, 900 * time.Millisecond},
		"runs that end just before the next tick": {locktick.Every(20 * time.Second),
			19 * time.Second, 0},
		"runs that outlive the longest lock, renewed": {locktick.Every(5 * time.Minute),
			4 * time.Minute, 0},
		"runs that end before the last clock gets there": {locktick.Every(15 * time.Minute), 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := ticktest.NewFleet(lock.NewMemory(lock.Options{}))
				f.Wait = test.wait
				start := time.Now().UTC()
				end := start.Add(30 * time.Duration(test.every))
				loops(t, f, ticktest.Skews, test.every, end.Sub(start), func(ctx context.Context) error {
					select {
					case <-time.After(test.takes):
						return f.Run(ctx)
					case <-ctx.Done():
						return ctx.Err()
					}
				})
				// The instances begin at once, with different ticks: only one of these is run.
				// The last ones are cut short.
				first := test.every.Next(start.Add(4 * time.Second))
				f.RequireEachOnce(t, test.every, first, end.Add(-test.takes-time.Second+1))
				require.Positive(t, f.Told()[locktick.AlreadyRun]+f.Told()[locktick.Running])
			})
		})
	}
}

// One clock is a day ahead and one a day behind, for as long as the fleet lives.
func TestGuard_Loop_clocks_a_day_off(t *testing.T) {
	const day = 24 * time.Hour
	for _, every := range []locktick.Every{locktick.Every(5 * time.Minute),
		locktick.Every(6 * time.Hour)} {
		synctest.Test(t, func(t *testing.T) {
			f := ticktest.NewFleet(lock.NewMemory(lock.Options{}))
			start := time.Now().UTC()
			end := start.Add(5 * day)
			loops(t, f, []time.Duration{day, 0, -day, time.Second, day + time.Hour}, every, end.Sub(start),
				f.Run)
			f.RequireEachOnce(t, every, start, end.Add(-time.Duration(every)+1))
			due := int(5 * day / time.Duration(every))
			require.InDelta(t, 2*due, f.Told()[locktick.Ahead], 2,
				"those that are ahead are told so, with each tick")
			require.Len(t, f.Runs(), f.Told()[locktick.Ran])
		})
	}
}

func TestGuard_Loop_Wait(t *testing.T) {
	for name, test := range map[string]struct {
		wait time.Duration
		runs int
	}{
		"no": {0, 3}, "yes": {lock.Forever, 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := lock.NewMemory(lock.Options{})
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+30*time.Second)
				defer cancel()
				var runs, held atomic.Int64
				var all sync.WaitGroup
				for range 3 {
					guard := locktick.Guard{
						Lock: l,
						Job: lock.Job{ComponentName: "shop", JobName: "report", TTL: 30 * time.Second,
							Wait: test.wait},
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

func TestGuard_Loop_wall_clock(t *testing.T) {
	for name, test := range map[string]struct {
		every locktick.Every
		step  time.Duration // of the clock, half a minute after the start
		after time.Duration // the first tick fires, counted from the start of the loop
	}{
		"not stepped": {locktick.Every(time.Minute), 0, time.Minute},
		"stepped back": {locktick.Every(time.Minute), -5 * time.Second, time.Minute +
			5*time.Second},
		"stepped far back":  {locktick.Every(time.Minute), -3 * time.Minute, 4 * time.Minute},
		"stepped beyond it": {locktick.Every(time.Minute), 2 * time.Minute, time.Minute},
		// it looks once a minute
		"stepped beyond a far one":  {locktick.Every(time.Hour), 2 * time.Hour, time.Minute},
		"stepped towards a far one": {locktick.Every(time.Hour), 30 * time.Minute, 30 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				ctx, cancel := context.WithCancel(t.Context())
				var first string
				var after time.Duration
				now := func() time.Time {
					now := time.Now()
					if now.Sub(start) >= 30*time.Second {
						now = now.Add(test.step)
					}
					return now
				}
				guard := ticktest.NewFleet(lock.NewMemory(lock.Options{Clock: now})).Guard(0)
				guard.Now = now
				guard.Loop(ctx, test.every, func(ctx context.Context) error {
					first, after = lock.LeaseFrom(ctx).Job().JobID, time.Since(start)
					cancel()
					return nil
				})
				require.Equal(t, ticktest.TickName(test.every.Next(start)), first)
				require.Equal(t, test.after, after)
			})
		})
	}
}

func TestGuard_Loop_clock_stepped_back(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := ticktest.NewFleet(lock.NewMemory(lock.Options{}))
		var back atomic.Int64
		guard := f.Guard(0)
		guard.Now = func() time.Time { return time.Now().Add(-time.Duration(back.Load())) }
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		guard.Loop(ctx, locktick.Every(time.Minute), func(ctx context.Context) error {
			back.Add(int64(2 * time.Second)) // within each run
			return f.Run(ctx)
		})
		require.Len(t, f.Runs(), 9)
		require.Equal(t, 9, f.Told()[locktick.AlreadyRun])
		for tick, times := range f.Runs() {
			require.Equal(t, 1, times, tick)
		}
	})
}

// since is the schedule of a ticker: its ticks count from when it is asked.
type since time.Duration

func (s since) Next(t time.Time) time.Time {
	return t.Add(time.Duration(s) - time.Duration(t.Nanosecond()))
}

func TestGuard_Check(t *testing.T) {
	l := lock.NewMemory(lock.Options{})
	report := lock.Job{JobName: "report"}
	job := func(change func(j *lock.Job)) locktick.Guard {
		g := locktick.Guard{Lock: l, Job: report}
		change(&g.Job)
		return g
	}
	hourly := locktick.Every(time.Hour)
	for name, test := range map[string]struct {
		guard    locktick.Guard
		schedule locktick.Schedule
		says     string // nothing: all is well
	}{
		"well":                     {locktick.Guard{Lock: l, Job: report}, hourly, ""},
		"well, every second":       {locktick.Guard{Lock: l, Job: report}, since(time.Second), ""},
		"well, without a schedule": {job(func(j *lock.Job) { j.Spacing = time.Second }), nil, ""},
		"no lock":                  {locktick.Guard{Job: report}, hourly, "no Lock"},
		"no job name":              {locktick.Guard{Lock: l}, hourly, "no JobName"},
		"a job ID": {job(func(j *lock.Job) { j.JobID = "7" }), hourly,
			"a JobID or a Tick"},
		"a tick": {job(func(j *lock.Job) { j.Tick = noon }), hourly,
			"a JobID or a Tick"},
		"never a tick": {locktick.Guard{Lock: l, Job: report}, locktick.Every(0),
			"no tick after"},
		"no ticks in common": {locktick.Guard{Lock: l, Job: report}, since(5 * time.Second),
			"begins when the process starts"},
		"neither schedule nor spacing": {locktick.Guard{Lock: l, Job: report}, nil, "no Spacing"},
		"both schedule and spacing": {job(func(j *lock.Job) { j.Spacing = time.Second }), hourly,
			"must have no Spacing"},
		"nothing to retry, no schedule": {job(func(j *lock.Job) {
			j.Spacing, j.RetryFailed = time.Second,
				true
		}), nil, "must not have RetryFailed"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.guard.Check(test.schedule)
			if test.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.says)
			if test.schedule != nil {
				err = test.guard.Loop(t.Context(), test.schedule,
					func(context.Context) error { return errors.New("run") })
				require.ErrorContains(t, err, test.says)
			}
		})
	}
}

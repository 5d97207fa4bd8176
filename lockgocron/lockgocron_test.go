package lockgocron_test

import (
	"context"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
	"github.com/cloudtrust/go-jobs/lock/lockgocron"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

// A skewedClock is the clock of an instance, ahead of the bubble's.
type skewedClock struct {
	clockwork.Clock
	ahead atomic.Int64
}

func newSkewedClock(ahead time.Duration) *skewedClock {
	c := &skewedClock{Clock: clockwork.NewRealClock()}
	c.ahead.Store(int64(ahead))
	return c
}

func (c *skewedClock) Now() time.Time { return c.Clock.Now().Add(time.Duration(c.ahead.Load())) }

// skews are how far the clocks of the instances are ahead.
var skews = []time.Duration{0, 3 * time.Second, -4 * time.Second, 2500 * time.Millisecond,
	-time.Millisecond, 4 * time.Second, -1700 * time.Millisecond, time.Millisecond,
	-3 * time.Second, 800 * time.Millisecond, -time.Second, 1900 * time.Millisecond}

// A fleet has the runs and outcomes of its instances.
type fleet struct {
	lock *lock.Lock
	wait time.Duration // of the lock.Job

	mu   sync.Mutex
	runs map[string]int // how often a tick was run
	told map[locktick.Outcome]int
	errs []error // of Ran and Failed
}

func newFleet(l *lock.Lock) *fleet {
	return &fleet{lock: l, runs: map[string]int{}, told: map[locktick.Outcome]int{}}
}

// locker returns the Locker of an instance.
func (f *fleet) locker(t *testing.T, s locktick.Schedule, now func() time.Time,
	change ...func(g *locktick.Guard)) *lockgocron.Locker {
	guard := locktick.Guard{
		Lock: f.lock,
		Job:  lock.Job{ComponentName: "shop", TTL: 30 * time.Second, Wait: f.wait},
		Now:  now,
		Report: func(_ context.Context, r locktick.Result) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.told[r.Outcome]++
			if r.Err != nil && (r.Outcome == locktick.Ran || r.Outcome == locktick.Failed) {
				f.errs = append(f.errs, r.Err)
			}
		},
	}
	for _, c := range change {
		c(&guard)
	}
	l, err := lockgocron.NewLocker(guard)
	require.NoError(t, err)
	if s != nil {
		require.NoError(t, l.Schedule("report", s))
	}
	return l
}

// tickName is the name of a tick in the row.
func tickName(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// ran counts a run of a tick.
func (f *fleet) ran(tick string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.runs[tick]++
}

// ticks returns which ticks were run.
func (f *fleet) ticks() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.runs))
}

// requireEachOnce requires that every tick after first and before last was run, and none twice.
func (f *fleet) requireEachOnce(t *testing.T, s locktick.Schedule, first, last time.Time) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Empty(t, f.errs)
	ticks := 0
	for tick := s.Next(first); tick.Before(last); tick = s.Next(tick) {
		require.Contains(t, f.runs, tickName(tick), "never run")
		ticks++
	}
	require.Greater(t, ticks, 2)
	for tick, times := range f.runs {
		require.Equal(t, 1, times, tick)
	}
}

// scheduler starts a scheduler with a job called report.
func scheduler(t *testing.T, clock clockwork.Clock, definition gocron.JobDefinition, task any,
	options ...gocron.SchedulerOption) gocron.Scheduler {
	s, err := gocron.NewScheduler(append(options, gocron.WithClock(clock),
		gocron.WithLocation(time.UTC))...)
	require.NoError(t, err)
	_, err = s.NewJob(definition, gocron.NewTask(task), gocron.WithName("report"))
	require.NoError(t, err)
	s.Start()
	return s
}

func crontab(t *testing.T, c string) locktick.Schedule {
	s, err := lockgocron.Crontab(c, true, time.UTC)
	require.NoError(t, err)
	return s
}

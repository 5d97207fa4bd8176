// Package ticktest has a fleet for tests of what fires ticks.
package ticktest

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

// Skews are how far the clocks of the instances are ahead.
var Skews = []time.Duration{0, 3 * time.Second, -4 * time.Second, 2500 * time.Millisecond,
	-time.Millisecond, 4 * time.Second, -1700 * time.Millisecond, time.Millisecond,
	-3 * time.Second, 800 * time.Millisecond, -time.Second, 1900 * time.Millisecond}

// TickName returns the name of a tick in the row.
func TickName(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// A Fleet has the runs and outcomes of its instances. It is safe for concurrent use.
type Fleet struct {
	Lock *lock.Lock
	Wait time.Duration // of the lock.Job

	mu   sync.Mutex
	runs map[string]int // how often a tick was run
	told map[locktick.Outcome]int
	errs []error // of Ran and Failed
}

// NewFleet returns a fleet that shares a lock.
func NewFleet(l *lock.Lock) *Fleet {
	return &Fleet{Lock: l, runs: map[string]int{}, told: map[locktick.Outcome]int{}}
}

// Guard returns the guard of an instance whose clock is ahead.
func (f *Fleet) Guard(ahead time.Duration) locktick.Guard {
	return locktick.Guard{
		Lock: f.Lock,
		Job: lock.Job{ComponentName: "shop", JobName: "report", ComponentID: "all the same",
			TTL: 30 * time.Second, Wait: f.Wait},
		Report: f.tell,
		Now:    func() time.Time { return time.Now().Add(ahead) },
	}
}

func (f *Fleet) tell(_ context.Context, r locktick.Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told[r.Outcome]++
	if r.Err != nil && (r.Outcome == locktick.Ran || r.Outcome == locktick.Failed) {
		f.errs = append(f.errs, r.Err)
	}
}

// Run is the job: it counts the tick that its lease is for.
func (f *Fleet) Run(ctx context.Context) error {
	f.Ran(lock.LeaseFrom(ctx).Job().JobID)
	return nil
}

// Ran counts a run of a tick.
func (f *Fleet) Ran(tick string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.runs[tick]++
}

// Runs returns how often each tick was run.
func (f *Fleet) Runs() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.runs)
}

// Told returns how often each outcome was told.
func (f *Fleet) Told() map[locktick.Outcome]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.told)
}

// Errs returns the errors of those that were Ran or Failed.
func (f *Fleet) Errs() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.errs)
}

// Ticks returns which ticks were run.
func (f *Fleet) Ticks() []string { return slices.Sorted(maps.Keys(f.Runs())) }

// RequireEachOnce requires that every tick after first and before last was run, and none twice.
func (f *Fleet) RequireEachOnce(t *testing.T, s locktick.Schedule, first, last time.Time) {
	t.Helper()
	require.Empty(t, f.Errs())
	runs := f.Runs()
	ticks := 0
	for tick := s.Next(first); tick.Before(last); tick = s.Next(tick) {
		require.Contains(t, runs, TickName(tick), "never run")
		ticks++
	}
	require.Greater(t, ticks, 2)
	for tick, times := range runs {
		require.Equal(t, 1, times, tick)
	}
}

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

// A Fleet has the runs and outcomes of its instances. The fields are for when none of them is at
// work.
type Fleet struct {
	Lock *lock.Lock
	Wait time.Duration // of the lock.Job

	Runs map[string]int // how often a tick was run
	Told map[locktick.Outcome]int
	Errs []error // of Ran and Failed
	mu   sync.Mutex
}

// NewFleet returns a fleet that shares a lock.
func NewFleet(l *lock.Lock) *Fleet {
	return &Fleet{Lock: l, Runs: map[string]int{}, Told: map[locktick.Outcome]int{}}
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
	f.Told[r.Outcome]++
	if r.Err != nil && (r.Outcome == locktick.Ran || r.Outcome == locktick.Failed) {
		f.Errs = append(f.Errs, r.Err)
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
	f.Runs[tick]++
}

// Outcomes returns Told while instances are at work.
func (f *Fleet) Outcomes() map[locktick.Outcome]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.Told)
}

// Ticks returns which ticks were run.
func (f *Fleet) Ticks() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.Runs))
}

// RequireEachOnce requires that every tick after first and before last was run, and none twice.
func (f *Fleet) RequireEachOnce(t *testing.T, s locktick.Schedule, first, last time.Time) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Empty(t, f.Errs)
	ticks := 0
	for tick := s.Next(first); tick.Before(last); tick = s.Next(tick) {
		require.Contains(t, f.Runs, TickName(tick), "never run")
		ticks++
	}
	require.Greater(t, ticks, 2)
	for tick, times := range f.Runs {
		require.Equal(t, 1, times, tick)
	}
}

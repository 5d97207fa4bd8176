package locktick_test

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

// A fleet has instances whose clocks differ, with their runs and outcomes.
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

// skews are how far the clocks of the instances are ahead.
var skews = []time.Duration{0, 3 * time.Second, -4 * time.Second, 2500 * time.Millisecond,
	-time.Millisecond, 4 * time.Second, -1700 * time.Millisecond, time.Millisecond,
	-3 * time.Second, 800 * time.Millisecond, -time.Second, 1900 * time.Millisecond}

func (f *fleet) guard(skew time.Duration) locktick.Guard {
	return locktick.Guard{
		Lock: f.lock,
		Job: lock.Job{ComponentName: "shop", JobName: "report", ComponentID: "all the same",
			TTL: 30 * time.Second, Wait: f.wait},
		Report: f.tell,
		Now:    func() time.Time { return time.Now().Add(skew) },
	}
}

func (f *fleet) tell(_ context.Context, r locktick.Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told[r.Outcome]++
	if r.Err != nil && (r.Outcome == locktick.Ran || r.Outcome == locktick.Failed) {
		f.errs = append(f.errs, r.Err)
	}
}

// run is the job: it counts the tick that its lease is for.
func (f *fleet) run(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.runs[lock.LeaseFrom(ctx).Job().JobID]++
	return nil
}

// requireEachOnce requires that every tick from first to last was run, and none twice.
func (f *fleet) requireEachOnce(t *testing.T, s locktick.Schedule, first, last time.Time) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Empty(t, f.errs)
	for tick := first; !tick.After(last); tick = s.Next(tick) {
		require.Contains(t, f.runs, tickName(tick), "never run")
	}
	for _, tick := range slices.Sorted(maps.Keys(f.runs)) {
		require.Equal(t, 1, f.runs[tick], tick)
	}
}

// tickName is the name of a tick in the row.
func tickName(t time.Time) string { return t.UTC().Format(time.RFC3339) }

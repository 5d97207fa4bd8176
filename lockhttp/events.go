package lockhttp

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

const (
	mostChanges   = 50    // as many handovers are remembered
	mostDurations = 10000 // for as many jobs the longest duration is remembered
)

// Events remembers what the observer of a lock is told, for the page of [Options]: the longest duration that this process
// states for each job, the last one of 10000 jobs, and the last 50 takeovers by this process. What other processes do is not
// among it. The zero Events is ready; it must not be copied. It is safe for concurrent use.
type Events struct {
	mu        sync.Mutex
	durations map[name]time.Duration
	takeovers []handover // the latest first
}

// name is of a lock.
type name struct{ component, job string }

// Observe takes in an event. It is what [lock.Options.Observer] takes; call it from your own, if you have one. It doesn't block.
func (e *Events) Observe(_ context.Context, event lock.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := name{event.ComponentName, event.JobName}
	switch {
	case event.MaxDuration > 0:
		if _, ok := e.durations[n]; !ok && len(e.durations) >= mostDurations {
			for other := range e.durations { // some other one
				delete(e.durations, other)
				break
			}
		}
		if e.durations == nil {
			e.durations = map[name]time.Duration{}
		}
		e.durations[n] = event.MaxDuration
	case event.Call == "Lock" || event.Call == "Acquire":
		delete(e.durations, n) // it has none any more
	}
	if event.Kind == lock.TakenOver {
		e.takeovers = latest(append([]handover{{
			name: n,
			at:   time.Now(),
			from: event.Holder,
			to:   lock.Holder{ComponentID: event.ComponentID, JobID: event.JobID, Since: time.UnixMicro(event.Token).UTC()},
		}}, e.takeovers...))
	}
}

// maxDuration returns what was stated last, or 0. A nil Events knows nothing.
func (e *Events) maxDuration(n name) time.Duration {
	if e == nil {
		return 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.durations[n]
}

func (e *Events) seen() []handover {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.takeovers)
}

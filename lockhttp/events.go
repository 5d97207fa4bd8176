package lockhttp

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

const (
	mostChanges = 50    // as many changes are remembered
	mostFacts   = 10000 // of as many locks something is remembered
	longestText = 4096  // of which the names have at most as many bytes together
)

// Events remembers what the observer of a lock is told, for the page of [Options]: the TTL that
// this process states for each job, whether its last call failed, the last change, for 10000
// locks; and the last 50 changes by this process. What other processes do is not in it, but for
// the changes of holder that the page has seen. The zero Events is ready; it must not be copied.
// It is safe for concurrent use.
type Events struct {
	mu    sync.Mutex
	facts map[name]fact
	last  []Change // the latest first
}

// name is of a lock.
type name struct{ component, job string }

// A fact is what is known of a lock.
type fact struct {
	ttl      time.Duration // 0: none is known
	failure  error         // of the last call; nil if it did not fail
	failedAt time.Time
	change   *Change
}

// An actor is who changes something with the page, in the context of the call.
type actor struct {
	name   string
	events *Events
	told   atomic.Bool // events have been
}

type actorKey struct{}

// Observe takes in an event. It is what [lock.Options.Observer] takes; [lock.Observers] combines
// it with others. It doesn't block.
func (e *Events) Observe(ctx context.Context, event lock.Event) {
	n := name{event.ComponentName, event.JobName}
	if len(n.component)+len(n.job) > longestText {
		return
	}
	now := time.Now().UTC()
	c := Change{Component: n.component, Job: n.job, What: string(event.Kind), At: now}
	if a, _ := ctx.Value(actorKey{}).(*actor); a != nil && a.events == e {
		a.told.Store(true)
		c.By = cut(a.name)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	f := e.facts[n]
	switch {
	case event.TTL > 0:
		f.ttl = event.TTL
	case event.Operation == "Lock" || event.Operation == "Acquire":
		f.ttl = 0
	}
	switch event.Kind {
	case lock.Failed, lock.Lost:
		if !errors.Is(event.Err, context.Canceled) { // a service that shuts down is no failure
			f.failure, f.failedAt = event.Err, now
		}
	default:
		f.failure = nil
	}
	run := &Run{event.ComponentID, event.JobID}
	switch {
	case event.Kind == lock.TakenOver:
		c.From, c.To = &Run{event.Holder.ComponentID, event.Holder.JobID}, run
	case event.Kind == lock.Released && event.Operation == "ForceRelease":
		c.From = run
	case event.Kind == lock.Enabled, event.Kind == lock.Disabled, event.Kind == lock.Deleted:
	default:
		e.learn(n, f)
		return
	}
	f.change = &c
	e.learn(n, f)
	e.remember(c)
}

// learn keeps a fact. The caller holds the mutex.
func (e *Events) learn(n name, f fact) {
	if f.ttl == 0 && f.failure == nil && f.change == nil {
		delete(e.facts, n)
		return
	}
	if _, ok := e.facts[n]; !ok && len(e.facts) >= mostFacts {
		for other := range e.facts { // any
			delete(e.facts, other)
			break
		}
	}
	if e.facts == nil {
		e.facts = map[name]fact{}
	}
	e.facts[n] = f
}

func (e *Events) known(n name) fact {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.facts[n]
}

func (e *Events) changes() []Change {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Change{}, e.last...)
}

// noticed takes in what two looks have shown.
func (e *Events) noticed(all []Change) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range all {
		e.remember(c)
	}
}

// remember keeps a change among the last. A takeover that this process has made itself is told
// once, and not also as the difference of two looks. The caller holds the mutex.
func (e *Events) remember(c Change) {
	same := func(other Change) bool { return other.sameHandover(c) }
	if i := slices.IndexFunc(e.last, same); i >= 0 {
		if c.What == changedHands {
			return
		}
		e.last = slices.Delete(e.last, i, i+1)
	}
	e.last = slices.Insert(e.last, 0, c)
	e.last = e.last[:min(len(e.last), mostChanges)]
}

// cut keeps the beginning of a text that is long.
func cut(s string) string {
	const most = 500
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

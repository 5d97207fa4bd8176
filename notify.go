package lock

import (
	"context"
	"sync"
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// A Notifier tells waiters in other processes about released locks, so that they need not poll
// often. It is a hint, not a promise: waiters still poll, more slowly. If a Notifier fails,
// blocks, loses, repeats or lies, a waiter looks too late or once too often, and nothing else
// happens. Its methods must be safe for concurrent use.
type Notifier interface {
	// Publish tells all subscribers, in all processes, that the lock of a job may be free. It is
	// called in the background, one call at a time.
	Publish(ctx context.Context, componentName, jobName string) error
	// Subscribe registers woken, which is called each time the lock of a job may be free and each
	// time a lost connection is restored, until stop is called. woken doesn't block.
	Subscribe(componentName, jobName string, woken func()) (stop func())
}

// publishTimeout limits how long a Notifier may take to publish.
const publishTimeout = 5 * time.Second

// maxPending limits how many releases wait to be published.
const maxPending = 1024

// A hub wakes the waiters of this process, and publishes its releases.
type hub struct {
	notifier Notifier // or nil

	mu         sync.Mutex
	queues     map[lockName]*queue
	pending    map[lockName]bool // still to be published
	publishing bool
}

type lockName struct{ component, job string }

// A queue is the waiters for one lock, in the order of their arrival.
type queue struct {
	waiting []*ticket
	stop    func() // ends the subscription
}

// A ticket is the place of a waiter in a queue.
type ticket struct {
	name lockName
	woke chan struct{} // holds a value if the lock may be free
}

func newHub(n Notifier) *hub {
	return &hub{notifier: n, queues: map[lockName]*queue{}, pending: map[lockName]bool{}}
}

// released wakes the first waiter of this process and publishes the release.
func (h *hub) released(r store.Request) {
	name := lockName{r.ComponentName, r.JobName}
	h.wake(name)
	if h.notifier == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.pending) < maxPending {
		h.pending[name] = true
	}
	if !h.publishing {
		h.publishing = true
		go h.publish()
	}
}

// publish publishes the pending releases, each lock once.
func (h *hub) publish() {
	for {
		h.mu.Lock()
		var name lockName
		for name = range h.pending {
			break
		}
		if len(h.pending) == 0 {
			h.publishing = false
			h.mu.Unlock()
			return
		}
		delete(h.pending, name)
		h.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), publishTimeout)
		h.notifier.Publish(ctx, name.component, name.job) // a hint: polling makes up for it
		cancel()
	}
}

// wake wakes the first waiter for a lock. The others stay: only one of them can acquire it.
func (h *hub) wake(name lockName) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if q := h.queues[name]; q != nil {
		q.waiting[0].wake()
	}
}

func (t *ticket) wake() {
	select {
	case t.woke <- struct{}{}:
	default: // it is about to look
	}
}

// join adds a waiter for a lock. The first one subscribes, in the background, since a Notifier
// may block.
func (h *hub) join(name lockName) *ticket {
	t := &ticket{name: name, woke: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.queues[name]
	if q == nil {
		q = &queue{}
		h.queues[name] = q
		if h.notifier != nil {
			ended := make(chan struct{})
			q.stop = func() { close(ended) }
			go func() {
				stop := h.notifier.Subscribe(name.component, name.job, func() { h.wake(name) })
				<-ended
				stop()
			}()
		}
	}
	q.waiting = append(q.waiting, t)
	return t
}

// leave removes a waiter. If it had been woken, the next one is woken.
func (h *hub) leave(t *ticket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.queues[t.name]
	for i, other := range q.waiting {
		if other == t {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			break
		}
	}
	if len(q.waiting) > 0 {
		if len(t.woke) > 0 {
			q.waiting[0].wake()
		}
		return
	}
	delete(h.queues, t.name)
	if q.stop != nil {
		q.stop()
	}
}

// first reports whether t is the first in its queue.
func (h *hub) first(t *ticket) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.queues[t.name].waiting[0] == t
}

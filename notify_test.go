package lock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// A bus is a Notifier within this process. deliver decides what happens to a message.
type bus struct {
	deliver func(woken []func()) error

	mu    sync.Mutex
	woken map[int]func()
	last  int
}

func (b *bus) Publish(context.Context, string, string) error {
	b.mu.Lock()
	var woken []func()
	for _, f := range b.woken {
		woken = append(woken, f)
	}
	b.mu.Unlock()
	return b.deliver(woken)
}

func (b *bus) Subscribe(_, _ string, woken func()) func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	id := b.last
	b.woken[id] = woken
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.woken, id)
	}
}

func tellAll(woken []func()) error {
	for _, f := range woken {
		f()
	}
	return nil
}

// A muteNotifier blocks in each call until it is closed.
type muteNotifier chan struct{}

func (m muteNotifier) Publish(context.Context, string, string) error { <-m; return nil }
func (m muteNotifier) Subscribe(string, string, func()) func()       { <-m; return func() {} }

// counted is a store that counts how often a lock was asked for.
type counted struct {
	store.Store
	asked atomic.Int64
}

func (c *counted) Acquire(ctx context.Context, r store.Request, cond store.Conditions) (
	store.Result, error) {
	c.asked.Add(1)
	return c.Store.Acquire(ctx, r, cond)
}

// A fleet has processes that share one table.
type fleet struct {
	table *counted
	bus   *bus
}

func newFleet(deliver func(woken []func()) error) *fleet {
	return &fleet{table: &counted{Store: store.NewMemory(time.Now)},
		bus: &bus{deliver: deliver, woken: map[int]func(){}}}
}

func (f *fleet) process(n Notifier) *Lock {
	return &Lock{store: f.table, hub: newHub(n), o: Options{Notifier: n}}
}

const poll = time.Hour

// waits acquires a lock in the background, and sends the lease when it has it.
func waits(t *testing.T, l *Lock) <-chan *Lease {
	acquired := make(chan *Lease, 1)
	go func() {
		le, err := l.Acquire(t.Context(), Job{ComponentName: "shop", JobName: "backup", TTL: Forever,
			Wait: Forever, Poll: poll})
		if err == nil {
			acquired <- le
		}
	}()
	synctest.Wait()
	return acquired
}

func TestNotifier(t *testing.T) {
	blocked := make(chan struct{})
	for name, c := range map[string]struct {
		deliver func(woken []func()) error
		told    bool // the waiter has the lock at once, not only when it looks again
	}{
		"tells":   {tellAll, true},
		"repeats": {func(woken []func()) error { tellAll(woken); return tellAll(woken) }, true},
		"fails":   {func([]func()) error { return errors.New("broken") }, false},
		"loses":   {func([]func()) error { return nil }, false},
		"blocks":  {func([]func()) error { <-blocked; return nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if name == "blocks" {
					blocked = make(chan struct{})
					defer func() { close(blocked); synctest.Wait() }()
				}
				f := newFleet(c.deliver)
				holder, waiter := f.process(f.bus), f.process(f.bus)
				require.NoError(t, holder.Lock("shop", "a", "backup", "1", 0))
				acquired := waits(t, waiter)
				start := time.Now()
				require.NoError(t, holder.Unlock("shop", "a", "backup", "1"))
				require.Zero(t, time.Since(start), "a release does not wait for the notifier")
				le := <-acquired
				if c.told {
					require.Zero(t, time.Since(start))
				} else {
					require.Greater(t, time.Since(start), time.Duration(0))
					require.LessOrEqual(t, time.Since(start), 2*poll)
				}
				require.NoError(t, le.Release(t.Context()))
			})
		})
	}
	t.Run("blocks in Subscribe", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(tellAll)
			mute := make(muteNotifier)
			holder, waiter := f.process(mute), f.process(mute)
			require.NoError(t, holder.Lock("shop", "a", "backup", "1", 0))
			acquired := waits(t, waiter)
			require.NoError(t, holder.Unlock("shop", "a", "backup", "1"))
			le := <-acquired
			require.NoError(t, le.Release(t.Context()))
			close(mute)
			synctest.Wait()
		})
	})
	t.Run("lies", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(tellAll)
			require.NoError(t, f.process(nil).Lock("shop", "a", "backup", "1", 0))
			ctx, cancel := context.WithCancel(t.Context())
			go f.process(f.bus).Acquire(ctx, Job{ComponentName: "shop", JobName: "backup", Wait: Forever,
				TTL: Forever})
			const seconds = 10
			for range seconds * 1000 { // a thousand times a second
				f.bus.Publish(ctx, "shop", "backup")
				time.Sleep(time.Millisecond)
			}
			require.Less(t, f.table.asked.Load(), int64(50*seconds))
			cancel()
			synctest.Wait()
		})
	})
}

func TestHub(t *testing.T) {
	t.Run("wakes in the order in which they came", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(tellAll)
			l := f.process(nil)
			require.NoError(t, l.Lock("shop", "a", "backup", "1", 0))
			var waiting []<-chan *Lease
			for range 100 {
				waiting = append(waiting, waits(t, l))
			}
			start := time.Now()
			f.table.asked.Store(0)
			require.NoError(t, l.Unlock("shop", "a", "backup", "1"))
			for i, acquired := range waiting {
				le := <-acquired
				require.Equal(t, int64(i+1), f.table.asked.Load(), "one statement for each handoff")
				require.NoError(t, le.Release(t.Context()))
			}
			require.Zero(t, time.Since(start))
		})
	})
	t.Run("one who leaves passes the word on", func(t *testing.T) {
		h := newHub(nil)
		name := lockName{"shop", "backup"}
		first, second := h.join(name), h.join(name)
		h.wake(name)
		h.leave(first)
		require.Len(t, second.woke, 1)
		h.leave(second)
		require.Empty(t, h.queues)
	})
	t.Run("a thousand who wait look a hundred times a second at most", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for _, c := range []struct {
				waiters, processes int
				most               int64 // looks a second
				notifier           bool
			}{{100, 1, 30, false}, {1000, 1, 100, false}, {100, 100, 30, true}, {1000, 1000, 100, true}} {
				f := newFleet(tellAll)
				require.NoError(t, f.process(nil).Lock("shop", "a", "backup", "1", 0))
				var n Notifier
				if c.notifier {
					n = f.bus
				}
				processes := make([]*Lock, c.processes)
				for i := range processes {
					processes[i] = f.process(n)
				}
				ctx, cancel := context.WithCancel(t.Context())
				for i := range c.waiters {
					go processes[i%c.processes].Acquire(ctx, Job{ComponentName: "shop", JobName: "backup",
						ComponentID: fmt.Sprint(i), Wait: Forever, TTL: Forever})
				}
				synctest.Wait()
				f.table.asked.Store(0) // the first looks don't count
				time.Sleep(time.Minute)
				require.LessOrEqual(t, f.table.asked.Load(), 60*c.most, "%+v", c)
				cancel()
				synctest.Wait()
			}
		})
	})
}

// BenchmarkHandoff_memory measures from a release to the return of the Acquire that waited for it.
func BenchmarkHandoff_memory(b *testing.B) {
	l := NewMemory(Options{})
	ctx := context.Background()
	for b.Loop() {
		b.StopTimer()
		require.NoError(b, l.Lock("shop", "a", "backup", "1", 0))
		acquired := make(chan *Lease)
		go func() {
			le, _ := l.Acquire(ctx, Job{ComponentName: "shop", JobName: "backup", Wait: Forever})
			acquired <- le
		}()
		for { // until it waits
			l.hub.mu.Lock()
			n := len(l.hub.queues)
			l.hub.mu.Unlock()
			if n > 0 {
				break
			}
		}
		b.StartTimer()
		l.Unlock("shop", "a", "backup", "1")
		le := <-acquired
		b.StopTimer()
		le.Release(ctx)
		b.StartTimer()
	}
}

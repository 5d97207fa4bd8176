package observed

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/observed"
	"github.com/cloudtrust/go-jobs/lock/internal/observed/observedtest"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

// isFunc checks whether a lease counts as held, how many holds have ended, and after how many
// seconds in all.
type isFunc = func(leased bool, ended, seconds int)

func job(componentID string) lock.Job {
	return lock.Job{ComponentName: "shop", JobName: "backup", ComponentID: componentID, JobID: "run-" +
		componentID,
		TTL: 30 * time.Second}
}

func TestHolds_Note(t *testing.T) {
	acquire := func(t *testing.T, l *lock.Lock) *lock.Lease {
		lease, err := l.Acquire(t.Context(), job("a"))
		require.NoError(t, err)
		return lease
	}
	for name, test := range map[string]func(t *testing.T, l, other *lock.Lock,
		db *observedtest.Database, is isFunc){
		"released": func(t *testing.T, l, _ *lock.Lock, _ *observedtest.Database, is isFunc) {
			lease := acquire(t, l)
			time.Sleep(100 * time.Second) // renewed meanwhile
			is(true, 0, 0)
			require.NoError(t, lease.Release(t.Context()))
			is(false, 1, 100)
			require.NoError(t, lease.Release(t.Context()))
			is(false, 1, 100)
		},
		"given back": func(t *testing.T, l, _ *lock.Lock, _ *observedtest.Database, is isFunc) {
			lease := acquire(t, l)
			time.Sleep(time.Second)
			require.NoError(t, lease.GiveBack(t.Context()))
			is(false, 1, 1)
		},
		"taken over": func(t *testing.T, l, other *lock.Lock, _ *observedtest.Database, is isFunc) {
			require.NoError(t, other.Lock("shop", "b", "backup", "2", 0))
			time.Sleep(time.Minute)
			lease := acquire(t, l)
			is(true, 0, 0)
			require.NoError(t, lease.Release(t.Context()))
			is(false, 1, 0)
		},
		"refused": func(t *testing.T, l, other *lock.Lock, _ *observedtest.Database, is isFunc) {
			require.NoError(t, other.Lock("shop", "b", "backup", "2", 0))
			_, err := l.Acquire(t.Context(), job("a"))
			require.Error(t, err)
			is(false, 0, 0)
		},
		"refused while another goroutine holds it": func(t *testing.T, l, _ *lock.Lock,
			_ *observedtest.Database, is isFunc) {
			lease := acquire(t, l)
			_, err := l.Acquire(t.Context(), job("b"))
			require.Error(t, err)
			require.Error(t, l.Unlock("shop", "b", "backup", "run-b"))
			require.Error(t, l.Unlock("shop", "", "backup", ""))
			is(true, 0, 0)
			require.NoError(t, lease.Release(t.Context()))
			is(false, 1, 0)
		},
		"lost, then released": func(t *testing.T, l, _ *lock.Lock, db *observedtest.Database, is isFunc) {
			lease := acquire(t, l)
			db.Hung.Store(true)
			<-lease.Context().Done()
			synctest.Wait()
			is(false, 1, 27)
			db.Hung.Store(false)
			require.NoError(t, lease.Release(t.Context()), "the row is still its own")
			is(false, 1, 27)
		},
		"lost, then refused": func(t *testing.T, l, other *lock.Lock, _ *observedtest.Database,
			is isFunc) {
			lease := acquire(t, l)
			require.NoError(t, other.ForceRelease(t.Context(), "shop", "backup",
				lock.Holder{ComponentID: "a", JobID: "run-a"}))
			require.NoError(t, other.Lock("shop", "b", "backup", "2", 0))
			<-lease.Context().Done()
			synctest.Wait()
			is(false, 1, 10)
			require.ErrorIs(t, lease.Release(t.Context()), lock.ErrLost)
			is(false, 1, 10)
		},
		"lost, then failed": func(t *testing.T, l, _ *lock.Lock, db *observedtest.Database, is isFunc) {
			lease := acquire(t, l)
			db.Hung.Store(true)
			<-lease.Context().Done()
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.Error(t, lease.Release(ctx))
			is(false, 1, 27)
			db.Hung.Store(false)
		},
		"lost, as its release finds out": func(t *testing.T, l, other *lock.Lock,
			_ *observedtest.Database, is isFunc) {
			lease := acquire(t, l)
			time.Sleep(time.Second)
			require.NoError(t, other.Lock("shop", "b", "backup", "2", time.Millisecond))
			require.ErrorIs(t, lease.Release(t.Context()), lock.ErrLost)
			is(false, 1, 1)
		},
		"released by force, here": func(t *testing.T, l, _ *lock.Lock, _ *observedtest.Database,
			is isFunc) {
			lease := acquire(t, l)
			require.NoError(t, l.ForceRelease(t.Context(), "shop", "backup", lock.Holder{ComponentID: "a",
				JobID: "run-a"}))
			<-lease.Context().Done()
			synctest.Wait()
			is(false, 1, 10)
		},
		"its context ended, and nobody released it": func(t *testing.T, l, _ *lock.Lock,
			_ *observedtest.Database, is isFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			_, err := l.Acquire(ctx, job("a"))
			require.NoError(t, err)
			cancel()
			time.Sleep(30 * time.Second)
			is(true, 0, 0)
			time.Sleep(time.Millisecond)
			is(false, 0, 0)
		},
		"its release failed": func(t *testing.T, l, _ *lock.Lock, db *observedtest.Database, is isFunc) {
			lease := acquire(t, l)
			db.Hung.Store(true)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.Error(t, lease.Release(ctx))
			is(true, 0, 0)
			db.Hung.Store(false)
			require.NoError(t, lease.Release(t.Context()))
			is(false, 1, 1)
		},
		"two by the same IDs, which is one row": func(t *testing.T, l, _ *lock.Lock,
			_ *observedtest.Database, is isFunc) {
			first, second := acquire(t, l), acquire(t, l)
			is(true, 0, 0)
			require.NoError(t, first.Release(t.Context()))
			is(false, 1, 0)
			require.NoError(t, second.Release(t.Context()))
			is(false, 1, 0)
		},
		"a Lock, which is no lease": func(t *testing.T, l, _ *lock.Lock, _ *observedtest.Database,
			is isFunc) {
			asA := func() error { return l.Lock("shop", "a", "backup", "1", time.Minute) }
			require.NoError(t, asA())
			time.Sleep(10 * time.Second)
			require.NoError(t, asA(), "again")
			time.Sleep(10 * time.Second)
			is(false, 0, 0)
			require.NoError(t, l.Unlock("shop", "a", "backup", "1"))
			require.NoError(t, l.Unlock("shop", "a", "backup", "1"), "when nobody holds it")
			is(false, 1, 20)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var (
					mu     sync.Mutex
					h      observed.Holds[string]
					begun  int
					ended  int
					lasted time.Duration
				)
				db := observedtest.Open(t)
				l := db.Observed(t, func(_ context.Context, e lock.Event) {
					mu.Lock()
					defer mu.Unlock()
					if e.Kind == lock.Acquired || e.Kind == lock.TakenOver {
						begun++
					}
					if hold, ok := h.Note(e, time.Now(), fmt.Sprint("hold ", begun)); ok {
						ended++
						lasted += hold.Held
						require.Equal(t, "hold 1", hold.Tag, "that of the event that began it")
					}
				})
				test(t, l, db.Observed(t, nil), db, func(wantLeased bool, wantEnded, seconds int) {
					t.Helper()
					mu.Lock()
					defer mu.Unlock()
					require.Equal(t, wantLeased, h.Leased(time.Now()))
					require.Equal(t, wantEnded, ended)
					require.Equal(t, time.Duration(seconds)*time.Second, lasted)
				})
			})
		})
	}
}

func TestReasons(t *testing.T) {
	l, _ := locktest.New()
	require.NoError(t, l.Lock("shop", "b", "backup", "1", time.Hour))
	held := l.Lock("shop", "a", "backup", "2", time.Hour)
	tick := lock.Job{ComponentName: "shop", JobName: "report", Tick: time.Unix(0, 0)}
	require.NoError(t, l.Run(t.Context(), tick, func(context.Context) error { return nil }))
	_, already := l.Acquire(t.Context(), tick)
	tick.Tick = time.Now().Add(time.Hour).Truncate(time.Second)
	_, ahead := l.Acquire(t.Context(), tick)
	require.NoError(t, l.Disable("shop", "backup"))
	disabled := l.Lock("shop", "a", "backup", "2", time.Hour)

	for _, test := range []struct {
		of   func(lock.Event) string
		e    lock.Event
		want string
	}{
		{observed.Refusal, lock.Event{Operation: "Lock", Err: held}, observed.Held},
		{observed.Refusal, lock.Event{Operation: "Acquire", Err: already}, observed.AlreadyRun},
		{observed.Refusal, lock.Event{Operation: "Lock", Err: disabled}, observed.Disabled},
		{observed.Refusal, lock.Event{Operation: "Unlock", Err: held}, observed.Lost},
		{observed.Refusal, lock.Event{Operation: "Release", Err: held}, observed.Lost},
		{observed.Refusal, lock.Event{Operation: "GiveBack", Err: held}, observed.Lost},
		{observed.Refusal, lock.Event{Operation: "ForceRelease", Err: held}, observed.Held},
		{observed.Loss, lock.Event{Err: fmt.Errorf("%w: %w", lock.ErrLost, held)}, observed.Held},
		{observed.Loss, lock.Event{Err: fmt.Errorf("%w: %w", lock.ErrLost, disabled)}, observed.Disabled},
		{observed.Loss, lock.Event{Err: lock.ErrLost}, observed.Other},
		{observed.Failure, lock.Event{Err: fmt.Errorf("%w (%w)", context.Canceled,
			lock.ErrOutcomeUnknown)}, observed.UnknownOutcome},
		{observed.Failure, lock.Event{Err: ahead}, observed.TickAhead},
		{observed.Failure, lock.Event{Err: context.Canceled}, observed.Cancelled},
		{observed.Failure, lock.Event{Err: context.DeadlineExceeded}, observed.Timeout},
		{observed.Failure, lock.Event{Err: fmt.Errorf("another")}, ""},
	} {
		require.Equal(t, test.want, test.of(test.e), "%+v", test.e)
	}
}

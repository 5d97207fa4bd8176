package observed

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"modernc.org/sqlite"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/observed"
	"github.com/cloudtrust/go-jobs/lock/internal/observed/observedtest"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

func init() { observedtest.Register(&sqlite.Driver{}) }

func job(componentID string) lock.Job {
	return lock.Job{ComponentName: "shop", JobName: "backup", ComponentID: componentID,
		JobID: "run-" + componentID, TTL: 30 * time.Second}
}

// An instance has the holds of l, on a database that others use, too.
type instance struct {
	l, other *lock.Lock
	db       *observedtest.Database
	// is checks whether a lease counts as held, how many holds have ended, and after how many
	// seconds in all.
	is func(leased bool, ended, seconds int)
}

func (i instance) acquire(t *testing.T) *lock.Lease {
	lease, err := i.l.Acquire(t.Context(), job("a"))
	require.NoError(t, err)
	return lease
}

func (i instance) force(t *testing.T, l *lock.Lock, jobID string) {
	require.NoError(t, l.ForceRelease(t.Context(), "shop", "backup",
		lock.Holder{ComponentID: "a", JobID: jobID}))
}

func TestHolds_Note(t *testing.T) {
	for name, test := range map[string]func(t *testing.T, i instance){
		"released": func(t *testing.T, i instance) {
			lease := i.acquire(t)
			time.Sleep(100 * time.Second) // renewed meanwhile
			i.is(true, 0, 0)
			require.NoError(t, lease.Release(t.Context()))
			i.is(false, 1, 100)
			require.NoError(t, lease.Release(t.Context()))
			i.is(false, 1, 100)
		},
		"given back": func(t *testing.T, i instance) {
			lease := i.acquire(t)
			time.Sleep(time.Second)
			require.NoError(t, lease.GiveBack(t.Context()))
			i.is(false, 1, 1)
		},
		"taken over": func(t *testing.T, i instance) {
			require.NoError(t, i.other.Lock("shop", "b", "backup", "2", 0))
			time.Sleep(time.Minute)
			lease := i.acquire(t)
			i.is(true, 0, 0)
			require.NoError(t, lease.Release(t.Context()))
			i.is(false, 1, 0)
		},
		"refused": func(t *testing.T, i instance) {
			require.NoError(t, i.other.Lock("shop", "b", "backup", "2", 0))
			_, err := i.l.Acquire(t.Context(), job("a"))
			require.Error(t, err)
			i.is(false, 0, 0)
		},
		"refused while another goroutine holds it": func(t *testing.T, i instance) {
			lease := i.acquire(t)
			_, err := i.l.Acquire(t.Context(), job("b"))
			require.Error(t, err)
			require.Error(t, i.l.Unlock("shop", "b", "backup", "run-b"))
			require.Error(t, i.l.Unlock("shop", "", "backup", ""))
			i.is(true, 0, 0)
			require.NoError(t, lease.Release(t.Context()))
			i.is(false, 1, 0)
		},
		"lost, then released": func(t *testing.T, i instance) {
			lease := i.acquire(t)
			i.db.Hung.Store(true)
			<-lease.Context().Done()
			synctest.Wait()
			i.is(false, 1, 27)
			i.db.Hung.Store(false)
			require.NoError(t, lease.Release(t.Context()), "the row is still its own")
			i.is(false, 1, 27)
		},
		"lost, then refused": func(t *testing.T, i instance) {
			lease := i.acquire(t)
			i.force(t, i.other, "run-a")
			require.NoError(t, i.other.Lock("shop", "b", "backup", "2", 0))
			<-lease.Context().Done()
			synctest.Wait()
			i.is(false, 1, 10)
			require.ErrorIs(t, lease.Release(t.Context()), lock.ErrLost)
			i.is(false, 1, 10)
		},
		"lost, then failed": func(t *testing.T, i instance) {
			lease := i.acquire(t)
			i.db.Hung.Store(true)
			<-lease.Context().Done()
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.Error(t, lease.Release(ctx))
			i.is(false, 1, 27)
			i.db.Hung.Store(false)
		},
		"lost, as its release finds out": func(t *testing.T, i instance) {
			lease := i.acquire(t)
			time.Sleep(time.Second)
			require.NoError(t, i.other.Lock("shop", "b", "backup", "2", time.Millisecond))
			require.ErrorIs(t, lease.Release(t.Context()), lock.ErrLost)
			i.is(false, 1, 1)
		},
		"released by force, here": func(t *testing.T, i instance) {
			lease := i.acquire(t)
			i.force(t, i.l, "run-a")
			<-lease.Context().Done()
			synctest.Wait()
			i.is(false, 1, 10)
		},
		"its context ended, and nobody released it": func(t *testing.T, i instance) {
			ctx, cancel := context.WithCancel(t.Context())
			_, err := i.l.Acquire(ctx, job("a"))
			require.NoError(t, err)
			cancel()
			time.Sleep(30 * time.Second)
			i.is(true, 0, 0)
			time.Sleep(time.Millisecond)
			i.is(false, 0, 0)
		},
		"its release failed": func(t *testing.T, i instance) {
			lease := i.acquire(t)
			i.db.Hung.Store(true)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.Error(t, lease.Release(ctx))
			i.is(true, 0, 0)
			i.db.Hung.Store(false)
			require.NoError(t, lease.Release(t.Context()))
			i.is(false, 1, 1)
		},
		"two by the same IDs, which is one row": func(t *testing.T, i instance) {
			first, second := i.acquire(t), i.acquire(t)
			i.is(true, 0, 0)
			require.NoError(t, first.Release(t.Context()))
			i.is(false, 1, 0)
			require.NoError(t, second.Release(t.Context()))
			i.is(false, 1, 0)
		},
		"a Lock, which is no lease": func(t *testing.T, i instance) {
			asA := func() error { return i.l.Lock("shop", "a", "backup", "1", time.Minute) }
			require.NoError(t, asA())
			time.Sleep(10 * time.Second)
			require.NoError(t, asA(), "again")
			time.Sleep(10 * time.Second)
			i.is(false, 0, 0)
			require.NoError(t, i.l.Unlock("shop", "a", "backup", "1"))
			require.NoError(t, i.l.Unlock("shop", "a", "backup", "1"), "when nobody holds it")
			i.is(false, 1, 20)
		},
		"a Lock, counted from when it was asked for": func(t *testing.T, i instance) {
			i.db.Takes = time.Second
			begun := time.Now()
			require.NoError(t, i.l.LockContext(t.Context(), "shop", "a", "backup", "1", 0))
			require.NotEqual(t, begun, time.Now())
			require.NoError(t, i.l.UnlockContext(t.Context(), "shop", "a", "backup", "1"))
			i.is(false, 1, int(time.Since(begun).Seconds()))
		},
		"a Lock that is released by force": func(t *testing.T, i instance) {
			require.NoError(t, i.l.Lock("shop", "a", "backup", "1", 0))
			time.Sleep(time.Second)
			i.force(t, i.l, "1")
			i.is(false, 1, 1)
		},
		"a Lock that was taken over, as its Unlock finds out": func(t *testing.T, i instance) {
			require.NoError(t, i.l.Lock("shop", "a", "backup", "1", 0))
			time.Sleep(time.Minute)
			require.NoError(t, i.other.Lock("shop", "b", "backup", "2", time.Second))
			require.Error(t, i.l.Unlock("shop", "a", "backup", "1"))
			i.is(false, 1, 60)
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
				test(t, instance{l, db.Observed(t, nil), db, func(wantLeased bool, wantEnded, seconds int) {
					t.Helper()
					mu.Lock()
					defer mu.Unlock()
					require.Equal(t, wantLeased, h.Leased(time.Now()))
					require.Equal(t, wantEnded, ended)
					require.Equal(t, time.Duration(seconds)*time.Second, lasted)
				}})
			})
		})
	}
}

// TestHolds_Note_late: goroutines report in another order than that of the database.
func TestHolds_Note_late(t *testing.T) {
	acquired := func(token int64) lock.Event {
		return lock.Event{Kind: lock.Acquired, Operation: "Acquire", Token: token, TTL: time.Hour}
	}
	released := func(token int64) lock.Event {
		return lock.Event{Kind: lock.Released, Operation: "Release", Token: token}
	}
	for name, test := range map[string]struct {
		events []lock.Event
		leased bool // after the third event
		last   lock.Event
	}{
		"the end of the one before": {[]lock.Event{acquired(1), acquired(2), released(1)}, true,
			released(2)},
		"the end of the one after": {[]lock.Event{acquired(1), acquired(2), released(2)}, false,
			released(1)},
		"the beginning of the one before": {[]lock.Event{acquired(2), acquired(1), released(2)}, false,
			lock.Event{Kind: lock.Lost, Operation: "Renew", Token: 1}},
	} {
		var h observed.Holds[int]
		for i, e := range test.events {
			_, ended := h.Note(e, time.Now(), i)
			require.Equal(t, i == 2, ended, name)
		}
		require.Equal(t, test.leased, h.Leased(time.Now()), name)
		_, ended := h.Note(test.last, time.Now(), 3)
		require.True(t, ended, name)
		require.False(t, h.Leased(time.Now()), name)
	}
}

// TestHolds_Note_never_ends: a Lock without an Unlock, as one does to pace something.
func TestHolds_Note_never_ends(t *testing.T) {
	var h observed.Holds[int]
	event := func(kind lock.EventKind, operation string, i int) lock.Event {
		return lock.Event{Kind: kind, Operation: operation, JobID: fmt.Sprint(i), Token: int64(i)}
	}
	for i := range 9 {
		h.Note(event(lock.Acquired, "Lock", i), time.Now(), i)
	}
	for i := range 9 {
		_, ended := h.Note(event(lock.Released, "Unlock", i), time.Now(), 0)
		require.Equal(t, i > 0, ended, "only the oldest is dropped")
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

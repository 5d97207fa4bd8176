package observed

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

var backup = lock.Job{ComponentName: "shop", JobName: "backup", ComponentID: "a", JobID: "1", MaxDuration: time.Hour}

// TestHolds lets a Lock tell what it does; the adapters' tests have what goes on in several goroutines.
func TestHolds(t *testing.T) {
	ctx := t.Context()
	acquire := func(l *lock.Lock) *lock.Lease {
		lease, err := l.Acquire(ctx, backup)
		require.NoError(t, err)
		return lease
	}
	for name, test := range map[string]struct {
		do     func(l *lock.Lock)
		ended  int // how many holds
		leased bool
	}{
		"nothing":             {func(*lock.Lock) {}, 0, false},
		"a lease":             {func(l *lock.Lock) { acquire(l) }, 0, true},
		"a lease, released":   {func(l *lock.Lock) { require.NoError(t, acquire(l).Release(ctx)) }, 1, false},
		"two after the other": {func(l *lock.Lock) { require.NoError(t, acquire(l).Release(ctx)); acquire(l) }, 1, true},
		"a Lock is no lease":  {func(l *lock.Lock) { require.NoError(t, l.Lock("shop", "a", "backup", "1", 0)) }, 0, false},
		"a Lock, unlocked": {func(l *lock.Lock) {
			require.NoError(t, l.Lock("shop", "a", "backup", "1", 0))
			require.NoError(t, l.Lock("shop", "a", "backup", "1", 0), "again")
			require.NoError(t, l.Unlock("shop", "a", "backup", "1"))
			require.NoError(t, l.Unlock("shop", "a", "backup", "1"), "again")
		}, 1, false},
		"a lease that refuses others": {func(l *lock.Lock) {
			acquire(l)
			require.Error(t, l.Lock("shop", "b", "backup", "2", time.Hour))
			require.Error(t, l.Unlock("shop", "b", "backup", "2"))
		}, 0, true},
		"a lease, lost, and then released": {func(l *lock.Lock) {
			lease := acquire(l)
			require.NoError(t, l.ForceRelease(ctx, "shop", "backup", lock.Holder{ComponentID: "a", JobID: "1"}))
			require.ErrorIs(t, lease.Renew(ctx), lock.ErrLost)
			require.ErrorIs(t, lease.Release(ctx), lock.ErrLost)
		}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			var h Holds[string]
			now, begun, ended := time.Now(), 0, 0
			l, _ := locktest.NewWith(lock.Options{Observer: func(_ context.Context, e lock.Event) {
				now = now.Add(time.Second)
				if e.Kind == lock.Acquired {
					begun++
				}
				if hold, ok := h.Note(e, now, fmt.Sprint("tag ", begun)); ok {
					ended++
					require.Equal(t, fmt.Sprint("tag ", ended), hold.Tag)
					require.Positive(t, hold.Held)
				}
			}})
			test.do(l)
			require.Equal(t, test.ended, ended)
			require.Equal(t, test.leased, h.Leased(now))
			require.False(t, h.Leased(now.Add(2*time.Hour)), "it has expired")
		})
	}
}

func TestReasons(t *testing.T) {
	l, _ := locktest.New()
	require.NoError(t, l.Lock("shop", "b", "backup", "1", time.Hour))
	held := l.Lock("shop", "a", "backup", "2", time.Hour)
	once := backup
	once.Once = true
	_, already := l.Acquire(t.Context(), once)
	require.NoError(t, l.Disable("shop", "backup"))
	disabled := l.Lock("shop", "a", "backup", "2", time.Hour)

	for _, test := range []struct {
		of   func(lock.Event) string
		e    lock.Event
		want string
	}{
		{Refusal, lock.Event{Call: "Lock", Err: held}, Held},
		{Refusal, lock.Event{Call: "Acquire", Err: already}, AlreadyRun},
		{Refusal, lock.Event{Call: "Lock", Err: disabled}, Disabled},
		{Refusal, lock.Event{Call: "Unlock", Err: held}, Lost},
		{Refusal, lock.Event{Call: "Release", Err: held}, Lost},
		{Refusal, lock.Event{Call: "ForceRelease", Err: held}, Held},
		{Loss, lock.Event{Err: fmt.Errorf("%w: %w", lock.ErrLost, held)}, Held},
		{Loss, lock.Event{Err: fmt.Errorf("%w: %w", lock.ErrLost, disabled)}, Disabled},
		{Loss, lock.Event{Err: lock.ErrLost}, Other},
		{Failure, lock.Event{Err: fmt.Errorf("%w (%w)", context.Canceled, lock.ErrOutcomeUnknown)}, UnknownOutcome},
		{Failure, lock.Event{Err: context.Canceled}, Cancelled},
		{Failure, lock.Event{Err: context.DeadlineExceeded}, Timeout},
		{Failure, lock.Event{Err: fmt.Errorf("another")}, ""},
	} {
		require.Equal(t, test.want, test.of(test.e), "%+v", test.e)
	}
}

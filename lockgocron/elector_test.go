package lockgocron_test

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/ticktest"
	"github.com/cloudtrust/go-jobs/lock/lockgocron"
)

var (
	leadership = lock.Job{ComponentName: "shop", JobName: "leader", TTL: 9 * time.Second}
	quiet      = slog.New(slog.NewTextHandler(io.Discard, nil))
)

func elector(t *testing.T, l *lock.Lock) *lockgocron.Elector {
	e, err := lockgocron.NewElector(l, leadership, quiet)
	require.NoError(t, err)
	return e
}

// leaders returns which of them lead.
func leaders(electors []*lockgocron.Elector) (leading []int) {
	for i, e := range electors {
		if e.IsLeader(context.Background()) == nil {
			leading = append(leading, i)
		}
	}
	return leading
}

func TestElector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(lock.NewMemory(lock.Options{}))
		s := crontab(t, "0 * * * * *")
		start := time.Now()
		var electors []*lockgocron.Elector
		for _, ahead := range ticktest.Skews {
			clock := newSkewedClock(ahead)
			e := elector(t, f.Lock)
			electors = append(electors, e)
			sched := scheduler(t, clock, gocron.CronJob("0 * * * * *", true),
				e.Func(func(ctx context.Context) error {
					require.NoError(t, ctx.Err())
					f.Ran(ticktest.TickName(clock.Now()))
					return nil
				}), gocron.WithDistributedElector(e))
			defer sched.Shutdown()
			defer e.Close()
		}
		time.Sleep(5 * time.Second)
		leader := leaders(electors)
		require.Len(t, leader, 1)
		for range 20 {
			time.Sleep(time.Minute)
			require.Equal(t, leader, leaders(electors))
		}
		f.RequireEachOnce(t, s, start.Add(5*time.Second), start.Add(20*time.Minute))
	})
}

func TestElector_Close(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lock.NewMemory(lock.Options{})
		var electors []*lockgocron.Elector
		for range 8 {
			electors = append(electors, elector(t, l))
		}
		for left := 8; left > 0; left-- {
			time.Sleep(1500 * time.Millisecond) // the longest Poll
			synctest.Wait()
			leading := leaders(electors)
			require.Len(t, leading, 1)
			e := electors[leading[0]]
			require.NoError(t, e.Close())
			require.ErrorIs(t, e.IsLeader(t.Context()), lockgocron.ErrNotLeader)
			require.Empty(t, leaders(electors))
			require.NoError(t, e.Close(), "once more")
		}
		s, err := l.Status(t.Context(), "shop", "leader")
		require.NoError(t, err)
		require.False(t, s.Locked)
	})
}

func TestElector_IsLeader_asks_no_database(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var steps atomic.Int64 // of the memory that plays the database: each looks at its clock
		l := lock.NewMemory(lock.Options{Clock: func() time.Time {
			steps.Add(1)
			return time.Now()
		}})
		first, second := elector(t, l), (*lockgocron.Elector)(nil)
		synctest.Wait()
		before := steps.Load()
		for range 1000 {
			require.NoError(t, first.IsLeader(t.Context()))
		}
		require.Equal(t, before, steps.Load())

		second = elector(t, l)
		synctest.Wait()
		before = steps.Load()
		for range 1000 {
			require.ErrorIs(t, second.IsLeader(t.Context()), lockgocron.ErrNotLeader)
		}
		require.Equal(t, before, steps.Load())
		var held *lock.ErrUnauthorised
		require.ErrorAs(t, second.IsLeader(t.Context()), &held, "it names the leader")
		require.NoError(t, second.Close())
		require.NoError(t, first.Close())
	})
}

func TestElector_lost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lock.NewMemory(lock.Options{})
		e := elector(t, l)
		synctest.Wait()
		require.NoError(t, e.IsLeader(t.Context()))

		ended := make(chan error, 1)
		go e.Func(func(ctx context.Context) error {
			<-ctx.Done()
			ended <- e.IsLeader(context.Background())
			return nil
		})(context.Background())
		s, err := l.Status(t.Context(), "shop", "leader")
		require.NoError(t, err)
		require.NoError(t, l.ForceRelease(t.Context(), "shop", "leader", s.Holder))
		require.NoError(t, l.Lock("shop", "other", "leader", "x", 0))
		require.ErrorIs(t, <-ended, lockgocron.ErrNotLeader)
		require.ErrorIs(t, e.Func(nil)(t.Context()), lockgocron.ErrNotLeader)
		synctest.Wait()
		require.NoError(t, e.Close())

		// It has taken nothing from the other.
		s, err = l.Status(t.Context(), "shop", "leader")
		require.NoError(t, err)
		require.Equal(t, "other", s.Holder.ComponentID)
	})
}

func TestElector_Func_shutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := elector(t, lock.NewMemory(lock.Options{}))
		synctest.Wait()
		require.ErrorIs(t, e.Func(func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})(ended()), context.Canceled)
		require.NoError(t, e.Close())
	})
}

func TestNewElector_error(t *testing.T) {
	l := lock.NewMemory(lock.Options{})
	for says, job := range map[string]lock.Job{
		"no JobName":                 {TTL: time.Minute},
		"TTL is Forever":             {JobName: "leader", TTL: lock.Forever},
		"TTL, -1s, is negative":      {JobName: "leader", TTL: -time.Second},
		"no JobID, Tick or Spacing":  {JobName: "leader", TTL: time.Minute, Tick: time.Unix(0, 0)},
		"the Job's Poll, -1s, is ne": {JobName: "leader", TTL: time.Minute, Poll: -time.Second},
	} {
		_, err := lockgocron.NewElector(l, job, nil)
		require.ErrorContains(t, err, says)
	}
	_, err := lockgocron.NewElector(nil, leadership, nil)
	require.ErrorContains(t, err, "no Lock")
}

func TestElector_leader_dies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lock.NewMemory(lock.Options{})
		ctx, die := context.WithCancel(t.Context())
		_, err := l.Acquire(ctx, leadership)
		require.NoError(t, err)
		die()
		e := elector(t, l)
		time.Sleep(leadership.TTL)
		require.ErrorIs(t, e.IsLeader(t.Context()), lockgocron.ErrNotLeader)
		time.Sleep(1500 * time.Millisecond) // the longest Poll
		require.NoError(t, e.IsLeader(t.Context()))
		require.NoError(t, e.Close())
	})
}

// mute is a database that never answers.
type mute struct{ asked atomic.Int64 }

func (m *mute) Connect(ctx context.Context) (driver.Conn, error) {
	m.asked.Add(1)
	<-ctx.Done()
	return nil, ctx.Err()
}

func (m *mute) Driver() driver.Driver { return nil }

func TestElector_database(t *testing.T) {
	for name, test := range map[string]struct {
		away bool
		says string
	}{
		"a connection that has gone silent is given up": {false, "there was no answer within 9s"},
		"when the database is away nobody leads":        {true, "database is closed"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var m mute
				db := sql.OpenDB(&m)
				defer db.Close()
				if test.away {
					require.NoError(t, db.Close())
				}
				l, err := lock.NewWith(db, lock.Options{NoDDL: true,
					Retry: lock.RetryPolicy{AttemptTimeout: time.Hour}})
				require.NoError(t, err)
				var out bytes.Buffer
				e, err := lockgocron.NewElector(l, leadership, slog.New(slog.NewTextHandler(&out, nil)))
				require.NoError(t, err)
				time.Sleep(leadership.TTL + 1500*time.Millisecond)
				synctest.Wait()
				require.ErrorIs(t, e.IsLeader(t.Context()), lockgocron.ErrNotLeader)
				require.ErrorContains(t, e.IsLeader(t.Context()), test.says)
				require.Contains(t, out.String(), "there is no telling who leads")
				require.Equal(t, !test.away, m.asked.Load() == 2, "it asks again")
				require.NoError(t, e.Close())
			})
		})
	}
}

// A scheduler's timer may be quicker than the lease's, as in a process that was stopped and
// continues: from the deadline on nobody leads, even before the context has ended.
func TestElector_IsLeader_at_the_deadline(t *testing.T) {
	for range 20 { // which of the timers is quicker is chance
		synctest.Test(t, leaderAtTheDeadline)
	}
}

func leaderAtTheDeadline(t *testing.T) {
	var silent atomic.Bool
	answers := make(chan struct{})
	l := lock.NewMemory(lock.Options{Clock: func() time.Time {
		if silent.Load() {
			<-answers
		}
		return time.Now()
	}})
	e := elector(t, l)
	synctest.Wait()
	deadline := time.Now().Add(leadership.TTL * 9 / 10)
	silent.Store(true)
	var leads atomic.Int64
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			time.Sleep(time.Until(deadline) - 1)
			assert.NoError(t, e.IsLeader(t.Context()))
			time.Sleep(time.Nanosecond)
			if e.IsLeader(t.Context()) == nil ||
				e.Func(func(context.Context) error { return nil })(t.Context()) == nil {
				leads.Add(1)
			}
		})
	}
	all.Wait()
	require.Zero(t, leads.Load())
	closed := make(chan error, 1)
	go func() { closed <- e.Close() }()
	synctest.Wait() // while it still waits for the answer
	silent.Store(false)
	close(answers)
	require.ErrorIs(t, <-closed, lock.ErrLost)
}

package lockgocron_test

import (
	"bytes"
	"context"
	"database/sql"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
	"github.com/cloudtrust/go-jobs/lock/lockgocron"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

func TestLocker_and_Elector_database(t *testing.T) {
	db := dbtest.Engine{Driver: "postgres", DSN: dbtest.PostgresDSN()}.Open(t)
	l := lock.New(db)
	older := func(t *testing.T) {
		_, err := db.Exec("UPDATE locks SET lock_time = lock_time - INTERVAL '2 hours'")
		require.NoError(t, err)
	}
	// dies is a holder that neither renews nor releases its lease.
	dies := func(t *testing.T, job lock.Job) {
		ctx, die := context.WithCancel(t.Context())
		job.ComponentID = "dead"
		lease, err := l.Acquire(ctx, job)
		require.NoError(t, err)
		die()
		<-lease.Context().Done()
	}

	f := newFleet(l)
	every := crontab(t, "0 * * * * *")
	start := time.Date(2026, 3, 29, 12, 0, 30, 0, time.UTC)
	var clocks []*clockwork.FakeClock
	told := make(chan locktick.Result, len(skews))
	for _, ahead := range skews[:8] {
		clock := clockwork.NewFakeClockAt(start.Add(ahead))
		locker := f.locker(t, every, clock.Now, func(g *locktick.Guard) {
			g.Job.TTL = time.Hour
			g.Report = func(_ context.Context, r locktick.Result) { told <- r }
		})
		sched := scheduler(t, clock, gocron.CronJob("0 * * * * *", true),
			locker.Func("report", func(ctx context.Context) error {
				f.ran(lock.LeaseFrom(ctx).Job().JobID)
				return nil
			}), gocron.WithDistributedLocker(locker))
		defer sched.Shutdown()
		clocks = append(clocks, clock)
	}
	// tick lets all of them fire the next tick, and returns the outcomes.
	tick := func(t *testing.T) map[locktick.Outcome]int {
		var all sync.WaitGroup
		for _, clock := range clocks {
			all.Go(func() {
				if err := clock.BlockUntilContext(t.Context(), 1); err != nil {
					t.Error(err)
				}
				clock.Advance(time.Minute)
			})
		}
		outcomes := map[locktick.Outcome]int{}
		for range clocks {
			outcome := (<-told).Outcome
			if outcome == locktick.Running { // and has been run a moment later
				outcome = locktick.AlreadyRun
			}
			outcomes[outcome]++
		}
		all.Wait()
		return outcomes
	}

	t.Run("of many schedulers one runs a tick", func(t *testing.T) {
		for range 3 {
			require.Equal(t, map[locktick.Outcome]int{locktick.Ran: 1, locktick.AlreadyRun: 7}, tick(t))
		}
		require.Equal(t, map[string]int{"2026-03-29T12:01:00Z": 1, "2026-03-29T12:02:00Z": 1,
			"2026-03-29T12:03:00Z": 1}, f.runs)
	})
	t.Run("a holder that dies is replaced when its lock has expired", func(t *testing.T) {
		dies(t, lock.Job{ComponentName: "shop", JobName: "report",
			Tick: time.Date(2026, 3, 29, 12, 3, 30, 0, time.UTC), TTL: time.Hour})
		require.Equal(t, map[locktick.Outcome]int{locktick.Held: 8}, tick(t))
		older(t)
		require.Equal(t, map[locktick.Outcome]int{locktick.Ran: 1, locktick.AlreadyRun: 7}, tick(t))
	})
	t.Run("a leader that dies is replaced when its lock has expired", func(t *testing.T) {
		job := leadership
		job.TTL, job.Poll = time.Hour, 10*time.Millisecond
		dies(t, job)
		var out bytes.Buffer
		e, err := lockgocron.NewElector(l, job, slog.New(slog.NewTextHandler(&out, nil)))
		require.NoError(t, err)
		require.ErrorIs(t, e.IsLeader(t.Context()), lockgocron.ErrNotLeader)
		older(t)
		require.Eventually(t, func() bool { return e.IsLeader(t.Context()) == nil }, 20*time.Second,
			5*time.Millisecond)
		require.NoError(t, e.Close())
		require.Contains(t, out.String(), "this instance leads")
	})
	t.Run("a connection that has gone silent is given up", func(t *testing.T) {
		job := leadership
		job.JobName, job.TTL, job.Poll = "silent", 500*time.Millisecond, 10*time.Millisecond
		s := &silent{DB: db}
		s.statements.Store(1)
		l, err := lock.NewWith(s, lock.Options{Retry: lock.RetryPolicy{AttemptTimeout: time.Hour}})
		require.NoError(t, err)
		var out bytes.Buffer
		e, err := lockgocron.NewElector(l, job, slog.New(slog.NewTextHandler(&out, nil)))
		require.NoError(t, err)
		require.Eventually(t, func() bool { return e.IsLeader(t.Context()) == nil }, 20*time.Second,
			5*time.Millisecond)
		require.NoError(t, e.Close())
		require.Contains(t, out.String(), "there was no answer within 500ms")
	})
	t.Run("when the database is away nothing is run and nobody leads", func(t *testing.T) {
		require.NoError(t, db.Close())
		before := len(f.runs)
		require.Equal(t, map[locktick.Outcome]int{locktick.Failed: 8}, tick(t))
		require.Len(t, f.runs, before)

		failed := make(chan string, 1)
		e, err := lockgocron.NewElector(l, leadership, slog.New(slog.NewTextHandler(writer(failed), nil)))
		require.NoError(t, err)
		require.Contains(t, <-failed, "there is no telling who leads")
		require.ErrorContains(t, e.IsLeader(t.Context()), "database is closed")
		require.NoError(t, e.Close())
	})
}

// writer sends what is written to it.
type writer chan string

func (w writer) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

// silent is a database whose first statements are never answered.
type silent struct {
	*sql.DB
	statements atomic.Int64 // so many
}

func (s *silent) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if s.statements.Add(-1) >= 0 {
		<-ctx.Done()
	}
	return s.DB.QueryRowContext(ctx, query, args...)
}

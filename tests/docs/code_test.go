package docs_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/cloudtrust/go-jobs/lock"
)

// The Go that the pages show, to the letter, and what each does.

func outbox(ctx context.Context, l *lock.Lock, drain func(context.Context) error) error {
	job := lock.Job{ComponentName: "shop", JobName: "outbox", MaxDuration: 30 * time.Second}
	return l.Run(ctx, job, drain)
}

func export(ctx context.Context, l *lock.Lock, write func(context.Context) error) error {
	return l.Run(ctx, lock.Job{ComponentName: "shop", JobName: "export",
		MaxDuration: 2 * time.Minute, Margin: 20 * time.Second}, write)
}

func report(ctx context.Context, l *lock.Lock, tick time.Time, write func(context.Context) error) error {
	err := l.Run(ctx, lock.Job{ComponentName: "shop", JobName: "report", MaxDuration: time.Minute,
		Once: true, JobID: lock.Tick(tick.Truncate(time.Hour))}, write)
	var (
		held    *lock.ErrUnauthorised
		already *lock.ErrAlreadyRun
	)
	if errors.As(err, &held) || errors.As(err, &already) {
		return nil // another instance does it, or has done it
	}
	return err
}

func invoices(l *lock.Lock, instanceID, runID string, work func()) error {
	if err := l.Lock("shop", instanceID, "invoices", runID, 10*time.Minute); err != nil {
		return err
	}
	defer l.Unlock("shop", instanceID, "invoices", runID)
	work()
	return nil
}

func reason(err error) string {
	switch err := err.(type) {
	case *lock.ErrUnauthorised:
		return "held by " + err.Holder().ComponentID
	case *lock.ErrDisabled:
		return "disabled"
	default:
		return "the database: " + err.Error()
	}
}

func invoicesKept(ctx context.Context, l *lock.Lock, work func(context.Context) error) error {
	return l.Run(ctx, lock.Job{ComponentName: "shop", JobName: "invoices", MaxDuration: time.Minute}, work)
}

func leaderOnceWithPglock(ctx context.Context, db *sql.DB, lead func(context.Context) error) error {
	l, err := lock.NewWith(db, lock.Options{Table: "job_locks"}) // the table locks is pglock's
	if err != nil {
		return err
	}
	return l.Run(ctx, lock.Job{ComponentName: "shop", JobName: "leader", MaxDuration: 20 * time.Second, Wait: -1}, lead)
}

// Every instance fires it every 15 minutes, as with @Scheduled, at or after the quarter by its own clock; one runs it.
func everyQuarter(ctx context.Context, l *lock.Lock, now time.Time, task func(context.Context) error) error {
	err := l.Run(ctx, lock.Job{ComponentName: "shop", JobName: "scheduledTaskName", MaxDuration: time.Minute,
		Once: true, JobID: lock.Tick(now.Truncate(15 * time.Minute))}, task)
	var (
		held    *lock.ErrUnauthorised
		already *lock.ErrAlreadyRun
	)
	if errors.As(err, &held) || errors.As(err, &already) {
		return nil // skipped, as ShedLock does
	}
	return err
}

func importFeed(ctx context.Context, l *lock.Lock, read func(context.Context) error) error {
	lease, err := l.Acquire(ctx, lock.Job{ComponentName: "shop", JobName: "feed", MaxDuration: 8 * time.Second,
		Wait: 5 * time.Second, Poll: 150 * time.Millisecond})
	if err != nil {
		return err
	}
	defer lease.Release(context.WithoutCancel(ctx))
	return read(lease.Context()) // nobody has to extend anything
}

func TestTheJobsRunWithTheirLockHeldAndReturnItsError(t *testing.T) {
	for job, run := range map[string]func(*lock.Lock, func(context.Context) error) error{
		"outbox": func(l *lock.Lock, f func(context.Context) error) error { return outbox(t.Context(), l, f) },
		"export": func(l *lock.Lock, f func(context.Context) error) error { return export(t.Context(), l, f) },
		"report": func(l *lock.Lock, f func(context.Context) error) error { return report(t.Context(), l, time.Now(), f) },
		"invoices": func(l *lock.Lock, f func(context.Context) error) (err error) {
			return errors.Join(invoices(l, "instance-1", "run-1", func() { err = f(t.Context()) }), err)
		},
		"invoices, kept": func(l *lock.Lock, f func(context.Context) error) error { return invoicesKept(t.Context(), l, f) },
		"scheduledTaskName": func(l *lock.Lock, f func(context.Context) error) error {
			return everyQuarter(t.Context(), l, time.Now(), f)
		},
		"feed": func(l *lock.Lock, f func(context.Context) error) error { return importFeed(t.Context(), l, f) },
	} {
		t.Run(job, func(t *testing.T) {
			l := lock.NewLocal(nil)
			locked := func() (n int) {
				all, err := l.List(t.Context())
				require.NoError(t, err)
				for _, s := range all {
					if s.Locked {
						n++
					}
				}
				return n
			}
			broken := errors.New("broken")
			require.ErrorIs(t, run(l, func(context.Context) error {
				require.Equal(t, 1, locked())
				return broken
			}), broken)
			require.Zero(t, locked())
		})
	}
}

func TestATickIsRunOnce(t *testing.T) {
	l := lock.NewLocal(nil)
	tick := time.Date(2026, time.June, 1, 2, 0, 0, 0, time.UTC)
	for name, fire := range map[string]func(time.Time, func(context.Context) error) error{
		"report":       func(at time.Time, f func(context.Context) error) error { return report(t.Context(), l, at, f) },
		"everyQuarter": func(at time.Time, f func(context.Context) error) error { return everyQuarter(t.Context(), l, at, f) },
	} {
		t.Run(name, func(t *testing.T) {
			runs := 0
			count := func(context.Context) error { runs++; return nil }
			for _, late := range []time.Duration{0, 3 * time.Second, time.Minute} {
				require.NoError(t, fire(tick.Add(late), count))
			}
			require.Equal(t, 1, runs)
			require.NoError(t, fire(tick.Add(time.Hour), count))
			require.Equal(t, 2, runs)
		})
	}
}

func TestTheReasonOfARefusal(t *testing.T) {
	l := lock.NewLocal(nil)
	require.NoError(t, l.Lock("shop", "instance-1", "invoices", "run-1", time.Hour))
	require.Equal(t, "held by instance-1", reason(invoices(l, "instance-2", "run-2", nil)))
	require.NoError(t, l.Disable("shop", "invoices"))
	require.Equal(t, "disabled", reason(invoices(l, "instance-2", "run-2", nil)))
	require.Contains(t, reason(invoices(new(lock.Lock), "instance-2", "run-2", nil)), "the database: ")
}

// TestATableBesideThatOfPglock: with its table under the usual name, ours needs another.
func TestATableBesideThatOfPglock(t *testing.T) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "locks.db"))
	require.NoError(t, err)
	defer db.Close()
	_, err = db.Exec("CREATE TABLE locks (name TEXT PRIMARY KEY, record_version_number BIGINT, data BLOB, owner TEXT)")
	require.NoError(t, err)

	require.Error(t, lock.New(db).Lock("shop", "instance-1", "leader", "run-1", time.Minute))
	led := false
	require.NoError(t, leaderOnceWithPglock(t.Context(), db, func(context.Context) error { led = true; return nil }))
	require.True(t, led)
}

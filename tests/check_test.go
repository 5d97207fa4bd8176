package tests

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

func TestLease_Check_needsATransaction(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		lease := acquire(t, tb.Lock(), as("a", "1"))
		conn, err := tb.Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close()
		for name, none := range map[string]lock.Transaction{
			"DB": tb.DB, "Conn": conn, "type that embeds DB": struct{ *sql.DB }{tb.DB},
			"DB with a BeginTx of its own": wrapper{tb.DB},
		} {
			err := lease.Check(t.Context(), none)
			require.ErrorContains(t, err, "not a transaction", name)
			require.NotErrorIs(t, err, lock.ErrLost)
		}
		var nothing *sql.Tx
		for _, none := range []lock.Transaction{nil, nothing} {
			err := lease.Check(t.Context(), none)
			require.ErrorContains(t, err, "the transaction is nil")
			require.NotErrorIs(t, err, lock.ErrLost)
		}
		for name, some := range map[string]lock.Transaction{
			"type that embeds Tx": struct{ *sql.Tx }{inTx(t, tb.DB)}, "Tx that nests": nesting{inTx(t,
				tb.DB)},
		} {
			require.NoError(t, lease.Check(t.Context(), some), name)
			require.NoError(t, some.(interface{ Rollback() error }).Rollback())
		}
	})
}

// wrapper begins transactions like the pool of an ORM.
type wrapper struct{ *sql.DB }

func (w wrapper) BeginTx(context.Context) (wrapper, error) { return w, nil }

// nesting is a transaction that can begin others.
type nesting struct{ *sql.Tx }

func (n nesting) BeginTx(context.Context, *sql.TxOptions) (nesting, error) { return n, nil }

func TestLease_Check_transactionIsOver(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		lease := acquire(t, tb.Lock(), as("a", "1"))
		tx := inTx(t, tb.DB)
		require.NoError(t, tx.Rollback())
		err := lease.Check(t.Context(), tx)
		require.ErrorIs(t, err, sql.ErrTxDone)
		require.NotErrorIs(t, err, lock.ErrLost)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err = lease.Check(ctx, inTx(t, tb.DB))
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, lock.ErrLost)
	})
}

// waitsFor returns the process ID of a session, not the given one, that waits for a lock of tx's.
func waitsFor(t testing.TB, tx *sql.Tx, not int) (pid int) {
	require.Eventually(t, func() bool {
		return tx.QueryRow("SELECT pid FROM pg_locks WHERE NOT granted AND pid <> $1 AND "+
			"pg_backend_pid() = ANY (pg_blocking_pids(pid))", not).Scan(&pid) == nil
	}, time.Minute, time.Millisecond)
	return pid
}

func TestLease_Check_nobodyTakesOver(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		for name, end := range map[string]func(*sql.Tx) error{"Commit": (*sql.Tx).Commit,
			"Rollback": (*sql.Tx).Rollback} {
			for what, take := range map[string]func() error{
				// For a challenger with such a short duration the lock has expired.
				"Lock": func() error { return l.Lock(component, "b", job, "2", time.Microsecond) },
				"Acquire": func() error {
					j := as("b", "2")
					j.TTL = 30 * time.Second
					lease, err := l.Acquire(t.Context(), j)
					if err == nil {
						err = lease.Release(t.Context())
					}
					return err
				},
				"ForceRelease": func() error {
					return l.ForceRelease(t.Context(), component, job, lock.Holder{ComponentID: "a", JobID: "1"})
				},
			} {
				t.Run(what+" until "+name, func(t *testing.T) {
					tb := tb.With(t)
					tb.Put(dbtest.Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "LOCKED",
						Age: time.Minute})
					lease := acquire(t, l, as("a", "1"))
					tx := inTx(t, tb.DB)
					require.NoError(t, lease.Check(t.Context(), tx))
					done := make(chan error, 1)
					go func() { done <- take() }()
					waitsFor(t, tx, 0)
					select {
					case err := <-done:
						t.Fatal("it did not wait: ", err)
					default:
					}
					require.Equal(t, dbtest.Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "LOCKED"},
						tb.Get(component, job).Fields())
					require.NoError(t, end(tx))
					require.NoError(t, <-done)
					require.NotEqual(t, dbtest.Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "LOCKED"},
						tb.Get(component, job).Fields())
					tx = inTx(t, tb.DB)
					require.ErrorIs(t, lease.Check(t.Context(), tx), lock.ErrLost)
				})
			}
		}
	})
	// Nobody can see a challenger wait in SQLite. CockroachDB need not let it wait: its locks may be
	// lost, and the transaction then comes before the takeover, or is to be repeated.
	t.Run("SQLite", func(t *testing.T) {
		tb := dbtest.NewTable(t, engines[0])
		l := tb.Lock()
		lease := acquire(t, l, as("a", "1"))
		tx := inTx(t, tb.DB)
		require.NoError(t, lease.Check(t.Context(), tx))
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, l.LockContext(ctx, component, "b", job, "2", time.Microsecond),
			context.DeadlineExceeded)
		require.NoError(t, tx.Commit())
		require.NoError(t, l.Lock(component, "b", job, "2", time.Microsecond))
		require.ErrorIs(t, lease.Check(t.Context(), inTx(t, tb.DB)), lock.ErrLost)
	})
}

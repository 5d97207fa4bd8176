package tests

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
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
	t.Run("SQLite", func(t *testing.T) {
		tb := dbtest.NewTable(t, engines[0])
		l, err := lock.NewWith(tb.DB, lock.Options{Retry: lock.RetryPolicy{Attempts: 1}})
		require.NoError(t, err)
		tb.Put(dbtest.Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "LOCKED",
			Age: time.Minute})
		lease := acquire(t, l, as("a", "1"))
		tx := inTx(t, tb.DB)
		require.NoError(t, lease.Check(t.Context(), tx))
		// On SQLite nobody can see that a challenger waits; one that doesn't wait is refused.
		impatient := engines[0].OpenDSN(t,
			strings.Replace(tb.DSN, "busy_timeout(10000)", "busy_timeout(0)", 1))
		once, err := lock.NewWith(impatient, lock.Options{NoDDL: true,
			Retry: lock.RetryPolicy{Attempts: 1}})
		require.NoError(t, err)
		require.ErrorContains(t, once.Lock(component, "b", job, "2", time.Microsecond), "locked")
		require.NoError(t, tx.Commit())
		require.NoError(t, once.Lock(component, "b", job, "2", time.Microsecond))
	})
}

// TestLease_Check_staleHolder lets one holder take over from another at all sorts of moments,
// while each writes its token to a ledger in a transaction that ends in a check.
func TestLease_Check_staleHolder(t *testing.T) {
	schedules := 200
	if testing.Short() {
		schedules = 50
	}
	on(t, eachDatabase(), func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		_, err := tb.Exec("DROP TABLE IF EXISTS ledger")
		require.NoError(t, err)
		_, err = tb.Exec("CREATE TABLE ledger (schedule BIGINT, token BIGINT, PRIMARY KEY (schedule, " +
			"token))")
		require.NoError(t, err)
		random := rand.New(rand.NewPCG(1, 2))
		var committed, rejected int
		for n := range schedules {
			s := schedule{tb: tb, l: l, n: n, job: fmt.Sprintf("%s-%d", job, n),
				order: order(random.IntN(3)), seed: random.Uint64()}
			s.run()
			switch {
			case s.committed && s.stale:
				t.Fatalf("schedule %d: a holder that was stale before its check has committed", n)
			case s.committed && !s.seen:
				t.Fatalf("schedule %d: a transaction has committed after the takeover", n)
			case s.committed:
				committed++
			default:
				rejected++
			}
			if t.Failed() {
				t.Fatalf("schedule %d", n)
			}
		}
		t.Logf("of the first holder's transactions %d were committed, %d were rejected", committed,
			rejected)
		require.NotZero(t, committed)
		require.NotZero(t, rejected)
	})
}

// order is the certain part of the order of a schedule; the rest is chance.
type order int

const (
	byChance order = iota
	takeoverFirst
	checkFirst
)

// A schedule is one takeover.
type schedule struct {
	tb    dbtest.Table
	l     *lock.Lock
	n     int
	job   string
	order order
	seed  uint64

	took      atomic.Bool
	stale     bool // the check began after the takeover
	seen      bool // the second holder has seen what the first has committed
	committed bool
}

func (s *schedule) run() {
	t, ctx := s.tb.T, s.tb.T.Context()
	first, second := as("a", "1"), as("b", "2")
	first.JobName, second.JobName = s.job, s.job
	lease := acquire(t, s.l, first)
	var (
		wg            sync.WaitGroup
		taken         = make(chan struct{})
		checked       = make(chan struct{})
		pause, pause2 = pauses(s.seed), pauses(s.seed + 1)
	)
	wg.Go(func() {
		defer lease.Release(ctx)
		defer sync.OnceFunc(func() { close(checked) })()
		if s.order == takeoverFirst {
			<-taken
		}
		pause()
		s.committed = s.write(lease, pause, func() { s.stale = s.took.Load() }, func() {
			if s.order == checkFirst {
				checked <- struct{}{}
			}
		})
	})
	wg.Go(func() {
		if s.order == checkFirst {
			<-checked
		}
		pause2()
		for {
			// To it, the first one's lock expires at once.
			err := s.l.Lock(component, second.ComponentID, s.job, second.JobID, time.Microsecond)
			if err == nil {
				break
			}
			if !refused(err) {
				t.Error(err)
				break
			}
		}
		s.took.Store(true)
		close(taken)
		s.seen = s.ledger(s.tb.DB, "token = $2", lease.Token()) == 1
		pause2()
		lease, err := s.l.Acquire(ctx, second)
		if err != nil {
			t.Error(err)
			return
		}
		defer lease.Release(ctx)
		if !s.write(lease, pause2, func() {}, func() {}) {
			t.Error("the second holder was rejected")
		}
	})
	wg.Wait()
}

// write writes the token in a transaction that ends with a check, and reports whether it
// committed.
func (s *schedule) write(lease *lock.Lease, pause, before, after func()) bool {
	t, ctx := s.tb.T, s.tb.T.Context()
	tx, err := s.tb.BeginTx(ctx, nil)
	if err != nil {
		t.Error(err)
		return false
	}
	defer tx.Rollback()
	if _, err := tx.Exec("INSERT INTO ledger (schedule, token) VALUES ($1, $2)", s.n,
		lease.Token()); err != nil {
		t.Error(err)
		return false
	}
	pause()
	before()
	if err := lease.Check(ctx, tx); err != nil {
		if !errors.Is(err, lock.ErrLost) && !s.tb.Engine.CockroachDB() {
			t.Error(err)
		}
		return false
	}
	after()
	pause()
	if n := s.ledger(tx, "token > $2", lease.Token()); n != 0 {
		t.Errorf("there are %d larger tokens than that of a holder whose check has succeeded", n)
	}
	pause()
	if err := tx.Commit(); err != nil {
		if !s.tb.Engine.CockroachDB() {
			t.Error(err)
		}
		return false
	}
	return true
}

func (s *schedule) ledger(db interface {
	QueryRow(query string, args ...interface{}) *sql.Row
}, where string, token int64) (n int) {
	if err := db.QueryRow("SELECT count(*) FROM ledger WHERE schedule = $1 AND "+where, s.n,
		token).Scan(&n); err != nil {
		s.tb.T.Error(err)
	}
	return n
}

// pauses returns a function that yields for a random while.
func pauses(seed uint64) func() {
	random := rand.New(rand.NewPCG(seed, 0))
	return func() {
		for range 1 << random.IntN(10) {
			runtime.Gosched()
		}
	}
}

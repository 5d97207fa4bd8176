package locktick_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/pgtest"
	"github.com/cloudtrust/go-jobs/lock/locktick"
)

var started *pgtest.Server

// TestMain also requires that no goroutine is left when the tests have ended.
func TestMain(m *testing.M) {
	code := m.Run()
	if started != nil {
		started.Close()
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// onDatabases runs a test with a PostgreSQL, if there is one, and with an SQLite file. older sets back the time of all locks by an
// hour.
func onDatabases(t *testing.T, test func(t *testing.T, db *sql.DB, older string)) {
	open := func(t *testing.T, driver, dsn string) *sql.DB {
		db, err := sql.Open(driver, dsn)
		require.NoError(t, err)
		t.Cleanup(func() { db.Close() })
		db.SetMaxIdleConns(16)
		return db
	}
	t.Run("PostgreSQL", func(t *testing.T) {
		if started == nil {
			s, err := pgtest.Start("fsync=off")
			if pgtest.Dispensable(err) {
				t.Skip(err)
			}
			require.NoError(t, err)
			started = s
		}
		db := open(t, "pgx", started.DSN())
		_, err := db.Exec("DROP TABLE IF EXISTS locks")
		require.NoError(t, err)
		test(t, db, "UPDATE locks SET lock_time = lock_time - INTERVAL '1 hour'")
	})
	t.Run("SQLite", func(t *testing.T) {
		db := open(t, "sqlite", "file:"+filepath.Join(t.TempDir(), "locks.db")+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)")
		test(t, db, "UPDATE locks SET lock_time = strftime('%Y-%m-%d %H:%M:%f000+00:00', lock_time, '-1 hour')")
	})
}

func TestOnADatabaseEachTickIsRunOnce(t *testing.T) {
	onDatabases(t, func(t *testing.T, db *sql.DB, _ string) {
		f := newFleet(lock.New(db))
		const ticks = 6
		for i := range ticks {
			tick := noon.Add(time.Duration(i) * time.Minute)
			var all sync.WaitGroup
			for range 12 {
				all.Go(func() { f.guard(0).Run(t.Context(), tick, f.run) })
			}
			all.Wait()
		}
		f.requireEachOnce(t, locktick.Every(time.Minute), noon, noon.Add((ticks-1)*time.Minute))
		require.Equal(t, map[locktick.Outcome]int{locktick.Ran: ticks, locktick.AlreadyRun: 11 * ticks}, f.told)
	})
}

func TestOnADatabaseATickWhoseHolderDiesIsRunByAnother(t *testing.T) {
	onDatabases(t, func(t *testing.T, db *sql.DB, older string) {
		l := lock.New(db)
		g, _ := guard(l)
		// One that neither renews its lease any more nor releases it.
		ctx, die := context.WithCancel(t.Context())
		dead := g.Job
		dead.ComponentID, dead.JobID, dead.Once = "dead", lock.Tick(noon), true
		lease, err := l.Acquire(ctx, dead)
		require.NoError(t, err)
		die()
		<-lease.Context().Done()

		r := g.Run(t.Context(), noon.Add(time.Minute), nothing)
		require.Equal(t, locktick.Held, r.Outcome, r.Err)
		holder, _ := r.Holder()
		require.Equal(t, "dead", holder.ComponentID)
		require.Equal(t, locktick.AlreadyRun, g.Run(t.Context(), noon, nothing).Outcome)

		_, err = db.Exec(older)
		require.NoError(t, err)
		r = g.Run(t.Context(), noon, func(ctx context.Context) error {
			require.Equal(t, "dead", lock.LeaseFrom(ctx).TakenFrom().ComponentID)
			return nil
		})
		require.Equal(t, locktick.Ran, r.Outcome, r.Err)
		require.NoError(t, r.Err)
		require.Equal(t, locktick.AlreadyRun, g.Run(t.Context(), noon, nothing).Outcome)
	})
}

func TestOnADatabaseThatIsAwayNothingIsRun(t *testing.T) {
	onDatabases(t, func(t *testing.T, db *sql.DB, _ string) {
		g, told := guard(lock.New(db))
		require.NoError(t, db.Close())
		r := g.Run(t.Context(), noon, func(context.Context) error { panic("it runs without the lock") })
		require.Equal(t, locktick.Failed, r.Outcome)
		require.ErrorContains(t, r.Err, "database is closed")
		require.Len(t, *told, 1)
	})
}

func TestOnADatabaseARequestToAllInstancesIsRunOnce(t *testing.T) {
	onDatabases(t, func(t *testing.T, db *sql.DB, _ string) {
		f := newFleet(lock.New(db))
		var statuses sync.Map
		var all sync.WaitGroup
		for i := range 8 {
			instance := httptest.NewServer(f.guard(0).Handler(locktick.FromHeader("Tick"), f.run))
			defer instance.Close()
			all.Go(func() {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, instance.URL, nil)
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("Tick", lock.Tick(noon))
				response, err := instance.Client().Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				response.Body.Close()
				statuses.Store(i, response.StatusCode)
			})
		}
		all.Wait()
		statuses.Range(func(_, status any) bool { return assertOK(t, status) })
		f.requireEachOnce(t, locktick.Every(time.Hour), noon, noon)
		require.Equal(t, map[locktick.Outcome]int{locktick.Ran: 1, locktick.AlreadyRun: 7}, f.told)
	})
}

func assertOK(t *testing.T, status any) bool {
	require.Equal(t, http.StatusOK, status)
	return true
}

// lossy loses the replies to what takes a lock, after it was carried out.
type lossy struct{ *sql.DB }

func (l lossy) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if !strings.Contains(query, "INSERT") {
		return l.DB.QueryRowContext(ctx, query, args...)
	}
	columns := make([]any, 8)
	for i := range columns {
		columns[i] = new(any)
	}
	if err := l.DB.QueryRowContext(ctx, query, args...).Scan(columns...); err != nil {
		panic(err)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	return l.DB.QueryRowContext(over, query, args...)
}

func TestOnADatabaseWhoseReplyIsLostNoLockIsLeftBehind(t *testing.T) {
	onDatabases(t, func(t *testing.T, db *sql.DB, _ string) {
		g, _ := guard(lock.New(lossy{db}))
		g.Job.ComponentID = "this"
		r := g.Run(t.Context(), noon, func(context.Context) error { panic("it runs without the lock") })
		require.Equal(t, locktick.Failed, r.Outcome)
		require.ErrorIs(t, r.Err, lock.ErrOutcomeUnknown)
		s, err := lock.New(db).Status(t.Context(), "shop", "report")
		require.NoError(t, err)
		require.Equal(t, lock.Tick(noon), s.Holder.JobID, "it was carried out")
		require.False(t, s.Locked)
	})
}

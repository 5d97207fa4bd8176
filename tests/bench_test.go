package tests

import (
	"database/sql"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
	"github.com/cloudtrust/go-jobs/lock/internal/pgtest"
)

// The floor of each benchmark is the bare statement of the same kind through the same driver. The
// two take turns, so that other work of the machine affects both alike; the ratio of their
// medians, x-floor, counts. ns/op is for the two together. PostgreSQL has its own server here,
// which waits for the disk at every commit.

var durable = sync.OnceValues(func() (*pgtest.Server, error) {
	s, err := pgtest.Start()
	if err == nil {
		dbtest.AtEnd(s.Close)
	}
	return s, err
})

func durableDSN(params ...string) func(testing.TB) string {
	return func(b testing.TB) string {
		return dbtest.Running(b, durable).DSN(params...)
	}
}

var benchmarked = []dbtest.Engine{
	{Name: "PostgreSQL_pgx", Driver: "pgx", DSN: durableDSN()},
	{Name: "PostgreSQL_pq", Driver: "postgres", DSN: durableDSN("binary_parameters=yes")},
	{Name: "CockroachDB_pq", Driver: "postgres", DSN: dbtest.CockroachDSN},
	{Name: "CockroachDB_pgx", Driver: "pgx", DSN: dbtest.CockroachDSN},
	{Name: "SQLite", Driver: "sqlite", DSN: sqliteDSN},
}

// benchmark times the floor and the call against the row that setup left.
func benchmark(b *testing.B, setup func(*testing.B, *lock.Lock), floor func(*sql.DB) error,
	call func(*lock.Lock) error) {
	for _, e := range benchmarked {
		b.Run(e.Name, func(b *testing.B) {
			db := e.Open(b)
			_, err := db.Exec("DROP TABLE IF EXISTS locks")
			require.NoError(b, err)
			l := lock.New(db)
			setup(b, l)
			sides := [2]func() error{
				func() error { return floor(db) },
				func() error { return call(l) },
			}
			var took [2][]time.Duration
			for b.Loop() {
				for i, side := range sides {
					start := time.Now()
					if err := side(); err != nil {
						b.Fatal(err)
					}
					took[i] = append(took[i], time.Since(start))
				}
			}
			median := func(d []time.Duration) float64 {
				slices.Sort(d)
				return float64(d[len(d)/2])
			}
			b.ReportMetric(median(took[0])/1e3, "µs-floor")
			b.ReportMetric(median(took[1])/1e3, "µs-call")
			b.ReportMetric(median(took[1])/median(took[0]), "x-floor")
		})
	}
}

func update(db *sql.DB, status string) error {
	_, err := db.Exec("UPDATE locks SET status = $1 WHERE component_name = $2 AND job_name = $3",
		status, component, job)
	return err
}

func BenchmarkPair(b *testing.B) {
	benchmark(b,
		func(b *testing.B, l *lock.Lock) { require.NoError(b, l.Enable(component, job)) },
		func(db *sql.DB) error { return errors.Join(update(db, "LOCKED"), update(db, "UNLOCKED")) },
		func(l *lock.Lock) error {
			return errors.Join(l.Lock(component, "a", job, "1", time.Hour),
				l.Unlock(component, "a", job, "1"))
		})
}

func BenchmarkRefused(b *testing.B) {
	benchmark(b,
		func(b *testing.B, l *lock.Lock) {
			require.NoError(b, l.Lock(component, "b", job, "2",
				time.Hour))
		},
		func(db *sql.DB) error {
			var componentID, jobID string
			return db.QueryRow("SELECT component_id, job_id FROM locks WHERE component_name = $1 AND "+
				"job_name = $2", component, job).
				Scan(&componentID, &jobID)
		},
		func(l *lock.Lock) error {
			var refusal *lock.ErrUnauthorised
			if err := l.Lock(component, "a", job, "1", time.Hour); !errors.As(err, &refusal) {
				return errors.New("it is not refused")
			}
			return nil
		})
}

// BenchmarkLocalLock has a sync.Mutex as its floor, which also needs two atomic steps for a pair.
func BenchmarkLocalLock(b *testing.B) {
	b.Run("LocalLock", func(b *testing.B) {
		l := lock.NewLocalLock()
		b.ReportAllocs()
		for b.Loop() {
			l.Lock()
			l.Unlock()
		}
	})
	b.Run("floor", func(b *testing.B) {
		var m sync.Mutex
		for b.Loop() {
			if m.TryLock() {
				m.Unlock()
			}
		}
	})
}

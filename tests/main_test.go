package tests

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

// The component and the job of the specification.
const (
	component = dbtest.Component
	job       = dbtest.Job
)

// atOnce is for tests in which each attempt fails.
var atOnce = lock.RetryPolicy{Backoff: time.Microsecond, MaxBackoff: time.Microsecond}

// The specification runs on all engines.
var engines = append([]dbtest.Engine{
	{Name: "SQLite", Driver: "sqlite", DSN: sqliteDSN},
	{Name: "PostgreSQL, pgx", Driver: "pgx", DSN: dbtest.PostgresDSN()},
	{Name: "PostgreSQL, lib_pq, serializable", Driver: "postgres",
		DSN: dbtest.PostgresDSN("default_transaction_isolation=serializable")},
	{Name: "PostgreSQL, pgx, serializable", Driver: "pgx",
		DSN: dbtest.PostgresDSN("default_transaction_isolation=serializable")},
	{Name: "CockroachDB, lib_pq", Driver: "postgres", DSN: dbtest.CockroachDSN},
	{Name: "CockroachDB, pgx", Driver: "pgx", DSN: dbtest.CockroachDSN},
}, dbtest.PostgreSQL...)

// onEveryEngine runs a test for each available database.
func onEveryEngine(t *testing.T, test func(t *testing.T, e dbtest.Engine)) {
	on(t, engines, test)
}

// on runs a test once for each of the engines, at the same time.
func on(t *testing.T, engines []dbtest.Engine, test func(t *testing.T, e dbtest.Engine)) {
	for _, e := range engines {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			test(t, e)
		})
	}
}

// everywhere runs a test for each available database, and in memory.
func everywhere(t *testing.T, test func(t *testing.T, e dbtest.Engine)) {
	t.Run("memory", func(t *testing.T) { test(t, dbtest.Memory) })
	onEveryEngine(t, test)
}

func sqliteDSN(t testing.TB) string {
	return "file:" + filepath.Join(t.TempDir(), "locks.db") +
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)"
}

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

// named returns the engines with these names.
func named(names ...string) []dbtest.Engine {
	return slices.DeleteFunc(slices.Clone(engines), func(e dbtest.Engine) bool {
		return !slices.Contains(names, e.Name)
	})
}

// postgresEngines are the engines of PostgreSQL with default settings.
func postgresEngines() []dbtest.Engine {
	return named("PostgreSQL, pgx", "PostgreSQL, lib_pq", "PostgreSQL, lib_pq, one round trip")
}

func cockroachEngines() []dbtest.Engine {
	return named("CockroachDB, pgx", "CockroachDB, lib_pq")
}

func onPostgres(t *testing.T, test func(t *testing.T, e dbtest.Engine)) {
	on(t, postgresEngines(), test)
}

// as is the job of the specification, for a run.
func as(componentID, jobID string) lock.Job {
	return lock.Job{ComponentName: component, JobName: job, ComponentID: componentID, JobID: jobID,
		TTL: time.Hour}
}

// acquire returns a lease that is released with the test.
func acquire(t testing.TB, l *lock.Lock, j lock.Job) *lock.Lease {
	t.Helper()
	lease, err := l.Acquire(t.Context(), j)
	require.NoError(t, err)
	return lease
}

package lock_test

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/pgtest"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

// An engine is a database with a driver and a way to talk to it, or memory. What is specified runs on all of them.
type engine struct {
	name   string
	driver string
	dsn    func(t testing.TB) string // of an empty database of the test's own

	// In memory there is a clock to move instead.
	local *lock.Lock
	clock *locktest.Clock
}

func (e engine) open(t testing.TB) *sql.DB {
	return e.openDSN(t, e.dsn(t))
}

func (e engine) openDSN(t testing.TB, dsn string) *sql.DB {
	db, err := sql.Open(e.driver, dsn)
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	// So that a race is between connections, not for one.
	db.SetMaxOpenConns(64)
	db.SetMaxIdleConns(64)
	return db
}

func (e engine) sqlite() bool    { return e.driver == "sqlite" }
func (e engine) memory() bool    { return e.driver == "" }
func (e engine) cockroach() bool { return strings.HasPrefix(e.name, "CockroachDB") }

var engines = []engine{
	{name: "SQLite", driver: "sqlite", dsn: sqliteDSN},
	{name: "PostgreSQL, lib_pq", driver: "postgres", dsn: postgresDSN()},
	{name: "PostgreSQL, lib_pq, one round trip", driver: "postgres", dsn: postgresDSN("binary_parameters=yes")},
	{name: "PostgreSQL, pgx", driver: "pgx", dsn: postgresDSN()},
	{name: "PostgreSQL, lib_pq, serializable", driver: "postgres", dsn: postgresDSN("default_transaction_isolation=serializable")},
	{name: "PostgreSQL, pgx, serializable", driver: "pgx", dsn: postgresDSN("default_transaction_isolation=serializable")},
	{name: "CockroachDB, lib_pq", driver: "postgres", dsn: cockroachDSN},
	{name: "CockroachDB, pgx", driver: "pgx", dsn: cockroachDSN},
}

// onEveryEngine runs a test once for each database that can be had.
func onEveryEngine(t *testing.T, test func(t *testing.T, e engine)) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) { test(t, e) })
	}
}

// everywhere runs a test once for each database that can be had, and in memory.
func everywhere(t *testing.T, test func(t *testing.T, e engine)) {
	t.Run("memory", func(t *testing.T) { test(t, engine{name: "memory"}) })
	onEveryEngine(t, test)
}

func sqliteDSN(t testing.TB) string {
	return "file:" + filepath.Join(t.TempDir(), "locks.db") + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)"
}

// The servers start when the first test asks for them.
var (
	server = sync.OnceValues(func() (*pgtest.Server, error) {
		s, err := pgtest.Start("fsync=off")
		started.Store(s)
		return s, err
	})
	started, durableStarted atomic.Pointer[pgtest.Server]

	schema atomic.Int64
)

func TestMain(m *testing.M) {
	code := m.Run()
	for _, s := range []*pgtest.Server{started.Load(), durableStarted.Load()} {
		if s != nil {
			s.Close()
		}
	}
	stopCockroach()
	os.Exit(code)
}

// postgresDSN gives each test a schema.
func postgresDSN(params ...string) func(testing.TB) string {
	return func(t testing.TB) string {
		s := startPostgres(t)
		name := fmt.Sprintf("s%d", schema.Add(1))
		admin, err := sql.Open("pgx", s.DSN())
		require.NoError(t, err)
		defer admin.Close()
		_, err = admin.Exec("CREATE SCHEMA " + name)
		require.NoError(t, err)
		return s.DSN(append(params, "search_path="+name)...)
	}
}

func startPostgres(t testing.TB) *pgtest.Server { return running(t, server) }

// running returns a server, started if it has to be. Where there is none to start, the test is skipped, unless it has to run.
func running(t testing.TB, start func() (*pgtest.Server, error)) *pgtest.Server {
	s, err := start()
	if pgtest.Dispensable(err) {
		t.Skip(err)
	}
	require.NoError(t, err)
	return s
}

// cockroachDSN is of the server that the environment names or else of one that is started, in both cases with no table in it.
func cockroachDSN(t testing.TB) string {
	dsn := os.Getenv("LOCK_TEST_COCKROACH_URL")
	if dsn == "" {
		bin, err := exec.LookPath("cockroach")
		if err != nil {
			t.Skip("LOCK_TEST_COCKROACH_URL is not set and cockroach is not on PATH")
		}
		dsn, err = startCockroach(bin)
		require.NoError(t, err)
	}
	db, err := sql.Open("postgres", dsn)
	require.NoError(t, err)
	defer db.Close()
	_, err = db.Exec("DROP TABLE IF EXISTS locks")
	require.NoError(t, err)
	return dsn
}

var cockroach struct {
	sync.Mutex
	cmd *exec.Cmd
	dir string
	dsn string
}

// startCockroach starts one node, in memory, if it isn't running.
func startCockroach(bin string) (dsn string, err error) {
	cockroach.Lock()
	defer cockroach.Unlock()
	if cockroach.cmd != nil {
		return cockroach.dsn, nil
	}
	if cockroach.dir, err = os.MkdirTemp("", "cockroach"); err != nil {
		return "", err
	}
	urlFile := filepath.Join(cockroach.dir, "url")
	cockroach.cmd = exec.Command(bin, "start-single-node", "--insecure", "--store=type=mem,size=1GiB",
		"--listen-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--listening-url-file="+urlFile)
	cockroach.cmd.Dir = cockroach.dir
	if err := cockroach.cmd.Start(); err != nil {
		return "", err
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if content, err := os.ReadFile(urlFile); err == nil && len(content) > 0 {
			u, err := url.Parse(strings.TrimSpace(string(content)))
			if err != nil {
				return "", err
			}
			u.Path = "/defaultdb"
			u.RawQuery = "sslmode=disable"
			cockroach.dsn = u.String()
			return cockroach.dsn, nil
		}
		if time.Now().After(deadline) {
			return "", errors.New("cockroach did not start within a minute")
		}
	}
}

func stopCockroach() {
	if cockroach.cmd != nil {
		cockroach.cmd.Process.Kill()
		cockroach.cmd.Wait()
		os.RemoveAll(cockroach.dir)
	}
}

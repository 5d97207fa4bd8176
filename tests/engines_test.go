package tests

import (
	"database/sql"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

// The component and the job of the specification.
const (
	component = dbtest.Component
	job       = dbtest.Job
)

// What is specified runs on all of the engines.
var engines = []dbtest.Engine{
	{Name: "SQLite", Driver: "sqlite", DSN: sqliteDSN},
	{Name: "PostgreSQL, lib_pq", Driver: "postgres", DSN: dbtest.PostgresDSN()},
	{Name: "PostgreSQL, lib_pq, one round trip", Driver: "postgres", DSN: dbtest.PostgresDSN("binary_parameters=yes")},
	{Name: "PostgreSQL, pgx", Driver: "pgx", DSN: dbtest.PostgresDSN()},
	{Name: "PostgreSQL, lib_pq, serializable", Driver: "postgres", DSN: dbtest.PostgresDSN("default_transaction_isolation=serializable")},
	{Name: "PostgreSQL, pgx, serializable", Driver: "pgx", DSN: dbtest.PostgresDSN("default_transaction_isolation=serializable")},
	{Name: "CockroachDB, lib_pq", Driver: "postgres", DSN: cockroachDSN},
	{Name: "CockroachDB, pgx", Driver: "pgx", DSN: cockroachDSN},
}

// onEveryEngine runs a test once for each database that can be had.
func onEveryEngine(t *testing.T, test func(t *testing.T, e dbtest.Engine)) {
	for _, e := range engines {
		t.Run(e.Name, func(t *testing.T) { test(t, e) })
	}
}

// everywhere runs a test once for each database that can be had, and in memory.
func everywhere(t *testing.T, test func(t *testing.T, e dbtest.Engine)) {
	t.Run("memory", func(t *testing.T) { test(t, dbtest.Memory) })
	onEveryEngine(t, test)
}

func sqliteDSN(t testing.TB) string {
	return "file:" + filepath.Join(t.TempDir(), "locks.db") + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)"
}

func TestMain(m *testing.M) {
	code := dbtest.Main(m)
	if s := durableStarted.Load(); s != nil {
		s.Close()
	}
	stopCockroach()
	os.Exit(code)
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

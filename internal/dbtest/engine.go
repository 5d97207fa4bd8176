// Package dbtest has what the tests on databases share: the engines, their table, and the specification of a row.
package dbtest

import (
	"database/sql"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/pgtest"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

// An Engine is a database with a driver and a way to talk to it, or memory.
type Engine struct {
	Name   string
	Driver string                    // empty: memory
	DSN    func(t testing.TB) string // of an empty database of the test's own

	// In memory there is a clock to move instead.
	local *lock.Lock
	clock *locktest.Clock
}

// Memory is the engine that has no database.
var Memory = Engine{Name: "memory"}

// Open opens a database of the test's own.
func (e Engine) Open(t testing.TB) *sql.DB {
	return e.OpenDSN(t, e.DSN(t))
}

// OpenDSN opens the database with the DSN.
func (e Engine) OpenDSN(t testing.TB, dsn string) *sql.DB {
	db, err := sql.Open(e.Driver, dsn)
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	// So that a race is between connections, not for one.
	db.SetMaxOpenConns(64)
	db.SetMaxIdleConns(64)
	return db
}

func (e Engine) SQLite() bool      { return e.Driver == "sqlite" }
func (e Engine) Memory() bool      { return e.Driver == "" }
func (e Engine) CockroachDB() bool { return strings.HasPrefix(e.Name, "CockroachDB") }

// The server starts when the first test asks for it.
var (
	server = sync.OnceValues(func() (*pgtest.Server, error) {
		s, err := pgtest.Start("fsync=off")
		started.Store(s)
		return s, err
	})
	started atomic.Pointer[pgtest.Server]

	schema atomic.Int64
)

// Main runs the tests, stops the server, and returns the code to exit with. It is for TestMain. A goroutine of this library
// that is left when the tests have ended is a failure.
func Main(m *testing.M) (code int) {
	code = m.Run()
	if s := started.Load(); s != nil {
		s.Close()
	}
	if left := leaked(); left != "" && code == 0 {
		fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", left)
		code = 1
	}
	return code
}

// leaked returns the stacks of the other goroutines that run code of this library, once they have had time to end.
func leaked() (left string) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		buf := make([]byte, 1<<20)
		all := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
		left = ""
		for _, stack := range all[1:] {
			if strings.Contains(stack, "cloudtrust/go-jobs/lock") {
				left += stack + "\n\n"
			}
		}
		if left == "" {
			return ""
		}
	}
	return left
}

// PostgresDSN returns a function that gives each test a schema.
func PostgresDSN(params ...string) func(testing.TB) string {
	return func(t testing.TB) string {
		s := StartPostgres(t)
		name := fmt.Sprintf("s%d", schema.Add(1))
		admin, err := sql.Open("postgres", s.DSN())
		require.NoError(t, err)
		defer admin.Close()
		_, err = admin.Exec("CREATE SCHEMA " + name)
		require.NoError(t, err)
		return s.DSN(append(params, "search_path="+name)...)
	}
}

// StartPostgres returns the server that the tests share.
func StartPostgres(t testing.TB) *pgtest.Server { return Running(t, server) }

// Running returns a server, started if it has to be. If there is none to start, the test is skipped, unless it has to run.
func Running(t testing.TB, start func() (*pgtest.Server, error)) *pgtest.Server {
	s, err := start()
	if pgtest.Dispensable(err) {
		t.Skip(err)
	}
	require.NoError(t, err)
	return s
}

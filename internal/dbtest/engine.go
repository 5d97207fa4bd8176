// Package dbtest is shared by the tests on databases: the engines, their table, the specification
// of a row, and a driver that fails on demand.
package dbtest

import (
	"database/sql"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/pgtest"
)

// An Engine is a database with a driver and its mode, or memory.
type Engine struct {
	Name   string
	Driver string                    // empty: memory
	DSN    func(t testing.TB) string // of a new, empty database
}

// Memory is the engine without a database.
var Memory = Engine{Name: "memory"}

// PostgreSQL has the engines whose driver module lock has.
var PostgreSQL = []Engine{
	{Name: "PostgreSQL, lib_pq", Driver: "postgres", DSN: PostgresDSN()},
	{Name: "PostgreSQL, lib_pq, one round trip", Driver: "postgres",
		DSN: PostgresDSN("binary_parameters=yes")},
}

// Open opens a new database for the test.
func (e Engine) Open(t testing.TB) *sql.DB {
	return e.OpenDSN(t, e.DSN(t))
}

// OpenDSN opens the database with the DSN.
func (e Engine) OpenDSN(t testing.TB, dsn string) *sql.DB {
	db, err := sql.Open(e.Driver, dsn)
	require.NoError(t, err)
	return pool(t, db)
}

// pool allows enough connections for a race between them, and closes db when the test has ended.
func pool(t testing.TB, db *sql.DB) *sql.DB {
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(64)
	db.SetMaxIdleConns(64)
	return db
}

func (e Engine) SQLite() bool      { return e.Driver == "sqlite" }
func (e Engine) Memory() bool      { return e.Driver == "" }
func (e Engine) CockroachDB() bool { return strings.HasPrefix(e.Name, "CockroachDB") }

// Dialect returns the dialect of the engine.
func (e Engine) Dialect() lock.Dialect {
	switch {
	case e.SQLite():
		return lock.SQLite
	case e.CockroachDB():
		return lock.CockroachDB
	}
	return lock.PostgreSQL
}

// The server starts when the first test asks for it.
var (
	server = sync.OnceValues(func() (*pgtest.Server, error) {
		s, err := pgtest.Start("fsync=off")
		if err == nil {
			AtEnd(s.Close)
		}
		return s, err
	})
	schema atomic.Int64

	mu      sync.Mutex
	atEnd   []func()
	leftOut = map[string]int{} // the number of tests, by reason
)

// AtEnd makes Main call stop when the tests have ended.
func AtEnd(stop func()) {
	mu.Lock()
	defer mu.Unlock()
	atEnd = append(atEnd, stop)
}

// LeaveOut skips the test. Main prints how many were skipped, and why.
func LeaveOut(t testing.TB, why string) {
	mu.Lock()
	leftOut[why]++
	mu.Unlock()
	t.Skip(why)
}

// Main is for TestMain. It runs the tests, stops what they started, prints what was skipped, and
// returns the exit code. A goroutine of this library that is left after the tests is a failure.
func Main(m *testing.M) (code int) {
	code = m.Run()
	for _, stop := range slices.Backward(atEnd) {
		stop()
	}
	for why, n := range leftOut {
		fmt.Printf("left out: %d tests and subtests: %s\n", n, why)
	}
	if left := leaked(); left != "" && code == 0 {
		fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", left)
		code = 1
	}
	return code
}

// leaked returns the stacks of the other goroutines that run code of this library, after giving
// them time to end.
func leaked() (left string) {
	deadline := time.Now().Add(10 * time.Second)
	for ; time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
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
		Exec(t, s.DSN(), "CREATE SCHEMA "+name)
		return s.DSN(append(params, "search_path="+name)...)
	}
}

// Exec sends statements through lib/pq.
func Exec(t testing.TB, dsn string, statements ...string) {
	db, err := sql.Open("postgres", dsn)
	require.NoError(t, err)
	defer db.Close()
	for _, s := range statements {
		_, err = db.Exec(s)
		require.NoError(t, err, s)
	}
}

// StartPostgres returns the server that the tests share.
func StartPostgres(t testing.TB) *pgtest.Server { return Running(t, server) }

// Running returns a server, and starts it if necessary. If there is none, it skips the test or,
// if the test is required, fails it.
func Running(t testing.TB, start func() (*pgtest.Server, error)) *pgtest.Server {
	s, err := start()
	if pgtest.Dispensable(err) {
		LeaveOut(t, err.Error())
	}
	require.NoError(t, err)
	return s
}

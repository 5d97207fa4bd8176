// Package observedtest has a database for tests of observers, in bubbles of package synctest.
package observedtest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
)

const driverName = "sqlite with the clock of package time"

// Register registers SQLite's driver for Open. Its function unixepoch of one argument reads the
// clock of package time, so that the database uses the clock of a synctest bubble.
func Register[C any](d interface {
	driver.Driver
	MustRegisterScalarFunction(string, int32, func(*C, []driver.Value) (driver.Value, error))
}) {
	d.MustRegisterScalarFunction("unixepoch", 1, unixEpoch[C])
	sql.Register(driverName, d)
}

func unixEpoch[C any](_ *C, args []driver.Value) (driver.Value, error) {
	s, ok := args[0].(string)
	switch {
	case !ok:
		return nil, errors.New("unixepoch wants a text")
	case s == "subsec":
		return float64(time.Now().UnixMilli()) / 1000, nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05-07:00", "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.Unix(), nil
		}
	}
	return nil, nil
}

var update = flag.Bool("update", false, "write the sample")

// RequireSample compares the sample that a README links to.
func RequireSample(t *testing.T, file, sample string) {
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(sample), 0o644))
		return
	}
	is, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, sample, string(is), "go test -run README -update writes it")
}

// Database is a Storage whose statements each take some time, and hang while Hung.
type Database struct {
	*sql.DB
	Takes time.Duration
	Hung  atomic.Bool
}

// Open returns a Database of the test's own, in SQLite.
func Open(t testing.TB) *Database {
	db, err := sql.Open(driverName,
		"file:"+filepath.Join(t.TempDir(),
			"locks.db")+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return &Database{DB: db}
}

func (d *Database) pause(ctx context.Context) {
	time.Sleep(d.Takes)
	if d.Hung.Load() {
		<-ctx.Done()
	}
}

func (d *Database) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	d.pause(ctx)
	return d.DB.QueryRowContext(ctx, query, args...)
}

func (d *Database) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	d.pause(ctx)
	return d.DB.ExecContext(ctx, query, args...)
}

// Observed returns a Lock on the database.
func (d *Database) Observed(t testing.TB, observer func(context.Context, lock.Event)) *lock.Lock {
	l, err := lock.NewWith(d, lock.Options{Observer: observer})
	require.NoError(t, err)
	return l
}

func (d *Database) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	d.pause(ctx)
	return d.DB.QueryContext(ctx, query, args...)
}

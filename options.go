package lock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// Options are for [NewWith] and [NewMemory]. Their zero value is what [New] uses.
type Options struct {
	// Table is the name of the table; "" means locks. It is quoted, so it may contain capitals,
	// spaces and dots.
	Table string
	// Schema is the schema of the table, also quoted; "" means that the search path finds the
	// table.
	Schema string
	// Dialect is the kind of database; "" means that it is detected from the driver or the first
	// answer.
	Dialect Dialect
	// NoDDL prevents that the table is created.
	NoDDL bool
	// Retry says how often a failing call is tried.
	Retry RetryPolicy
	// Logger, unless nil, logs lost leases as errors; takeovers and failures as warnings;
	// acquisitions, releases, Enable, Disable and Delete at the level info; refusals and renewals
	// at the level debug.
	Logger *slog.Logger
	// Observer, unless nil, is called at the end of each call, and when a lease is renewed or
	// lost. Its context is that of the call or the lease, which may have ended. It is called from
	// several goroutines at once, and the call waits for it. It may call anything of the Lock or
	// the Lease. [Observers] combines several.
	Observer func(context.Context, Event)
	// Notifier, unless nil, wakes waiters in other processes when a lock is released. Waiters in
	// the same process are woken without it.
	Notifier Notifier
	// Clock is the clock by which the locks of [NewMemory] expire; nil means time.Now. It must be
	// safe for concurrent use. With a database it is an error: the database's clock counts.
	Clock func() time.Time
}

// Dialect is a kind of database.
type Dialect string

// The kinds of database for [Options.Dialect].
const (
	PostgreSQL  Dialect = store.Postgres
	CockroachDB Dialect = store.Cockroach
	SQLite      Dialect = store.SQLite
)

// RetryPolicy says how often a call is tried if another attempt may succeed: after a
// serialization failure, a deadlock, a broken or refused connection, a server that shuts down,
// starts or has become a stand-by, or a stale prepared statement.
type RetryPolicy struct {
	// Attempts is the largest number of attempts of a call. 0 means 9, which with the other zero
	// values takes about two seconds; 1 means no retries.
	Attempts int
	// Backoff is the delay before the second attempt. It doubles before each further one. A
	// random part, up to half, is subtracted from each delay. 0 means 10 ms.
	Backoff time.Duration
	// MaxBackoff limits the delay. 0 means one second.
	MaxBackoff time.Duration
	// AttemptTimeout limits each attempt of a call with a context; then the call is tried again.
	// 0 means ten seconds. Calls without a context have no limit.
	AttemptTimeout time.Duration
}

// NewWith returns a Lock like [New], with options. The error says which option is wrong; it is
// never about the Storage.
func NewWith(s Storage, o Options) (*Lock, error) {
	table, err := o.table()
	if err == nil {
		err = o.check()
	}
	if err != nil {
		return nil, fmt.Errorf("lock: NewWith: %w", err)
	}
	t := store.NewTable(s, store.Config{Dialects: dialects, Dialect: string(o.Dialect), Table: table,
		NoDDL: o.NoDDL, Policy: store.Policy(o.Retry)})
	return &Lock{store: t, hub: newHub(o.Notifier), o: o}, nil
}

func (o Options) check() error {
	switch p := o.Retry; {
	case p.Attempts < 0 || p.Backoff < 0 || p.MaxBackoff < 0 || p.AttemptTimeout < 0:
		return fmt.Errorf("the retry policy %+v has a negative value", p)
	case o.Clock != nil:
		return errors.New("Options.Clock is for NewMemory only: a database uses its own clock")
	}
	switch o.Dialect {
	case "", PostgreSQL, CockroachDB, SQLite:
		return nil
	}
	return fmt.Errorf("the dialect %q is unknown: it must be %q, %q, %q or empty",
		o.Dialect, PostgreSQL, CockroachDB, SQLite)
}

// reserved are the names of the CTEs in the statements.
var reserved = []string{"this_row", "this_acquisition"}

// table returns the quoted name for the statements.
func (o Options) table() (string, error) {
	if o.Table == "" && o.Schema == "" {
		return "locks", nil
	}
	var parts []string
	for _, part := range []struct{ what, name string }{{"schema", o.Schema}, {"table", o.Table}} {
		switch name := part.name; {
		case name == "" && part.what == "schema":
		case name == "":
			parts = append(parts, "locks")
		case strings.IndexByte(name, 0) >= 0 || !utf8.ValidString(name):
			return "", fmt.Errorf("the name of the %s, %q, has a NUL or is not valid UTF-8", part.what, name)
		case len(name) > 63:
			return "", fmt.Errorf("the name of the %s, %q, is longer than 63 bytes: "+
				"PostgreSQL would cut it off", part.what, name)
		case slices.Contains(reserved, name) && o.Schema == "":
			return "", fmt.Errorf("the name of the table, %q, is reserved: set Options.Schema, "+
				"or choose another name", name)
		case strings.Contains(name, "$lock$"):
			return "", fmt.Errorf("the name of the %s, %q, has $lock$ in it", part.what, name)
		default:
			parts = append(parts, `"`+strings.ReplaceAll(name, `"`, `""`)+`"`)
		}
	}
	return strings.Join(parts, "."), nil
}

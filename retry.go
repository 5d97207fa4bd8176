package lock

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"time"
)

// RetryPolicy says how often a call is tried whose failure a retry may cure: a serialization failure, a deadlock, a broken
// or refused connection, a server that shuts down or starts. Its zero value is a good one.
type RetryPolicy struct {
	// Attempts is how often a call is tried at most. 0 means 9, which with the other zero values gives up after about two
	// seconds; 1 means that nothing is tried again.
	Attempts int
	// Backoff is the delay before the second attempt; it doubles before each further one. 0 means 10 ms. Each delay is
	// shortened by a random part, up to half of it.
	Backoff time.Duration
	// MaxBackoff bounds the delay. 0 means one second.
	MaxBackoff time.Duration
}

func (p RetryPolicy) check() error {
	if p.Attempts < 0 || p.Backoff < 0 || p.MaxBackoff < 0 {
		return fmt.Errorf("the retry policy %+v has a negative value", p)
	}
	return nil
}

func (p RetryPolicy) attempts() int { return cmp.Or(p.Attempts, 9) }

func (p RetryPolicy) backoff(attempt int) time.Duration {
	most := cmp.Or(p.MaxBackoff, time.Second)
	d := cmp.Or(p.Backoff, 10*time.Millisecond)
	for i := 1; i < attempt && d < most; i++ {
		d *= 2
	}
	d = min(d, most)
	return d - rand.N(d/2+1)
}

// ask runs f, which tells the database something, and says of its error which call it failed. It runs f again where that
// can help: every call is idempotent by its IDs, so doing it twice does it once. In a transaction of the caller's it does
// not: what has failed there can only be repeated from the beginning, by the caller.
func (db *database) ask(ctx context.Context, id identity, f func(Storage, *dialect) error) error {
	if db.unusable != nil {
		return id.fail(db.unusable)
	}
	if err := ctx.Err(); err != nil {
		return id.fail(err)
	}
	var (
		before     error // what the attempt before failed with
		unknown    bool  // whether an attempt may have taken effect
		mayMissing = true
	)
	for attempt := 1; ; attempt++ {
		d := db.dialect.Load()
		sent, err := db.attempt(ctx, d, unknown, f)
		switch {
		case err == nil:
			return nil
		case d.name != sqlite.name && fromSQLite(err):
			// SQLite could not even read the statement: nothing has been done.
			db.speak(sqlite)
			continue
		case missingTable(err) && mayMissing:
			mayMissing = false
			if err = db.createLate(ctx, err); err == nil {
				continue
			}
		case sqlState(err) == failedTransaction && before != nil:
			// A transaction that doesn't look like one: its caller needs to know what failed in it, not that something did.
			return id.fail(before)
		}
		unknown = unknown || sent && outcomeUnknown(err)
		if db.transaction || attempt >= db.retry.attempts() || !curable(err) || !sleep(ctx, db.retry.backoff(attempt)) {
			if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
				err = fmt.Errorf("%w: %w", ctx.Err(), err)
			}
			if unknown {
				err = fmt.Errorf("%w (%w)", err, ErrOutcomeUnknown)
			}
			return id.fail(err)
		}
		before = err
	}
}

// attempt runs f, and says whether there was a connection for it. Until something is in doubt, f has one connection and no
// more: on a *sql.DB, database/sql repeats what failed with driver.ErrBadConn, and lib/pq says that of statements that were
// sent, too, so that the error of the last would say nothing of the first.
func (db *database) attempt(ctx context.Context, d *dialect, doubt bool, f func(Storage, *dialect) error) (sent bool, err error) {
	pool, ok := db.s.(*sql.DB)
	if !ok || doubt || d.name == sqlite.name {
		return true, f(db.s, d)
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	return true, f(connection{conn}, d)
}

// sleep waits, and says whether it was not interrupted by the end of ctx.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// SQLSTATEs.
const (
	undefinedTable    = "42P01"
	failedTransaction = "25P02"
)

// sqlState returns the SQLSTATE that a driver's error gives, as those of lib/pq and pgx do, or "".
func sqlState(err error) string {
	var s interface{ SQLState() string }
	if errors.As(err, &s) {
		return s.SQLState()
	}
	return ""
}

func missingTable(err error) bool {
	return sqlState(err) == undefinedTable || fromSQLite(err) && strings.Contains(err.Error(), "no such table")
}

// curable says whether the same statement may succeed when it is sent again.
func curable(err error) bool {
	switch state := sqlState(err); state {
	case "":
	case "40001", // serialization failure
		"40003",                   // CockroachDB: ambiguous result
		"40P01",                   // deadlock
		"53300",                   // too many connections
		"57P01", "57P02", "57P03": // the server is shutting down, has crashed, is starting
		return true
	default:
		return strings.HasPrefix(state, "08") // connection
	}
	if fromSQLite(err) {
		return strings.Contains(err.Error(), "locked") // SQLITE_BUSY, SQLITE_LOCKED
	}
	var network net.Error
	return errors.Is(err, driver.ErrBadConn) || errors.As(err, &network) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// outcomeUnknown says whether a statement that failed with err may have been carried out all the same. When in doubt, it may.
func outcomeUnknown(err error) bool {
	switch state := sqlState(err); state {
	case "":
	case "40003", "57P01", "57P02":
		return true
	default:
		return strings.HasPrefix(state, "08")
	}
	if fromSQLite(err) {
		return strings.Contains(err.Error(), "interrupt") // by the end of the context
	}
	// Not driver.ErrBadConn, nor that no other connection can be had: see attempt.
	for _, unsent := range []error{sql.ErrConnDone, sql.ErrTxDone, errNoAnswer} {
		if errors.Is(err, unsent) {
			return false
		}
	}
	return err.Error() != "sql: database is closed" // which database/sql doesn't export
}

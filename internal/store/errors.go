package store

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"syscall"
)

// ErrOutcomeUnknown is the error of a call that may have taken effect.
var ErrOutcomeUnknown = errors.New("the outcome is unknown: " +
	"repeat the call with the same IDs to settle it")

// ErrNoStorage is the error of a call without a database.
var ErrNoStorage = errors.New("there is no database: New got a nil Storage, or was not called")

var (
	errNoRow  = errors.New("the Storage returned a nil *sql.Row: use a database or a NoopLocker")
	errHidden = errors.New("row-level security is active on the table and may hide the row: " +
		"disable it, or give the role BYPASSRLS")

	errRaced   = errors.New("the row changed during every attempt: try again")
	errLearned = errors.New("the server is of another kind")
)

// A connectError is an error of a call that was not sent.
type connectError struct{ error }

func (e connectError) Unwrap() error { return e.error }

// An attemptTimeout is the error of an attempt that took too long, in a call that did not.
type attemptTimeout struct{ error }

func (e attemptTimeout) Unwrap() error { return e.error }

// sqlState returns the SQLSTATE of a driver's error, or "".
func sqlState(err error) string {
	var s interface{ SQLState() string }
	if errors.As(err, &s) {
		return s.SQLState()
	}
	return ""
}

const failedTransaction = "25P02"

func missingTable(err error) bool {
	return sqlState(err) == "42P01" ||
		fromSQLite(err) && strings.Contains(err.Error(), "no such table")
}

// notUnderstood reports whether the server doesn't understand the statement.
func notUnderstood(err error) bool {
	state := sqlState(err)
	return state != "42P01" && (strings.HasPrefix(state, "42") || state == "0A000" || state == "22023")
}

// staleSession reports whether another session may succeed: this one is on a server that has
// become a stand-by.
func staleSession(err error) bool { return sqlState(err) == "25006" }

// Curable reports whether a retry may succeed.
func Curable(err error) bool {
	var slow attemptTimeout
	if errors.As(err, &slow) {
		return true
	}
	var unsent connectError
	if errors.As(err, &unsent) {
		state := sqlState(err)
		return !strings.HasPrefix(state, "28") && state != "3D000" && !Closed(err)
	}
	switch state := sqlState(err); state {
	case "":
	case "40001", // serialization failure
		"40003",                            // CockroachDB: the result is ambiguous
		"40P01",                            // deadlock
		"53300",                            // too many connections
		"57P01", "57P02", "57P03", "57P05", // the server shuts down, has crashed, starts, was idle
		"25006",          // the session can only read
		"26000", "42P05": // a prepared statement is missing, or there already
		return true
	case "0A000": // a prepared statement is stale
		return strings.Contains(err.Error(), "cached plan")
	case "57014": // CockroachDB: the node drains
		return strings.Contains(err.Error(), "query execution canceled") ||
			strings.Contains(err.Error(), "draining")
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

// Passing reports whether a failure may pass while the caller waits: it is curable, or a lock or
// the server took longer than a timeout allows.
func Passing(err error) bool {
	switch sqlState(err) {
	case "55P03", "57014": // lock_timeout, statement_timeout
		return true
	}
	return Curable(err)
}

// inDoubt reports whether a statement that failed with err may have taken effect. Unknown errors
// may.
func inDoubt(err error) bool {
	switch state := sqlState(err); state {
	case "":
	case "40003", "57P01", "57P02":
		return true
	case "57014": // on CockroachDB, even after a commit
		return strings.Contains(err.Error(), "query execution canceled")
	default:
		return strings.HasPrefix(state, "08")
	}
	if fromSQLite(err) {
		return strings.Contains(err.Error(), "interrupt") // by the end of the context
	}
	var safe interface{ SafeToRetry() bool } // of pgx: nothing was sent
	if errors.As(err, &safe) && safe.SafeToRetry() {
		return false
	}
	for _, unsent := range []error{sql.ErrConnDone, sql.ErrTxDone, errNoRow} {
		if errors.Is(err, unsent) {
			return false
		}
	}
	return !Closed(err)
}

// Closed reports whether err is the error of a closed *sql.DB, which database/sql doesn't export.
func Closed(err error) bool { return strings.Contains(err.Error(), "sql: database is closed") }

// inSQLite reports whether the type of v is from a package for SQLite. All known ones have the
// name in their path.
func inSQLite(v any) bool {
	t := reflect.TypeOf(v)
	if t == nil {
		return false
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return strings.Contains(t.PkgPath(), "sqlite")
}

// fromSQLite reports whether err is, wraps or joins an error of a SQLite driver.
func fromSQLite(err error) bool {
	if err == nil || inSQLite(err) {
		return err != nil
	}
	switch err := err.(type) {
	case interface{ Unwrap() error }:
		return fromSQLite(err.Unwrap())
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(err.Unwrap(), fromSQLite)
	}
	return false
}

package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"reflect"
)

// DB is the part of a database that a Table needs.
type DB interface {
	Exec(query string, args ...any) (sql.Result, error)
	QueryRow(query string, args ...any) *sql.Row
}

// contextDB is a DB whose statements a context can cancel.
type contextDB interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Background is the context of the calls without one. They use Exec and QueryRow, which every DB
// has.
var Background = context.Background()

// session is a DB on one connection.
type session struct{ *sql.Conn }

func (s session) Exec(query string, args ...any) (sql.Result, error) {
	return s.ExecContext(Background, query, args...)
}

func (s session) QueryRow(query string, args ...any) *sql.Row {
	return s.QueryRowContext(Background, query, args...)
}

func exec(ctx context.Context, db DB, query string, args ...any) error {
	var err error
	if c, ok := db.(contextDB); ok && ctx != Background {
		_, err = c.ExecContext(ctx, query, args...)
	} else {
		_, err = db.Exec(query, args...)
	}
	return err
}

// queryRow reads one row. It returns sql.ErrNoRows if there is none.
func queryRow(ctx context.Context, db DB, query string, args []any, dest ...any) error {
	var row *sql.Row
	if c, ok := db.(contextDB); ok && ctx != Background {
		row = c.QueryRowContext(ctx, query, args...)
	} else {
		row = db.QueryRow(query, args...)
	}
	if row == nil || *row == (sql.Row{}) { // Scan would panic
		return errNoRow
	}
	return row.Scan(dest...)
}

// query needs a DB that can return many rows, such as *sql.DB.
func query(ctx context.Context, db DB, text string) (*sql.Rows, error) {
	if q, ok := db.(interface {
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	}); ok {
		return q.QueryContext(ctx, text)
	}
	if q, ok := db.(interface {
		Query(query string, args ...any) (*sql.Rows, error)
	}); ok {
		return q.Query(text)
	}
	return nil, errors.New("the Storage has neither QueryContext nor Query: use the *sql.DB")
}

// Absent reports whether there is no database behind v: a nil Storage or a nil *sql.DB.
func Absent(v any) bool {
	if v == nil {
		return true
	}
	value := reflect.ValueOf(v)
	return value.Kind() == reflect.Pointer && value.IsNil()
}

// IsTransaction reports whether v can be committed and rolled back, as *sql.Tx can.
func IsTransaction(v any) bool {
	_, ok := v.(interface {
		Commit() error
		Rollback() error
	})
	return ok
}

// usesSQLite reports whether the driver of db is known to be for SQLite.
func usesSQLite(db DB) bool {
	d, ok := db.(interface{ Driver() driver.Driver })
	return ok && inSQLite(d.Driver())
}

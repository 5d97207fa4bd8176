package lock

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"reflect"
	"slices"
	"strings"
)

// Storage is the database, as much of it as a [Lock] needs. *sql.DB and *sql.Tx are Storages, and so is what wraps them.
//
// A Storage that can also commit and roll back, as *sql.Tx can, is taken for a transaction of the caller's: a Lock creates
// no table in it and retries nothing in it.
type Storage interface {
	Exec(query string, args ...interface{}) (sql.Result, error)
	QueryRow(query string, args ...interface{}) *sql.Row
}

// contextStorage is a Storage whose statements a context can cancel, as those of *sql.DB, *sql.Tx and *sql.Conn can be.
type contextStorage interface {
	ExecContext(ctx context.Context, query string, args ...interface{}) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...interface{}) *sql.Row
}

// connection is a Storage on one connection.
type connection struct{ *sql.Conn }

func (c connection) Exec(query string, args ...interface{}) (sql.Result, error) {
	return c.ExecContext(background, query, args...)
}

func (c connection) QueryRow(query string, args ...interface{}) *sql.Row {
	return c.QueryRowContext(background, query, args...)
}

// background is the context of the calls that take none. They use Exec and QueryRow, which every Storage has.
var background = context.Background()

func exec(ctx context.Context, s Storage, query string, args ...interface{}) error {
	var err error
	if cs, ok := s.(contextStorage); ok && ctx != background {
		_, err = cs.ExecContext(ctx, query, args...)
	} else {
		_, err = s.Exec(query, args...)
	}
	return err
}

// query is for a Storage that can also answer with many rows, as *sql.DB can.
func query(ctx context.Context, s Storage, text string) (*sql.Rows, error) {
	if q, ok := s.(interface {
		QueryContext(ctx context.Context, query string, args ...interface{}) (*sql.Rows, error)
	}); ok {
		return q.QueryContext(ctx, text)
	}
	if q, ok := s.(interface {
		Query(query string, args ...interface{}) (*sql.Rows, error)
	}); ok {
		return q.Query(text)
	}
	return nil, errors.New("the Storage has neither QueryContext nor Query")
}

func queryRow(ctx context.Context, s Storage, query string, args ...interface{}) *sql.Row {
	if cs, ok := s.(contextStorage); ok && ctx != background {
		return cs.QueryRowContext(ctx, query, args...)
	}
	return s.QueryRow(query, args...)
}

// absent says whether there is no database behind s: services hand over a nil Storage, or a nil *sql.DB, where theirs is
// switched off.
func absent(s any) bool {
	if s == nil {
		return true
	}
	v := reflect.ValueOf(s)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

func isTransaction(s any) bool {
	_, ok := s.(interface {
		Commit() error
		Rollback() error
	})
	return ok
}

// dialectOf chooses what to say to s at first. Where its driver can't be seen, the first answer tells (see ask).
func dialectOf(s Storage) dialect {
	if d, ok := s.(interface{ Driver() driver.Driver }); ok && inSQLite(d.Driver()) {
		return sqlite
	}
	return postgres
}

// inSQLite says whether the type of v is from a package of SQLite's. All that are known have the name in their path.
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

// fromSQLite says whether err is, wraps or joins an error of a SQLite driver.
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

package dbtest

import (
	"context"
	"database/sql"
)

// ConnStorage makes a Storage of a *sql.Conn, which has no calls without a context.
type ConnStorage struct{ *sql.Conn }

func (c ConnStorage) Exec(query string, args ...interface{}) (sql.Result, error) {
	return c.ExecContext(context.Background(), query, args...)
}

func (c ConnStorage) QueryRow(query string, args ...interface{}) *sql.Row {
	return c.QueryRowContext(context.Background(), query, args...)
}

// Storage is a Storage made of two functions.
type Storage struct {
	OnExec     func(query string) error
	OnQueryRow func(query string) *sql.Row
}

func (s Storage) Exec(query string, _ ...interface{}) (sql.Result, error) {
	return nil, s.OnExec(query)
}
func (s Storage) QueryRow(query string, _ ...interface{}) *sql.Row { return s.OnQueryRow(query) }

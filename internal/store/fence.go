package store

import (
	"context"
	"database/sql"
	"errors"
)

// confirm makes sure that the transaction has read the present record. If its snapshot is old,
// the database returns an error.
func (c *call) confirm(ctx context.Context, seen Record) error {
	now, err := c.fence(ctx, c.db)
	if err != nil {
		return err
	}
	if now.ComponentID != seen.ComponentID || now.JobID != seen.JobID || now.Locked != seen.Locked ||
		!now.LockTime.Equal(seen.LockTime) {
		return errRaced
	}
	return nil
}

// fence reads the record and locks it until the transaction ends.
func (c *call) fence(ctx context.Context, tx DB) (rec Record, err error) {
	names := []any{c.req.ComponentName, c.req.JobName}
	for range 2 {
		err = queryRow(ctx, tx, c.d.text("fence"), names, rec.columns()...)
		if !errors.Is(err, sql.ErrNoRows) {
			rec.Exists = err == nil
			return rec, err
		}
		// A snapshot may be older than the record. Then the probe conflicts with a row that it
		// can't see, and fails.
		if err := exec(ctx, tx, c.d.text("probe"), names...); err != nil {
			return rec, err
		}
	}
	return rec, err
}

// Fence implements Store.
func (t *Table) Fence(ctx context.Context, tx Transaction, r Request) (Record, error) {
	c := &call{t: t, req: r, d: t.dialect.Load()}
	rec, err := c.fence(ctx, transaction{tx})
	return rec, r.Wrap(err)
}

// transaction is a DB in a Transaction. All its statements take a context.
type transaction struct{ Transaction }

func (t transaction) QueryRow(query string, args ...any) *sql.Row {
	return t.QueryRowContext(Background, query, args...)
}

func (t transaction) Exec(query string, args ...any) (sql.Result, error) {
	return t.ExecContext(Background, query, args...)
}

// ExecContext sends a statement that returns no row.
func (t transaction) ExecContext(ctx context.Context, query string, args ...any) (
	sql.Result, error) {
	if err := t.QueryRowContext(ctx, query, args...).Scan(); !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	return nil, nil
}

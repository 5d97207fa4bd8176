package store

import (
	"context"
	"database/sql"
	"errors"
	"iter"
)

// Get implements Store.
func (t *Table) Get(ctx context.Context, r Request) (rec Record, err error) {
	_, err = t.do(ctx, r, func(ctx context.Context, c *call) (err error) {
		rec, err = c.d.get(ctx, c)
		return err
	})
	return rec, err
}

// List implements Store.
func (t *Table) List(ctx context.Context, r Request) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		var rows *sql.Rows
		// An answer that breaks off is an error: what has been handed over can't be taken back.
		_, err := t.do(ctx, r, func(_ context.Context, c *call) (err error) {
			rows, err = query(ctx, t.db, c.d.text("list"))
			return err
		})
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			rec := Record{Exists: true}
			names := []any{&rec.ComponentName, &rec.JobName}
			if err := rows.Scan(append(names, rec.columns()...)...); err != nil {
				yield(Record{}, r.Wrap(err))
				return
			}
			if !yield(rec, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(Record{}, r.Wrap(err))
		}
	}
}

// Problems implements Store.
func (t *Table) Problems(ctx context.Context, r Request) (problems []string, err error) {
	// The server's kind is only known once it has answered.
	if _, err := t.Get(ctx, r); err != nil && !errors.Is(err, errHidden) {
		return nil, err
	}
	_, err = t.do(ctx, r, func(_ context.Context, c *call) error {
		problems = nil
		rows, err := query(ctx, t.db, c.d.text("problems"))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var problem string
			if err := rows.Scan(&problem); err != nil {
				return err
			}
			problems = append(problems, problem)
		}
		return rows.Err()
	})
	return problems, err
}

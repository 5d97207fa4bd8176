package store

import (
	"context"
	"database/sql"
	"errors"
	"iter"
)

// Get implements Store.
func (t *Table) Get(ctx context.Context, r Request) (Record, error) {
	rec, _, err := do(ctx, t, reads, r, func(ctx context.Context, c *call) (Record, error) {
		return c.d.get(ctx, c)
	})
	return rec, err
}

// List implements Store.
func (t *Table) List(ctx context.Context, r Request) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		// An answer that breaks off is an error: the rows that were yielded can't be taken back.
		rows, _, err := do(ctx, t, lists, r, func(_ context.Context, c *call) (*sql.Rows, error) {
			if c.d.name == Postgres && !t.sure.Load() && errors.Is(t.identify(ctx, c), errLearned) {
				return nil, errLearned
			}
			return query(ctx, t.db, c.d.text("list"))
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
func (t *Table) Problems(ctx context.Context, r Request) ([]string, error) {
	// The server's kind is only known after its first answer.
	if _, err := t.Get(ctx, r); err != nil && !errors.Is(err, errHidden) {
		return nil, err
	}
	problems, _, err := do(ctx, t, lists, r, func(ctx context.Context, c *call) ([]string, error) {
		rows, err := query(ctx, t.db, c.d.text("problems"))
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var problems []string
		for rows.Next() {
			var problem string
			if err := rows.Scan(&problem); err != nil {
				return nil, err
			}
			problems = append(problems, problem)
		}
		return problems, rows.Err()
	})
	return problems, err
}

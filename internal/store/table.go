package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a Table is made with.
type Config struct {
	Dialects *Dialects
	Dialect  string // "": it is detected
	Table    string // as it stands in statements, with its quotes
	NoDDL    bool
	Policy   Policy
}

// Table is a Store in a table of a database.
type Table struct {
	db            DB
	pool          *sql.DB  // db, if it is one
	statements    sync.Map // of the pool, for SQLite: *sql.Stmt by name
	dialects      *Dialects
	name          string
	inTransaction bool
	noDDL         bool
	policy        Policy
	dialect       atomic.Pointer[dialect] // with the name of the table
	sure          atomic.Bool             // PostgreSQL and CockroachDB have been told apart

	mu        sync.Mutex
	createErr error // why the table could not be created, nil if it could
	unusable  error // why the database can't be asked anything
}

// createTimeout limits how long NewTable waits for a database that is mute.
const createTimeout = 5 * time.Second

// NewTable returns a Store in a table of db, and creates the table if it is missing. If that
// fails, the first call that finds no table tries again. A DB that panics, such as one that
// embeds a nil *sql.DB, is not asked again.
func NewTable(db DB, c Config) *Table {
	t := &Table{db: db, dialects: c.Dialects, name: c.Table, noDDL: c.NoDDL, policy: c.Policy}
	if Absent(db) {
		t.unusable = ErrNoStorage
		return t
	}
	t.pool, _ = db.(*sql.DB)
	defer func() {
		if p := recover(); p != nil {
			t.unusable = fmt.Errorf("the Storage panicked: %v", p)
		}
	}()
	switch {
	case c.Dialect == Cockroach:
		t.speak(c.Dialects.cockroach)
	case c.Dialect == SQLite || c.Dialect == "" && usesSQLite(db):
		t.speak(c.Dialects.sqlite)
	default: // CockroachDB understands it as well, and its first answer tells
		t.speak(c.Dialects.postgres)
	}
	t.sure.Store(c.Dialect != "")
	t.inTransaction = IsTransaction(db)
	switch {
	case t.inTransaction:
		t.createErr = errors.New("no table is created in a transaction: call New once with the *sql.DB")
	case t.noDDL:
		t.createErr = errors.New("Options.NoDDL forbids to create it")
	default:
		ctx, cancel := context.WithTimeout(Background, createTimeout)
		defer cancel()
		t.createErr = exec(ctx, db, t.dialect.Load().text("create"))
	}
	return t
}

// InTransaction reports whether the database is a transaction of the caller's.
func (t *Table) InTransaction() bool { return t.inTransaction }

// IsFile reports whether the database is a file of this machine, which is cheap to look at.
func (t *Table) IsFile() bool { return t.unusable == nil && t.dialect.Load().name == SQLite }

// speak sets what the next attempt says to the database.
func (t *Table) speak(d *dialect) {
	if now := t.dialect.Load(); now == nil || now.name != d.name {
		t.dialect.Store(d.with(t.name))
	}
}

// createLate makes up for a table that could not be created by NewTable, once it has proved to be
// missing. It returns nil if the call is to be tried again.
func (t *Table) createLate(ctx context.Context, missing error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := t.createErr
	if first == nil {
		return nil
	}
	if !t.inTransaction && !t.noDDL {
		if t.createErr = exec(ctx, t.db, t.dialect.Load().text("create")); t.createErr == nil {
			return nil
		}
	}
	if t.createErr.Error() == first.Error() {
		return fmt.Errorf("%w (the table could not be created: %w)", missing, first)
	}
	return fmt.Errorf("%w (the table could not be created: %w; now: %w)", missing, first, t.createErr)
}

// Acquire implements Store.
func (t *Table) Acquire(ctx context.Context, r Request, cond Conditions) (res Result, err error) {
	res.Doubt, err = t.do(ctx, r, func(ctx context.Context, c *call) (err error) {
		if t.inTransaction && !t.sure.Load() {
			// A statement that the server doesn't understand would abort the transaction.
			if _, err := c.d.get(ctx, c); err != nil {
				return err
			}
		}
		res, err = c.d.acquire(ctx, c, cond)
		switch {
		case err != nil:
			return err
		case res.Done:
			return c.grown(ctx, res)
		case res.Refusal == Available:
			return errRaced // what could have been taken is another's
		case t.inTransaction && res.Prev.HeldBy(r):
			return c.confirm(ctx, res.Prev)
		}
		return nil
	})
	return res, err
}

// grown makes sure that the lock time has grown, since it is the fencing token.
func (c *call) grown(ctx context.Context, res Result) error {
	if !res.Prev.Exists && res.Prev.LockTime.Equal(earliest) || res.Written.After(res.Prev.LockTime) {
		return nil
	}
	c.release(ctx, Term{First: res.Written, Last: res.Written}, c.req.JobID)
	return fmt.Errorf("the new lock_time, %s, is not after the one before, %s: the column must keep "+
		"microseconds (TIMESTAMPTZ), and no row may lie in the far future",
		res.Written.Format(time.RFC3339Nano), res.Prev.LockTime.Format(time.RFC3339Nano))
}

// confirm makes sure that the record is what the transaction has read. Its snapshot may be old:
// then the database says so.
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
		// A snapshot may be older than the record. A probe that conflicts with what it can't see
		// fails.
		if err := exec(ctx, tx, c.d.text("probe"), names...); err != nil {
			return rec, err
		}
	}
	return rec, err
}

// Renew implements Store.
func (t *Table) Renew(ctx context.Context, r Request, term Term) (res Result, err error) {
	res.Doubt, err = t.do(ctx, r, func(ctx context.Context, c *call) (err error) {
		var written scalar
		res = Result{}
		if c.doubt { // an attempt may have moved the lock time, and may yet
			term = term.Widen()
		}
		res.Done, err = c.write(ctx, "renew", []any{r.ComponentName, r.ComponentID, r.JobName, r.JobID,
			instant(term.First), instant(term.Last), micros(term.TTL)}, &written, &res.Prev.Enabled)
		if err == nil && !res.Done {
			res.Prev, err = c.d.get(ctx, c)
		}
		res.Written = written.time()
		return err
	})
	return res, err
}

// Release implements Store.
func (t *Table) Release(ctx context.Context, r Request, term Term, run string) (
	res Result, err error) {
	res.Doubt, err = t.do(ctx, r, func(ctx context.Context, c *call) (err error) {
		res = Result{}
		if res.Done, err = c.release(ctx, term, run); err != nil || res.Done {
			return err
		}
		if res.Prev, err = c.d.get(ctx, c); err != nil {
			return err
		}
		switch {
		case term.Holds(r, res.Prev):
			return errRaced
		case t.inTransaction && !res.Prev.Locked:
			return c.confirm(ctx, res.Prev)
		}
		return nil
	})
	return res, err
}

func (c *call) release(ctx context.Context, term Term, run string) (done bool, err error) {
	r := c.req
	return c.write(ctx, "release", []any{r.ComponentName, r.ComponentID, r.JobName, r.JobID,
		instant(term.First), instant(term.Last), run}, &done)
}

// Enable implements Store.
func (t *Table) Enable(ctx context.Context, r Request, enabled bool) error {
	_, err := t.do(ctx, r, func(ctx context.Context, c *call) error {
		return c.exec(ctx, "enable", r.ComponentName, r.JobName, fmt.Sprint(enabled))
	})
	return err
}

// Delete implements Store.
func (t *Table) Delete(ctx context.Context, r Request) (res Result, err error) {
	res.Doubt, err = t.do(ctx, r, func(ctx context.Context, c *call) (err error) {
		res = Result{}
		res.Done, err = c.write(ctx, "delete", []any{r.ComponentName, r.JobName}, &res.Done)
		if err != nil || res.Done {
			return err
		}
		if res.Prev, err = c.d.get(ctx, c); err == nil && res.Prev.Exists && !res.Prev.Locked {
			return errRaced
		}
		return err
	})
	return res, err
}

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

// Fence implements Store.
func (t *Table) Fence(ctx context.Context, tx Transaction, r Request) (Record, error) {
	c := &call{t: t, req: r, d: t.dialect.Load()}
	rec, err := c.fence(ctx, transaction{tx})
	return rec, r.Wrap(err)
}

// transaction is a DB in a Transaction, whose statements all take a context.
type transaction struct{ Transaction }

func (t transaction) QueryRow(query string, args ...any) *sql.Row {
	return t.QueryRowContext(Background, query, args...)
}

func (t transaction) Exec(query string, args ...any) (sql.Result, error) {
	return t.ExecContext(Background, query, args...)
}

// ExecContext sends a statement that answers with no row.
func (t transaction) ExecContext(ctx context.Context, query string, args ...any) (
	sql.Result, error) {
	if err := t.QueryRowContext(ctx, query, args...).Scan(); !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	return nil, nil
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

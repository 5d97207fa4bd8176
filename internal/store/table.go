package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Config configures a Table.
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
	last          lockTimes
	dialects      *Dialects
	name          string
	inTransaction bool
	noDDL         bool
	policy        Policy
	dialect       atomic.Pointer[dialect] // with the name of the table
	sure          atomic.Bool             // it is known which of PostgreSQL and CockroachDB this is

	mu        sync.Mutex
	createErr error // why the table could not be created, nil if it could
	unusable  error // why the database can't be used
}

// createTimeout limits how long NewTable waits for a silent database.
const createTimeout = 5 * time.Second

// NewTable returns a Store in a table of db, and creates the table if it is missing. If that
// fails, the first call that finds no table tries again. A DB that panics, such as one that
// embeds a nil *sql.DB, is not used again.
func NewTable(db DB, c Config) (t *Table) {
	t = &Table{db: db, dialects: c.Dialects, name: c.Table, noDDL: c.NoDDL, policy: c.Policy}
	if Absent(db) {
		t.unusable = ErrNoStorage
		return t
	}
	t.pool, _ = db.(*sql.DB)
	defer func() {
		if p := recover(); p != nil {
			t.unusable = panicked{p}
		}
	}()
	switch {
	case c.Dialect == Cockroach:
		t.speak(c.Dialects.cockroach)
	case c.Dialect == SQLite || c.Dialect == "" && usesSQLite(db):
		t.speak(c.Dialects.sqlite)
	default: // CockroachDB understands the statement, too; its first answer identifies it
		t.speak(c.Dialects.postgres)
	}
	t.sure.Store(c.Dialect != "")
	t.inTransaction = IsTransaction(db)
	switch {
	case t.inTransaction:
		t.createErr = errors.New("no table is created in a transaction: call New once with the *sql.DB")
	case t.noDDL:
		t.createErr = errors.New("Options.NoDDL is set: create it by a migration")
	default:
		t.createErr = t.createWithin(createTimeout)
	}
	return t
}

// createWithin creates the table with a time limit. Some drivers ignore contexts.
func (t *Table) createWithin(d time.Duration) error {
	ctx, cancel := context.WithTimeout(Background, d)
	answer := make(chan error, 1)
	go func() {
		defer cancel()
		defer func() {
			if p := recover(); p != nil {
				answer <- panicked{p}
			}
		}()
		answer <- exec(ctx, t.db, t.dialect.Load().text("create"))
	}()
	select {
	case err := <-answer:
		if errors.As(err, new(panicked)) {
			t.unusable = err
		}
		return err
	case <-time.After(d + grace):
		return fmt.Errorf("the driver does not answer: %w", ctx.Err())
	}
}

// panicked is the error of a Storage that panics.
type panicked struct{ value any }

func (p panicked) Error() string { return fmt.Sprintf("the Storage panicked: %v", p.value) }

// InTransaction reports whether the database is the caller's transaction.
func (t *Table) InTransaction() bool { return t.inTransaction }

// IsFile reports whether the database is a local file, which is cheap to read.
func (t *Table) IsFile() bool { return t.unusable == nil && t.dialect.Load().name == SQLite }

// speak chooses the dialect for the next attempt.
func (t *Table) speak(d *dialect) {
	if now := t.dialect.Load(); now == nil || now.name != d.name {
		t.dialect.Store(d.with(t.name))
	}
}

// createLate creates a table that NewTable could not create, once a call has found it missing. It
// returns nil if the call can be tried again.
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

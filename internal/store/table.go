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
	last          lockTimes
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
	default: // CockroachDB understands it as well, and its first answer tells
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

// createWithin creates the table, and gives up after a time. Some drivers don't heed a context.
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

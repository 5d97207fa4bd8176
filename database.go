package lock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// database is the rows of a table in a Storage.
type database struct {
	s           Storage
	table       string // as it stands in statements
	transaction bool
	noDDL       bool
	retry       RetryPolicy
	dialect     atomic.Pointer[dialect]
	known       atomic.Bool // PostgreSQL and CockroachDB have been told apart

	mu        sync.Mutex
	createErr error // why the table could not be created, nil if it could
	unusable  error // why the Storage can't be asked anything
}

// connect chooses what to say to the Storage, and creates the table in it. A Storage that panics, such as one that embeds a
// nil *sql.DB, is not asked again.
func (db *database) connect() {
	if absent(db.s) {
		db.unusable = errNoStorage
		return
	}
	defer func() {
		if p := recover(); p != nil {
			db.unusable = fmt.Errorf("the Storage panicked: %v", p)
		}
	}()
	db.speak(dialectOf(db.s))
	db.transaction = isTransaction(db.s)
	switch {
	case db.transaction:
		db.createErr = errors.New("no table is created in a transaction: call New once with the *sql.DB")
	case db.noDDL:
		db.createErr = errors.New("Options.NoDDL forbids to create it")
	default:
		db.createErr = db.create(background)
	}
}

func (db *database) create(ctx context.Context) error {
	return exec(ctx, db.s, db.dialect.Load().create)
}

// createLate makes up for New's failure to create the table, once it has proved to be missing: the database may have been
// away then. It returns nil when the call should be tried again.
func (db *database) createLate(ctx context.Context, missing error) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	first := db.createErr
	if first == nil {
		return nil
	}
	if !db.transaction && !db.noDDL {
		if db.createErr = db.create(ctx); db.createErr == nil {
			return nil
		}
	}
	if db.createErr.Error() == first.Error() {
		return fmt.Errorf("%w (the table could not be created: %w)", missing, first)
	}
	return fmt.Errorf("%w (the table could not be created: %w; now: %w)", missing, first, db.createErr)
}

// speak sets what the next call says to the database.
func (db *database) speak(d dialect) {
	if now := db.dialect.Load(); now == nil || now.name != d.name {
		db.dialect.Store(d.withTable(db.table))
	}
}

func (db *database) take(ctx context.Context, id identity, c claim) (reading, error) {
	settled := func(r reading) bool { return c.judge(id, r) != lost }
	return db.settle(ctx, id, settled, func(s Storage, d *dialect) (reading, error) {
		var before reading
		if !d.oneStep {
			// Most challengers are refused: they only read.
			var err error
			if before, err = db.read(ctx, s, d, d.look, id.componentName, id.jobName); err != nil || settled(before) {
				return before, err
			}
		}
		args := id.args(micros(c.longest))
		text := d.take
		if c.once || c.spacing > 0 {
			var once interface{}
			if c.once {
				once = "once"
			}
			if d.oneStep && !db.known.Load() {
				if err := db.identify(ctx, s); err != nil {
					return reading{}, err
				}
				if d = db.dialect.Load(); !d.oneStep {
					return reading{}, nil // begins again, with what suits it
				}
			}
			text, args = d.takeOnce, append(args, once, micros(c.spacing))
		}
		r, err := db.read(ctx, s, d, text, args...)
		if d.oneStep {
			before = r
			before.lockTime = r.before
		}
		if r.won && before.locked {
			from := before.holder()
			r.from = &from
		}
		return r, err
	})
}

func (db *database) free(ctx context.Context, id identity, t term) (reading, error) {
	settled := func(r reading) bool { return r.won || !t.holds(id, r) }
	return db.write(ctx, id, settled, func(d *dialect) (string, []interface{}) {
		if t == (term{}) {
			return d.free, nil
		}
		return d.release, []interface{}{sinceEpoch(t.first), sinceEpoch(t.last)}
	})
}

func (db *database) renew(ctx context.Context, id identity, t term, longest time.Duration) (reading, error) {
	settled := func(r reading) bool { return r.won || !t.holds(id, r) || r.expired(longest) }
	return db.write(ctx, id, settled, func(d *dialect) (string, []interface{}) {
		return d.renew, []interface{}{sinceEpoch(t.first), sinceEpoch(t.last), micros(longest)}
	})
}

// write runs a statement that writes the row of its holder.
func (db *database) write(ctx context.Context, id identity, settled func(reading) bool, statement func(*dialect) (string, []interface{})) (reading, error) {
	return db.settle(ctx, id, settled, func(s Storage, d *dialect) (reading, error) {
		text, more := statement(d)
		r, err := db.read(ctx, s, d, text, id.args(more...)...)
		if err == nil && !r.won && !d.oneStep {
			return db.read(ctx, s, d, d.look, id.componentName, id.jobName)
		}
		return r, err
	})
}

func (db *database) set(ctx context.Context, id identity, enabled bool) error {
	return db.ask(ctx, id, func(s Storage, d *dialect) error {
		return exec(ctx, s, d.set, id.componentName, id.jobName, enabled)
	})
}

func (db *database) look(ctx context.Context, id identity) (r reading, err error) {
	err = db.ask(ctx, id, func(s Storage, d *dialect) (err error) {
		r, err = db.read(ctx, s, d, d.look, id.componentName, id.jobName)
		if errors.Is(err, sql.ErrNoRows) {
			r, err = reading{}, nil
		}
		return err
	})
	return r, err
}

func (db *database) list(ctx context.Context) (all []Status, err error) {
	err = db.ask(ctx, identity{verb: "List"}, func(s Storage, d *dialect) error {
		all = nil
		answer, err := query(ctx, s, d.list)
		if err != nil {
			return err
		}
		defer answer.Close()
		for answer.Next() {
			var (
				status Status
				r      reading
			)
			if err := r.scan(answer, &status.ComponentName, &status.JobName); err != nil {
				return err
			}
			status.fill(r)
			all = append(all, status)
		}
		return answer.Err()
	})
	return all, err
}

// settleAttempts bounds how often a call may lose a race and look again. Each loss is another's gain, so it takes as many
// changes of the row, each within one statement of ours, to get there.
const settleAttempts = 100

// settle repeats step until its reading settles the call. One statement on PostgreSQL sees the row as it was when the
// statement began; when another has changed the row since, only the next statement can tell who.
func (db *database) settle(ctx context.Context, id identity, settled func(reading) bool, step func(Storage, *dialect) (reading, error)) (reading, error) {
	var r reading
	err := db.ask(ctx, id, func(s Storage, d *dialect) error {
		for range settleAttempts {
			var err error
			if r, err = step(s, d); err != nil || settled(r) {
				return err
			}
		}
		return fmt.Errorf("the row changed under each of %d attempts", settleAttempts)
	})
	return r, err
}

// read runs a statement of d's and reads its row. One that answers only when it won leaves a reading that is empty.
func (db *database) read(ctx context.Context, s Storage, d *dialect, text string, args ...interface{}) (reading, error) {
	var r reading
	err := r.scan(answer{queryRow(ctx, s, text, args...)})
	if errors.Is(err, sql.ErrNoRows) && !d.oneStep {
		return reading{}, nil
	}
	if err == nil {
		db.heard(r.cockroach)
	}
	return r, err
}

// heard is told which of the two databases that share their drivers has answered.
func (db *database) heard(isCockroach bool) {
	if isCockroach {
		db.speak(cockroach)
	}
	db.known.Store(true)
}

// identify asks which of the two it is, before the first statement that only one of them understands.
func (db *database) identify(ctx context.Context, s Storage) error {
	var isCockroach bool
	row := answer{queryRow(ctx, s, `SELECT version() LIKE 'CockroachDB%'`)}
	if err := row.Scan(&isCockroach); err != nil {
		return err
	}
	db.heard(isCockroach)
	return nil
}

// An answer is a row of a Storage that may be one that does nothing: its row is nil, or zero, of which Scan would panic.
type answer struct{ *sql.Row }

func (a answer) Scan(dest ...interface{}) error {
	if a.Row == nil || *a.Row == (sql.Row{}) {
		return errNoAnswer
	}
	return a.Row.Scan(dest...)
}

// scan reads a row, of which the columns before are the first.
func (r *reading) scan(row interface{ Scan(...interface{}) error }, before ...interface{}) error {
	var (
		componentID, jobID, status sql.NullString
		enabled                    sql.NullBool
		written, lockTime, now     instant
	)
	err := row.Scan(append(before, &written, &componentID, &jobID, &enabled, &status, &lockTime, &now, &r.cockroach)...)
	if err != nil {
		return err
	}
	r.componentID, r.jobID = componentID.String, jobID.String
	r.disabled = enabled.Valid && !enabled.Bool
	// A status that is neither word never came from here; it can only be safe to take it for a lock.
	r.locked = status.Valid && status.String != unlocked
	r.lockTime, r.before, r.now = lockTime.Time, lockTime.Time, now.Time
	if r.won = written.valid; r.won {
		r.lockTime = written.Time
	}
	return nil
}

// An instant is a time of the database's: a timestamp, or in SQLite microseconds since 1970. NULL is the zero time.
type instant struct {
	time.Time
	valid bool // not NULL
}

func (i *instant) Scan(v any) error {
	switch v := v.(type) {
	case nil:
	case time.Time:
		*i = instant{v.UTC(), true}
	case int64:
		*i = instant{time.UnixMicro(v).UTC(), true}
	default:
		return fmt.Errorf("%q is not a time", v)
	}
	return nil
}

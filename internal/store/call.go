package store

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Policy says how often a call is tried if another attempt may succeed.
type Policy struct {
	Attempts       int           // 0: 9
	Backoff        time.Duration // before the second attempt; it doubles. 0: 10 ms
	MaxBackoff     time.Duration // 0: a second
	AttemptTimeout time.Duration // of a call with a context. 0: ten seconds
}

func (p Policy) attempts() int { return cmp.Or(p.Attempts, 9) }

// backoff returns the delay after an attempt, minus up to 50%.
func (p Policy) backoff(attempt int) time.Duration {
	most := cmp.Or(p.MaxBackoff, time.Second)
	d := cmp.Or(p.Backoff, 10*time.Millisecond)
	for i := 1; i < attempt && d < most; i++ {
		d *= 2
	}
	d = min(d, most)
	return d - rand.N(d/2+1)
}

// A call that loses a race looks again. Another wins each of them, so it doesn't lose for ever.
const (
	maxRaces     = 100 // then it fails
	patientRaces = 3   // then it waits for the rival, if the statement can
)

// The kinds of calls.
type kind int

const (
	reads kind = iota // never in doubt
	lists             // reads rows that outlive the call: they take a connection from the pool
	writes
)

// A call is a call under way, with what its attempts have learned.
type call struct {
	t     *Table
	kind  kind
	req   Request
	d     *dialect
	db    DB
	doubt bool  // an attempt may have taken effect
	races int   // lost
	last  error // of the previous attempt
}

// patience returns the argument that makes an acquisition wait for a rival.
func (c *call) patience() any {
	if c.races < patientRaces {
		return nil
	}
	return "wait"
}

// read sends a statement, and reads its one row.
func (c *call) read(ctx context.Context, name string, args []any, dest ...any) error {
	if c.d.name == SQLite && c.t.pool != nil {
		stmt, err := c.t.prepared(ctx, name)
		if err != nil {
			return err
		}
		return stmt.QueryRowContext(ctx, args...).Scan(dest...)
	}
	return queryRow(ctx, c.db, c.d.text(name), args, dest...)
}

// write sends a statement that may write, and reports whether it returned a row.
func (c *call) write(ctx context.Context, name string, args []any, dest ...any) (bool, error) {
	err := c.read(ctx, name, args, dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	c.doubt = c.doubt || err != nil && inDoubt(err)
	return err == nil, err
}

// exec sends a statement that writes and returns no row.
func (c *call) exec(ctx context.Context, name string, args ...any) error {
	err := exec(ctx, c.db, c.d.text(name), args...)
	c.doubt = c.doubt || err != nil && inDoubt(err)
	return err
}

// heard records which of the two kinds of servers with common drivers has answered.
func (c *call) heard(isCockroach bool) error {
	defer c.t.sure.Store(true) // last: whoever sees it sees the dialect
	if !isCockroach || c.d.name == Cockroach {
		return nil
	}
	c.t.speak(c.t.dialects.cockroach)
	return errLearned
}

// identify asks for the server's kind. The error is errLearned if it is not the expected one.
func (t *Table) identify(ctx context.Context, c *call) error {
	var isCockroach bool
	err := queryRow(ctx, t.db, "SELECT version() LIKE 'CockroachDB%'", nil, &isCockroach)
	if err != nil {
		return err
	}
	return c.heard(isCockroach)
}

// A step is one attempt of a call.
type step[T any] func(context.Context, *call) (T, error)

// do runs step, and retries it if that may help: a call is idempotent by its IDs. It reports
// whether an attempt before the last may have taken effect. In the caller's transaction nothing
// is retried: only the caller can repeat the transaction.
func do[T any](ctx context.Context, t *Table, k kind, r Request, step step[T]) (
	res T, doubt bool, err error) {
	if t.unusable != nil {
		return res, false, r.Wrap(t.unusable)
	}
	if err := ctx.Err(); err != nil {
		return res, false, r.Wrap(err)
	}
	c := &call{t: t, kind: k, req: r}
	stale, created := t.idle(), false
	for tried := 1; ; {
		before := c.doubt
		res, err := attempt(ctx, c, step)
		sure := t.sure.Load() // first: another call may learn the dialect in between
		switch {
		case err == nil:
			return res, before, nil
		case errors.Is(err, errLearned):
			continue
		case errors.Is(err, errRaced):
			// The rival's commit takes about as long as a disk.
			if c.races++; c.races < maxRaces && Sleep(ctx, rand.N(time.Duration(c.races)*time.Millisecond)) {
				continue
			}
		case notUnderstood(err) && c.d.name != t.dialect.Load().name:
			continue // another call has found the server's kind
		case !sure && notUnderstood(err):
			// Some CockroachDB versions reject PostgreSQL's statement.
			if unknown := t.identify(ctx, c); errors.Is(unknown, errLearned) {
				continue
			} else if unknown != nil {
				err = unknown
			}
		case c.d.name != SQLite && fromSQLite(err):
			// SQLite could not parse the statement: nothing has been done.
			t.speak(t.dialects.sqlite)
			continue
		case missingTable(err) && !created:
			created = true
			if err = t.createLate(ctx, err); err == nil {
				continue
			}
		case sqlState(err) == failedTransaction && c.last != nil:
			// A transaction that doesn't look like one: its caller needs the error that aborted
			// it.
			return res, false, r.Wrap(c.last)
		case staleSession(err) && stale > 0 && !t.inTransaction:
			stale-- // another session of the pool
			c.last = err
			continue
		}
		if t.inTransaction || tried >= t.policy.attempts() || !Curable(err) ||
			!Sleep(ctx, t.policy.backoff(tried)) {
			if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
				err = fmt.Errorf("%w: %w", ctx.Err(), err)
			}
			if c.doubt {
				err = fmt.Errorf("%w (%w)", err, ErrOutcomeUnknown)
			}
			return res, c.doubt, r.Wrap(err)
		}
		c.last = err
		tried++
	}
}

// grace is how long a driver may take to notice the end of a context.
const grace = 500 * time.Millisecond

// attempt runs step once, with a time limit if the call has a context. Some drivers ignore the
// context if a connection is silent. Such an attempt is abandoned.
func attempt[T any](ctx context.Context, c *call, step step[T]) (res T, err error) {
	c.d = c.t.dialect.Load()
	var sent atomic.Bool
	if ctx == Background {
		return send(ctx, c, &sent, step)
	}
	limited, cancel := context.WithTimeout(ctx, cmp.Or(c.t.policy.AttemptTimeout, 10*time.Second))
	defer cancel()
	type outcome struct {
		c        call
		res      T
		err      error
		panicked any
	}
	answer := make(chan outcome, 1)
	go func(own call) {
		var o outcome
		defer func() {
			o.c, o.panicked = own, recover()
			answer <- o
		}()
		o.res, o.err = send(limited, &own, &sent, step)
	}(*c)
	var o outcome
	select {
	case o = <-answer:
	case <-limited.Done():
		select {
		case o = <-answer:
		case <-time.After(grace):
			go func() { // the result of an abandoned attempt is dropped
				if rows, ok := any((<-answer).res).(io.Closer); ok {
					rows.Close()
				}
			}()
			o = outcome{c: *c, err: fmt.Errorf("the driver does not answer: %w", limited.Err())}
			o.c.doubt = c.doubt || c.kind == writes && sent.Load()
			if !sent.Load() {
				o.err = connectError{o.err}
			}
		}
	}
	if o.panicked != nil {
		panic(o.panicked) // where the caller can recover
	}
	*c = o.c
	if o.err != nil && limited.Err() != nil && ctx.Err() == nil {
		o.err = attemptTimeout{o.err}
	}
	return o.res, o.err
}

// send runs step. Until something is in doubt, step uses a single connection. On a *sql.DB,
// database/sql would repeat statements that fail with driver.ErrBadConn. lib/pq returns that also
// for statements that were sent, so the last error would say nothing about the first attempt.
func send[T any](ctx context.Context, c *call, sent *atomic.Bool, step step[T]) (res T, err error) {
	if c.t.pool == nil || c.kind == lists || c.doubt && !staleSession(c.last) || c.d.name == SQLite {
		c.db = c.t.db
		sent.Store(true)
		return step(ctx, c)
	}
	conn, err := c.t.pool.Conn(ctx)
	if err != nil {
		return res, connectError{err}
	}
	defer conn.Close()
	c.db = session{conn}
	sent.Store(true)
	res, err = step(ctx, c)
	if err != nil && staleSession(err) {
		conn.Raw(func(any) error { return driver.ErrBadConn }) // closes it
	}
	return res, err
}

// idle returns how many sessions of the pool may be stale.
func (t *Table) idle() int {
	if t.pool == nil {
		return 0
	}
	return t.pool.Stats().Idle
}

// prepared returns a prepared statement of SQLite, which takes longer to prepare than to run.
func (t *Table) prepared(ctx context.Context, name string) (*sql.Stmt, error) {
	if stmt, ok := t.statements.Load(name); ok {
		return stmt.(*sql.Stmt), nil
	}
	stmt, err := t.pool.PrepareContext(ctx, t.dialect.Load().text(name))
	if err != nil {
		return nil, err
	}
	kept, other := t.statements.LoadOrStore(name, stmt)
	if other {
		stmt.Close()
	}
	return kept.(*sql.Stmt), nil
}

// Sleep waits, and reports whether ctx is still good.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

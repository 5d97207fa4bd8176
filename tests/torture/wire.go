//go:build linux

package torture

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"
)

// A wire wraps a driver. It records the renewals, which are made in the background, and the
// statements with an unknown outcome after which a call was retried. It loses some of the
// requests and replies. And it can replace statements, for clients with a bug.
type wire struct {
	driver.Connector
	*words
}

// words is shared by all connections of a pool.
type words struct {
	say  func(query string) string
	lose int64 // of so many statements one request and one reply is lost; 0: none
	said atomic.Int64
}

// carry sends a statement with send, unless it loses it. If the reply is to be lost, send reads
// the answer to the end.
func (w *words) carry(ctx context.Context, query string,
	args []driver.NamedValue, send func(query string, lose bool) error) (*statement, error) {
	s := begin(ctx, query, args)
	if w.lose == 0 || s.log == nil {
		return s, send(w.say(query), false)
	}
	switch w.said.Add(1) % w.lose {
	case 0:
		err := send(w.say(query), true)
		if err == nil {
			err = errLostReply
		}
		return s, err
	case w.lose / 2:
		return s, errLostRequest
	}
	return s, send(w.say(query), false)
}

// The errors of lost requests and replies. The library only knows that the connection broke; the
// harness knows what happened.
var (
	errLostRequest = fmt.Errorf("the request is lost: %w", io.ErrUnexpectedEOF)
	errLostReply   = fmt.Errorf("the reply is lost: %w", io.ErrUnexpectedEOF)
)

// open returns a pool whose driver is "pgx" or "postgres", with a wire in it.
func open(name, dsn string, say func(string) string, lose int) (*sql.DB, error) {
	w := &words{say: say, lose: int64(lose)}
	if say == nil {
		w.say = func(query string) string { return query }
	}
	if name == "postgres" {
		c, err := pq.NewConnector(dsn)
		if err != nil {
			return nil, err
		}
		return sql.OpenDB(wire{c, w}), nil
	}
	c, err := stdlib.GetDefaultDriver().(driver.DriverContext).OpenConnector(dsn)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(wire{c, w}), nil
}

// A caller is in the context of a call, and of the renewals of a lease that the call acquired.
type caller struct {
	log   *Log
	op    Op
	token *atomic.Int64 // of the lease, once it is acquired
}

type callerKey struct{}

func (w wire) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := w.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &wireConn{c, w.words}, nil
}

type wireConn struct {
	driver.Conn
	*words
}

func (c *wireConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, o)
}

func (c *wireConn) ResetSession(ctx context.Context) error {
	return c.Conn.(driver.SessionResetter).ResetSession(ctx)
}

func (c *wireConn) IsValid() bool {
	v, ok := c.Conn.(driver.Validator)
	return !ok || v.IsValid()
}

func (c *wireConn) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

func (c *wireConn) ExecContext(ctx context.Context, query string,
	args []driver.NamedValue) (r driver.Result, err error) {
	s, err := c.carry(ctx, query, args, func(query string, _ bool) (err error) {
		r, err = c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
		return err
	})
	s.done = true
	s.end(err)
	return r, err
}

func (c *wireConn) QueryContext(ctx context.Context, query string,
	args []driver.NamedValue) (driver.Rows, error) {
	var r driver.Rows
	var lost wireRows
	s, err := c.carry(ctx, query, args, func(query string, lose bool) (err error) {
		r, err = c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
		if err == nil && lose {
			lost = wireRows{Rows: r, s: &statement{}}
			for row := make([]driver.Value, len(r.Columns())); err == nil; {
				err = lost.Next(row)
			}
			if err == io.EOF {
				err = r.Close()
			}
		}
		return err
	})
	if err == nil {
		return &wireRows{Rows: r, s: s}, nil
	}
	if lost.s != nil {
		s.done, s.written = lost.s.done, lost.s.written
	}
	s.end(err)
	return nil, err
}

type wireRows struct {
	driver.Rows
	s   *statement
	err error
}

func (r *wireRows) Next(dest []driver.Value) error {
	err := r.Rows.Next(dest)
	r.s.answered = r.s.answered || err == nil || err == io.EOF
	if err == nil {
		r.s.done = dest[0] != nil
		switch v := dest[0].(type) {
		case int64:
			r.s.written = v
		case time.Time: // CockroachDB's
			r.s.written = v.UnixMicro()
		}
	} else if err != io.EOF {
		r.err = err
	}
	return err
}

func (r *wireRows) Close() error {
	err := r.Rows.Close()
	r.s.end(errors.Join(r.err, err))
	return err
}

// A statement is one on behalf of a caller, or of nobody.
type statement struct {
	caller
	ctx         context.Context
	renewal     *Op
	call, since int64
	answered    bool
	done        bool  // it has written
	written     int64 // the lock_time of an acquisition or a renewal
}

func begin(ctx context.Context, query string, args []driver.NamedValue) *statement {
	s := &statement{ctx: ctx}
	s.caller, _ = ctx.Value(callerKey{}).(caller)
	if s.log == nil {
		return s
	}
	if s.token != nil {
		s.op.Lease = s.token.Load()
	}
	switch {
	case strings.HasPrefix(query, "UPDATE locks SET lock_time"):
		s.renewal = s.log.Begin(Op{Client: s.op.Client, Kind: Renew, Job: s.op.Job, Owner: s.op.Owner,
			Max: s.op.Max, Lease: s.op.Lease})
		return s
	case strings.HasPrefix(query, "UPDATE locks SET status") && s.op.Kind == Acquire:
		s.op.Kind = Release // Run's, or of what was granted too late, which leaves another tick
		s.op.Back = args[6].Value != args[3].Value
	case strings.HasPrefix(query, "SELECT"):
		return &statement{} // a read leaves nothing in doubt
	}
	s.call, s.since = monotonic(), wall()
	return s
}

func (s *statement) end(err error) {
	// whose end is the answer then
	unknown := err != nil && uncertain(err) || s.log != nil && s.ctx.Err() != nil
	switch {
	case s.log == nil:
	case s.renewal != nil:
		switch o := s.renewal; {
		case err == errLostRequest:
			o.Result = Failed
		case err == errLostReply && s.done:
			o.Result, o.Token, o.Unheard = OK, s.written, true
		case err == errLostReply:
			o.Result = Failed
		case unknown, err == nil && !s.answered: // the answer was not waited for
			o.Result = Unknown
		case err != nil:
			o.Result = Failed
		case s.written == 0:
			o.Result = Nothing
		default:
			o.Result, o.Token = OK, s.written
		}
		if err != nil {
			s.renewal.Why = err.Error()
		}
		s.log.End(s.renewal)
	case s.op.Kind == Write, err == errLostReply && !s.done:
	case err == errLostRequest:
		s.op.Unheard = true
		s.log.attempt(s.op, s.call, s.since, Failed, err)
	case err == errLostReply:
		s.log.done(s.op, s.call, s.since, s.written)
	case unknown:
		s.log.attempt(s.op, s.call, s.since, Unknown, cmp.Or(err, s.ctx.Err()))
	case err != nil:
		s.log.attempt(s.op, s.call, s.since, Failed, err)
	}
	s.caller = caller{} // Close may be called twice
}

// uncertain reports whether a statement that ended like this may have been executed. It doesn't
// ask the library.
func uncertain(err error) bool {
	var s interface{ SQLState() string }
	if !errors.As(err, &s) {
		return true
	}
	state := s.SQLState()
	return strings.HasPrefix(state, "08") || strings.HasPrefix(state, "57P") || state == "40003" ||
		// of CockroachDB: before or after the commit
		state == "57014" && strings.Contains(err.Error(), "query execution canceled")
}

package dbtest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A Faulty is the driver of an engine whose connections break on demand. It serves any number of
// faults.
type Faulty struct {
	driver driver.Driver
	dsn    string

	mu   sync.Mutex
	n    int // statements since Arm
	fail func(n int) Fault
}

// A Fault is what happens to a statement.
type Fault struct {
	Err    error  // what the client gets instead of the answer; nil: the answer
	Before bool   // the server has not executed the statement
	Then   func() // called before the client gets it
}

// OpenFaulty opens the database with the DSN through a Faulty.
func (e Engine) OpenFaulty(t testing.TB, dsn string) (*sql.DB, *Faulty) {
	db, err := sql.Open(e.Driver, dsn)
	require.NoError(t, err)
	defer db.Close()
	f := &Faulty{driver: db.Driver(), dsn: dsn}
	return pool(t, sql.OpenDB(f)), f
}

// Arm lets fail decide about each statement, counted from 0. nil disarms it.
func (f *Faulty) Arm(fail func(n int) Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n, f.fail = 0, fail
}

// Statements returns the number of statements since Arm.
func (f *Faulty) Statements() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

func (f *Faulty) next() Fault {
	f.mu.Lock()
	n, fail := f.n, f.fail
	f.n++
	f.mu.Unlock()
	if fail == nil {
		return Fault{}
	}
	return fail(n)
}

// Connect implements driver.Connector.
func (f *Faulty) Connect(context.Context) (driver.Conn, error) {
	c, err := f.driver.Open(f.dsn)
	return &faultyConn{Conn: c, f: f}, err
}

// Driver implements driver.Connector.
func (f *Faulty) Driver() driver.Driver { return f.driver }

// A faultyConn is one session. It is closed once its connection has broken.
type faultyConn struct {
	driver.Conn
	f      *Faulty
	broken bool
}

func (c *faultyConn) IsValid() bool { return !c.broken }

func (c *faultyConn) QueryContext(ctx context.Context, query string,
	args []driver.NamedValue) (driver.Rows, error) {
	fault := c.f.next()
	if fault.Err != nil && fault.Before {
		return nil, c.fault(fault)
	}
	rows, err := c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
	if err != nil || fault.Err == nil {
		return rows, err
	}
	row := make([]driver.Value, len(rows.Columns()))
	for err == nil {
		err = rows.Next(row)
	}
	if err := errors.Join(ignore(err, io.EOF), rows.Close()); err != nil {
		return nil, err
	}
	return nil, c.fault(fault)
}

func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

func (c *faultyConn) ExecContext(ctx context.Context, query string,
	args []driver.NamedValue) (driver.Result, error) {
	fault := c.f.next()
	if fault.Err != nil && fault.Before {
		return nil, c.fault(fault)
	}
	res, err := c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
	if err != nil || fault.Err == nil {
		return res, err
	}
	return nil, c.fault(fault)
}

func (c *faultyConn) fault(f Fault) error {
	c.broken = true
	if f.Then != nil {
		f.Then()
	}
	return f.Err
}

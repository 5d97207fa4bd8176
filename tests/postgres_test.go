package tests

import (
	"context"
	"database/sql"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

// turns counts the round trips of its connections: reads after writes.
type turns struct{ n atomic.Int64 }

type turnConn struct {
	net.Conn
	turns   *turns
	written atomic.Bool
}

func (c *turnConn) Write(b []byte) (int, error) {
	c.written.Store(true)
	return c.Conn.Write(b)
}

func (c *turnConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.written.Swap(false) {
		c.turns.n.Add(1)
	}
	return n, err
}

func (d *turns) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	return &turnConn{Conn: conn, turns: d}, err
}

func (d *turns) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

func (d *turns) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

func TestLock_roundTrips(t *testing.T) {
	for name, open := range map[string]func(t *testing.T, d *turns) *sql.DB{
		"pgx": func(t *testing.T, d *turns) *sql.DB {
			config, err := pgx.ParseConfig(dbtest.PostgresDSN()(t))
			require.NoError(t, err)
			config.DialFunc = d.DialContext
			return stdlib.OpenDB(*config)
		},
		"lib_pq, binary_parameters": func(t *testing.T, d *turns) *sql.DB {
			connector, err := pq.NewConnector(dbtest.PostgresDSN("binary_parameters=yes")(t))
			require.NoError(t, err)
			connector.Dialer(d)
			return sql.OpenDB(connector)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var d turns
			db := open(t, &d)
			defer db.Close()
			db.SetMaxOpenConns(1)
			l := lock.New(db)
			ctx := context.Background()
			lease, err := l.Acquire(ctx, lock.Job{ComponentName: component, JobName: "leased",
				TTL: time.Hour})
			require.NoError(t, err)
			for round := range 3 { // in the first, drivers prepare statements
				for _, call := range []struct {
					name string
					do   func() error
					want any
					n    int64
				}{
					{"Lock, granted", func() error { return l.Lock(component, "b", job, "2", time.Hour) }, nil, 1},
					{"Lock, granted already", func() error { return l.Lock(component, "b", job, "2", time.Hour) },
						nil, 1},
					{"Lock, refused", func() error { return l.Lock(component, "a", job, "1", time.Hour) },
						&lock.ErrUnauthorised{}, 1},
					{"Unlock, refused", func() error { return l.Unlock(component, "a", job, "1") },
						&lock.ErrUnauthorised{}, 2},
					{"Unlock", func() error { return l.Unlock(component, "b", job, "2") }, nil, 1},
					{"Disable", func() error { return l.Disable(component, job) }, nil, 1},
					{"Lock, disabled", func() error { return l.Lock(component, "a", job, "1", time.Hour) },
						&lock.ErrDisabled{}, 1},
					{"Enable", func() error { return l.Enable(component, job) }, nil, 1},
					{"Renew", func() error { return lease.Renew(ctx) }, nil, 1},
				} {
					before := d.n.Load()
					require.IsType(t, call.want, call.do(), call.name)
					if round > 0 {
						require.EqualValues(t, call.n, d.n.Load()-before, call.name)
					}
				}
			}
			require.NoError(t, lease.Release(ctx))
		})
	}
}

// TestLock_Lock_refusalWritesNothing: no transaction ID and no write-ahead log are spent on it.
// The server has work of its own now and then, so a quiet moment is looked for.
func TestLock_Lock_refusalWritesNothing(t *testing.T) {
	db := dbtest.Engine{Driver: "pgx", DSN: dbtest.PostgresDSN()}.Open(t)
	l := lock.New(db)
	position := func() (wal string, xid int64) {
		require.NoError(t,
			db.QueryRow("SELECT pg_current_wal_insert_lsn()::text, "+
				"txid_snapshot_xmax(txid_current_snapshot())").
				Scan(&wal, &xid))
		return wal, xid
	}
	quiet := func(calls func()) bool {
		for range 20 {
			walBefore, xidBefore := position()
			calls()
			if wal, xid := position(); wal == walBefore && xid == xidBefore {
				return true
			}
		}
		return false
	}
	require.NoError(t, l.Lock(component, "b", job, "2", 0))
	require.NoError(t, l.Disable(component, "disabled"))
	require.NoError(t, l.Lock(component, "b", "unlocked", "2", 0))
	require.NoError(t, l.Unlock(component, "b", "unlocked", "2"))
	require.True(t, quiet(func() {
		for range 100 {
			require.IsType(t, &lock.ErrUnauthorised{}, l.Lock(component, "a", job, "1", time.Hour))
			require.IsType(t, &lock.ErrUnauthorised{}, l.Unlock(component, "a", job, "1"))
			require.IsType(t, &lock.ErrDisabled{}, l.Lock(component, "a", "disabled", "1", time.Hour))
			require.NoError(t, l.Lock(component, "b", job, "2", time.Hour), "held already")
			require.NoError(t, l.Unlock(component, "b", "no such job", "2"))
			require.NoError(t, l.Unlock(component, "b", "unlocked", "2"), "unlocked already")
		}
	}))
	require.False(t, quiet(func() { require.NoError(t, l.Enable(component, job)) }),
		"a call that writes is seen")
}

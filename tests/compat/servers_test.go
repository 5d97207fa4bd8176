package compat_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock/internal/crdbtest"
	"github.com/cloudtrust/go-jobs/lock/internal/pgtest"
)

// The servers start when the first test needs them.
var (
	startPostgres = sync.OnceValues(func() (*pgtest.Server, error) {
		s, err := pgtest.Start("fsync=off")
		postgres.Store(s)
		return s, err
	})
	postgres atomic.Pointer[pgtest.Server]

	startCockroach = sync.OnceValues(func() (*crdbtest.Cluster, error) {
		c, err := crdbtest.Start(1)
		if err == nil {
			cockroach.Store(c)
		}
		return c, err
	})
	cockroach atomic.Pointer[crdbtest.Cluster]

	databases atomic.Int64
)

func TestMain(m *testing.M) {
	code := m.Run()
	if b := pgbouncer.Load(); b != nil {
		b.close()
	}
	if s := postgres.Load(); s != nil {
		s.Close()
	}
	if c := cockroach.Load(); c != nil {
		c.Close()
	}
	os.Exit(code)
}

// server returns the PostgreSQL of the tests. If there is none, it skips the test or, if the test
// is required, fails it.
func server(t *testing.T) *pgtest.Server {
	s, err := startPostgres()
	if pgtest.Dispensable(err) {
		t.Skip(err)
	}
	require.NoError(t, err)
	return s
}

// A place is the address of a database: its port, name and user.
type place struct {
	port     int
	database string
	user     string
}

// newDatabase makes an empty database for the test.
func newDatabase(t *testing.T) place {
	s := server(t)
	name := fmt.Sprintf("d%d", databases.Add(1))
	admin, err := sql.Open("pgx", s.DSN())
	require.NoError(t, err)
	defer admin.Close()
	_, err = admin.Exec("CREATE DATABASE " + name)
	require.NoError(t, err)
	return place{s.Port, name, "postgres"}
}

// dsn is the URL of the place, with parameters such as "binary_parameters=yes".
func (p place) dsn(params ...string) string {
	u := url.URL{Scheme: "postgres", User: url.User(p.user), Host: fmt.Sprintf("127.0.0.1:%d", p.port),
		Path: p.database}
	u.RawQuery = "sslmode=disable"
	for _, param := range params {
		u.RawQuery += "&" + param
	}
	return u.String()
}

// open returns a pool of the driver's connections to the place.
func (p place) open(t *testing.T, driver string, params ...string) *sql.DB {
	db, err := sql.Open(driver, p.dsn(params...))
	require.NoError(t, err)
	return keep(t, db)
}

// keep makes the pool keep its connections until the test ends: there are many challengers, and
// connecting is slow.
func keep(t *testing.T, db *sql.DB) *sql.DB {
	db.SetMaxIdleConns(challengers)
	t.Cleanup(func() { db.Close() })
	return db
}

func mustExec(t *testing.T, db *sql.DB, query string, args ...any) {
	_, err := db.Exec(query, args...)
	require.NoError(t, err)
}

// patient returns a context that ends if something hangs.
func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

package compat_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

var databases atomic.Int64

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

// A place is the address of a database: its port, name and user.
type place struct {
	port     int
	database string
	user     string
}

// newDatabase makes an empty database for the test.
func newDatabase(t *testing.T) place {
	s := dbtest.StartPostgres(t)
	name := fmt.Sprintf("d%d", databases.Add(1))
	dbtest.Exec(t, s.DSN(), "CREATE DATABASE "+name)
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

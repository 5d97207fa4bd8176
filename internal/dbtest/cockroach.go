package dbtest

import (
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock/internal/crdbtest"
)

var (
	cockroach = sync.OnceValues(startCockroach)
	databases atomic.Int64
)

// CockroachDSN returns the DSN of a new database for the test, on the server of
// LOCK_TEST_COCKROACH_URL or on one that it starts.
func CockroachDSN(t testing.TB) string {
	dsn, err := cockroach()
	if crdbtest.Dispensable(err) {
		LeaveOut(t, err.Error())
	}
	require.NoError(t, err)
	name := fmt.Sprintf("lock_test_%d_%d", os.Getpid(), databases.Add(1))
	Exec(t, dsn, "CREATE DATABASE "+name)
	t.Cleanup(func() { Exec(t, dsn, "DROP DATABASE "+name+" CASCADE") })
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	u.Path = "/" + name
	return u.String()
}

// startCockroach starts one node.
func startCockroach() (dsn string, err error) {
	if dsn := os.Getenv("LOCK_TEST_COCKROACH_URL"); dsn != "" {
		return dsn, nil
	}
	nodes, err := crdbtest.Start(1)
	if err != nil {
		return "", err
	}
	AtEnd(nodes.Close)
	dsn = nodes.Nodes[0].DSN()
	return dsn, settle(dsn)
}

// settle turns off what the server does by itself.
func settle(dsn string) error {
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.Exec("SET CLUSTER SETTING sql.stats.automatic_collection.enabled = false")
	return err
}

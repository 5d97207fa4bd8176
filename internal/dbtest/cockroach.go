package dbtest

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	cockroach = sync.OnceValues(startCockroach)
	databases atomic.Int64

	errNoCockroach = errors.New("LOCK_TEST_COCKROACH_URL is not set and cockroach is not on PATH")
)

// CockroachDSN gives a test a database of its own on the server that LOCK_TEST_COCKROACH_URL names,
// or else on one that is started.
func CockroachDSN(t testing.TB) string {
	dsn, err := cockroach()
	if errors.Is(err, errNoCockroach) {
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

// startCockroach starts one node, in memory.
func startCockroach() (dsn string, err error) {
	if dsn := os.Getenv("LOCK_TEST_COCKROACH_URL"); dsn != "" {
		return dsn, nil
	}
	bin, err := exec.LookPath("cockroach")
	if err != nil {
		return "", errNoCockroach
	}
	dir, err := os.MkdirTemp("", "cockroach")
	if err != nil {
		return "", err
	}
	urlFile := filepath.Join(dir, "url")
	cmd := exec.Command(bin, "start-single-node", "--insecure", "--store=type=mem,size=1GiB",
		"--listen-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--listening-url-file="+urlFile)
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		return "", err
	}
	AtEnd(func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.RemoveAll(dir)
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if content, err := os.ReadFile(urlFile); err == nil && len(content) > 0 {
			u, err := url.Parse(strings.TrimSpace(string(content)))
			if err != nil {
				return "", err
			}
			u.Path, u.RawQuery = "/defaultdb", "sslmode=disable"
			return u.String(), settle(u.String())
		}
		if time.Now().After(deadline) {
			return "", errors.New("cockroach did not start within a minute")
		}
	}
}

// settle makes the server do nothing by itself.
func settle(dsn string) error {
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.Exec("SET CLUSTER SETTING sql.stats.automatic_collection.enabled = false")
	return err
}

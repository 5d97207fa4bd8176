//go:build unix && !aix && !solaris

package main

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
)

// sql sends a statement.
func (u user) sql(t *testing.T, statement string) {
	t.Helper()
	driver, source := "pgx", u.db()
	if strings.HasPrefix(source, "/") {
		driver, source = "sqlite", "file:"+source+"?_pragma=busy_timeout(10000)"
	}
	db, err := sql.Open(driver, source)
	require.NoError(t, err)
	defer db.Close()
	_, err = db.Exec(statement)
	require.NoError(t, err)
}

// row inserts a row with that lock time.
func (u user) row(t *testing.T, job, status, run, lockTime string) {
	t.Helper()
	u.sql(t, fmt.Sprintf("INSERT INTO locks VALUES ('default', 'web1/1/X', '%s', '%s', TRUE, "+
		"'%s', '%s')",
		job, run, status, lockTime))
}

func at(d time.Duration) string {
	return time.Now().UTC().Add(d).Format("2006-01-02 15:04:05.000000+00:00")
}

func TestForget(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	tick := func(tick string) result {
		return u.do(t, "run", "--job", "x", "--tick", tick, "--",
			"echo", "made")
	}
	u.ok(t, "init", "--apply")
	u.row(t, "x", "UNLOCKED", "2099-11-25T00:00:00Z",
		at(-time.Hour)) // by a release that allowed it
	require.Equal(t, exitRun, tick("2026-11-23").status)
	u.ok(t, "disable", "x")
	require.Equal(t, result{0, "",
		"lock: default/x: forgotten; the last to hold it was web1/1/X " +
			"(run 2099-11-25T00:00:00Z); it was disabled, and is enabled now\n"},
		u.do(t, "forget", "x"))
	require.Equal(t, "made\n", tick("2026-11-23").stdout)
	require.Zero(t, u.do(t, "forget", "y").status)

	p := u.start(t, "run", "--job", "x", "--", "sh", "-c", wait)
	p.expect(t, "ready")
	r := u.do(t, "forget", "x")
	require.Equal(t, exitHeld, r.status)
	require.Contains(t, r.stderr, "refused: default/x is held by "+u.holder(t, "x"))
}

func TestRelease_livingHolder(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	u.ok(t, "init", "--apply")
	release := func(job string, more ...string) result {
		return u.do(t, append([]string{"release", job, "--holder", "web1/1/X"}, more...)...)
	}
	u.row(t, "dead", "LOCKED", "r", at(-2*time.Minute))
	u.row(t, "fresh", "LOCKED", "r", at(-30*time.Second))
	u.row(t, "late", "LOCKED", "r", at(-2*time.Minute))
	u.row(t, "future", "LOCKED", "r", at(3*time.Hour))
	for job, words := range map[string]string{"fresh": "s ago, within its TTL of 1m0s",
		"future": "in 3h0m, in the future"} {
		r := release(job)
		require.Equal(t, exitHeld, r.status)
		require.Contains(t, r.stderr, words)
		require.Contains(t, r.stderr, "--force")
		require.Contains(t, u.ok(t, "status", job), "held")
		require.Zero(t, release(job, "--force").status)
		require.Contains(t, u.ok(t, "status", job), "free")
	}
	require.Equal(t, exitHeld, release("late", "--ttl", "10m").status)
	require.Zero(t, release("dead").status)
	require.Zero(t, release("late", "--ttl", "forever").status,
		"it would be renewed every ten seconds")
}

func TestInit_check(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, u user) {
		require.Equal(t, exitDatabase, u.do(t, "init", "--check").status, "there is no table")
		u.ok(t, "init", "--apply")
		u.ok(t, "init", "--check")
		u.sql(t, "DROP TABLE locks")
		u.sql(t, "CREATE TABLE locks (component_name TEXT, component_id TEXT, job_name TEXT, "+
			"job_id TEXT, enabled BOOL, status TEXT, lock_time TIMESTAMP)")
		for _, flag := range []string{"--check", "--apply"} {
			r := u.do(t, "init", flag)
			require.Equal(t, exitDatabase, r.status)
			require.Contains(t, r.stderr, "lock: the table: ")
			require.Contains(t, r.stderr, "key")
			if strings.HasPrefix(u.db(), "postgres") {
				require.Contains(t, r.stderr, "lock_time")
				require.Greater(t, strings.Count(r.stderr, "\n"), 1, "a line for each: %s",
					r.stderr)
			}
		}
	})
}

// Times that a wrong clock or a hand wrote are shown as they are.
func TestOddLockTimes(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, u user) {
		u.ok(t, "init", "--apply")
		u.row(t, "a", "LOCKED", "2026-11-23T00:00:00Z", at(3*time.Hour+10*time.Second))
		u.row(t, "b", "LOCKED", "r", "9999-12-31 23:59:59-05")
		u.row(t, "c", "UNLOCKED", "r", "0001-01-01 00:00:00+00:00")
		times := 3
		if strings.HasPrefix(u.db(), "postgres") {
			u.row(t, "d", "LOCKED", "r", "infinity")
			u.row(t, "e", "LOCKED", "r", "-infinity")
			times += 2
		}
		list := u.ok(t, "list")
		require.Regexp(t, `(?m)^default    a .* 2026-11-23 00:00:00Z  in 3h0m$`, list)
		require.Regexp(t, `(?m)^default    b .* in 290y or more$`, list)
		require.Equal(t, times+2, strings.Count(list, "\n"))
		require.Contains(t, u.ok(t, "status", "a"), "tick      2026-11-23 00:00:00Z\n")
		require.Contains(t, u.ok(t, "status", "a"), ", in 3h0m, in the future (or acquired)\n")
		require.Contains(t, u.ok(t, "status", "b"), ", in the future")
		require.Contains(t, u.ok(t, "list", "--json"), `"job":"b"`)
	})
}

// The start of a run is shown even after its lock is renewed.
func TestStatus_since(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	u.ok(t, "init", "--apply")
	begun := time.Now().UTC().Add(-3 * time.Hour)
	id := begun.Format("2006-01-02T15:04:05Z") + "/ABCDEFGH"
	u.row(t, "x", "LOCKED", id, at(-5*time.Second))
	status := u.ok(t, "status", "x")
	require.Contains(t, status,
		"\nrun       "+id+"\nbegun     "+timeWords(begun)+", 3h0m ago\nrenewed ")
	require.Regexp(t, `\nrenewed   .*Z, \d+(\.\d)?s ago \(or acquired\)\n`, status)
	require.Contains(t, u.ok(t, "list"), "  "+timeWords(begun)+"  ", "without what is random")
	require.Contains(t, u.ok(t, "status", "x", "--json"),
		`"started":"`+begun.Format(time.RFC3339)+`"`)

	p := u.start(t, "run", "--job", "y", "--", "sh", "-c", wait)
	p.expect(t, "ready")
	require.Contains(t, u.ok(t, "status", "y"), "\nbegun     ")
}

// The variables for the command are never settings: a script that uses lock run means the same
// wherever it is run.
func TestNestedSettings(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	inner := []string{binary, "run", "--job", "script", "--", "sh", "-c", wait}
	night := u.start(t, append([]string{"run", "--component", "night", "--job", "all", "--"},
		inner...)...)
	night.expect(t, "ready")
	require.Contains(t, u.ok(t, "status", "script"), "default/script: held\n")
	require.Equal(t, exitHeld, u.do(t, inner[1:]...).status, "it is the same lock")
}

func TestDurations(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]time.Duration{"0": 0, "10m": 10 * time.Minute,
		"forever": lock.Forever} {
		d, err := duration("ttl", s)
		require.NoError(t, err)
		require.Equal(t, want, d)
	}
	for _, s := range []string{"", "-1s", "10", "ever"} {
		_, err := duration("ttl", s)
		require.True(t, isCode(err, exitUsage), s)
	}
}

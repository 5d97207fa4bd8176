//go:build unix && !aix && !solaris

package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cloudtrust/go-jobs/lock/internal/faultproxy"
)

func TestParseTick(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]struct {
		tick      string
		precision time.Duration
	}{
		"2026-11-25":                {"2026-11-25T00:00:00Z", 24 * time.Hour},
		"2026-11-25T03":             {"2026-11-25T03:00:00Z", time.Hour},
		"2026-11-25T03:15":          {"2026-11-25T03:15:00Z", time.Minute},
		"2026-11-25T03:15Z":         {"2026-11-25T03:15:00Z", time.Minute},
		"2026-11-25T03:15:30Z":      {"2026-11-25T03:15:30Z", time.Second},
		"2026-11-25T03:15:30+01:00": {"2026-11-25T02:15:30Z", time.Second},
	} {
		tick, precision, err := parseTick(s)
		require.NoError(t, err, s)
		require.Equal(t, want.tick, tick.Format(time.RFC3339))
		require.Equal(t, want.precision, precision)
	}
	for _, s := range []string{"night", "25.11.2026", "2026-11-25T03:15:30",
		"2026-11-25T03:15:30.5Z", "2026-11-31",
		"2026-11-25 ", "1763999999", "02:15"} {
		_, _, err := parseTick(s)
		require.True(t, isCode(err, exitUsage), s)
	}
}

// A tick may be ahead by its own precision. One further ahead changes nothing.
func TestRun_tickAhead(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, u user) {
		now := time.Now().UTC()
		for _, form := range tickForms {
			ahead := now.Add(3*form.precision + time.Minute).Format(form.layout)
			r := u.do(t, "run", "--job", "x", "--tick", ahead, "--if-held", "skip", "--", "echo",
				"no")
			require.Equal(t, result{exitAhead, "", r.stderr}, r, ahead)
			require.Contains(t, r.stderr, "ahead of the database's clock")
		}
		require.Equal(t, exitAhead, u.do(t, "run", "--job", "x", "--tick", "2099-11-25", "--",
			"echo", "no").status)
		today := now.Add(12 * time.Hour).Format("2006-01-02") // where the sun rises earlier
		require.Equal(t, "made\n", u.ok(t, "run", "--job", "x", "--tick", today, "--", "echo",
			"made"))
		require.Equal(t, exitRun, u.do(t, "run", "--job", "x", "--tick", today, "--", "echo",
			"no").status)
	})
}

// A command that could not be started does not use up its tick.
func TestRun_tickOfACommandThatCantStart(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	script := filepath.Join(t.TempDir(), "script")
	writeProgram(t, script, []byte("#!/no/such/interpreter\n"))
	u.ok(t, "run", "--job", "x", "--tick", "2026-11-22", "--", "true")
	r := u.do(t, "run", "--job", "x", "--tick", "2026-11-23", "--", script)
	require.Equal(t, result{exitNotFound, "", "lock: exec " + script +
		": it or its interpreter is missing: no such file or directory\n"}, r)
	writeProgram(t, script, []byte("no program\n"))
	r = u.do(t, "run", "--job", "x", "--tick", "2026-11-23", "--", script)
	require.Equal(t, exitCannot, r.status)
	require.Equal(t, exitRun, u.do(t, "run", "--job", "x", "--tick", "2026-11-22", "--",
		"true").status)
	require.Equal(t, "made\n", u.ok(t, "run", "--job", "x", "--tick", "2026-11-23", "--",
		"echo", "made"))
}

// A tick that another is running has not been run.
func TestRun_tickIsBeingRun(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	run := []string{"run", "--job", "x", "--tick", "2026-11-23", "--"}
	p := u.start(t, append(run, "sh", "-c", wait)...)
	p.expect(t, "ready")
	r := u.do(t, append(run, "echo", "no")...)
	require.Equal(t, exitHeld, r.status)
	require.Contains(t, r.stderr, "default/x is being run: by ")
	p.stdin.Write([]byte("go\n"))
	require.Equal(t, 0, p.exit(t))
	r = u.do(t, append(run, "echo", "no")...)
	require.Equal(t, exitRun, r.status)
}

// throughProxy returns a user whose connection to the server can be cut.
func throughProxy(t *testing.T) (u, direct user, proxy *faultproxy.Proxy) {
	direct = postgresUser(t)
	direct.ok(t, "init", "--apply")
	_, address, _ := strings.Cut(direct.name(), "@")
	address, _, _ = strings.Cut(address, "/")
	proxy, err := faultproxy.Start(address)
	require.NoError(t, err)
	t.Cleanup(proxy.Close)
	host, port, err := net.SplitHostPort(proxy.Addr())
	require.NoError(t, err)
	return userOf(t, strings.Replace(direct.db(), address, host+":"+port, 1)), direct, proxy
}

// The reply to the acquisition is lost, and the database is away. The tick is free when the lock
// has expired, and the message names the holder of a lock that never expires.
func TestRun_lostReply(t *testing.T) {
	t.Parallel()
	t.Run("forever", func(t *testing.T) {
		t.Parallel()
		u, direct, proxy := throughProxy(t)
		proxy.Arm(faultproxy.Fault{Place: faultproxy.ReplyLost, Then: faultproxy.Refuse})
		r := u.do(t, "run", "--job", "x", "--ttl", "forever", "--no-ddl", "--", "echo", "no")
		require.Equal(t, exitDatabase, r.status)
		require.Empty(t, r.stdout)
		require.Contains(t, r.stderr, "it never expires")
		holder := direct.holder(t, "x")
		_, words, ok := strings.Cut(r.stderr, "it never expires: lock ")
		require.True(t, ok)
		var args []string
		for _, word := range strings.Fields(words)[:9] {
			args = append(args, strings.Trim(word, `"`))
		}
		require.Contains(t, args, holder)
		require.Equal(t, 0, direct.do(t, args...).status, "what it says can be done: %v", args)
		require.Contains(t, direct.ok(t, "status", "x"), "free")
	})
	t.Run("tick", func(t *testing.T) {
		t.Parallel()
		u, direct, proxy := throughProxy(t)
		proxy.Arm(faultproxy.Fault{Place: faultproxy.ReplyLost, Then: faultproxy.Refuse})
		r := u.do(t, "run", "--job", "x", "--ttl", "2s", "--tick", "2026-11-23", "--no-ddl", "--",
			"echo", "no")
		require.Equal(t, exitDatabase, r.status)
		require.Contains(t, r.stderr, "it expires after 2s")
		require.Contains(t, r.stderr, "held by "+direct.holder(t, "x")+" (run 2026-11-23T00:00:00Z)")
		require.Eventually(t, func() bool {
			return direct.do(t, "run", "--job", "x", "--ttl", "2s", "--tick", "2026-11-23", "--",
				"echo", "made").stdout == "made\n"
		}, patience, 100*time.Millisecond)
	})
	t.Run("signal", func(t *testing.T) {
		t.Parallel()
		u, direct, proxy := throughProxy(t)
		proxy.Arm(faultproxy.Fault{Place: faultproxy.ReplyLost, Then: faultproxy.Refuse})
		run := []string{"run", "--job", "x", "--ttl", "2s", "--tick", "2026-11-23", "--no-ddl", "--"}
		p := u.start(t, append(run, "echo", "no")...)
		require.Eventually(t, func() bool {
			return strings.Contains(direct.ok(t, "status", "x"), "held")
		}, patience, time.Millisecond)
		p.signal(t, unix.SIGTERM)
		proxy.Heal()
		switch p.exit(t) {
		case 0: // it had come through again and begun
			p.expect(t, "no")
			return
		case 143, exitDatabase: // it had given up
		default:
			require.Fail(t, "another status", p.stderr)
		}
		require.Empty(t, p.lines)
		require.Eventually(t, func() bool {
			return direct.do(t, append(run, "echo", "made")...).stdout == "made\n"
		}, patience, 100*time.Millisecond)
	})
}

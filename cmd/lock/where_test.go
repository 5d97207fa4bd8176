//go:build unix && !aix && !solaris

package main

import (
	"encoding/json"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A missing database is an error: with a file each, all machines would run the job.
func TestNobodySaysWhereTheLocksAre(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	for _, env := range [][]string{nil, {"LOCK_DB="}} {
		u := user{append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home}, env...)}
		for _, args := range [][]string{{"run", "--job", "x", "--", "echo", "no"}, {"list"},
			{"status", "x"},
			{"enable", "x"}, {"disable", "x"}, {"release", "x", "--holder", "y"}, {"forget", "x"},
			{"init"},
			{"init", "--apply"}, {"init", "--check"}} {
			r := u.do(t, args...)
			require.Equal(t, exitUsage, r.status, args)
			require.Empty(t, r.stdout)
			for _, way := range []string{"--db postgres://", "LOCK_DB=postgres://", "--db local"} {
				require.Contains(t, r.stderr, way)
			}
		}
	}
	files, err := os.ReadDir(home)
	require.NoError(t, err)
	require.Empty(t, files)
}

// The messages name the database.
func TestMessagesNameTheDatabase(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, u user) {
		stderr := func(args ...string) string {
			cmd := u.command(args...)
			var b strings.Builder
			cmd.Stderr = &b
			cmd.Run()
			return b.String()
		}
		where := " [" + u.name() + "]\n"
		for _, args := range [][]string{{"disable", "x"}, {"run", "--job", "x", "--", "true"},
			{"disable", "x", "-v"},
			{"enable", "x", "-v"}, {"run", "--job", "x", "-v", "--", "true"}, {"forget", "x"},
			{"init", "--apply", "-v"}, {"list", "--no-ddl", "--table", "none"}} {
			for line := range strings.Lines(stderr(args...)) {
				require.True(t, strings.HasSuffix(line, where), line)
			}
			require.NotEmpty(t, stderr(args...))
		}
		var m struct{ DB string }
		require.NoError(t, json.Unmarshal([]byte(stderr("forget", "x", "--log", "json")), &m))
		require.Equal(t, u.name(), m.DB)
		require.True(t, strings.HasPrefix(u.ok(t, "list"), databaseTitle+u.name()+"\n"))
		require.True(t, strings.HasSuffix(u.ok(t, "status", "x"), "\ndatabase  "+u.name()+"\n"))
		// The guard's, too.
		p := u.start(t, "run", "--job", "g", "--", "sh", "-c", stay)
		p.expect(t, "ready")
		require.NoError(t, p.Process.Kill())
		p.end(t)
		require.Eventually(t, func() bool {
			p.stderr.mu.Lock()
			defer p.stderr.mu.Unlock()
			return strings.HasSuffix(p.stderr.b.String(), "killed"+where)
		}, patience, time.Millisecond)
	})
}

// printable is every printable character of ASCII.
var printable = func() string {
	var b strings.Builder
	for c := byte(' '); c <= '~'; c++ {
		b.WriteByte(c)
	}
	return b.String()
}()

// No part of a password is printed, whatever its characters, and whether it is escaped or not.
func TestPasswordsOfAnyCharacter(t *testing.T) {
	t.Parallel()
	const before, after = "geheim", "streng"
	check := func(dsn string) {
		t.Helper()
		says := &buffer{}
		a := &app{db: dsn, says: &speaker{w: says, verbose: true}}
		target, err := a.target()
		if err == nil {
			a.says.warn("words about " + target.name) // as all messages are
			db, err := target.open()
			require.NoError(t, err)
			db.SetMaxOpenConns(1)
			if err := db.Ping(); err != nil {
				a.says.exit(fail(exitDatabase, err), "lock list")
			}
			db.Close()
		} else {
			a.says.exit(err, "lock list")
		}
		for _, args := range [][]string{{dsn}, {"list", dsn}, {"help", dsn}, {"list", "--log", dsn},
			{"run", "--ttl", dsn, "--job", "x", "--", "true"},
			{"run", "--wait", dsn, "--job", "x", "--", "true"},
			{"run", "--grace", dsn, "--job", "x", "--", "true"},
			{"run", "--if-held", dsn, "--job", "x", "--", "true"}, {"run", "--" + dsn},
			{"run", "-" + dsn}} {
			b := &app{says: &speaker{w: says}}
			root := b.root()
			root.SetArgs(args)
			cmd, err := root.ExecuteC()
			require.Error(t, err, args)
			b.says.exit(err, cmd.CommandPath())
		}
		for _, part := range []string{before, after} {
			require.NotContains(t, strings.ToLower(says.String()), part, dsn)
		}
	}
	for _, dsn := range []string{
		"postgres://u:geheim@127.0.0.1:1/d",
		"postgres://u:geheim%21@127.0.0.1:1/d",
		"postgres://u:geheim@127.0.0.1:1/d?sslmode=geheim",
		"postgres://u:geheim@127.0.0.1:geheim/d",
		"postgres://u:geheim%zz@127.0.0.1:1/d",
		"postgres://u:geheim@@127.0.0.1:1/d",
		"postgres://u:geheim/x@127.0.0.1:1/d",
		"postgres://127.0.0.1:1/d?user=u&password=geheim",
		"postgres://127.0.0.1:1/geheim?password=geheim",
		"postgres:u:geheim@127.0.0.1/d",
		"postgres:/u:geheim:x@127.0.0.1/d",
		"postgres://u:geheim@127.0.0.1/d?sslmode=bogus&a=`: geheim",
		"u:geheim@127.0.0.1:1/d",
		"sslmode=disable pass=geheim",
		"Postgres://u:geheim@127.0.0.1:1/d",
		" postgres://u:geheim@127.0.0.1:1/d",
		"host=127.0.0.1 port=1 user=u password=geheim",
		"mysql://u:geheim@127.0.0.1/d",
	} {
		check(dsn)
	}
	for _, c := range append(strings.Split(printable, ""), printable) {
		password := before + c + after
		check("postgres://u:" + password + "@127.0.0.1:1/d")
		check("postgres://u:1" + c + password + "@127.0.0.1:1/d")
		check((&url.URL{Scheme: "postgres", User: url.UserPassword("u", password),
			Host: "127.0.0.1:1"}).String())
		check("postgres://u:" + url.QueryEscape(password) + "@127.0.0.1:1/d?sslmode=x")
		check("cockroach://127.0.0.1:1/d?user=u&password=" + password)
		check("cockroach://127.0.0.1:1/d?user=u&password=" + url.QueryEscape(password))
		check("host=127.0.0.1 port=1 user=u password=" + password)
		check("host=127.0.0.1 port=1 user=u password='" + password + "'")
	}
}

// A host that accepts connections and doesn't answer is an error within ten seconds, which names
// it.
func TestMuteHost(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	u := userOf(t, "postgres://u@"+l.Addr().String()+"/d")
	for _, args := range [][]string{{"list"}, {"status", "x"}, {"run", "--job", "x", "--", "echo",
		"no"},
		{"init", "--check"}} {
		t.Run(args[0], func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			cmd := u.command(args...)
			out, _ := cmd.CombinedOutput()
			require.Equal(t, exitDatabase, cmd.ProcessState.ExitCode())
			require.Regexp(t, "no answer within 9s|timeout", string(out))
			require.Contains(t, string(out), l.Addr().String())
			require.Less(t, time.Since(begun), 10*time.Second+slack)
		})
	}
}

// slack is the extra time of a busy machine.
const slack = 20 * time.Second

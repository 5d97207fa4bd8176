//go:build unix && !aix && !solaris

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFreshMachine(t *testing.T) {
	t.Parallel()
	for _, env := range []string{"XDG_STATE_HOME", "HOME"} {
		t.Run(env, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			u := user{[]string{"PATH=" + os.Getenv("PATH"), env + "=" + home}}
			require.Equal(t, "hi\n", u.ok(t, "run", "--db", "local", "--job", "hello", "--", "echo",
				"hi"))
			folder := filepath.Join(home, "lock")
			if env == "HOME" {
				folder = filepath.Join(home, ".local", "state", "lock")
			}
			require.FileExists(t, filepath.Join(folder, "locks.db"))
			info, err := os.Stat(folder)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
		})
	}
	r := user{[]string{"PATH=" + os.Getenv("PATH")}}.do(t, "list", "--db", "local")
	require.Equal(t, 64, r.status)
	require.Contains(t, r.stderr, "--db local: the user's state folder can't be found")
}

func TestAdministration(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, u user) {
		require.Equal(t, u.title()+"COMPONENT  JOB  STATE  HOLDER (LAST)  RUN  AGE\n", u.ok(t,
			"list"))
		require.Equal(t, "[]\n", u.ok(t, "list", "--json"))
		require.Equal(t, "default/new: free\nlast      nobody yet\ndatabase  "+u.name()+"\n",
			u.ok(t, "status", "new"))
		require.Equal(t, `{"component":"default","job":"new","held":false,"enabled":true}`+"\n",
			u.ok(t, "status", "new", "--json"))

		p := u.start(t, "run", "--component", "shop", "--job", "backup", "--component-id",
			"server 1", "--job-id", "run 1", "--", "sh", "-c", wait)
		p.expect(t, "ready")
		require.Regexp(t, `^shop/backup: held
holder    server 1
run       run 1
renewed   \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ, [\d.]+m?s ago \(or acquired\)
database  `+regexp.QuoteMeta(u.name())+"\n$", u.ok(t, "status", "backup", "--component", "shop"))
		require.Contains(t, u.ok(t, "list"), "shop       backup  held   server 1       run 1  ")
		u.ok(t, "disable", "backup", "--component", "shop")
		require.Contains(t, u.with("LOCK_COMPONENT=shop").ok(t, "status", "backup"),
			"shop/backup: held, disabled\n")
		var all []entry
		require.NoError(t, json.Unmarshal([]byte(u.ok(t, "list", "--json")), &all))
		require.Len(t, all, 1)
		require.Equal(t, "server 1", all[0].Holder.ComponentID)
		require.WithinDuration(t, time.Now(), all[0].Holder.LockTime, time.Minute)
		require.Less(t, all[0].Holder.AgeSeconds, 60.)

		r := u.do(t, "release", "backup", "--component", "shop", "--holder", "server 1", "--run",
			"run 2")
		require.Equal(t, 75, r.status)
		r = u.do(t, "release", "backup", "--component", "shop", "--holder", "server 1", "--run",
			"run 1", "--force")
		require.Equal(t, result{0, "",
			"lock: shop/backup: released; it was held by server 1 (run run 1)\n"}, r)
		r = u.do(t, "release", "backup", "--component", "shop", "--holder", "server 1")
		require.Equal(t, result{0, "", "lock: shop/backup: nobody holds it\n"}, r)
		require.Contains(t, u.ok(t, "list"), "disabled  (server 1)     run 1")
		require.NoError(t, p.Process.Signal(syscall.SIGTERM))
		p.end(t)
		require.Contains(t, []int{143, exitLost}, p.exit(t), "it may have noticed")

		u.ok(t, "enable", "backup", "--component", "shop")
		require.Equal(t, result{0, "",
			"lock: default/a: enabled, but no such job has been run yet " +
				"(lock list shows the jobs)\n"},
			u.do(t, "enable", "a"))
		require.NotContains(t, u.ok(t, "list", "--component", "shop"), "default")
		require.Equal(t, "a\n", strings.SplitAfter(u.do(t, "__complete", "status", "").stdout,
			":")[0][:2])
		require.Equal(t, 0, u.do(t, "__complete", "run", "--job", "").status)
		require.Contains(t, u.do(t, "__complete", "run", "--if-held", "").stdout, "fail\nskip\n")
		require.Contains(t, u.do(t, "__complete", "list", "--log", "").stdout, "text\njson\n")
	})
}

func TestInit(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, u user) {
		no := []string{"--no-ddl", "--table", "My locks"}
		require.Equal(t, exitDatabase, u.do(t, append([]string{"list"}, no...)...).status)
		printed := u.ok(t, append([]string{"init"}, no...)...)
		require.Regexp(t, `^CREATE TABLE IF NOT EXISTS "My locks" \((?s:.*)\);\n$`, printed)
		require.Equal(t, exitDatabase, u.do(t, append([]string{"list"}, no...)...).status,
			"it was only printed")
		for range 2 {
			require.Empty(t, u.ok(t, append([]string{"init", "--apply"}, no...)...))
		}
		require.Equal(t, "hi\n", u.ok(t, append(append([]string{"run", "--job", "x"}, no...), "--",
			"echo", "hi")...))

		r := u.do(t, "init", "--apply", "--schema", "nowhere")
		require.Equal(t, exitDatabase, r.status)
		require.Contains(t, r.stderr, "nowhere")
	})
	u := user{[]string{"LOCK_DB=cockroach://nobody@127.0.0.1:1/none"}}
	require.Contains(t, u.ok(t, "init"), "TIMESTAMPTZ", "no server is asked")
}

func TestWatch_inAPipe(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	p := u.start(t, "list", "--watch", "--interval", "20ms")
	p.expect(t, strings.TrimSpace(u.title()))
	p.expect(t, "COMPONENT  JOB  STATE  HOLDER (LAST)  RUN  AGE")
	u.disable(t, "x")
	p.expect(t, strings.TrimSpace(u.title()))
	p.expect(t, "COMPONENT  JOB  STATE     HOLDER (LAST)  RUN  AGE")
	p.expect(t, "default    x    disabled  -              -    -")
	require.Zero(t, u.do(t, "enable", "x").status)
	p.expect(t, strings.TrimSpace(u.title()))
	p.expect(t, "COMPONENT  JOB  STATE  HOLDER (LAST)  RUN  AGE")
	p.expect(t, "default    x    free   -              -    -")
	require.NoError(t, p.Process.Signal(syscall.SIGINT))
	require.Equal(t, 0, p.exit(t))
	require.Empty(t, p.lines, "a table for each change, and no more")

	p = u.start(t, "list", "--watch", "--json")
	p.expect(t, `[{"component":"default","job":"x","held":false,"enabled":true}]`)
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	require.Equal(t, 0, p.exit(t))
}

// Every command explains itself, in lines that fit.
func TestHelp(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	for _, command := range []string{"", "run", "list", "status", "enable", "disable", "release",
		"forget", "init", "completion", "version"} {
		text := u.ok(t, strings.Fields(command+" --help")...)
		require.Equal(t, text, u.ok(t, strings.Fields("help "+command)...))
		for _, title := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES",
			"EXIT STATUS", "ENVIRONMENT"} {
			require.Contains(t, "\n"+text, "\n"+title+"\n  ", command)
		}
		for line := range strings.Lines(text) {
			if !strings.Contains(line, "* * *") { // a crontab takes no other
				require.LessOrEqual(t, cells(strings.TrimRight(line, "\n")), 100, line)
			}
		}
		require.NotContains(t, text, u.env[len(u.env)-1], "what is in LOCK_DB stays there")
	}
	require.Equal(t, u.ok(t, "--help"), u.ok(t))
	require.Equal(t, u.ok(t, "version"), u.ok(t, "--version"))
	for _, shell := range []string{"bash", "zsh", "fish"} {
		require.Contains(t, u.ok(t, "completion", shell), "lock")
	}
	require.Regexp(t, `^lock \S+ .*go\S+ \w+/\w+\n$`, u.ok(t, "version"))
}

//go:build unix && !aix && !solaris

package main

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Parts of scripts.
const (
	wait   = "echo ready; read line"                   // until standard input has a line
	stay   = "echo ready; while :; do read line; done" // without a process for a signal to hit
	family = "sleep 300 & timeout 300 sleep 300 & "    // one in the group, one that makes its own
)

func TestRun_passesOn(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	r := u.do(t, "run", "--job", "hello", "--", "sh", "-c", `echo "$1"; echo err >&2; exit 7`,
		"sh", "a  'b'\n--job")
	require.Equal(t, result{7, "a  'b'\n--job\n", "err\n"}, r)

	require.Equal(t, "--help\n", u.ok(t, "run", "--job", "hello", "sh", "-c", `echo "$0"`,
		"--help"), "without --")

	input := make([]byte, 1<<20)
	for i := range input {
		input[i] = byte(rand.N(256))
	}
	cmd := u.command("run", "--job", "hello", "--", "cat")
	cmd.Stdin = bytes.NewReader(input)
	output, err := cmd.Output()
	require.NoError(t, err)
	require.True(t, bytes.Equal(input, output), "standard input comes through")

	require.Equal(t, result{137, "", ""}, u.do(t, "run", "--job", "hello", "--", "sh", "-c",
		"kill -9 $$"))
}

func TestRun_tellsTheCommand(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t).with("LOCK_HELD_TOKEN=old")
	print := []string{"--", "sh", "-c",
		`echo "$LOCK_HELD_TOKEN,$LOCK_HELD_COMPONENT,$LOCK_HELD_JOB,$LOCK_HELD_JOB_ID"`}
	token := func(out, rest string) int64 {
		t.Helper()
		n, others, _ := strings.Cut(strings.TrimSpace(out), ",")
		require.Equal(t, rest, others)
		token, err := strconv.ParseInt(n, 10, 64)
		require.NoError(t, err)
		return token
	}
	first := token(u.ok(t, append([]string{"run", "--job", "hello", "--component", "shop",
		"--job-id", "seven"}, print...)...), "shop,hello,seven")
	second := token(u.with("LOCK_COMPONENT=shop").ok(t, append([]string{"run", "--job", "hello",
		"--tick", "2026-11-23"}, print...)...), "shop,hello,2026-11-23T00:00:00Z")
	require.Greater(t, second, first)
	require.Contains(t, u.ok(t, append([]string{"run", "--job", "hello"}, print...)...),
		",default,hello,")
}

func TestRun_exitStatus(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	u.disable(t, "off")
	u.ok(t, "run", "--job", "nightly", "--tick", "2026-11-23", "--", "true")
	holder := u.start(t, "run", "--job", "held", "--", "sh", "-c", wait)
	holder.expect(t, "ready")

	for _, test := range []struct {
		name   string
		status int
		stderr string // a part of it
		args   []string
	}{
		{"held", 75, "refused: default/held is held by ", []string{"run", "--job", "held", "--",
			"echo", "no"}},
		{"held, after a wait", 75, "refused: default/held is held by ", []string{"run", "--job",
			"held", "--wait", "50ms", "--", "echo", "no"}},
		{"held, skip", 0, "", []string{"run", "--job", "held", "--if-held", "skip", "--", "echo",
			"no"}},
		{"disabled", 80, "default/off is disabled", []string{"run", "--job", "off", "--", "echo",
			"no"}},
		{"disabled, skip", 80, "default/off is disabled", []string{"run", "--job", "off",
			"--if-held", "skip", "--", "echo", "no"}},
		{"already run", 81, "default/nightly has been run already: by ", []string{"run", "--job",
			"nightly", "--tick", "2026-11-23", "--", "echo", "no"}},
		{"run later already", 81, "(run 2026-11-23T00:00:00Z)", []string{"run", "--job", "nightly",
			"--tick", "2026-11-22", "--", "echo", "no"}},
		{"already run, skip", 0, "", []string{"run", "--job", "nightly", "--tick", "2026-11-23",
			"--if-held", "skip", "--", "echo", "no"}},
		{"unreachable", 69, "lock: the database: ", []string{"run", "--db",
			"postgres://127.0.0.1:1/x", "--job", "x", "--", "echo", "no"}},
		{"no folder", 69, "/no-such-folder: no such file or directory", []string{"list", "--db",
			"/no-such-folder/locks.db"}},
		{"no file", 69, "lock: the database: ", []string{"list", "--db", "/dev/null"}},
		{"not found", 127, `"no-such-command"`, []string{"run", "--job", "x", "--",
			"no-such-command"}},
		{"no such file", 127, "no such file", []string{"run", "--job", "x", "--",
			"./no-such-command"}},
		{"not executable", 126, "permission denied", []string{"run", "--job", "x", "--",
			"/dev/null"}},
		{"no command", 64, "no command to run (lock run --help explains)", []string{"run", "--job",
			"x"}},
		{"no job", 64, "--job", []string{"run", "--", "true"}},
		{"flag", 64, "unknown flag: --jobb", []string{"run", "--jobb", "x", "--", "true"}},
		{"command", 64, `unknown command "rum": is it run?`, []string{"rum"}},
		{"unlike any command", 64, `unknown command "frobnicate" (lock --help`,
			[]string{"frobnicate"}},
		{"help", 64, `unknown command "lst": is it list?`, []string{"help", "lst"}},
		{"too much", 64, `unexpected argument "backup": lock list takes only flags`, []string{"list",
			"backup"}},
		{"empty tick", 64, "--tick is empty", []string{"run", "--job", "x", "--tick", "",
			"--", "echo", "no"}},
		{"empty job", 64, "--job is empty", []string{"run", "--job", "", "--", "echo",
			"no"}},
		{"empty component", 64, "--component is empty", []string{"status", "x",
			"--component", ""}},
		{"empty database", 64, "--db is empty", []string{"run", "--db", "", "--job", "x",
			"--", "echo", "no"}},
		{"disable nothing", 64, "the name of the job is missing", []string{"disable", ""}},
		{"status of nothing", 64, "the name of the job is missing", []string{"status"}},
		{"no shell", 64, "bash, zsh or fish", []string{"completion"}},
		{"unknown shell", 64, "bash, zsh or fish", []string{"completion", "cmd"}},
		{"wait", 64, "forever", []string{"run", "--job", "x", "--wait", "long", "--", "true"}},
		{"ttl", 64, "at least 1s", []string{"run", "--job", "x", "--ttl", "10ms", "--", "true"}},
		{"grace", 64, "--grace 3s is too long for --ttl 5s", []string{"run", "--job", "x", "--ttl",
			"5s", "--grace", "3s", "--", "true"}},
		{"if-held", 64, "fail or skip", []string{"run", "--job", "x", "--if-held", "wait", "--",
			"true"}},
		{"log", 64, "text or json", []string{"run", "--job", "x", "--log", "xml", "--", "true"}},
		{"tick and ID", 64, "tick", []string{"run", "--job", "x", "--tick", "2026-11-23",
			"--job-id", "b", "--", "true"}},
		{"UTF-8", 64, "UTF-8", []string{"run", "--job", "\xff", "--", "true"}},
		{"two jobs", 64, "one job, not 2", []string{"status", "a", "b"}},
		{"no holder", 64, "--holder", []string{"release", "held"}},
		{"another holder", 75, "default/held is held by ", []string{"release", "held", "--holder",
			"somebody"}},
		{"no table", 69, "no such table", []string{"list", "--no-ddl", "--table", "other"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := u.do(t, test.args...)
			require.Equal(t, result{test.status, "", r.stderr}, r)
			if test.stderr == "" {
				require.Empty(t, r.stderr)
				return
			}
			require.Contains(t, r.stderr, test.stderr)
			require.Equal(t, 1, strings.Count(r.stderr, "\n"), "one line: %s", r.stderr)
			require.True(t, strings.HasPrefix(r.stderr, "lock: "), r.stderr)
		})
	}
}

func TestRun_json(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	r := u.do(t, "run", "--job", "x", "-v", "--log", "json", "--", "sh", "-c", "exit 3")
	require.Equal(t, 3, r.status)
	var messages []string
	for line := range strings.Lines(r.stderr) {
		var m struct{ Level, Msg, Job string }
		require.NoError(t, json.Unmarshal([]byte(line), &m), line)
		require.Equal(t, "x", m.Job)
		messages = append(messages, m.Msg)
	}
	require.Equal(t, []string{"default/x: acquired", "default/x: released"}, messages)

	u.ok(t, "disable", "x")
	r = u.do(t, "run", "--job", "x", "--job-id", "seven", "--log", "json", "--", "true")
	var m struct {
		Level, Component, Job, JobID string
		Exit                         int
	}
	require.NoError(t, json.Unmarshal([]byte(strings.Replace(r.stderr, "job_id", "jobid", 1)), &m))
	require.Equal(t, "ERROR", m.Level)
	require.Equal(t, []string{"default", "x", "seven"}, []string{m.Component, m.Job, m.JobID})
	require.Equal(t, exitDisabled, m.Exit)
}

// Signals that lock run was started to ignore, the command ignores, too.
func TestRun_ignoredSignals(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	p := &process{}
	// The shell of nohup.
	cmd := u.command()
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `trap "" HUP; exec "$0" "$@"`, binary,
		"run", "--job", "x", "--", "sh", "-c", "kill -HUP $$; echo alive"}
	p.Cmd = cmd
	out, err := cmd.Output()
	require.NoError(t, err)
	require.Equal(t, "alive\n", string(out))
}

// While a database is away, lock run says that it waits, and waits.
func TestRun_waitsForTheDatabase(t *testing.T) {
	t.Parallel()
	u, _, proxy := throughProxy(t)
	proxy.Refuse()
	p := u.start(t, "run", "--job", "x", "--wait", "forever", "--poll", "50ms", "--", "echo", "mine")
	p.says(t, "; waiting\n")
	require.Contains(t, p.stderr.String(), "lock: the database: ")
	proxy.Heal()
	p.expect(t, "mine")
	require.Equal(t, 0, p.exit(t))
}

// A signal ends lock run even if the server doesn't answer to the creation of the table.
func TestRun_signalWhileTheTableIsCreated(t *testing.T) {
	t.Parallel()
	u := postgresUser(t)
	db, err := sql.Open("pgx", u.db())
	require.NoError(t, err)
	defer db.Close()
	tx, err := db.Begin()
	require.NoError(t, err)
	defer tx.Rollback()
	_, err = tx.Exec("CREATE TABLE locks ()")
	require.NoError(t, err)
	var self int
	require.NoError(t, tx.QueryRow("SELECT pg_backend_pid()").Scan(&self))
	p := u.start(t, "run", "--job", "x", "--", "echo", "no")
	blocks(t, db, self)
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	require.Equal(t, 143, p.exit(t))
	require.Equal(t, "lock: default/x: ended by a signal (terminated) before the command began\n",
		p.stderr.String())
}

func TestRun_wait(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	holder := u.start(t, "run", "--job", "x", "--", "sh", "-c", wait)
	holder.expect(t, "ready")
	waiting := u.start(t, "run", "--job", "x", "--wait", "1m", "--poll", "20ms", "--", "echo",
		"mine")
	holder.stdin.Write([]byte("go\n"))
	waiting.expect(t, "mine")
	require.Equal(t, 0, holder.exit(t))
	require.Equal(t, 0, waiting.exit(t))
}

func TestRun_oneOfFifty(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, u user) {
		all := make([]*process, 50)
		for i := range all {
			all[i] = u.start(t, "run", "--job", "x", "--", "sh", "-c", wait)
		}
		var winners []*process
		for _, p := range all {
			if line, ok := <-p.lines; ok { // the others print nothing
				require.Equal(t, "ready", line)
				winners = append(winners, p)
			} else {
				require.Equal(t, 75, p.exit(t), p.stderr.String())
				require.Contains(t, p.stderr.String(), "default/x is held by ")
			}
		}
		require.Len(t, winners, 1)
		winners[0].stdin.Write([]byte("go\n"))
		require.Equal(t, 0, winners[0].exit(t))
	})
}

func TestRun_lostLock(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, u user) {
		for name, lose := range map[string]func(t *testing.T){
			"released": func(t *testing.T) {
				r := u.do(t, "release", "released", "--force", "--holder", u.holder(t, "released"))
				require.Equal(t, 0, r.status, r.stderr)
			},
			"disabled": func(t *testing.T) { u.ok(t, "disable", "disabled") },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				// The command ignores TERM, and has descendants. All must go.
				p := u.start(t, "run", "--job", name, "--ttl", "6s", "--grace", "300ms",
					"--stop-when-disabled", "--",
					"sh", "-c", "trap 'echo term' TERM; "+family+stay)
				p.expect(t, "ready")
				lose(t)
				p.expect(t, "term")
				p.end(t)
				require.Equal(t, exitLost, p.exit(t))
				require.Regexp(t, `^lock: default/`+name+`: the (lock|lease) is lost: `+
					`.*: ending the command\nlock: default/`+name+
					`: not ended 300ms after TERM: killing it\n$`, p.stderr.String())
				require.NotContains(t, u.ok(t, "status", name), "held")
			})
		}
	})
}

// The command goes on while the database may come back in time, and is ended before another can
// acquire the lock.
func TestRun_databaseStops(t *testing.T) {
	u := postgresUser(t) // not in parallel: the others have the same server
	const longest = 10 * time.Second
	pipe, gone := watchFamily(t)
	lost := u.start(t, "run", "--job", "lost", "--ttl", longest.String(), "--grace", "100ms", "-v",
		"--", "sh", "-c", "exec 3>$0; trap 'echo term' TERM; "+family+stay, pipe)
	lost.expect(t, "ready")
	kept := u.start(t, "run", "--job", "kept", "--ttl", "1m", "--", "sh", "-c", wait)
	kept.expect(t, "ready")
	over := u.start(t, "run", "--job", "over", "--ttl", "1m", "--", "sh", "-c", wait)
	over.expect(t, "ready")

	s := postgres(t)
	require.Eventually(t, func() bool {
		return strings.Contains(lost.stderr.String(),
			": renewed\n")
	}, patience, 5*time.Millisecond)
	stopping := time.Now()
	s.Stop()
	stopped := time.Now()
	again := sync.OnceValue(s.Run)
	t.Cleanup(func() { again() })
	lost.expect(t, "term")
	// It was renewed just before the stop or again since, so it had nearly all of its time, less
	// the margin.
	require.Greater(t, time.Since(stopping), longest-longest/10-longest/3)
	await(t, gone)
	require.Less(t, time.Since(stopped), longest)
	require.Equal(t, exitLost, lost.exit(t))
	require.Contains(t, lost.stderr.String(),
		"it could not be renewed in time: ending the command\n")
	require.NotContains(t, lost.stderr.String(), "lock: lock:")
	require.NotContains(t, lost.stderr.String(), "Renew job", "the line has named it")
	over.stdin.Write([]byte("go\n"))
	require.Equal(t, 0, over.exit(t), "the command has done its work")
	require.Contains(t, over.stderr.String(),
		"default/over: the command has ended, but its lock could not be released, and will expire: ")
	require.Equal(t, exitDatabase, u.do(t, "run", "--job", "x", "--", "echo", "no").status)

	require.NoError(t, again())
	require.Equal(t, "mine\n", u.do(t, "run", "--job", "lost", "--ttl", longest.String(), "--wait",
		"1m", "--poll", "50ms", "--", "echo", "mine").stdout)
	kept.stdin.Write([]byte("go\n"))
	require.Equal(t, 0, kept.exit(t), kept.stderr.String())
	require.Contains(t, u.ok(t, "status", "kept"), "free")
}

func TestRun_commandIsKilled(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	p := u.start(t, "run", "--job", "x", "--ttl", "10s", "--grace", "200ms", "--", "sh", "-c",
		"(trap '' TERM; "+family+"echo $$; while :; do read line; done) & wait")
	pid, err := strconv.Atoi(<-p.lines)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	p.end(t) // its descendants, too
	require.Equal(t, 137, p.exit(t))
	require.Contains(t, p.stderr.String(), "left processes running: ending them\n")
	require.Contains(t, u.ok(t, "status", "x"), "x: free\n")
}

// A daemon leaves on purpose.
func TestRun_daemonIsLeftAlone(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	require.Equal(t, "", u.ok(t, "run", "--job", "x", "--", "sh", "-c",
		`setsid sh -c 'echo alive >"$0"' "$0" >/dev/null 2>&1 </dev/null &
while ! ps -o args= -s $! | grep -q alive; do :; done`, pipe))
	got, err := os.ReadFile(pipe)
	require.NoError(t, err)
	require.Equal(t, "alive\n", string(got))
}

// A lock run in the command of another ends with the signal that is passed on.
func TestRun_nested(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	p := u.start(t, "run", "--job", "outer", "--", binary, "run", "--job", "inner", "--", "sh",
		"-c", stay)
	p.expect(t, "ready")
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	p.end(t)
	require.Equal(t, 143, p.exit(t))
	require.Contains(t, u.ok(t, "status", "inner"), "inner: free\n")
	require.Empty(t, p.stderr.String())
}

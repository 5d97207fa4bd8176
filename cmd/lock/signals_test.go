//go:build unix && !aix && !solaris

package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cloudtrust/go-jobs/lock"
)

var ending = []syscall.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT}

// Each row of the table, in turn.
func TestRun_reactions(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T, u user){
		"INT, TERM, HUP, QUIT, USR1, USR2 before the command": beforeTheCommand,
		"TERM, HUP, INT, QUIT it runs":                        itEnds,
		"USR1, USR2, CONT it runs":                            itHears,
		"TSTP it runs, without a terminal":                    itStops,
		"INT, QUIT by a key it runs at a terminal":            byAKey,
		"TSTP by a key it runs at a terminal":                 itStopsAtATerminal,
		"INT, QUIT by kill in a terminal's foreground":        byKill,
		"INT, TERM, HUP, QUIT the lock is lost":               whileItIsEnded,
		"INT, TERM, HUP, QUIT it has left processes running":  whileItsRestIsEnded,
		"INT, TERM, HUP, QUIT the lock is released":           whileTheLockIsReleased,
		"STOP it runs": lockRunIsStopped,
		"KILL it runs": lockRunIsKilled,
		"PIPE ever":    brokenPipe,
	}
	for _, r := range reactions {
		name := r.signal + " " + r.state
		require.Contains(t, tests, name)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tests[name](t, sqliteUser(t))
		})
	}
	require.Len(t, tests, len(reactions))
}

func (p *process) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	require.NoError(t, p.Process.Signal(sig))
}

// stopped waits until a process is stopped.
func stopped(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool { return processes{PID: pid}.stopped() }, patience,
		time.Millisecond)
}

// pid reads a line that is the process ID of the command.
func (p *process) pid(t *testing.T) int {
	t.Helper()
	pid, err := strconv.Atoi(<-p.lines)
	require.NoError(t, err, p.stderr)
	return pid
}

func beforeTheCommand(t *testing.T, u user) {
	holder := u.start(t, "run", "--job", "x", "--", "sh", "-c", wait)
	holder.expect(t, "ready")
	for _, sig := range append(ending, unix.SIGUSR1, unix.SIGUSR2) {
		p := u.start(t, "run", "--job", "x", "--tick", "2026-11-23", "--wait", "forever", "-v",
			"--", "echo", "no")
		p.says(t, "; waiting\n")
		p.signal(t, sig)
		require.Equal(t, exitSignal+int(sig), p.exit(t))
		require.Contains(t, p.stderr.String(), "before the command began")
		require.Empty(t, p.lines)
	}
	holder.stdin.Write([]byte("go\n"))
	require.Equal(t, 0, holder.exit(t))
	require.Equal(t, "mine\n", u.ok(t, "run", "--job", "x", "--tick", "2026-11-23", "--", "echo",
		"mine"))
}

// A signal that comes after the lock is acquired and before the command begins.
func TestRun_signalAtTheLastMoment(t *testing.T) {
	t.Parallel()
	l := lock.NewMemory(lock.Options{})
	r := &run{app: &app{says: &speaker{w: &buffer{}}}, component: "c", job: "j"}
	job := lock.Job{ComponentName: "c", JobName: "j", Tick: time.Now().Truncate(time.Second)}
	lease, err := l.Acquire(context.Background(), job)
	require.NoError(t, err)
	signals := make(chan os.Signal, 1)
	signals <- unix.SIGTERM
	err = r.hold(lease, &guard{says: r.says}, "/bin/false", []string{"false"}, signals)
	require.True(t, isCode(err, exitSignal+int(unix.SIGTERM)), err)
	lease, err = l.Acquire(context.Background(), job)
	require.NoError(t, err, "the tick is free")
	require.NoError(t, lease.Release(context.Background()))
}

func itEnds(t *testing.T, u user) {
	for _, sig := range ending {
		for name, script := range map[string]string{
			"waiting": "echo $$; while :; do read line; done",
			"stopped": "echo $$; kill -STOP $$; while :; do read line; done",
		} {
			name = name + sig.String()
			number := strconv.Itoa(int(sig))
			p := u.start(t, "run", "--job", name, "--", "sh", "-c",
				"trap 'echo got; exit 9' "+number+"; "+script)
			if pid := p.pid(t); strings.HasPrefix(name, "stopped") {
				stopped(t, pid)
			}
			p.signal(t, sig)
			p.expect(t, "got")
			require.Equal(t, 9, p.exit(t), name)

			p = u.start(t, "run", "--job", name, "--", "sh", "-c", family+script)
			if pid := p.pid(t); strings.HasPrefix(name, "stopped") {
				stopped(t, pid)
			}
			p.signal(t, sig)
			p.end(t) // also what has made a process group of its own
			require.Equal(t, 128+int(sig), p.exit(t), name)
			require.Contains(t, u.ok(t, "status", name), name+": free\n")
		}
		// A command that ignores it goes on, and keeps its lock.
		p := u.start(t, "run", "--job", "ignores", "--", "sh", "-c",
			fmt.Sprintf("trap '' %d; trap 'echo usr1' USR1; %s", int(sig), stay))
		p.expect(t, "ready")
		p.signal(t, sig)
		p.signal(t, unix.SIGUSR1)
		p.expect(t, "usr1") // it comes after the other
		require.Contains(t, u.ok(t, "status", "ignores"), "held")
		p.signal(t, unix.SIGKILL)
		p.end(t)
		p.exit(t)
		u.do(t, "release", "ignores", "--force", "--holder", u.holder(t, "ignores"))
	}
}

func itHears(t *testing.T, u user) {
	p := u.start(t, "run", "--job", "x", "--", "sh", "-c",
		"trap 'echo usr1' USR1; trap 'echo usr2' USR2; trap 'echo cont' CONT; "+stay)
	p.expect(t, "ready")
	p.signal(t, unix.SIGUSR1)
	p.expect(t, "usr1")
	p.signal(t, unix.SIGUSR2)
	p.expect(t, "usr2")
	p.signal(t, unix.SIGCONT)
	p.expect(t, "cont")
}

func itStops(t *testing.T, u user) {
	p := u.start(t, "run", "--job", "x", "--ttl", "10s", "--grace", "0s", "-v", "--", "sh", "-c",
		"echo $$; read a; echo $a")
	pid := p.pid(t)
	p.signal(t, unix.SIGTSTP)
	stopped(t, pid)
	before := strings.Count(p.stderr.String(), "renewed")
	require.Eventually(t, func() bool {
		return strings.Count(p.stderr.String(),
			"renewed") >= before+2
	},
		patience, 10*time.Millisecond)
	p.stdin.Write([]byte("go\n"))
	p.signal(t, unix.SIGCONT)
	p.expect(t, "go")
	require.Equal(t, 0, p.exit(t))
}

func byAKey(t *testing.T, u user) {
	for key, name := range map[string]string{"\x03": "INT", "\x1c": "QUIT"} {
		term := openScreen(t, u.command("run", "--job", name, "--", "sh", "-c",
			"trap 'echo caught' "+name+"; trap 'echo usr1' USR1; "+stay))
		term.expect(t, "ready")
		term.keys.WriteString(key)
		term.expect(t, "caught")
		require.NoError(t, term.Process.Signal(unix.SIGUSR1))
		term.expect(t, "usr1") // it comes after what lock run might have passed on
		require.Equal(t, 1, strings.Count(term.shown.String(), "caught"), term.shown)
		require.NoError(t, term.Process.Signal(unix.SIGTERM))
		require.Equal(t, 143, term.exit(t))
	}
}

func itStopsAtATerminal(t *testing.T, u user) {
	sh := u.shell(t)
	sh.types("%s run --job x --ttl 20s -- sh -c 'echo be''gun; read a; echo got $a'", binary)
	sh.expect(t, "begun")
	sh.keys.WriteString("\x1a")
	sh.prompts(t, "begun\r\n")
	sh.types("fg")
	sh.types("one")
	sh.expect(t, "got one")

	// When it comes back too late, the command is gone.
	sh.types("%s run --job y --ttl 6s --grace 0s -- sh -c 'echo be''gun again; read a; echo no''t'",
		binary)
	sh.expect(t, "begun again")
	sh.keys.WriteString("\x1a")
	sh.prompts(t, "begun again\r\n")
	require.Equal(t, "mine\n", u.do(t, "run", "--job", "y", "--ttl", "6s", "--wait", "1m", "--",
		"echo", "mine").stdout)
	sh.types("fg; echo st''atus $?")
	sh.expect(t, "status 82")
	require.NotContains(t, sh.shown.String(), "not\r")
}

func byKill(t *testing.T, u user) {
	term := openScreen(t, u.command("run", "--job", "x", "--", "sh", "-c",
		"trap 'echo no' INT QUIT; trap 'echo usr1' USR1; "+stay))
	term.expect(t, "ready")
	for _, sig := range []syscall.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1} {
		require.NoError(t, term.Process.Signal(sig))
	}
	term.expect(t, "usr1")
	require.NotContains(t, term.shown.String(), "no\r")
}

func whileItIsEnded(t *testing.T, u user) {
	for _, sig := range ending {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			job := sig.String()
			p := u.start(t, "run", "--job", job, "--ttl", "forever", "--grace", "50s", "--", "sh",
				"-c", fmt.Sprintf(
					"trap 'echo first; trap \"echo second; exit 0\" %d' TERM; "+stay, int(sig)))
			p.expect(t, "ready")
			u.do(t, "release", job, "--force", "--holder", u.holder(t, job))
			p.expect(t, "first") // the TERM that ends it
			p.says(t, "ending the command")
			p.signal(t, sig)
			p.expect(t, "second")
			p.end(t)
			require.Equal(t, exitLost, p.exit(t))
		})
	}
}

func whileItsRestIsEnded(t *testing.T, u user) {
	for _, sig := range ending {
		if sig == unix.SIGINT || sig == unix.SIGQUIT {
			continue // which the shell makes what is left ignore
		}
		p := u.start(t, "run", "--job", "x", "--ttl", "2m", "--grace", "50s", "--", "sh", "-c",
			"(trap 'echo got; [ $again ] && exit; again=1' HUP TERM; echo ready; "+
				"while :; do sleep 0.01; done) & "+
				"read line; exit 7")
		p.expect(t, "ready")
		p.stdin.Write([]byte("go\n"))
		p.expect(t, "got") // the TERM that ends it
		require.Contains(t, u.ok(t, "status", "x"), "held")
		p.signal(t, sig)
		p.expect(t, "got")
		p.end(t)
		require.Equal(t, 7, p.exit(t))
		require.Contains(t, p.stderr.String(),
			"the command has ended (7) and left processes running")
	}
}

func whileTheLockIsReleased(t *testing.T, _ user) {
	u := postgresUser(t)
	db, err := sql.Open("pgx", u.db())
	require.NoError(t, err)
	defer db.Close()
	for _, sig := range ending {
		p := u.start(t, "run", "--job", "x", "--", "sh", "-c", "echo ready; read line; exit 7")
		p.expect(t, "ready")
		tx, err := db.Begin()
		require.NoError(t, err)
		_, err = tx.Exec("SELECT * FROM locks FOR UPDATE")
		require.NoError(t, err)
		var self int
		require.NoError(t, tx.QueryRow("SELECT pg_backend_pid()").Scan(&self))
		p.stdin.Write([]byte("go\n"))
		blocks(t, db, self)
		p.signal(t, sig)
		require.NoError(t, tx.Rollback())
		require.Equal(t, 7, p.exit(t), p.stderr)
		require.Contains(t, u.ok(t, "status", "x"), "free")
	}
}

// blocks waits until a session waits for another.
func blocks(t *testing.T, db *sql.DB, pid int) {
	t.Helper()
	require.Eventually(t, func() (waits bool) {
		err := db.QueryRow("SELECT count(*) > 0 FROM pg_stat_activity "+
			"WHERE $1 = ANY (pg_blocking_pids(pid))",
			pid).Scan(&waits)
		return err == nil && waits
	}, patience, 20*time.Millisecond)
}

func brokenPipe(t *testing.T, u user) {
	p := u.start(t, "run", "--job", "x", "--", "sh", "-c",
		"trap 'echo no' PIPE; trap 'echo usr1' USR1; "+stay)
	p.expect(t, "ready")
	p.signal(t, unix.SIGPIPE)
	p.signal(t, unix.SIGUSR1)
	p.expect(t, "usr1")
}

// A holder that is killed can't end its command; the guard does.
func lockRunIsKilled(t *testing.T, u user) {
	p := u.start(t, "run", "--job", "x", "--ttl", "5s", "--", "sh", "-c",
		"trap '' TERM; "+family+stay)
	p.expect(t, "ready")
	next := u.start(t, "run", "--job", "x", "--ttl", "5s", "--wait", "forever", "--poll", "50ms",
		"--", "echo", "mine")
	p.signal(t, unix.SIGKILL)
	p.end(t)
	select {
	case line := <-next.lines:
		require.Fail(t, "the next one began first", line)
	default:
	}
	require.Equal(t, -1, p.exit(t))
	p.says(t, "lock: default/x: lock run has been killed: the command has been killed\n")
	next.expect(t, "mine")
	require.Equal(t, 0, next.exit(t))
	require.Contains(t, next.stderr.String(), "lock: default/x: taken over from ")
}

// A holder that is stopped can't renew its lock, nor end its command.
func lockRunIsStopped(t *testing.T, u user) {
	pipe, gone := watchFamily(t)
	p := u.start(t, "run", "--job", "x", "--ttl", "10s", "--grace", "0s", "--", "sh", "-c",
		"exec 3>$0; "+family+stay, pipe)
	p.expect(t, "ready")
	next := u.start(t, "run", "--job", "x", "--ttl", "10s", "--wait", "forever", "--poll", "50ms",
		"--",
		"sh", "-c", wait)
	p.signal(t, unix.SIGSTOP)
	await(t, gone)
	select {
	case line := <-next.lines:
		require.Fail(t, "the next one began first", line)
	default:
	}
	next.expect(t, "ready")
	p.signal(t, unix.SIGCONT)
	require.Equal(t, exitLost, p.exit(t))
	p.says(t, "lock run has been stopped for too long: the command has been killed\n")
	require.Equal(t, 75, u.do(t, "run", "--job", "x", "--", "echo", "no").status, next.stderr)
}

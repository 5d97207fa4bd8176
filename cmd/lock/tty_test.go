//go:build unix && !aix && !solaris

package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
)

// A terminal has a command in it.
type screen struct {
	*exec.Cmd
	keys  *os.File
	shown *buffer
	gone  chan struct{} // closed when nothing has the terminal open any more
}

func openTerminal(t *testing.T, cmd *exec.Cmd) *screen {
	t.Helper()
	cmd.SysProcAttr = nil
	keys, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 90})
	require.NoError(t, err)
	term := &screen{cmd, keys, &buffer{}, make(chan struct{})}
	go func() {
		defer close(term.gone)
		for b := make([]byte, 4096); ; {
			n, err := keys.Read(b)
			term.shown.Write(b[:n])
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		keys.Close()
	})
	return term
}

func (term *screen) expect(t *testing.T, want string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(term.shown.String(), want) }, patience, 5*time.Millisecond,
		"%q, not in what was on the screen: %s", want, term.shown)
}

func (term *screen) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-term.gone:
	case <-time.After(patience):
		require.Fail(t, "it doesn't end", term.shown.String())
	}
	term.Wait()
	return term.ProcessState.ExitCode()
}

func TestTerminalIsTheCommands(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	term := openTerminal(t, u.command("run", "--job", "x", "--", "sh", "-c", "tty; read a; echo got $a; read b </dev/tty; echo got $b"))
	term.expect(t, "/dev/")
	term.keys.WriteString("one\n")
	term.expect(t, "got one")
	term.keys.WriteString("two\n")
	term.expect(t, "got two")
	require.Equal(t, 0, term.exit(t))
	require.NotContains(t, term.shown.String(), "not a tty")
}

// The terminal is there for what is in the pipeline, too, as for a pager.
func TestTerminalWithAPipe(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	cmd := u.command()
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `"$0" run --job x -- sh -c "echo ready; read a </dev/tty; echo got \$a" </dev/null | cat`, binary}
	term := openTerminal(t, cmd)
	term.expect(t, "ready")
	term.keys.WriteString("one\n")
	term.expect(t, "got one")
	require.Equal(t, 0, term.exit(t))
}

func TestCtrlC(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	t.Run("ends the command", func(t *testing.T) {
		t.Parallel()
		term := openTerminal(t, u.command("run", "--job", "x", "--", "sh", "-c", stay))
		term.expect(t, "ready")
		term.keys.WriteString("\x03")
		require.Equal(t, 130, term.exit(t))
		require.Contains(t, u.ok(t, "status", "x"), "x: free\n")
	})
	t.Run("is the command's", func(t *testing.T) {
		t.Parallel()
		term := openTerminal(t, u.command("run", "--job", "y", "--", "sh", "-c", "trap 'echo caught' INT; echo ready; read a; read a; echo after $a"))
		term.expect(t, "ready")
		term.keys.WriteString("\x03")
		term.expect(t, "caught")
		term.keys.WriteString("it\nit\n")
		term.expect(t, "after it")
		require.Equal(t, 0, term.exit(t))
		require.Equal(t, 1, strings.Count(term.shown.String(), "caught"), "it comes once: %s", term.shown)
	})
	t.Run("while it waits", func(t *testing.T) {
		t.Parallel()
		holder := u.start(t, "run", "--job", "z", "--", "sh", "-c", wait)
		holder.expect(t, "ready")
		term := openTerminal(t, u.command("run", "--job", "z", "--wait", "forever", "-v", "--", "echo", "no"))
		term.expect(t, "; waiting\r\n")
		term.keys.WriteString("\x03")
		require.Equal(t, 130, term.exit(t))
	})
}

// Ctrl-Z stops the command and lock run with it; when they go on after too long a time, the command is gone.
func TestSuspended(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	// A shell without job control doesn't stop, but for the moment that is ours to see.
	term := openTerminal(t, u.command("run", "--job", "x", "--ttl", "3s", "--grace", "0s", "--", "sh", "-c", stay))
	term.expect(t, "ready")
	require.NoError(t, syscall.Kill(-term.Process.Pid, syscall.SIGSTOP)) // Ctrl-Z does nothing to a session's leader
	next := u.start(t, "run", "--job", "x", "--ttl", "3s", "--wait", "forever", "--poll", "50ms", "--", "echo", "mine")
	next.expect(t, "mine")
	term.expect(t, "has been stopped for too long: the command has been killed")
	require.NoError(t, syscall.Kill(-term.Process.Pid, syscall.SIGCONT))
	require.Equal(t, exitLost, term.exit(t))
}

func TestLostLockAtATerminal(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	for name, end := range map[string]func(*testing.T, *screen){
		"released": func(t *testing.T, _ *screen) {
			require.Equal(t, 0, u.do(t, "release", "released", "--force", "--holder", u.holder(t, "released")).status)
		},
		"killed": func(t *testing.T, term *screen) { term.Process.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := os.Stat("/proc/self/environ"); err != nil {
				t.Skip("without /proc, what the command has started isn't found")
			}
			pipe, gone := watchFamily(t)
			// The kernel hangs up when the leader of the session dies; that shall not be what ends them.
			term := openTerminal(t, u.command("run", "--job", name, "--ttl", "6s", "--grace", "200ms", "--", "sh", "-c",
				"trap '' TERM HUP; exec 3>$0; "+family+stay, pipe))
			term.expect(t, "ready")
			end(t, term)
			await(t, gone)
			if name == "released" {
				require.Equal(t, exitLost, term.exit(t))
			}
		})
	}
}

func TestColors(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	u.disable(t, "x")
	show := func(u user, args ...string) string {
		term := openTerminal(t, u.command(args...))
		term.exit(t)
		return term.shown.String()
	}
	require.Contains(t, show(u, "list"), yellow+"disabled"+plain)
	require.Contains(t, show(u, "run", "--job", "x", "--", "true"), red+"lock:"+plain+" refused")
	require.Contains(t, show(u, "list", "--help"), bold+"NAME"+plain)
	for _, env := range []string{"NO_COLOR=1", "TERM=dumb"} {
		for _, args := range [][]string{{"list"}, {"run", "--job", "x", "--", "true"}, {"list", "--help"}} {
			require.NotContains(t, show(u.with(env), args...), "\x1b", "%s %s", env, args)
		}
	}
	require.NotContains(t, u.ok(t, "list"), "\x1b")
}

func TestWatchOnATerminal(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	u.disable(t, "x")
	term := openTerminal(t, u.with("NO_COLOR=1").command("list", "--watch", "--interval", "20ms"))
	term.expect(t, "disabled")
	require.NotContains(t, term.shown.String(), "free")
	require.Zero(t, u.do(t, "enable", "x").status)
	term.expect(t, "free")
	require.Regexp(t, regexp.MustCompile(`\x1b\[HDATABASE .*\x1b\[K\r\nCOMPONENT .*\x1b\[K\r\n`), term.shown.String(), "it is drawn over the last one")
	term.keys.WriteString("\x03")
	require.Equal(t, 0, term.exit(t))
}

// Of a table that is longer than the terminal, the top is shown, and nothing scrolls.
func TestWatchOnASmallTerminal(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	for i := range 30 {
		u.disable(t, fmt.Sprintf("job%02d", i))
	}
	term := openTerminal(t, u.with("NO_COLOR=1").command("list", "--watch", "--interval", "20ms"))
	term.expect(t, "\x1b[J\x1b[H") // the second page
	term.keys.WriteString("\x03")
	require.Equal(t, 0, term.exit(t))
	first, _, _ := strings.Cut(term.shown.String(), "\x1b[J")
	require.Equal(t, 23, strings.Count(first, "\n"), "a line is left for the cursor: %q", first)
	require.Contains(t, first, "job19")
	require.NotContains(t, first, "job20")
	require.Contains(t, first, "\n… and 10 more\x1b[K\r\n")
}

func TestTableFitsTheTerminal(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	u.disable(t, strings.Repeat("x", 200))
	term := openTerminal(t, u.with("NO_COLOR=1").command("list"))
	require.Equal(t, 0, term.exit(t))
	for line := range strings.Lines(term.shown.String()) {
		require.LessOrEqual(t, cells(strings.TrimSpace(line)), 90, strconv.Quote(line))
	}
}

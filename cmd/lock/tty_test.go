//go:build unix && !aix && !solaris

package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
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

func openScreen(t *testing.T, cmd *exec.Cmd) *screen {
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
	require.Eventually(t, func() bool { return strings.Contains(term.shown.String(), want) },
		patience, 5*time.Millisecond,
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

// shell starts a shell with job control.
func (u user) shell(t *testing.T) *screen {
	t.Helper()
	cmd := u.with("PS1=$ ", "ENV=").command()
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-i"}
	sh := openScreen(t, cmd)
	sh.expect(t, "$ ")
	return sh
}

// prompts waits until the shell prompts again after its last output.
func (term *screen) prompts(t *testing.T, after string) {
	t.Helper()
	require.Eventually(t, func() bool {
		shown := term.shown.String()
		i := strings.LastIndex(shown, after)
		return i >= 0 && strings.Contains(shown[i:], "\n$ ")
	}, patience, 5*time.Millisecond, "no prompt after %q: %s", after, term.shown)
}

// types types a line.
func (term *screen) types(line string, args ...any) {
	fmt.Fprintf(term.keys, line+"\n", args...)
}

func TestRun_terminalIsTheCommands(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	term := openScreen(t, u.command("run", "--job", "x", "--", "sh", "-c",
		"tty; read a; echo got $a; read b </dev/tty; echo got $b"))
	term.expect(t, "/dev/")
	term.keys.WriteString("one\n")
	term.expect(t, "got one")
	term.keys.WriteString("two\n")
	term.expect(t, "got two")
	require.Equal(t, 0, term.exit(t))
	require.NotContains(t, term.shown.String(), "not a tty")
}

// A prompt at /dev/tty needs no standard stream: ssh, sudo and psql ask there.
func TestPromptAtTheTerminal(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	sh := u.shell(t)
	dir := t.TempDir()
	sh.types("cd %s; %s run --job x -- sh -c 'echo na''me: >/dev/tty; "+
		"read a </dev/tty; echo $a' </dev/null >out 2>err; cat out",
		dir, binary)
	sh.expect(t, "name:")
	sh.types("my''name")
	sh.expect(t, "\nmy''name\r")
	sh.types("%s run --job x -- sh -c 'echo na''me again: >/dev/tty; "+
		"read a </dev/tty' </dev/null >out 2>err; echo st''atus $?",
		binary)
	sh.expect(t, "name again:")
	sh.keys.WriteString("\x03")
	sh.types("")
	require.Eventually(t, func() bool { return strings.Contains(u.ok(t, "status", "x"), "free") },
		patience, 10*time.Millisecond, "Ctrl-C ends it")
}

// A background process of a terminal that allows it no output (stty tostop) is not stopped by its
// messages.
func TestRun_messagesInTheBackground(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	sh := u.shell(t)
	sh.types("stty tostop; %s run --job x -v -- true &", binary)
	sh.expect(t, "default/x: released")
	require.Contains(t, u.ok(t, "status", "x"), "free")
}

func TestRun_ctrlC(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	term := openScreen(t, u.command("run", "--job", "x", "--", "sh", "-c", stay))
	term.expect(t, "ready")
	term.keys.WriteString("\x03")
	require.Equal(t, 130, term.exit(t))
	require.Contains(t, u.ok(t, "status", "x"), "x: free\n")
}

func TestRun_lostLockAtATerminal(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	for name, end := range map[string]func(*testing.T, *screen){
		"released": func(t *testing.T, _ *screen) {
			require.Equal(t, 0, u.do(t, "release", "released", "--force", "--holder", u.holder(t,
				"released")).status)
		},
		"killed": func(t *testing.T, term *screen) { term.Process.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := os.Stat("/proc/self/environ"); err != nil {
				t.Skip("without /proc, what the command has started isn't found")
			}
			pipe, gone := watchFamily(t)
			// The kernel hangs up when the session leader dies; that must not end them.
			term := openScreen(t, u.command("run", "--job", name, "--ttl", "6s", "--grace", "200ms",
				"--", "sh", "-c",
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
		term := openScreen(t, u.command(args...))
		term.exit(t)
		return term.shown.String()
	}
	require.Contains(t, show(u, "list"), yellow+"disabled"+plain)
	require.Contains(t, show(u, "run", "--job", "x", "--", "true"), red+"lock:"+plain+" refused")
	require.Contains(t, show(u, "list", "--help"), bold+"NAME"+plain)
	for _, env := range []string{"NO_COLOR=1", "TERM=dumb"} {
		for _, args := range [][]string{{"list"}, {"run", "--job", "x", "--", "true"}, {"list",
			"--help"}} {
			require.NotContains(t, show(u.with(env), args...), "\x1b", "%s %s", env, args)
		}
	}
	require.NotContains(t, u.ok(t, "list"), "\x1b")
}

func TestWatch_onATerminal(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	u.disable(t, "x")
	term := openScreen(t, u.with("NO_COLOR=1").command("list", "--watch", "--interval", "20ms"))
	term.expect(t, "disabled")
	require.NotContains(t, term.shown.String(), "free")
	require.Zero(t, u.do(t, "enable", "x").status)
	term.expect(t, "free")
	require.Regexp(t, regexp.MustCompile(`\x1b\[HDATABASE .*\x1b\[K\r\nCOMPONENT .*\x1b\[K\r\n`),
		term.shown.String(), "it is drawn over the last one")
	term.keys.WriteString("\x03")
	require.Equal(t, 0, term.exit(t))
}

// A table longer than the terminal shows its top, and nothing scrolls.
func TestWatch_onASmallTerminal(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	for i := range 30 {
		u.disable(t, fmt.Sprintf("job%02d", i))
	}
	term := openScreen(t, u.with("NO_COLOR=1").command("list", "--watch", "--interval", "20ms"))
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
	term := openScreen(t, u.with("NO_COLOR=1").command("list"))
	require.Equal(t, 0, term.exit(t))
	for line := range strings.Lines(term.shown.String()) {
		require.LessOrEqual(t, cells(strings.TrimSpace(line)), 90, strconv.Quote(line))
	}
}

//go:build unix && !aix && !solaris

package main

import (
	"bufio"
	"bytes"
	"database/sql"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock/internal/pgtest"
)

// patience limits the wait for what should come at once.
const patience = time.Minute

var (
	binary string // the command, as built
	server = sync.OnceValues(func() (*pgtest.Server, error) {
		s,
			err := pgtest.Start("fsync=off")
		started = s
		return s, err
	})
	started *pgtest.Server
	schema  atomic.Int64
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "guard":
			main() // of a run in this process
		case "become-root":
			becomeRoot()
		}
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // they wait more than they work
		panic(err)
	}
	// What is ignored here, under nohup say, is ignored by each child, unless it is caught here.
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	dir, err := os.MkdirTemp("", "lock")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "lock")
	build := exec.Command("go", "build", "-o", binary, ".")
	if os.Getenv("LOCK_TEST_RACE") == "" {
		// The race detector is too slow for fifty processes at once: each would take a second to
		// start.
		build.Env = append(os.Environ(), "GOFLAGS="+strings.ReplaceAll(os.Getenv("GOFLAGS"),
			"-race", ""))
	}
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	defer func() {
		if started != nil {
			started.Close()
		}
	}()
	return m.Run()
}

// A user has a database of their own.
type user struct {
	env []string
}

// onEachEngine runs a test with SQLite and with PostgreSQL.
func onEachEngine(t *testing.T, test func(t *testing.T, u user)) {
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		test(t, sqliteUser(t))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		test(t, postgresUser(t))
	})
}

func sqliteUser(t *testing.T) user { return userOf(t, filepath.Join(t.TempDir(), "locks.db")) }

func postgresUser(t *testing.T) user {
	s := postgres(t)
	name := fmt.Sprintf("s%d", schema.Add(1))
	admin, err := sql.Open("pgx", s.DSN())
	require.NoError(t, err)
	defer admin.Close()
	_, err = admin.Exec("CREATE SCHEMA " + name)
	require.NoError(t, err)
	return userOf(t, s.DSN("search_path="+name))
}

func postgres(t *testing.T) *pgtest.Server {
	s, err := server()
	if pgtest.Dispensable(err) {
		t.Skip(err)
	}
	require.NoError(t, err)
	return s
}

func userOf(t *testing.T, db string) user {
	return user{[]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TERM=xterm",
		"LOCK_DB=" + db}}
}

// db is LOCK_DB.
func (u user) db() string { return strings.TrimPrefix(u.env[3], "LOCK_DB=") }

// name is the name of the database in messages.
func (u user) name() string {
	name, _, _ := strings.Cut(u.db(), "?")
	return name
}

// title is the first line of lock list.
func (u user) title() string { return databaseTitle + u.name() + "\n" }

func (u user) with(env ...string) user { return user{append(append([]string{}, u.env...), env...)} }

// command returns the command, in a session without a terminal.
func (u user) command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = u.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// A result is the result of a command.
type result struct {
	status         int // -1: a signal has ended it
	stdout, stderr string
}

// do runs a command to its end.
func (u user) do(t *testing.T, args ...string) result {
	t.Helper()
	cmd := u.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		require.ErrorAs(t, err, new(*exec.ExitError))
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), unnamed(stderr.String())}
}

var named = regexp.MustCompile(` \[(/|postgres|cockroach)[^\]]*\](\r?\n)`)

// unnamed removes the name of the database from messages.
func unnamed(messages string) string { return named.ReplaceAllString(messages, "$2") }

// ok runs a command that must succeed without a message, and returns its output.
func (u user) ok(t *testing.T, args ...string) string {
	t.Helper()
	r := u.do(t, args...)
	require.Equal(t, result{0, r.stdout, ""}, r)
	return r.stdout
}

// disable disables a job that has never been run.
func (u user) disable(t *testing.T, job string) {
	t.Helper()
	require.Equal(t, result{0, "", "lock: default/" + job +
		": disabled, but no such job has been run yet (lock list shows the jobs)\n"},
		u.do(t, "disable", job))
}

// writeProgram writes a file that is executed next. Nothing is forked meanwhile: a child of
// another test would inherit the open file, and executing it would fail with ETXTBSY.
func writeProgram(t *testing.T, path string, text []byte) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	require.NoError(t, os.WriteFile(path, text, 0o755))
}

// A process is a running command. Its standard output ends when all processes that could write to
// it have gone: all those of the command that it runs.
type process struct {
	*exec.Cmd
	stdin  io.WriteCloser
	lines  chan string
	stderr *buffer
}

func (u user) start(t *testing.T, args ...string) *process {
	t.Helper()
	return u.startCommand(t, func(*exec.Cmd) {}, args...)
}

// startCommand starts the command that change has modified.
func (u user) startCommand(t *testing.T, change func(*exec.Cmd), args ...string) *process {
	t.Helper()
	p := &process{Cmd: u.command(args...), lines: make(chan string, 1000), stderr: &buffer{}}
	var err error
	p.stdin, err = p.StdinPipe()
	require.NoError(t, err)
	// Not StdoutPipe: Wait would close it.
	read, write, err := os.Pipe()
	require.NoError(t, err)
	p.Stdout, p.Stderr = write, p.stderr
	change(p.Cmd)
	require.NoError(t, p.Start())
	write.Close()
	go func() {
		defer close(p.lines)
		defer read.Close()
		for s := bufio.NewScanner(read); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		p.Process.Signal(syscall.SIGCONT)
		p.Process.Kill() // and the guard the rest
	})
	return p
}

// expect waits for a line.
func (p *process) expect(t *testing.T, want string) {
	t.Helper()
	select {
	case got, ok := <-p.lines:
		require.True(t, ok, "nothing comes any more; stderr: %s", p.stderr)
		require.Equal(t, want, got, "stderr: %s", p.stderr)
	case <-time.After(patience):
		require.Fail(t, "nothing comes", "stderr: %s", p.stderr)
	}
}

// says waits for a message.
func (p *process) says(t *testing.T, want string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(p.stderr.String(), want) },
		patience,
		5*time.Millisecond, "%q, not in %s", want, p.stderr)
}

// end waits until no process of the command is left.
func (p *process) end(t *testing.T) {
	t.Helper()
	for late := time.After(patience); ; {
		select {
		case _, ok := <-p.lines:
			if !ok {
				return
			}
		case <-late:
			require.Fail(t, "something lives on", "stderr: %s", p.stderr)
		}
	}
}

// exit waits for the end, and returns the exit status.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- p.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			require.ErrorAs(t, err, new(*exec.ExitError))
		}
	case <-time.After(patience):
		require.Fail(t, "it doesn't end", "stderr: %s", p.stderr)
	}
	return p.ProcessState.ExitCode()
}

// A buffer may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return unnamed(b.b.String())
}

// watchFamily returns the path of a pipe, and a channel that is closed when all processes that
// inherited it from a shell (exec 3>path) have gone.
func watchFamily(t *testing.T) (path string, gone <-chan struct{}) {
	path = filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		os.ReadFile(path) // waits for the first to open it, and for the last to close it
	}()
	return path, closed
}

func await(t *testing.T, gone <-chan struct{}) {
	t.Helper()
	select {
	case <-gone:
	case <-time.After(patience):
		require.Fail(t, "something lives on")
	}
}

// holder returns the holder's component ID from the status.
func (u user) holder(t *testing.T, job string) string {
	t.Helper()
	for line := range strings.Lines(u.ok(t, "status", job)) {
		if id, ok := strings.CutPrefix(line, "holder    "); ok {
			return strings.TrimSpace(id)
		}
	}
	require.Fail(t, "nobody holds it")
	return ""
}

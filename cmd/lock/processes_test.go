//go:build unix && !aix && !solaris

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// becomeRoot is a command that becomes root. It prints its process ID, and ends with its standard
// input.
func becomeRoot() {
	if err := unix.Setresuid(0, 0, 0); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(os.Getpid())
	io.Copy(io.Discard, os.Stdin)
	os.Exit(7)
}

// nobody returns an unprivileged user with a program that makes it root.
func nobody(t *testing.T) (u user, program string, as *syscall.SysProcAttr) {
	if os.Getuid() != 0 {
		t.Skip("only root can make a program that makes root of who starts it")
	}
	dir, err := os.MkdirTemp("/tmp", "lock")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	self, err := os.Executable()
	require.NoError(t, err)
	copyFile := func(from, name string, mode os.FileMode) string {
		text, err := os.ReadFile(from)
		require.NoError(t, err)
		to := filepath.Join(dir, name)
		writeProgram(t, to, text)
		require.NoError(t, os.Chmod(to, mode))
		return to
	}
	program = copyFile(self, "program", 0o755|os.ModeSetuid)
	copyFile(binary, "lock", 0o755)
	home := filepath.Join(dir, "home")
	require.NoError(t, os.Mkdir(home, 0o700))
	require.NoError(t, os.Chown(home, 65534, 65534))
	as = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	return userOf(t, filepath.Join(home, "locks.db")), program, as
}

// startAs starts the command as another user.
func (u user) startAs(t *testing.T, as *syscall.SysProcAttr, path string, args ...string) *process {
	t.Helper()
	return u.startCommand(t, func(cmd *exec.Cmd) { cmd.Path, cmd.SysProcAttr = path, as }, args...)
}

func TestRun_commandHasBecomeRoot(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("without /proc, what has become root isn't seen")
	}
	const words = "is another user's and can't be signalled"
	begin := func(t *testing.T, job string, flags ...string) (user, *process, int) {
		u, program, as := nobody(t)
		bin := filepath.Join(filepath.Dir(program), "lock")
		args := append(append([]string{"run", "--job", job}, flags...), "--", program,
			"become-root")
		p := u.startAs(t, as, bin, args...)
		pid := p.pid(t)
		t.Cleanup(func() { unix.Kill(pid, unix.SIGKILL) })
		return u, p, pid
	}
	t.Run("TERM", func(t *testing.T) {
		t.Parallel()
		u, p, _ := begin(t, "x")
		p.signal(t, unix.SIGTERM)
		p.says(t, words+": waiting until it has gone; the lock is kept until then\n")
		require.Contains(t, u.ok(t, "status", "x"), "held")
		p.stdin.Close()
		require.Equal(t, 7, p.exit(t))
		require.Contains(t, u.ok(t, "status", "x"), "free")
	})
	t.Run("lost", func(t *testing.T) {
		t.Parallel()
		u, p, _ := begin(t, "x", "--ttl", "10s", "--grace", "0s", "--stop-when-disabled")
		u.ok(t, "disable", "x")
		p.says(t, words+": waiting until it has gone; "+
			"the lock is lost, and expires when its TTL has passed\n")
		require.Contains(t, u.ok(t, "status", "x"), "held", "it is not given away")
		p.stdin.Close()
		require.Equal(t, exitLost, p.exit(t))
		require.NotContains(t, u.ok(t, "status", "x"), "held")
	})
	t.Run("lock run is killed", func(t *testing.T) {
		t.Parallel()
		u, p, pid := begin(t, "x")
		p.signal(t, unix.SIGKILL)
		p.says(t, "process "+strconv.Itoa(pid)+" "+words+": it may go on, and the lock expires")
		require.Contains(t, u.ok(t, "status", "x"), "held")
	})
}

// As process 1 of a container, lock run reaps orphans.
func TestRun_processOneReaps(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	unshare, err := exec.LookPath("unshare")
	if err != nil || exec.Command(unshare, "-p", "-f", "--mount-proc", "true").Run() != nil {
		t.Skip("no process ID namespace can be made here")
	}
	cmd := u.command()
	// The first orphan ends; the second looks for zombies until there is none.
	cmd.Path, cmd.Args = unshare, []string{"unshare", "-p", "-f", "--mount-proc", binary, "run",
		"--job", "x",
		"--", "sh", "-c", `setsid sh -c 'sleep 0 & exit' &
wait
until ps -eo stat=,ppid=,comm= | awk '$2 == 1 && $1 ~ /^Z/ {z=1} END {exit z}'; do :; done
echo "$(cat /proc/1/comm)"`}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, "lock\n", string(out))
}

// Nobody reads what lock run says, and the lock is lost.
func TestRun_nobodyReadsTheMessages(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, u user) {
		read, write, err := os.Pipe()
		require.NoError(t, err)
		defer read.Close()
		full(t, write)
		p := u.startCommand(t, func(cmd *exec.Cmd) { cmd.Stderr = write },
			"run", "--job", "x", "--ttl", "forever", "--grace", "50s", "-v", "--", "sh", "-c",
			"trap 'echo term; exit' TERM; "+stay)
		write.Close()
		p.expect(t, "ready")
		u.do(t, "release", "x", "--force", "--holder", u.holder(t, "x"))
		p.expect(t, "term")
		p.end(t)
		require.Equal(t, exitLost, p.exit(t), "nor does the end wait for a reader")
	})
	t.Run("the guard's", func(t *testing.T) {
		t.Parallel()
		u := sqliteUser(t)
		read, write, err := os.Pipe()
		require.NoError(t, err)
		defer read.Close()
		full(t, write)
		p := u.startCommand(t, func(cmd *exec.Cmd) { cmd.Stderr = write }, "run", "--job", "x",
			"--",
			"sh", "-c", "trap '' TERM; "+family+stay)
		write.Close()
		p.expect(t, "ready")
		p.signal(t, unix.SIGKILL)
		p.end(t)
	})
}

// full fills a pipe.
func full(t *testing.T, w *os.File) {
	raw, err := w.SyscallConn()
	require.NoError(t, err)
	for err = nil; err == nil; {
		require.NoError(t, raw.Write(func(fd uintptr) bool {
			_, err = unix.Write(int(fd), make([]byte, 4096))
			return true
		}))
	}
	for err = nil; err == nil; {
		raw.Write(func(fd uintptr) bool {
			_, err = unix.Write(int(fd), make([]byte, 1))
			return true
		})
	}
	require.ErrorIs(t, err, unix.EAGAIN)
}

// A stopped guard blocks nothing, and is gone when lock run has ended.
func TestGuard_stopped(t *testing.T) {
	t.Parallel()
	says := &buffer{}
	g := &guard{says: &speaker{w: says}}
	require.NoError(t, g.start(processes{}, "x"))
	require.NoError(t, unix.Kill(g.pid, unix.SIGSTOP))
	require.Eventually(t, func() bool { return processes{PID: g.pid}.stopped() }, patience,
		time.Millisecond)
	for range 10_000 { // more than a pipe holds
		g.tell(func(o *orders) { o.Until++ })
	}
	require.Equal(t, 1, strings.Count(says.String(), "the guard doesn't read its orders"))
	g.dismiss()
	var status syscall.WaitStatus
	_, err := syscall.Wait4(g.pid, &status, 0, nil)
	require.NoError(t, err)
	require.Equal(t, unix.SIGKILL, status.Signal())
}

// If the guard is gone, lock run says so, and the command goes on.
func TestGuard_gone(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	p := u.start(t, "run", "--job", "x", "--", "sh", "-c",
		"ps -o pid= -o args= --ppid $PPID | awk '$3 == \"guard\" {print $1}'; read line; echo $line")
	require.NoError(t, unix.Kill(p.pid(t), unix.SIGKILL))
	p.says(t, "the guard is gone")
	p.stdin.Write([]byte("on\n"))
	p.expect(t, "on")
	require.Equal(t, 0, p.exit(t))
}

// A guard says nothing about runs that end well.
func TestRun_short(t *testing.T) {
	t.Parallel()
	u := sqliteUser(t)
	for i := range 200 {
		job := fmt.Sprint("x", i%3)
		require.Equal(t, result{0, "", ""}, u.do(t, "run", "--job", job, "--", "true"))
	}
}

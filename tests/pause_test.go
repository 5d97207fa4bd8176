//go:build unix

package tests

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
)

const (
	// childDSN is the variable that makes a process the child of one of these tests.
	childDSN = "LOCK_TEST_CHILD_DSN"

	// pausedFor is the longest duration of the lock in these tests. The parent must be ready
	// before it ends.
	pausedFor = 1500 * time.Millisecond
	patience  = 60 * time.Second
)

func pauseJob(instance string) lock.Job {
	return lock.Job{ComponentName: component, ComponentID: instance, JobName: job, JobID: "1",
		TTL:  pausedFor,
		Wait: lock.Forever, Poll: 100 * time.Millisecond}
}

// child acquires the lease, and prints what happens to it.
func child(dsn string) error {
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	lease, err := lock.New(db).Acquire(context.Background(), pauseJob("child"))
	if err != nil {
		return err
	}
	say := func(what string, err error) {
		fmt.Printf("child: %s lost=%t\n", what, errors.Is(err,
			lock.ErrLost))
	}
	say("acquired", nil)
	<-lease.Context().Done()
	say("ended", context.Cause(lease.Context()))
	say("renewed", lease.Renew(context.Background()))
	say("released", lease.Release(context.Background()))
	return nil
}

// A process that holds a lease in a database that it shares with this one.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	said chan string
	l    *lock.Lock
}

// startChild runs this test binary with only the calling test, which must begin with asChild.
func startChild(t *testing.T) *process {
	dsn := sqliteDSN(t)
	db, err := sql.Open("sqlite", dsn)
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	p := &process{t: t, said: make(chan string, 100), l: lock.New(db)}

	self, err := os.Executable()
	require.NoError(t, err)
	p.cmd = exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.count=1")
	p.cmd.Env = append(os.Environ(), childDSN+"="+dsn)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	go func() {
		defer close(p.said)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if said, ok := strings.CutPrefix(lines.Text(), "child: "); ok {
				p.said <- said
			}
		}
	}()
	p.hears("acquired lost=false")
	return p
}

func asChild(t *testing.T) bool {
	dsn := os.Getenv(childDSN)
	if dsn != "" {
		require.NoError(t, child(dsn))
	}
	return dsn != ""
}

// hears waits for an output of the child.
func (p *process) hears(want string) {
	p.t.Helper()
	select {
	case said, ok := <-p.said:
		require.True(p.t, ok, "the child has ended without a word")
		require.Equal(p.t, want, said)
	case <-time.After(patience):
		require.Fail(p.t, "the child says nothing", "want: %s", want)
	}
}

// takesOver takes over the child's lock, and returns how old the lock was.
func (p *process) takesOver() (*lock.Lease, time.Duration) {
	p.t.Helper()
	s, err := p.l.Status(p.t.Context(), component, job)
	require.NoError(p.t, err)
	require.True(p.t, s.Locked)
	require.Equal(p.t, "child", s.Holder.ComponentID)
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	p.t.Cleanup(cancel)
	lease, err := p.l.Acquire(ctx, pauseJob("parent"))
	require.NoError(p.t, err)
	require.NotNil(p.t, lease.TakenFrom())
	require.Equal(p.t, "child", lease.TakenFrom().ComponentID)
	return lease, time.UnixMicro(lease.Token()).Sub(s.Holder.LockTime)
}

func TestLease_processIsStopped(t *testing.T) {
	if asChild(t) {
		return
	}
	p := startChild(t)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	lease, age := p.takesOver()
	require.Greater(t, age, pausedFor)

	require.NoError(t, p.cmd.Process.Signal(syscall.SIGCONT))
	continued := time.Now()
	p.hears("ended lost=true")
	took := time.Since(continued)
	p.hears("renewed lost=true")
	p.hears("released lost=true")
	require.NoError(t, p.cmd.Wait())
	t.Logf("taken over at the age of %v; known to the one that was stopped %v after it went on", age,
		took)

	s, err := p.l.Status(t.Context(), component, job)
	require.NoError(t, err)
	require.True(t, s.Locked)
	require.Equal(t, "parent", s.Holder.ComponentID)
	require.NoError(t, lease.Release(t.Context()), "the lock is still the parent's")
}

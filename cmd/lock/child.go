//go:build unix && !aix && !solaris

package main

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cloudtrust/go-jobs/lock"
)

// held is the prefix of the variables that tell the command about its lock. None of them is a
// setting, so that a lock run within the command isn't configured by them.
const held = "LOCK_HELD_"

// heldHelp describes them.
const heldHelp = `
LOCK_HELD_TOKEN         the fencing token, a number larger than that of every earlier run
LOCK_HELD_COMPONENT     the component
LOCK_HELD_COMPONENT_ID  the ID of this lock run, the holder
LOCK_HELD_JOB           the job
LOCK_HELD_JOB_ID        the ID of this run; with --tick, the tick
LOCK_HELD_MARK          by which lock run finds the command's processes`

// newMark returns a variable that only the processes of one command have.
func newMark() string { return held + "MARK=" + rand.Text() }

// childEnv is the environment of the command.
func childEnv(lease *lock.Lease, mark string) []string {
	job := lease.Job()
	return append(without(os.Environ(), held), held+"TOKEN="+strconv.FormatInt(lease.Token(), 10),
		held+"COMPONENT="+job.ComponentName, held+"COMPONENT_ID="+job.ComponentID,
		held+"JOB="+job.JobName, held+"JOB_ID="+job.JobID, mark)
}

// without returns env without the variables that have the prefix.
func without(env []string, prefix string) []string {
	var rest []string
	for _, e := range env {
		if !strings.HasPrefix(e, prefix) {
			rest = append(rest, e)
		}
	}
	return rest
}

// A child is the command that is run.
type child struct {
	processes
	exited    bool // it has been seen to have ended
	ended     chan syscall.WaitStatus
	suspended chan syscall.Signal // what has stopped it
	guardGone chan struct{}
}

// startChild starts a command. From then on, this process reaps all its children: as process 1 of
// a container it inherits orphans.
func startChild(path string, argv, env []string, p processes, guard int) (*child, error) {
	attr := &os.ProcAttr{Env: env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{Setpgid: p.Group}}
	dieWithParent(attr.Sys)
	c := &child{processes: p, ended: make(chan syscall.WaitStatus, 1),
		suspended: make(chan syscall.Signal, 1), guardGone: make(chan struct{})}
	started := make(chan error)
	go func() {
		// For the parent-death signal, the parent is the thread that started the child. Go may end
		// a thread, but not one that a goroutine is locked to.
		runtime.LockOSThread()
		process, err := os.StartProcess(path, argv, attr)
		if err == nil {
			c.PID = process.Pid
		}
		started <- err
		if err == nil {
			c.reap(process.Pid, guard)
		}
	}()
	return c, <-started
}

// reap waits for all children until there is none.
func (c *child) reap(command, guard int) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, unix.WUNTRACED, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return
		case pid == command && status.Stopped():
			select {
			case c.suspended <- status.StopSignal():
			default:
			}
		case pid == command:
			c.ended <- status
		case pid == guard && !status.Stopped():
			close(c.guardGone)
		}
	}
}

// startFailure gives the error of a command that can't be started the exit status that a shell
// would.
func startFailure(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) && errors.Is(err, fs.ErrNotExist) && path.Op == "fork/exec" {
		err = &fs.PathError{Op: "exec", Path: path.Path,
			Err: errors.New("it or its interpreter is missing: no such file or directory")}
		return fail(exitNotFound, err)
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return fail(exitNotFound, err)
	}
	return fail(exitCannot, err)
}

// childStatus returns the exit status of a command that has ended, as a shell would.
func childStatus(s syscall.WaitStatus) int {
	if s.Signaled() {
		return exitSignal + int(s.Signal())
	}
	return s.ExitStatus()
}

//go:build unix && !aix && !solaris

package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// marks are the variables that the command gets. Its descendants inherit them, which is how they are found.
var marks = []string{"LOCK_TOKEN", "LOCK_COMPONENT", "LOCK_JOB", "LOCK_JOB_ID"}

// processes are those of a command: itself, its process group if it has one, and on Linux all others of the session that
// have its marks in their environment. These are there because a shell with job control, and timeout(1), put what they run
// into groups of its own. What has begun a session of its own, as a daemon does, is left alone.
type processes struct {
	PID     int      // of the command, also when it is no more; 0: it has not begun
	Group   bool     // it leads a process group
	Session int      // its session, which is ours
	Marks   []string // "NAME=value"
}

// signal sends a signal to all of them.
func (p processes) signal(sig syscall.Signal) {
	p.pass(sig)
	for _, pid := range p.others() {
		unix.Kill(pid, sig) // it may be gone by now, and then it is well
	}
}

// pass sends a signal to the command and its group.
func (p processes) pass(sig syscall.Signal) {
	switch {
	case p.PID == 0:
	case p.Group:
		unix.Kill(-p.PID, sig)
	default:
		unix.Kill(p.PID, sig)
	}
}

// A child is the command that is run.
type child struct {
	processes
	ended chan *os.ProcessState
}

// atTerminal says whether a person may be sitting there. A command then stays in our process group, which is the one that
// can read from the terminal and gets its Ctrl-C and Ctrl-Z, together with whatever else is in the pipeline.
func atTerminal() bool {
	return columns(os.Stdin) > 0 || columns(os.Stdout) > 0 || columns(os.Stderr) > 0
}

// startChild starts a command.
func startChild(path string, argv []string, p processes) (*child, error) {
	cmd := &exec.Cmd{Path: path, Args: argv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Env:         append(without(os.Environ(), marks), p.Marks...),
		SysProcAttr: &syscall.SysProcAttr{Setpgid: p.Group}}
	dieWithParent(cmd.SysProcAttr)
	c := &child{processes: p, ended: make(chan *os.ProcessState, 1)}
	started := make(chan error)
	go func() {
		// What the kernel takes for the parent, whose death is the child's, is the thread that started it, not the process. Go
		// ends threads when it likes, but not one that a goroutine is locked to and waits in.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait() // the state says it all
			c.ended <- cmd.ProcessState
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	c.PID = cmd.Process.Pid
	return c, nil
}

// startFailure gives the error of a command that can't be started the status that shells give it.
func startFailure(err error) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return fail(exitNotFound, err)
	}
	return fail(exitCannot, err)
}

// childStatus is the exit status of a command that has ended, as shells reckon it.
func childStatus(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return exitSignal + int(w.Signal())
	}
	return s.ExitCode()
}

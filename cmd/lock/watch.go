//go:build unix && !aix && !solaris

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloudtrust/go-jobs/lock"
)

const (
	// settleTime is how long processes that a command left may take to end by themselves.
	settleTime = 100 * time.Millisecond
	// killTimeout is how long after KILL the remaining processes are reported.
	killTimeout = 5 * time.Second
)

// A watch watches a command that runs. It acts first and reports afterwards.
type watch struct {
	*run
	lease *lock.Lease
	c     *child
	at    tty

	status  int
	err     error           // the lease is lost
	over    <-chan struct{} // the lease has ended
	ended   <-chan syscall.WaitStatus
	guard   <-chan struct{} // the guard is gone
	endedAt time.Time
	ending  bool             // TERM has been sent
	kill    <-chan time.Time // when it is time for KILL
	killed  bool
	late    <-chan time.Time // when it is time to say that KILL has not helped
	immune  bool             // we have said that some can't be ended
}

// watch passes on signals, and returns when no process of the command is left: they ended by
// themselves, or were ended because the lease was lost or the command left them. While one can't
// be ended, it waits and the lease is kept.
func (r *run) watch(lease *lock.Lease, c *child, at tty, signals chan os.Signal) (int, error) {
	w := &watch{run: r, lease: lease, c: c, at: at, over: lease.Context().Done(), ended: c.ended,
		guard: c.guardGone}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		// Finding processes is expensive, so it is only done when it can be the end.
		look := tick.C
		if !c.exited && !w.killed {
			look = nil
		}
		select {
		case sig := <-signals:
			w.cannot(c.relay(sig.(syscall.Signal), at))
		case sig := <-c.suspended:
			w.suspend(sig)
		case status := <-w.ended:
			w.ended, w.endedAt, w.status = nil, time.Now(), childStatus(status)
			c.exited = true
			if !c.Group {
				c.PID = 0 // another process may have it now
			}
			if !c.alive() {
				return w.status, w.err
			}
		case <-w.over:
			w.over = nil
			w.end(func() {
				w.err = lostFailure(w.lease.Err())
				r.says.fault(fmt.Sprintf("%s: %v: ending the command", r.name(), w.err),
					slog.Int("exit", exitLost))
			})
		case <-w.kill:
			w.killAll()
		case <-w.late:
			r.says.fault(fmt.Sprintf("%s: not gone %v after KILL: waiting until it has gone",
				r.name(), killTimeout))
		case <-w.guard:
			w.guard = nil
			r.says.warn(fmt.Sprintf("%s: the guard is gone: if this process is killed, the "+
				"command may live on", r.name()))
		case <-look:
			switch {
			case c.exited && !c.alive():
				return w.status, w.err
			case w.killed:
				w.cannot(c.signal(unix.SIGKILL)) // what was started since
			case !w.ending && time.Since(w.endedAt) > settleTime:
				w.end(func() {
					r.says.warn(fmt.Sprintf("%s: the command has ended (%d) and left processes "+
						"running: ending them", r.name(), w.status))
				})
			}
		}
	}
}

// end begins to end all processes, and then says why.
func (w *watch) end(tell func()) {
	w.ending, w.kill = true, time.After(w.grace)
	var immune []int
	if w.grace > 0 {
		immune = w.c.signal(unix.SIGTERM)
		w.c.signal(unix.SIGCONT) // what is stopped would not hear it
	}
	tell()
	w.cannot(immune)
}

func (w *watch) killAll() {
	w.kill, w.killed, w.late = nil, true, time.After(killTimeout)
	immune := w.c.signal(unix.SIGKILL)
	if w.grace > 0 {
		w.says.warn(fmt.Sprintf("%s: not ended %v after TERM: killing it", w.name(), w.grace))
	}
	w.cannot(immune)
}

// cannot says, once, which processes can't be ended.
func (w *watch) cannot(immune []int) {
	if len(immune) == 0 || w.immune {
		return
	}
	w.immune = true
	w.says.fault(fmt.Sprintf("%s: %s: waiting until it has gone; %s", w.name(),
		immuneWords(immune), w.keptWords()))
}

// keptWords says what happens to the lock meanwhile.
func (w *watch) keptWords() string {
	switch {
	case w.lease.Err() == nil:
	case w.lease.Job().TTL == lock.Forever:
		return "the lock is lost"
	default:
		return "the lock is lost, and expires when its TTL has passed"
	}
	return "the lock is kept until then"
}

// suspend stops us if the command has been stopped at a terminal, so that the shell notices and
// takes the terminal back. The signal that continues us is relayed to the command like any other;
// not here, since the kernel may take a moment to stop us.
func (w *watch) suspend(by syscall.Signal) {
	switch by {
	case unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		if w.at.File == nil || !w.c.stopped() {
			return
		}
		unix.Kill(unix.Getpid(), unix.SIGSTOP)
	}
}

// lostFailure is the failure for a lost lease.
func lostFailure(cause error) error {
	var (
		held     *lock.ErrUnauthorised
		disabled *lock.ErrDisabled
	)
	switch {
	case errors.As(cause, &held):
		cause = fmt.Errorf("the lock is lost: %s holds it", holderWords(held.Holder()))
	case errors.As(cause, &disabled):
		cause = errors.New("the lock is lost: the job has been disabled")
	}
	return &failure{exitLost, cause}
}

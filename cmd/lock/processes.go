//go:build unix && !aix && !solaris

package main

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// processes are the processes of a command: itself, its process group if it has one, and on Linux
// all others of the session that have its mark in their environment, with their descendants of
// other users. The mark finds what shells with job control and timeout(1) put into other groups.
// Daemons, which have their own session, are left alone.
type processes struct {
	PID     int    // of the command; 0: it has not begun, or has ended without a group
	Group   bool   // it leads a process group
	Session int    // its session, which is ours
	Mark    string // "NAME=value", unique
}

// A member is a live process.
type member struct{ pid, group int }

// signal sends a signal to all of them, and returns those of other users, which can't get it.
func (p processes) signal(sig syscall.Signal) (immune []int) {
	p.pass(sig)
	for _, m := range p.members() {
		send := sig
		if m.pid == p.PID || p.Group && m.group == p.PID {
			send = 0 // the group has got it
		}
		if errors.Is(unix.Kill(m.pid, send), unix.EPERM) { // otherwise it may be gone
			immune = append(immune, m.pid)
		}
	}
	return immune
}

// pass sends a signal to the command and its group, and returns the command if none of them can
// get it.
func (p processes) pass(sig syscall.Signal) (immune []int) {
	to := p.PID
	if p.Group {
		to = -p.PID
	}
	if p.PID != 0 && errors.Is(unix.Kill(to, sig), unix.EPERM) {
		immune = []int{p.PID}
	}
	return immune
}

// alive reports whether there are any.
func (p processes) alive() bool { return len(p.members()) > 0 }

// group returns the members of the command's group.
func (p processes) group() []member {
	if p.PID == 0 || !p.Group {
		return nil
	}
	if err := unix.Kill(-p.PID, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return nil
	}
	return []member{{p.PID, p.PID}}
}

// immuneWords names the processes that can't be ended.
func immuneWords(immune []int) string {
	slices.Sort(immune)
	return fmt.Sprintf("process %s is another user's and can't be signalled",
		fmt.Sprint(immune)[1:len(fmt.Sprint(immune))-1])
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// dieWithParent makes the kernel kill the command when we die. The guard does so, too, and kills
// all its processes; this covers the time before the guard knows the command, and the death of
// both.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// neverStopped prevents that the terminal stops us when this goroutine writes to it from the
// background (stty tostop). The goroutine has its own thread.
func neverStopped() {
	runtime.LockOSThread()
	var set unix.Sigset_t
	set.Val[0] = 1 << (unix.SIGTTOU - 1)
	unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil)
}

// stopped reports whether the command itself is stopped.
func (p processes) stopped() bool {
	s, ok := stat(p.PID)
	return ok && s.state == 'T'
}

// members returns all processes of the command.
func (p processes) members() []member {
	proc, err := os.Open("/proc")
	if err != nil {
		return p.group()
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1) // possibly not all
	var found []member
	var foreign []procStat // only root can read their environment
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() {
			continue
		}
		if session, err := unix.Getsid(pid); err != nil || session != p.Session {
			continue
		}
		s, ok := stat(pid)
		if !ok || s.state == 'Z' || s.state == 'X' {
			continue
		}
		ours := pid == p.PID || p.Group && s.group == p.PID
		if !ours {
			marked, err := p.marked(pid)
			if errors.Is(err, fs.ErrPermission) {
				foreign = append(foreign, s)
			}
			ours = marked
		}
		if ours {
			found = append(found, s.member)
		}
	}
	for grown := true; grown; {
		grown = false
		for _, f := range foreign {
			of := func(m member) bool { return m.pid == f.parent }
			if slices.ContainsFunc(found, of) && !slices.Contains(found, f.member) {
				found, grown = append(found, f.member), true
			}
		}
	}
	return found
}

type procStat struct {
	member
	parent int
	state  byte
}

// stat reads what the kernel reports about a process.
func stat(pid int) (procStat, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, false
	}
	// Its name is in parentheses, and may contain some.
	s := procStat{member: member{pid: pid}}
	n, _ := fmt.Sscanf(string(text[bytes.LastIndexByte(text, ')')+1:]), " %c %d %d",
		&s.state, &s.parent, &s.group)
	return s, n == 3
}

// marked reports whether a process has inherited the mark.
func (p processes) marked(pid int) (bool, error) {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || p.Mark == "" {
		return false, err
	}
	return bytes.Contains(append([]byte{0}, env...), []byte("\x00"+p.Mark+"\x00")), nil
}

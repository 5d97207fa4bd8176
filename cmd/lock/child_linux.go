package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// dieWithParent lets the kernel kill the command when we die. The guard does that, too, and to all of its processes; this is
// for the moment before the guard knows of it, and for when the guard is killed with us.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// others finds the processes that have the marks and are not reached with the command's group.
func (p processes) others() []int {
	var found []int
	p.each(func(pid, group int) bool {
		if (!p.Group || group != p.PID) && pid != p.PID {
			found = append(found, pid)
		}
		return true
	})
	return found
}

// alive says whether there are any.
func (p processes) alive() bool {
	none := true
	p.each(func(int, int) bool {
		none = false
		return false
	})
	return !none
}

// each calls f for each of the processes that is no zombie, until it says no.
func (p processes) each(f func(pid, group int) bool) {
	proc, err := os.Open("/proc")
	if err != nil {
		if p.PID != 0 && p.Group && unix.Kill(-p.PID, 0) == nil { // then there is only the group
			f(p.PID, p.PID)
		}
		return
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1) // what it has read, it has read
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() {
			continue
		}
		if session, err := unix.Getsid(pid); err != nil || session != p.Session {
			continue
		}
		state, group, ok := stat(pid)
		if !ok || state == 'Z' || state == 'X' {
			continue
		}
		if p.Group && group == p.PID || p.marked(pid) {
			if !f(pid, group) {
				return
			}
		}
	}
}

// stat reads the state and the process group of a process.
func stat(pid int) (state byte, group int, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, false
	}
	// Its name is in parentheses, and may have some of its own.
	var parent int
	n, _ := fmt.Sscanf(string(text[bytes.LastIndexByte(text, ')')+1:]), " %c %d %d", &state, &parent, &group)
	return state, group, n == 3
}

// marked says whether a process has inherited all of the marks.
func (p processes) marked(pid int) bool {
	if len(p.Marks) == 0 {
		return false
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	env = append([]byte{0}, env...)
	for _, mark := range p.Marks {
		if !bytes.Contains(env, []byte("\x00"+mark+"\x00")) {
			return false
		}
	}
	return true
}

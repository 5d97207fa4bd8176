//go:build unix && !linux && !aix && !solaris

package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Here the guard alone sees to it that the command dies with us.
func dieWithParent(*syscall.SysProcAttr) {}

// Here only the command and its group are known.
func (p processes) others() []int { return nil }

func (p processes) alive() bool {
	return p.PID != 0 && p.Group && unix.Kill(-p.PID, 0) == nil
}

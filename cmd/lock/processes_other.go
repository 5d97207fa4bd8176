//go:build unix && !linux && !aix && !solaris

package main

import "syscall"

// Here the guard alone sees to it that the command dies with us.
func dieWithParent(*syscall.SysProcAttr) {}

func neverStopped() {}

func (p processes) stopped() bool { return true } // it was a moment ago

// Here only the command's group is known.
func (p processes) members() []member { return p.group() }

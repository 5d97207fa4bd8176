//go:build unix && !linux && !aix && !solaris

package main

import "syscall"

// On these systems only the guard kills the command when we die.
func dieWithParent(*syscall.SysProcAttr) {}

func neverStopped() {}

func (p processes) stopped() bool { return true } // it was a moment ago

// On these systems only the command's group is known.
func (p processes) members() []member { return p.group() }

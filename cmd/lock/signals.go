//go:build unix && !aix && !solaris

package main

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// A reaction is what happens when lock run gets a signal.
type reaction struct{ signal, state, command, lock, exit string }

// reactions has a row for each case, which lock run --help shows and a test tries.
var reactions = []reaction{
	{"INT, TERM, HUP, QUIT, USR1, USR2", "before the command", "never begins",
		"given back, the tick is free", "128 + N"},
	{"TERM, HUP, INT, QUIT", "it runs", "gets it, then CONT in case it is stopped",
		"kept until it ends", "the command's"},
	{"USR1, USR2, CONT", "it runs", "gets it", "kept", "the command's"},
	{"TSTP", "it runs, without a terminal", "gets it", "kept and renewed", "the command's"},
	{"INT, QUIT by a key", "it runs at a terminal", "gets it from the terminal, once", "kept",
		"the command's"},
	{"TSTP by a key", "it runs at a terminal", "gets it from the terminal; lock run stops with it",
		"kept, not renewed until fg", "the command's; 82 if fg comes too late"},
	{"INT, QUIT by kill", "in a terminal's foreground",
		"doesn't get it: use TERM (kill looks like a key)", "kept", "the command's"},
	{"INT, TERM, HUP, QUIT", "the lock is lost", "gets it, and KILL after --grace",
		"lost", "82"},
	{"INT, TERM, HUP, QUIT", "it has left processes running", "they get it",
		"kept until they have gone", "the command's"},
	{"INT, TERM, HUP, QUIT", "the lock is released", "has ended", "released, within 5 s",
		"the command's"},
	{"STOP", "it runs", "killed by the guard before the lock expires", "expires",
		"82 after CONT"},
	{"KILL", "it runs", "killed by the guard at once", "expires", "137"},
	{"PIPE", "ever", "doesn't get it", "kept", "the command's"},
}

// catch catches the signals that are meant for the command. Those that this process was started to
// ignore, as by nohup, stay ignored.
func catch() chan os.Signal {
	signals := make(chan os.Signal, 16)
	// A reader of our messages that goes away must not end the command.
	if !signal.Ignored(unix.SIGPIPE) {
		signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	}
	notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1,
		unix.SIGUSR2)
	return signals
}

// catchJobControl catches the signals that stop and continue. Before the command begins, they keep
// their default action.
func catchJobControl(signals chan os.Signal) { notify(signals, unix.SIGTSTP, unix.SIGCONT) }

func notify(signals chan os.Signal, all ...syscall.Signal) {
	for _, sig := range all {
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
}

// A tty is the controlling terminal, if there is one. The command then stays in our process group,
// which can read from the terminal and gets Ctrl-C and Ctrl-Z. Otherwise it gets a group of its
// own.
type tty struct{ *os.File }

func openTTY() tty {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return tty{}
	}
	return tty{f}
}

// foreground reports whether our process group is the terminal's foreground group.
func (t tty) foreground() bool {
	group, err := unix.IoctlGetInt(int(t.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// relay passes a signal on to the command or, after its end, to the processes that it left. It
// returns those that can't be signalled. A signal from a key is not passed on: the terminal has
// sent it to the command, too.
func (c *child) relay(sig syscall.Signal, at tty) (immune []int) {
	send := c.pass
	if c.exited {
		send = c.signal
	}
	switch sig {
	case unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP:
		if at.File != nil && at.foreground() {
			return nil
		}
	}
	immune = send(sig)
	switch sig {
	case unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT:
		send(unix.SIGCONT) // a stopped process would not handle the signal
	}
	return immune
}

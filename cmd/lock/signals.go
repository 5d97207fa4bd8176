//go:build unix && !aix && !solaris

package main

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// A reaction says what becomes of a signal that lock run gets.
type reaction struct{ signal, state, command, lock, exit string }

// reactions is the table. The README has it, and there is a test for each row.
var reactions = []reaction{
	{"INT, TERM, HUP, QUIT, USR1, USR2", "before the command", "never begins",
		"given back, the tick is free", "128 + N"},
	{"TERM, HUP, INT, QUIT", "it runs", "gets it, then CONT: also if it is stopped",
		"kept until it has ended", "the command's"},
	{"USR1, USR2, CONT", "it runs", "gets it", "kept", "the command's"},
	{"TSTP", "it runs, without a terminal", "gets it", "kept and renewed", "the command's"},
	{"INT, QUIT by a key", "it runs at a terminal", "has it from the terminal, once", "kept",
		"the command's"},
	{"TSTP by a key", "it runs at a terminal", "has it from the terminal; if it stops, so do we",
		"kept, not renewed until fg", "the command's; 82 if fg comes too late"},
	{"INT, QUIT by kill", "in a terminal's foreground",
		"does not get it: use TERM (it can't be told from a key)", "kept", "the command's"},
	{"INT, TERM, HUP, QUIT", "the lock is lost", "gets it; after --grace KILL all the same",
		"lost", "82"},
	{"INT, TERM, HUP, QUIT", "it has left processes running", "they get it",
		"kept until they have gone", "the command's"},
	{"INT, TERM, HUP, QUIT", "the lock is released", "has ended", "released, within 5 s",
		"the command's"},
	{"STOP", "it runs", "killed by the guard before the lock expires", "expires",
		"82 after CONT"},
	{"KILL", "it runs", "killed by the guard at once", "expires", "137"},
	{"PIPE", "ever", "is told nothing", "kept", "the command's"},
}

// catch catches the signals that the command shall have. Those that we were started to ignore, as
// by nohup, it ignores too.
func catch() chan os.Signal {
	signals := make(chan os.Signal, 16)
	// That nobody reads our messages any more is no reason to die, and with us the command.
	if !signal.Ignored(unix.SIGPIPE) {
		signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	}
	notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1,
		unix.SIGUSR2)
	return signals
}

// catchJobControl catches those that stop and continue, of which a lock run that has no command
// yet makes what everybody does.
func catchJobControl(signals chan os.Signal) { notify(signals, unix.SIGTSTP, unix.SIGCONT) }

func notify(signals chan os.Signal, all ...syscall.Signal) {
	for _, sig := range all {
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
}

// A tty is the terminal that controls us, if there is one: a person may be sitting there. A
// command then stays in our process group, which is the one that can read from the terminal and
// gets its Ctrl-C and Ctrl-Z, together with whatever else is in the pipeline. Otherwise it gets a
// group of its own.
type tty struct{ *os.File }

func openTTY() tty {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return tty{}
	}
	return tty{f}
}

// foreground reports whether what is typed comes to our process group.
func (t tty) foreground() bool {
	group, err := unix.IoctlGetInt(int(t.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// relay passes a signal on to the command, or when that has ended, to what it has left. It returns
// the processes that can't get it. What a key of the terminal sends, the terminal has sent to the
// command, too.
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
		send(unix.SIGCONT) // what is stopped would not hear it
	}
	return immune
}

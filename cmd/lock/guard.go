//go:build unix && !aix && !solaris

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cloudtrust/go-jobs/lock"
)

// A guard is a process that kills the command when we can't, because we have been killed, or
// stopped for longer than the lease can be trusted. It has its own session, so that signals for
// us or the command don't reach it.
type guard struct {
	says  *speaker
	lasts time.Duration // how long after a renewal the guard kills; 0: never

	mu     sync.Mutex
	orders orders
	pid    int
	pipe   *os.File // nil: it isn't running, or is dismissed
	deaf   bool     // we have said that it doesn't read its orders
}

// orders are sent to the guard as a whole. In JSON they are short enough for an atomic write to a
// pipe.
type orders struct {
	Processes processes
	Until     int64 // when it kills them, in nanoseconds of the monotonic clock, which all
	// processes share; 0: never
	Done bool
}

// observe postpones the guard's deadline at each renewal.
func (g *guard) observe(e lock.Event) {
	switch e.Kind {
	case lock.Acquired, lock.TakenOver, lock.Renewed: // of one that was waited for, see acquire
		if g.lasts > 0 {
			until := monotonic() + (g.lasts - e.Took).Nanoseconds()
			g.tell(func(o *orders) { o.Until = until })
		}
	}
}

// start starts the guard of the processes p, which need not exist yet.
func (g *guard) start(p processes, name string) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	log := "text"
	if g.says.json != nil {
		log = "json"
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	cmd := exec.Command(program, "guard", "--log", log, "--", name, g.says.database())
	cmd.Env = without(os.Environ(), "LOCK_") // it doesn't belong to an outer lock run's command
	cmd.Stdin, cmd.Stderr = read, os.Stderr
	cmd.Dir = "/"
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		write.Close()
		return err
	}
	g.mu.Lock()
	g.pid, g.pipe = cmd.Process.Pid, write
	g.mu.Unlock()
	g.tell(func(o *orders) { o.Processes = p })
	return nil
}

// tell sends new orders without waiting. If the guard is stopped, the latest orders count.
func (g *guard) tell(change func(*orders)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change(&g.orders)
	if g.pipe == nil {
		return
	}
	if err := g.send(); err != nil && !g.deaf {
		g.deaf = true
		g.says.warn(fmt.Sprintf("the guard doesn't read its orders: if this process is "+
			"killed, the command may live on: %v", err))
	}
}

// send writes the orders as a whole and without blocking, or fails.
func (g *guard) send() error {
	text, err := json.Marshal(g.orders)
	if err != nil {
		return err
	}
	raw, err := g.pipe.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		_, failed = unix.Write(int(fd), text)
		return true
	})
	return errors.Join(err, failed)
}

// dismiss ends the guard: nothing is left to kill.
func (g *guard) dismiss() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pipe == nil {
		return
	}
	g.orders.Done = true
	if err := g.send(); errors.Is(err, unix.EAGAIN) {
		unix.Kill(g.pid, unix.SIGKILL) // it is stopped, and must not kill anybody when it continues
	}
	g.pipe.Close()
	g.pipe = nil
}

func (a *app) guardCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "guard NAME DATABASE",
		Short:  "kill a command whose lock run is gone (lock run starts this)",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			for _, sig := range []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM,
				unix.SIGPIPE, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU} {
				signal.Ignore(sig) // only its orders count
			}
			a.says.about(args[1])
			if why, p := stand(os.Stdin); why != "" {
				a.kill(p, args[0]+": "+why)
			}
			return nil
		},
	}
}

// kill kills the processes, and then says why.
func (a *app) kill(p processes, why string) {
	immune := p.signal(unix.SIGKILL)
	if len(immune) == 0 {
		a.says.fault(why + ": the command has been killed")
	}
	for range 50 { // a process may be starting another
		if len(immune) > 0 {
			a.says.fault(fmt.Sprintf("%s: %s: it may go on, and the lock expires when its TTL has "+
				"passed: end it now", why, immuneWords(immune)))
			return
		}
		time.Sleep(20 * time.Millisecond)
		if !p.alive() {
			return
		}
		immune = p.signal(unix.SIGKILL)
	}
}

// stand follows orders until they end, and returns why the processes must be killed, or "".
func stand(from io.Reader) (why string, p processes) {
	next := make(chan orders)
	go func() {
		defer close(next)
		for decoder := json.NewDecoder(from); ; {
			var o orders
			if decoder.Decode(&o) != nil {
				return
			}
			next <- o
		}
	}()
	var (
		now  orders
		turn <-chan time.Time
	)
	for {
		select {
		case o, ok := <-next:
			switch {
			case !ok:
				return "lock run has been killed", now.Processes
			case o.Done:
				return "", processes{}
			}
			if now, turn = o, nil; o.Until != 0 {
				turn = time.After(time.Duration(o.Until - monotonic()))
			}
		case <-turn:
			return "lock run has been stopped for too long", now.Processes
		}
	}
}

func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // the clock is there wherever Go runs
	}
	return t.Nano()
}

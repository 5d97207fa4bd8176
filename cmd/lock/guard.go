//go:build unix && !aix && !solaris

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cloudtrust/go-jobs/lock"
)

// A guard is a process that kills the command when we can't: when we have been killed ourselves, or stopped for longer than
// the lease can be trusted. It is in a session of its own, so that what is meant for us or for the command doesn't hit it.
type guard struct {
	says  *speaker
	lasts time.Duration // from a renewal to the guard's turn; 0: never

	mu      sync.Mutex
	orders  orders
	pipe    *json.Encoder // nil: it isn't running
	stdin   io.Closer
	trouble error // why it doesn't hear us any more
}

// orders is what the guard is told, each time all of it.
type orders struct {
	Processes processes
	Until     int64 // when it kills them, in nanoseconds of the monotonic clock, which all processes share; 0: never
	Done      bool
}

// observe hears of each renewal, and puts the guard's turn off.
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
	cmd := exec.Command(program, "guard", "--log", log, "--", name)
	cmd.Env = without(os.Environ(), marks) // in the command of another lock run, it is no part of that command
	cmd.Stderr = os.Stderr
	cmd.Dir = "/"
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go cmd.Wait() // so that it leaves no zombie; if it dies, the next order fails
	g.mu.Lock()
	g.pipe, g.stdin = json.NewEncoder(stdin), stdin
	g.mu.Unlock()
	return g.tell(func(o *orders) { o.Processes = p })
}

func (g *guard) tell(change func(*orders)) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	change(&g.orders)
	if g.pipe != nil && g.trouble == nil {
		if g.trouble = g.pipe.Encode(g.orders); g.trouble != nil {
			g.says.warn("the guard is gone: should this process be killed, the command may live on", slog.Any("error", g.trouble))
		}
	}
	return g.trouble
}

// dismiss ends the guard; there is nothing left to kill.
func (g *guard) dismiss() {
	g.tell(func(o *orders) { o.Done = true })
	if g.stdin != nil {
		g.stdin.Close()
	}
}

func (a *app) guardCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "guard NAME",
		Short:  "kill a command whose lock run is no more (lock run starts this)",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			for _, sig := range []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGPIPE} {
				signal.Ignore(sig) // the one who gives the orders decides
			}
			why, p := stand(os.Stdin)
			if why == "" {
				return nil
			}
			a.says.say(slog.LevelError, fmt.Sprintf("%s: %s: killing the command", args[0], why))
			for range 50 { // a process may be starting another
				p.signal(unix.SIGKILL)
				time.Sleep(20 * time.Millisecond)
				if !p.alive() {
					break
				}
			}
			return nil
		},
	}
}

// stand follows orders until they end, and says why the processes are to be killed, or "".
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

// without returns an environment without some variables.
func without(env, names []string) []string {
	var rest []string
next:
	for _, e := range env {
		for _, name := range names {
			if strings.HasPrefix(e, name+"=") {
				continue next
			}
		}
		rest = append(rest, e)
	}
	return rest
}

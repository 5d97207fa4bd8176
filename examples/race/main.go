// Command race has five processes compete for one job. One of them is killed at work, and another
// takes over. At the end it checks a journal that all of them have written:
//
//	go run ./examples/race
package main

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	_ "modernc.org/sqlite"

	"github.com/cloudtrust/go-jobs/lock"
)

const (
	instances = 5
	runs      = 8           // after which the race is over
	victim    = 3           // the run that is killed
	ttl       = time.Second // after which another takes over
)

// folder is the environment variable with the folder of the lock and the journal. Only the
// competing processes have it.
const folder = "RACE_FOLDER"

func main() {
	var err error
	if dir := os.Getenv(folder); dir != "" {
		err = compete(context.Background(), dir, os.Args[1])
	} else {
		err = race()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "race:", err)
		os.Exit(1)
	}
}

// compete runs the job again and again until the process is killed.
func compete(ctx context.Context, dir, instance string) error {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir,
		"locks.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	defer db.Close()
	l := lock.New(db)
	job := lock.Job{ComponentName: "race", JobName: "work", ComponentID: instance, TTL: ttl,
		Wait: lock.Forever, Poll: 50 * time.Millisecond}
	for {
		err := l.Run(ctx, job, func(ctx context.Context) error { return work(ctx, dir, instance) })
		if err != nil && !errors.Is(err, lock.ErrLost) {
			return err
		}
		time.Sleep(100 * time.Millisecond) // the others' turn
	}
}

// work is the job. It writes what it does to the journal and to standard output.
func work(ctx context.Context, dir, instance string) error {
	lease := lock.LeaseFrom(ctx)
	begin := "begin"
	if from := lease.TakenFrom(); from != nil {
		begin = "takeover of " + from.ComponentID
	}
	for _, what := range []string{begin, "step", "step", "end"} {
		if err := lease.Err(); err != nil {
			return err
		}
		if err := write(dir, instance, lease.Token(), what); err != nil {
			return err
		}
		fmt.Println(lease.Token(), what)
		time.Sleep(70 * time.Millisecond)
	}
	return nil
}

// write appends a line to the journal. One write in append mode is atomic, so the order of the
// lines is the order of events, whatever the clocks say.
func write(dir, instance string, token int64, what string) error {
	f, err := os.OpenFile(filepath.Join(dir, "journal"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, instance, token, what)
	return err
}

// A line is an output of a process, or its end.
type line struct {
	instance, text string
	ended          bool
}

// race starts the processes, kills one of them at work, and checks the journal.
func race() error {
	dir, err := os.MkdirTemp("", "race")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Printf("%d processes compete for one job. Its lock expires %v after its last renewal.\n\n",
		instances, ttl)
	lines := make(chan line)
	processes := map[string]*exec.Cmd{}
	var all sync.WaitGroup
	defer func() {
		for _, p := range processes {
			p.Process.Kill()
		}
		go func() { all.Wait(); close(lines) }()
		for range lines {
		}
	}()
	for i := range instances {
		name := fmt.Sprintf("instance-%d", i+1)
		p, err := start(dir, name, lines, &all)
		if err != nil {
			return err
		}
		processes[name] = p
	}
	if err := watch(dir, processes, lines); err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(dir, "journal"))
	if err != nil {
		return err
	}
	defer f.Close()
	return report(check(f))
}

// start starts a process and sends its output to lines.
func start(dir, name string, lines chan<- line, all *sync.WaitGroup) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := exec.Command(self, name)
	p.Env, p.Stderr = append(os.Environ(), folder+"="+dir), os.Stderr
	out, err := p.StdoutPipe()
	if err == nil {
		err = p.Start()
	}
	if err != nil {
		return nil, err
	}
	all.Go(func() {
		for said := bufio.NewScanner(out); said.Scan(); {
			lines <- line{name, said.Text(), false}
		}
		p.Wait()
		lines <- line{name, "is dead, and its lock is still there", true}
	})
	return p, nil
}

// watch prints what the processes do, and kills one of them, until there have been enough runs.
// If that one finished its work before it died, it kills another.
func watch(dir string, processes map[string]*exec.Cmd, lines <-chan line) error {
	began, killed, kill, taken := time.Now(), map[string]bool{}, victim, false
	for begun, done := 0, 0; done < runs || !taken; {
		l := <-lines
		switch {
		case l.ended && !killed[l.instance]:
			return fmt.Errorf("%s has ended by itself", l.instance)
		case l.ended:
			if err := write(dir, l.instance, 0, "killed"); err != nil {
				return err
			}
		case strings.HasSuffix(l.text, "end"):
			done++
		case strings.HasSuffix(l.text, "step"):
			if begun >= kill && !taken {
				killed[l.instance], kill = true, begun+2
				processes[l.instance].Process.Kill()
			}
		default:
			begun++
			taken = taken || strings.Contains(l.text, "takeover")
		}
		fmt.Printf("%6.2fs  %-10s  %s\n", time.Since(began).Seconds(), l.instance, l.text)
	}
	return nil
}

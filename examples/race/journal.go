//go:build unix && !aix && !solaris

package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a line of the journal says that an instance did. A line is
//
//	microseconds-since-1970 instance run what [detail]
//
// where run is the job ID.
const (
	begin   = "begin"   // it was granted the lock and begins to work; the detail is when it asked, in microseconds
	step    = "step"    // it did a part of the work
	end     = "end"     // it ends its work, and will unlock
	refused = "refused" // it was refused the lock; the detail is the holder
	clash   = "clash"   // it works, and the witness said that another process does too
	killed  = "killed"  // the parent saw that it is dead; the run is "-"
)

// A journal is a file that several processes append to. Each line is one write in append mode, which the kernel doesn't
// mix with others, so the order of the lines is the order of events whatever the clocks say.
type journal struct{ f *os.File }

func openJournal(path string) (journal, error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	return journal{f}, err
}

func (j journal) write(instance, run, what, detail string) error {
	_, err := fmt.Fprintf(j.f, "%d %s %s %s %s\n", time.Now().UnixMicro(), instance, run, what, detail)
	return err
}

// A verdict is what a journal shows.
type verdict struct {
	runs, refusals, takeovers int
	handovers                 int           // how often the next run was another instance's
	clashes                   int           // how often the witness saw two
	waited                    time.Duration // from when the killed holder asked for its lock to the takeover
	overlaps                  []string      // each a proof that two ran at once
	others                    []string      // what else should not be
}

// A checker reads the journal line by line and knows who is at work.
type checker struct {
	verdict
	max    time.Duration
	atWork map[string]string    // instance by run
	asked  map[string]time.Time // when the runs at work asked for the lock
	dead   []time.Time          // when those asked that were killed at work and have not been taken over
	last   string               // the instance that ran last
}

// check reads a journal and looks for two that ran at once, in the order of its lines alone: a run goes from its begin to
// its end, or until the process has been seen dead. It also finds a takeover before the dead holder's time, max, was over.
func check(r io.Reader, max time.Duration) (verdict, error) {
	c := checker{max: max, atWork: map[string]string{}, asked: map[string]time.Time{}}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		if err := c.line(lines.Text()); err != nil {
			return c.verdict, fmt.Errorf("line %d of the journal, %q: %w", n, lines.Text(), err)
		}
	}
	for run, instance := range c.atWork {
		c.others = append(c.others, fmt.Sprintf("%s never ended its run %s", instance, run))
	}
	return c.verdict, lines.Err()
}

func (c *checker) line(text string) error {
	fields := strings.Fields(text)
	if len(fields) < 4 {
		return fmt.Errorf("it has %d words", len(fields))
	}
	at, err := parseMicros(fields[0])
	if err != nil {
		return err
	}
	instance, run, what, detail := fields[1], fields[2], fields[3], strings.Join(fields[4:], " ")
	switch what {
	case begin:
		asked, err := parseMicros(detail)
		if err != nil {
			return err
		}
		c.begin(instance, run, at, asked)
	case step, end:
		if _, ok := c.atWork[run]; !ok {
			c.overlaps = append(c.overlaps, fmt.Sprintf("%s worked outside its run %s (%s)", instance, run, what))
		}
		if what == end {
			delete(c.atWork, run)
		}
	case clash:
		c.clashes++
		c.overlaps = append(c.overlaps, fmt.Sprintf("%s worked in run %s while another process held the witness", instance, run))
	case refused:
		c.refusals++
		if detail == "" {
			c.others = append(c.others, fmt.Sprintf("%s was refused in favour of nobody", instance))
		}
	case killed:
		for run, who := range c.atWork {
			if who == instance {
				delete(c.atWork, run)
				c.dead = append(c.dead, c.asked[run])
			}
		}
	default:
		return fmt.Errorf("it says %q", what)
	}
	return nil
}

func (c *checker) begin(instance, run string, at, asked time.Time) {
	for _, other := range slices.Sorted(maps.Keys(c.atWork)) {
		c.overlaps = append(c.overlaps, fmt.Sprintf("%s began run %s while %s was at work in run %s", instance, run, c.atWork[other], other))
	}
	// The dead held the lock from some time after they asked for it, so nobody may have taken over before asked + max, but
	// for what the clock of the database and ours differ over that time.
	for _, since := range c.dead {
		c.takeovers++
		if c.waited = at.Sub(since); c.waited < c.max-c.max/100 {
			c.others = append(c.others, fmt.Sprintf("%s took over after %v, which is before the holder's time of %v was over", instance, c.waited, c.max))
		}
	}
	if c.last != "" && c.last != instance {
		c.handovers++
	}
	c.runs++
	c.dead, c.last = nil, instance
	c.atWork[run], c.asked[run] = instance, asked
}

func parseMicros(s string) (time.Time, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	return time.UnixMicro(n), err
}

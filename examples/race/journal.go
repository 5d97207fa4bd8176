package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// A verdict is the result of a journal.
type verdict struct {
	runs, takeovers int
	last            int64    // token
	running         string   // the instance at work, "" if there is none
	dead            string   // the instance that was killed at work and has not been taken over
	wrong           []string // violations
}

// check reads a journal. Only the order of the lines counts: a run lasts from its begin to its
// end, or until its process is dead.
func check(journal io.Reader) verdict {
	var v verdict
	lines := bufio.NewScanner(journal)
	for lines.Scan() {
		instance, rest, _ := strings.Cut(lines.Text(), " ")
		var token int64
		if _, err := fmt.Sscan(rest, &token); err != nil {
			v.bad("%q is no line of a journal", lines.Text())
			continue
		}
		_, what, _ := strings.Cut(rest, " ")
		v.line(instance, token, what)
	}
	if err := lines.Err(); err != nil {
		v.bad("%v", err)
	}
	return v
}

func (v *verdict) bad(format string, args ...any) {
	v.wrong = append(v.wrong, fmt.Sprintf(format, args...))
}

func (v *verdict) line(instance string, token int64, what string) {
	from, takeover := strings.CutPrefix(what, "takeover of ")
	switch {
	case what == "killed":
		if v.running == instance {
			v.running, v.dead = "", instance
		}
	case what == "step" || what == "end":
		if v.running != instance || v.last != token {
			v.bad("%s is at work with token %d outside of its run", instance, token)
		}
		if what == "end" {
			v.running = ""
		}
	default:
		if v.running != "" {
			v.bad("%s begins while %s is at work", instance, v.running)
		}
		if token <= v.last {
			v.bad("%s has token %d, which is not after %d", instance, token, v.last)
		}
		if takeover {
			v.takeovers++
		}
		if from != v.dead && takeover {
			v.bad("%s takes over from %s, which is not dead", instance, from)
		}
		v.runs++
		v.running, v.last, v.dead = instance, token, ""
	}
}

// report prints a verdict. It returns an error if anything is wrong, or if nobody took over.
func report(v verdict) error {
	fmt.Printf("\nThe journal: %d runs, %d of them a takeover from the dead.\n", v.runs, v.takeovers)
	if v.takeovers == 0 {
		v.bad("nobody took over")
	}
	if len(v.wrong) > 0 {
		return errors.New(strings.Join(v.wrong, "\n"))
	}
	fmt.Println("No two ran at once, and each has a larger token than the one before.")
	return nil
}

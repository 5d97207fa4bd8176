//go:build unix && !aix && !solaris

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A printer tells a person what the events are, on the standard output.
type printer struct {
	start    time.Time
	refused  map[string][]string // by holder: who was refused and is not yet printed
	working  string              // whose progress is shown: the first one's, should several be at work
	open     bool                // whether the last line is that progress, and not ended
	dead     string              // who was killed and has not been taken over
	gaveUp   []string
	asks     int
	rushed   []event
	rushRuns int
}

func (p *printer) line(who, format string, args ...any) {
	p.endProgress()
	fmt.Printf("%6.2fs  %-11s  %s\n", time.Since(p.start).Seconds(), who, fmt.Sprintf(format, args...))
}

// event prints an event. Refusals wait until all have been answered, so that one line says it.
func (p *printer) event(e event, answered bool) {
	switch e.Kind {
	case grant:
		if p.working == "" {
			p.working = e.Instance
		}
		if p.dead == "" {
			p.line(e.Instance, "granted the lock")
		} else {
			p.line(e.Instance, "granted the lock: takes over from %s, with %d of %d files done", p.dead, e.Done, e.Of)
			p.dead = ""
		}
	case refusal:
		if p.refused == nil {
			p.refused = map[string][]string{}
		}
		p.refused[e.Holder] = append(p.refused[e.Holder], e.Instance)
	case progress:
		p.progress(e)
	case complete:
		if p.open && p.working == e.Instance {
			fmt.Printf(" of %d files, done", e.Of)
			p.endProgress()
		} else {
			p.line(e.Instance, "done")
		}
	case timeout:
		p.line(e.Instance, "stops with %d of %d files done, before its lock expires: a run has to fit into -max", e.Done, e.Of)
	case gone:
		p.line(e.Instance, "killed with SIGKILL at work, holding the lock")
		p.dead = e.Instance
	case idle:
		if p.working == e.Instance {
			p.working = ""
		}
	case gaveUp:
		p.gaveUp = append(p.gaveUp, e.Instance)
		p.asks += e.Asks
	case rushed:
		p.rushed = append(p.rushed, e)
	}
	if answered {
		p.flush()
	}
}

// progress shows at most eight marks a run, all in one line.
func (p *printer) progress(e event) {
	const marks = 8
	if p.working != e.Instance || e.Done*marks/e.Of == (e.Done-1)*marks/e.Of {
		return
	}
	if !p.open {
		p.flush()
		fmt.Printf("%6.2fs  %-11s  works:", time.Since(p.start).Seconds(), e.Instance)
		p.open = true
	}
	fmt.Printf(" %d", e.Done)
}

func (p *printer) endProgress() {
	if p.open {
		fmt.Println()
	}
	p.open = false
}

func (p *printer) flush() {
	for _, holder := range sorted(slices.Collect(maps.Keys(p.refused))) {
		p.line("", "refused, as %s holds it: %s", holder, list(p.refused[holder]))
	}
	clear(p.refused)
}

func (p *printer) endRound() {
	p.flush()
	p.endProgress()
	p.working = ""
	if len(p.gaveUp) > 0 {
		p.line("", "refused %d times meanwhile, and then gave up: %s", p.asks, list(p.gaveUp))
		p.gaveUp = nil
	}
	p.endRush()
}

func (p *printer) endRush() {
	const some = 8
	slices.SortFunc(p.rushed, func(a, b event) int { return b.Runs - a.Runs })
	for i, e := range p.rushed {
		p.rushRuns += e.Runs
		if i < some {
			late := ""
			if e.Late > 0 {
				late = fmt.Sprintf(", granted but too late to use %d times", e.Late)
			}
			p.line(e.Instance, "ran %5d times, refused %6d times%s", e.Runs, e.Asks, late)
		}
	}
	if rest := len(p.rushed) - some; rest > 0 {
		p.line("", "and %d more", rest)
	}
	p.rushed = nil
}

// list names all where that fits into a line, and else some.
func list(names []string) string {
	const some = 5
	names = sorted(names)
	if rest := len(names) - some; rest > 1 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:some], ", "), rest)
	}
	return strings.Join(names, ", ")
}

func (p *printer) report(v verdict, files, twice, counted int, max time.Duration) {
	fmt.Println("\nThe proof, from the journal that all wrote, the witness that who works has to hold, and the work itself:")
	row := func(n int, format string, args ...any) { fmt.Printf("%7d  %s\n", n, fmt.Sprintf(format, args...)) }
	row(v.runs, "runs, %d times by another instance than the run before", v.handovers)
	row(v.refusals, "refusals, naming the holder")
	if v.takeovers == 0 {
		row(0, "takeovers")
	} else {
		row(v.takeovers, "takeover from a killed holder, %.2fs after that one asked for the lock (-max %v)", v.waited.Seconds(), max)
	}
	row(files, "files in the manifests, %d of them twice", twice)
	row(p.rushRuns, "runs in the rush added 1 to a counter: %d", counted)
	row(v.clashes, "times the witness met a second process at work")
	row(len(v.overlaps)-v.clashes, "overlaps in the order of the journal")
	const some = 5
	for i, problem := range slices.Concat(v.overlaps, v.others) {
		if i == some {
			fmt.Println("  ! and so on")
			break
		}
		fmt.Printf("  ! %s\n", problem)
	}
	switch {
	case len(v.overlaps) > 0:
		fmt.Println("TWO RAN AT ONCE")
	case len(v.others) > 0:
		fmt.Println("THE PROOF FAILED, though no two ran at once")
	default:
		fmt.Println("no two ran at once")
	}
}

//go:build unix && !aix && !solaris

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/text/width"

	"github.com/cloudtrust/go-jobs/lock"
)

// tableWidth is what a table has to fit in.
const tableWidth = 100

// A list is what lock list was asked for.
type list struct {
	*app
	component   string
	json, watch bool
	interval    time.Duration
}

func (a *app) listCommand() *cobra.Command {
	c := &list{app: a}
	cmd := &cobra.Command{
		Use:   "list [flags]",
		Short: "show all locks",
		Long: `Shows a line for each lock: who holds it or, if it is free, who held it last; and how long ago it was taken or last renewed. A
lock that is held and has not been renewed for a long time belongs to a machine that is gone.

With --watch it goes on: on a terminal the table is kept up to date; elsewhere a new one is printed whenever a lock is taken,
released, enabled or disabled. Ctrl-C ends it.`,
		Example: `lock list
lock list --watch
lock list --json | jq -r '.[] | select(.held) | .job'`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return c.run() },
	}
	cmd.Annotations = exitStatuses(exitUsage, exitDatabase, exitInternal)
	f := cmd.Flags()
	f.StringVar(&c.component, "component", "", "only the locks of this `component`")
	f.BoolVar(&c.json, "json", false, "print JSON: an array, and with --watch one on each line")
	f.BoolVarP(&c.watch, "watch", "w", false, "show changes as they come")
	f.DurationVar(&c.interval, "interval", time.Second, "at what `duration` --watch looks again")
	return cmd
}

func (c *list) run() error {
	if c.interval <= 0 {
		return usagef("--interval %v: it has to be more than 0", c.interval)
	}
	connecting, connected := within(context.Background(), callTimeout)
	l, done, err := c.connect(connecting, c.options())
	connected()
	if err != nil {
		return err
	}
	defer done()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	all, err := c.look(ctx, l)
	if err != nil {
		return judge(err)
	}
	onTerminal := c.watch && !c.json && columns(os.Stdout) > 0
	var shown []entry
	for {
		var unread error
		switch {
		case err != nil && ctx.Err() == nil: // it may come back
			c.says.warn(c.says.words(&failure{exitDatabase, err}) + "; looking again")
		case err == nil && onTerminal:
			// In one write, so that it doesn't flicker: from the top, and what was below is deleted.
			_, rows := size(os.Stdout)
			page := strings.ReplaceAll(top(c.format(all), rows), "\n", "\x1b[K\n")
			_, unread = fmt.Fprintf(c.out, "\x1b[H%s\x1b[J", page)
		case err == nil && (shown == nil || !slices.EqualFunc(all, shown, entry.same)):
			shown = append([]entry{}, all...)
			_, unread = fmt.Fprint(c.out, c.format(all))
		}
		if unread != nil || !c.watch {
			return fail(exitInternal, unread)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(c.interval):
		}
		all, err = c.look(ctx, l)
	}
}

// look reads the locks.
func (c *list) look(ctx context.Context, l *lock.Lock) ([]entry, error) {
	ctx, cancel := within(ctx, callTimeout)
	defer cancel()
	all, err := l.List(ctx)
	entries := []entry{} // not null, in JSON
	for _, s := range all {
		if c.component == "" || c.component == s.ComponentName {
			entries = append(entries, entryOf(s))
		}
	}
	return entries, err
}

func (c *list) format(all []entry) string {
	if c.json {
		return jsonLine(all)
	}
	limit := tableWidth
	if n := columns(os.Stdout); n > 0 {
		limit = min(limit, n)
	}
	return table(all, limit, colored(os.Stdout))
}

// top is as much of a table as fits on a screen, with the cursor in the line below.
func top(table string, rows int) string {
	lines := strings.SplitAfter(strings.TrimSuffix(table, "\n"), "\n")
	if room := max(rows-1, 3); len(lines) > room {
		return strings.Join(lines[:room-1], "") + fmt.Sprintf("… and %d more\n", len(lines)-room+1)
	}
	return table
}

// An entry is what is shown of a lock.
type entry struct {
	Component string  `json:"component"`
	Job       string  `json:"job"`
	Held      bool    `json:"held"`
	Enabled   bool    `json:"enabled"`
	Holder    *holder `json:"holder,omitempty"` // nil: nobody
	Last      *holder `json:"last,omitempty"`   // of a lock that is free; nil: nobody ever
}

type holder struct {
	ComponentID string    `json:"component_id"`
	JobID       string    `json:"job_id"`
	Since       time.Time `json:"since"` // when it took the lock, or last renewed it
	AgeSeconds  float64   `json:"age_seconds"`
}

func (h *holder) age() time.Duration { return time.Duration(h.AgeSeconds * float64(time.Second)) }

func entryOf(s lock.Status) entry {
	e := entry{Component: s.ComponentName, Job: s.JobName, Held: s.Locked, Enabled: s.Enabled}
	h := &holder{s.Holder.ComponentID, s.Holder.JobID, s.Holder.LockTime, s.Holder.Age.Seconds()}
	switch {
	case s.Locked:
		e.Holder = h
	case h.ComponentID != "" || h.JobID != "":
		e.Last = h
	}
	return e
}

func (e entry) who() *holder {
	if e.Holder != nil {
		return e.Holder
	}
	return e.Last
}

// same says whether two look the same, but for renewals.
func (e entry) same(other entry) bool {
	a, b := e.who(), other.who()
	return e.Component == other.Component && e.Job == other.Job && e.Held == other.Held && e.Enabled == other.Enabled &&
		(a == nil) == (b == nil) && (a == nil || a.ComponentID == b.ComponentID && a.JobID == b.JobID)
}

func (e entry) state() (words, color string) {
	switch {
	case e.Held && !e.Enabled:
		return "held, disabled", yellow
	case e.Held:
		return "held", green
	case !e.Enabled:
		return "disabled", yellow
	default:
		return "free", ""
	}
}

func jsonLine(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // there is nothing in it that JSON can't hold
	}
	return string(text) + "\n"
}

// table shows locks in columns. Where they don't fit into the limit, the ends of the longest names are cut.
func table(all []entry, limit int, color bool) string {
	rows := [][]string{{"COMPONENT", "JOB", "STATE", "HOLDER (LAST)", "RUN", "AGE"}}
	for _, e := range all {
		state, _ := e.state()
		row := []string{visible(e.Component), visible(e.Job), state, "-", "-", "-"}
		if h := e.who(); h != nil {
			row[3], row[4], row[5] = visible(h.ComponentID), visible(h.JobID), ageWords(h.age())
			if !e.Held {
				row[3] = "(" + row[3] + ")"
			}
		}
		rows = append(rows, row)
	}
	widths := make([]int, len(rows[0]))
	total := 2 * (len(widths) - 1)
	for i := range widths {
		for _, row := range rows {
			widths[i] = max(widths[i], cells(row[i]))
		}
		total += widths[i]
	}
	for ; total > limit; total-- {
		longest := 0
		for _, i := range []int{1, 3, 4} { // STATE and AGE stay whole
			if widths[i] > widths[longest] {
				longest = i
			}
		}
		if widths[longest] <= 4 {
			break
		}
		widths[longest]--
	}
	var b bytes.Buffer
	for n, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			cell = cut(cell, widths[i])
			padding := strings.Repeat(" ", widths[i]-cells(cell)+2)
			if i == 2 && n > 0 && color {
				if _, c := all[n-1].state(); c != "" {
					cell = c + cell + plain
				}
			}
			line.WriteString(cell + padding)
		}
		text := strings.TrimRight(line.String(), " ")
		if n == 0 && color {
			text = bold + text + plain
		}
		b.WriteString(text + "\n")
	}
	return b.String()
}

// cells is how many columns of a terminal a text takes.
func cells(s string) int {
	n := 0
	for _, r := range s {
		n++
		switch width.LookupRune(r).Kind() {
		case width.EastAsianWide, width.EastAsianFullwidth:
			n++
		}
	}
	return n
}

// cut shortens a text to as many columns.
func cut(s string, most int) string {
	if cells(s) <= most {
		return s
	}
	runes := []rune(s)
	for len(runes) > 0 && cells(string(runes)) > most-1 {
		runes = runes[:len(runes)-1]
	}
	return string(runes) + "…"
}

//go:build unix && !aix && !solaris

package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cloudtrust/go-jobs/lock"
)

// A list has the flags of lock list.
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
		Long: `Shows the database, and for each lock the holder or the last holder, the run (the
time at which it was asked for, or its tick), and how long ago the lock was acquired or last
renewed. A lock that is held and has not been renewed for a long time belongs to a machine that is
gone. An age of "in 3h" means that a wrong clock wrote a lock time in the future.

With --watch, a terminal shows the table as it changes; elsewhere a new table is printed whenever a
lock is acquired, released, enabled or disabled. Ctrl-C ends it.`,
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
	f.BoolVarP(&c.watch, "watch", "w", false, "show changes as they happen")
	f.DurationVar(&c.interval, "interval", time.Second, "the `duration` between two looks of --watch")
	return cmd
}

func (c *list) run() error {
	if c.interval <= 0 {
		return usagef("--interval %v: it must be more than 0", c.interval)
	}
	first, cancel := within(context.Background(), callTimeout)
	defer cancel()
	l, done, err := c.connect(first, c.options())
	if err != nil {
		return err
	}
	defer done()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, cancel)()
	all, err := c.look(first, l)
	if err != nil {
		return err
	}
	onTerminal := c.watch && !c.json && columns(os.Stdout) > 0
	var shown []entry
	for {
		var unread error
		switch {
		case err != nil && ctx.Err() == nil: // it may come back
			c.says.warn((&failure{exitDatabase, err}).words() + "; looking again")
		case err == nil && onTerminal:
			// One write doesn't flicker: it starts at the top, and deletes what was below.
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
		looking, looked := within(ctx, callTimeout)
		all, err = c.look(looking, l)
		looked()
	}
}

// look reads the locks.
func (c *list) look(ctx context.Context, l *lock.Lock) ([]entry, error) {
	all, err := l.List(ctx)
	entries := []entry{} // not null, in JSON
	for _, s := range all {
		if c.component == "" || c.component == s.ComponentName {
			entries = append(entries, entryOf(s))
		}
	}
	return entries, explain(ctx, judge(err))
}

func (c *list) format(all []entry) string {
	if c.json {
		return jsonLine(all)
	}
	limit := tableWidth
	if n := columns(os.Stdout); n > 0 {
		limit = min(limit, n)
	}
	where := cut(databaseTitle+c.says.database(), limit)
	return where + "\n" + table(all, limit, colored(os.Stdout))
}

// databaseTitle begins the line that names the database.
const databaseTitle = "DATABASE   "

// top returns as much of a table as fits on a screen, with the cursor in the line below.
func top(table string, rows int) string {
	lines := strings.SplitAfter(strings.TrimSuffix(table, "\n"), "\n")
	if room := max(rows-1, 3); len(lines) > room {
		return strings.Join(lines[:room-1], "") + fmt.Sprintf("… and %d more\n", len(lines)-room+1)
	}
	return table
}

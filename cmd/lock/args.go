//go:build unix && !aix && !solaris

package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloudtrust/go-jobs/lock"
)

// noneEmpty refuses empty flags. They come from a variable that is not set or a command that
// failed, and to continue without a tick would run the job everywhere.
func noneEmpty(cmd *cobra.Command) error {
	for _, name := range []string{"db", "table", "schema", "component", "component-id", "job",
		"job-id", "tick", "holder", "run"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && f.Value.String() == "" {
			return usagef("--%s is empty: give it a value, or leave it out", name)
		}
	}
	return nil
}

// noArgs is for commands with flags only.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %s: %s takes only flags", echo(args[0]), cmd.CommandPath())
	}
	return nil
}

// oneJob is for a command about a job.
func oneJob(_ *cobra.Command, args []string) error {
	switch {
	case len(args) == 0 || args[0] == "":
		return errors.New("the name of the job is missing")
	case len(args) > 1:
		return fmt.Errorf("name one job, not %d", len(args))
	}
	return nil
}

// echo quotes an unexpected argument, unless it looks like the address of a database.
func echo(arg string) string {
	if strings.ContainsAny(arg, "@=") || strings.Contains(arg, ":/") ||
		strings.Count(arg, ":") == 1 {
		return "(the address of a database? It belongs to --db)"
	}
	return strconv.Quote(arg)
}

// componentFlag adds --component.
func componentFlag(cmd *cobra.Command, component *string) {
	cmd.Flags().StringVar(component, "component", cmp.Or(os.Getenv("LOCK_COMPONENT"), "default"),
		"the `name` of the component that the job belongs to ($LOCK_COMPONENT)")
}

// duration parses a flag that is a duration or forever.
func duration(flag, s string) (time.Duration, error) {
	if s == "forever" {
		return lock.Forever, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, usagef("--%s %s: it must be a duration like 10m, or forever", flag, echo(s))
	}
	return d, nil
}

// tickForms are the forms of --tick, with the precision of each. All but the first are in UTC.
var tickForms = []struct {
	layout    string
	precision time.Duration
}{
	{time.RFC3339, time.Second},
	{"2006-01-02", 24 * time.Hour},
	{"2006-01-02T15", time.Hour},
	{"2006-01-02T15:04", time.Minute},
	{"2006-01-02T15:04Z", time.Minute},
}

// parseTick parses --tick. A tick may be ahead of the database's clock by its precision: dates
// begin at different times in different time zones.
func parseTick(s string) (tick time.Time, precision time.Duration, err error) {
	for _, form := range tickForms {
		if t, err := time.Parse(form.layout, s); err == nil && t.Nanosecond() == 0 {
			return t.UTC(), form.precision, nil
		}
	}
	return tick, 0, usagef("--tick %s: it must be a date or a time: 2026-11-25, 2026-11-25T03, "+
		"2026-11-25T03:15, or 2026-11-25T03:15:00+01:00", strconv.Quote(s))
}

func fixed(words ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

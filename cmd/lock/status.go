//go:build unix && !aix && !solaris

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cloudtrust/go-jobs/lock"
)

func (a *app) statusCommand() *cobra.Command {
	var (
		component string
		asJSON    bool
	)
	cmd := &cobra.Command{
		Use:   "status JOB [flags]",
		Short: "show the lock of a job",
		Long: `Shows whether the lock of a job is free or held, the holder or the last holder, the
time at which the run was asked for or its tick, when the lock was acquired or last renewed, whether
the job is disabled, and the database. A job without a row is free.`,
		Example: `lock status nightly-backup
lock status nightly-backup --component shop --json`,
		Args: oneJob,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.ask(func(ctx context.Context, l *lock.Lock) error {
				s, err := l.Status(ctx, component, args[0])
				if err != nil {
					return err
				}
				words := statusWords(entryOf(s), a.says.database())
				if asJSON {
					words = jsonLine(entryOf(s))
				}
				_, err = fmt.Fprint(a.out, words)
				return fail(exitInternal, err)
			})
		},
	}
	cmd.Annotations = exitStatuses(exitUsage, exitDatabase, exitInternal)
	componentFlag(cmd, &component)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.ValidArgsFunction = a.completeJobs(&component)
	return cmd
}

func statusWords(e entry, database string) string {
	state, _ := e.state()
	words := fmt.Sprintf("%s: %s\n", jobWords(e.Component, e.Job), state)
	if h := e.who(); h == nil {
		words += "last      nobody yet\n"
	} else {
		title := "holder"
		if !e.Held {
			title = "last"
		}
		words += fmt.Sprintf("%-8s  %s\nrun       %s\n", title, visible(h.ComponentID),
			visible(h.JobID))
		switch {
		case h.tick():
			words += fmt.Sprintf("tick      %s\n", h.run())
		case h.Started != nil:
			age := h.age() + h.LockTime.Sub(*h.Started)
			words += fmt.Sprintf("begun     %s, %s\n", h.run(), agoWords(age))
		}
		words += fmt.Sprintf("renewed   %s, %s (or acquired)\n", timeWords(h.LockTime),
			agoWords(h.age()))
	}
	return words + "database  " + database + "\n"
}

// switchCommand returns lock enable or lock disable.
func (a *app) switchCommand(on bool) *cobra.Command {
	var component string
	cmd := &cobra.Command{
		Use:   "enable JOB [flags]",
		Short: "allow a job to be run again",
		Long:  `Undoes "lock disable". A job that is enabled is not changed.`,
		Example: `lock enable nightly-backup
lock enable nightly-backup --component shop`,
		Args: oneJob,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.ask(func(ctx context.Context, l *lock.Lock) error {
				set, words := l.DisableContext, "disabled"
				if on {
					set, words = l.EnableContext, "enabled"
				}
				if err := set(ctx, component, args[0]); err != nil {
					return err
				}
				name := jobWords(component, args[0])
				s, err := l.Status(ctx, component, args[0])
				if err == nil && entryOf(s).who() == nil {
					a.says.warn(fmt.Sprintf("%s: %s, but no such job has been run yet "+
						"(lock list shows the jobs)", name, words))
					return nil
				}
				a.says.info(fmt.Sprintf("%s: %s", name, words))
				return nil
			})
		},
	}
	if !on {
		cmd.Use = "disable JOB [flags]"
		cmd.Short = "keep a job from being run"
		cmd.Long = fmt.Sprintf(`Until "lock enable", every "lock run" of the job is refused, with
exit status %d, on all machines. A run that has begun goes on, unless it was started with
--stop-when-disabled.`, exitDisabled)
		cmd.Example = `lock disable nightly-backup
lock disable nightly-backup --component shop`
	}
	cmd.Annotations = exitStatuses(exitUsage, exitDatabase)
	componentFlag(cmd, &component)
	cmd.ValidArgsFunction = a.completeJobs(&component)
	return cmd
}

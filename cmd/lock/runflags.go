//go:build unix && !aix && !solaris

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func (a *app) runCommand() *cobra.Command {
	r := &run{app: a}
	cmd := &cobra.Command{
		Use:   "run --job NAME [flags] [--] COMMAND [ARGUMENT...]",
		Short: "run a command while holding the lock of a job",
		Long: `Runs the command if nobody else holds the lock of the job, and holds the lock while
the command runs.

The command gets the standard input, output and error of lock run. lock run exits with the status of
the command, or with 128 + N if signal N ended it.

If a machine dies, another can acquire the lock after --ttl. State the same --ttl on all machines:
the challenger's counts. With --ttl forever a lock never expires, and somebody must release that of
a dead machine ("lock release").

If the lock is lost, because the database could not be reached in time or somebody released it by
force, the command is ended before another can acquire the lock: with TERM, and with KILL after
--grace. Processes that the command leaves when it ends are ended in the same way, except for
daemons, which have a session of their own. At a terminal, the command stays in the process group of
lock run, so that it can read from the terminal and gets Ctrl-C and Ctrl-Z; otherwise it gets its
own group.

If lock run itself is killed, or stopped until the lock runs out, a second process, "lock guard",
kills the command. A process of another user, as after sudo, can't be ended; lock run says so, and
keeps the lock until that process has gone. A lock that is lost, or whose lock run was killed,
expires after its TTL.

With --tick, several machines run a scheduled job once, even if their clocks differ: a machine is
refused if this tick, or a later one, has been run already. A tick is a date or a time, in UTC
unless it has a zone. It may be ahead of the database's clock by its own precision: 2026-11-25 by a
day, 2026-11-25T03 by an hour, 2026-11-25T03:15 by a minute, and 2026-11-25T03:15:00Z by a second. A
tick counts as run even if its command failed, but not if the command could not be started or the
machine died.`,
		Example: `# In the crontab of all five servers: one of them makes the backup.
15 2 * * *  lock run --job nightly-backup --tick "$(date -u +\%F)" --if-held skip -- /opt/backup.sh

# Deploy after whoever else is deploying, but wait ten minutes at most.
lock run --job deploy --wait 10m --grace 1m --ttl 5m -- ./deploy.sh

# One worker in the fleet; the other machines stand by.
while :; do lock run --job outbox --wait forever --ttl 30s -- ./drain; sleep 1; done`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("there is no command to run")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.run(args, cmd.Flags().Changed("grace"))
		},
	}
	cmd.Annotations = exitStatuses(exitUsage, exitDatabase, exitInternal, exitHeld, exitDisabled,
		exitRun, exitLost, exitAhead, exitCannot, exitNotFound, exitSignal)
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows the command is the command's
	f.StringVar(&r.job, "job", "", "the `name` of the job (required)")
	componentFlag(cmd, &r.component)
	f.StringVar(&r.ttl, "ttl", usualTTL.String(),
		"for what `duration` a dead machine keeps the lock; a live one renews it. At least 1s, "+
			"or forever")
	f.StringVar(&r.wait, "wait", "0",
		"how long to wait for the lock: a `duration` like 10m, or forever")
	f.DurationVar(&r.poll, "poll", 0, "the `interval` between two looks while waiting, which "+
		"alone find a release (default 1s)")
	f.StringVar(&r.ifHeld, "if-held", "fail", "`what` to do if another holds the lock, or the tick "+
		"has been run: fail, or skip, which exits 0 and prints nothing")
	f.StringVar(&r.tick, "tick", "",
		"the scheduled `time`, such as 2026-11-25, which is run once")
	f.DurationVar(&r.grace, "grace", usualGrace,
		"the `duration` from TERM to KILL if the lock is lost; at most half of --ttl, less half a "+
			"second")
	f.Lookup("grace").DefValue = "10s, or a quarter of --ttl if that is shorter"
	f.BoolVar(&r.stopWhenDisabled, "stop-when-disabled", false,
		"end the command when the job is disabled; otherwise a run that has begun goes on")
	f.StringVar(&r.componentID, "component-id", "",
		"the `ID` of the holder (default: the host name, the process ID and something random)")
	f.StringVar(&r.jobID, "job-id", "", "the `ID` of this run (default: the time and something"+
		" random). The two IDs together must never be used twice at once")
	cmd.MarkFlagsMutuallyExclusive("tick", "job-id")
	cmd.RegisterFlagCompletionFunc("if-held", fixed("fail", "skip"))
	cmd.RegisterFlagCompletionFunc("job",
		func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
			return a.completeJobs(&r.component)(cmd, nil, begun)
		})
	return cmd
}

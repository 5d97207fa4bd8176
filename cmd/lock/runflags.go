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
		Long: `Runs the command if nobody else holds the lock of the job, and keeps the lock while
the command runs, however long that is. The lock is released when the command has ended.

The command has our standard input, output and error. Its exit status becomes ours; it is 128 and
the number of the signal if a signal has ended it.

When a machine dies, another can get the lock after --ttl. State the same --ttl on all machines: it
is the challenger's that counts. With --ttl forever a lock never expires, and somebody has to
release that of a dead machine ("lock release").

When the lock is lost, because the database could not be reached in time or somebody has released
it by force, the command is ended before another can get the lock: with TERM, and with KILL after
--grace. The same becomes of what the command has left running when it ends, except for daemons,
which have a session of their own. Where there is a terminal, a command stays in the process group
of lock run, so that it can read from the terminal and gets its Ctrl-C and Ctrl-Z; otherwise it gets
a group of its own.

When lock run itself is killed, or stopped for so long that the lock runs out, a second process,
"lock guard", kills the command. A process that is another user's, as after sudo, can't be ended:
this is said at once. lock run keeps the lock until that process has gone, or the lock's TTL has
passed if it is lost; a guard can't keep it, so the lock of a lock run that was killed expires.

With --tick, a run that a schedule asks for on several machines is made once, even if their clocks
differ: a machine that comes when the tick, or a later one, has been run already is refused. A tick
is a date or a time, in UTC unless it says otherwise; it may lie ahead of the database's clock by
its own precision: 2026-11-25 by a day, 2026-11-25T03 by an hour, 2026-11-25T03:15 by a minute, and
2026-11-25T03:15:00Z by a second. A run whose command has failed has been made. One whose command
could not be started, or whose machine died, has not.`,
		Example: `# In the crontab of all five servers: one of them makes the backup.
15 2 * * *  lock run --job nightly-backup --tick "$(date -u +\%F)" --if-held skip -- /opt/backup.sh

# Deploy after whoever else is deploying, but don't wait longer than ten minutes.
lock run --job deploy --wait 10m --grace 1m --ttl 5m -- ./deploy.sh

# One worker, wherever it runs; the other machines stand by.
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
		"for what `duration` a dead machine keeps the lock; that of one that is alive is "+
			"renewed. At least 1s, or forever")
	f.StringVar(&r.wait, "wait", "0",
		"how long to wait for the lock: a `duration` like 10m, or forever")
	f.DurationVar(&r.poll, "poll", 0, "at what `interval` to look at a lock that is waited for"+
		" (default 1s); nothing else tells of a release")
	f.StringVar(&r.ifHeld, "if-held", "fail", "`what` happens if another holds the lock, or the"+
		" tick has been run: fail, or skip, which exits 0 and says nothing")
	f.StringVar(&r.tick, "tick", "",
		"the `time` of a schedule, such as 2026-11-25, that is to be run for once")
	f.DurationVar(&r.grace, "grace", usualGrace,
		"when the lock is lost, the `duration` from TERM to KILL; at most half of --ttl, less "+
			"half a second")
	f.Lookup("grace").DefValue = "10s, or a quarter of --ttl if that is shorter"
	f.BoolVar(&r.stopWhenDisabled, "stop-when-disabled", false,
		"end the command when the job is disabled; otherwise a run that has begun goes on")
	f.StringVar(&r.componentID, "component-id", "",
		"the `ID` by which the others see us (default: the host's name, the process, and "+
			"something random)")
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

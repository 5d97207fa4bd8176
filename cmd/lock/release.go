//go:build unix && !aix && !solaris

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloudtrust/go-jobs/lock"
)

// A release has the flags of lock release.
type release struct {
	*app
	component, holderID, runID, ttl string
	force                           bool
}

func (a *app) releaseCommand() *cobra.Command {
	r := &release{app: a}
	cmd := &cobra.Command{
		Use:   "release JOB --holder ID [flags]",
		Short: "release the lock of a machine that is gone",
		Long: `Releases the lock of a dead holder, so that nobody has to wait until it expires. It is
released only if --holder, as "lock status" shows it, still holds it.

A holder that acquired or renewed its lock within its TTL is probably alive, and is released only
with --force. The table doesn't have the TTL: say --ttl if it is not a minute. A holder whose lock
never expires renews it every ten seconds. A lock time in the future also needs --force.

A live holder is not stopped at once: until its lock run notices, at its next renewal, and ends its
command, both run. To stop a job, see "lock disable" and --stop-when-disabled.`,
		Example: `lock status nightly-backup
lock release nightly-backup --holder db3/4711/QX7RS2LB`,
		Args: oneJob,
		RunE: func(_ *cobra.Command, args []string) error {
			if r.holderID == "" {
				return usagef("--holder is missing: lock status shows the holder")
			}
			ttl, err := duration("ttl", r.ttl)
			if err != nil {
				return err
			}
			return a.ask(func(ctx context.Context, l *lock.Lock) error {
				return r.release(ctx, l, args[0], ttl)
			})
		},
	}
	cmd.Annotations = exitStatuses(exitUsage, exitDatabase, exitHeld)
	componentFlag(cmd, &r.component)
	f := cmd.Flags()
	f.StringVar(&r.holderID, "holder", "",
		"the `ID` of the holder to release (required)")
	f.StringVar(&r.runID, "run", "", "also compare the `ID` of its run")
	f.StringVar(&r.ttl, "ttl", usualTTL.String(), "the TTL of the holder: a `duration`, or forever")
	f.BoolVar(&r.force, "force", false, "release a holder even if it seems to be alive")
	cmd.ValidArgsFunction = a.completeJobs(&r.component)
	return cmd
}

func (r *release) release(ctx context.Context, l *lock.Lock, job string, ttl time.Duration) error {
	s, err := l.Status(ctx, r.component, job)
	if err != nil {
		return err
	}
	if ttl == lock.Forever {
		ttl = usualTTL
	}
	name, seen := jobWords(r.component, job), s.Holder
	switch {
	case !s.Locked:
		r.says.warn(fmt.Sprintf("%s: nobody holds it", name))
		return nil
	case seen.ComponentID != r.holderID || r.runID != "" && seen.JobID != r.runID:
		return fail(exitHeld, fmt.Errorf("refused: %s is held by %s", name, holderWords(seen)))
	case r.force:
		seen.LockTime = time.Time{} // even if it renews meanwhile
	case seen.Age < ttl:
		return fail(exitHeld, fmt.Errorf("refused: %s, the holder of %s, acquired or renewed it "+
			"%s, within its TTL of %v, and is probably alive; --force releases it anyway",
			holderWords(seen), name, agoWords(seen.Age), ttl))
	}
	// The holder may renew the lock or change here; the statement compares again.
	if err := l.ForceRelease(ctx, r.component, job, seen); err != nil {
		return err
	}
	r.says.warn(fmt.Sprintf("%s: released; it was held by %s", name, holderWords(s.Holder)))
	return nil
}

func (a *app) forgetCommand() *cobra.Command {
	var component string
	cmd := &cobra.Command{
		Use:   "forget JOB [flags]",
		Short: "remove the row of a job that nobody holds",
		Long: `Removes the row of a job, with its last tick, its last holder and its disabled flag,
after a wrong tick or when the job no longer exists. It refuses a lock that somebody holds: see
"lock release".`,
		Example: `lock forget nightly-backup
lock forget nightly-backup --component shop`,
		Args: oneJob,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.ask(func(ctx context.Context, l *lock.Lock) error {
				s, err := l.Status(ctx, component, args[0])
				if err != nil {
					return err
				}
				if err := l.Delete(ctx, component, args[0]); err != nil {
					return err
				}
				words := jobWords(component, args[0]) + ": forgotten"
				if entryOf(s).who() == nil {
					words += "; nobody has ever held it"
				} else {
					words += "; the last to hold it was " + holderWords(s.Holder)
				}
				if !s.Enabled {
					words += "; it was disabled, and is enabled now"
				}
				a.says.warn(words)
				return nil
			})
		},
	}
	cmd.Annotations = exitStatuses(exitUsage, exitDatabase, exitHeld)
	componentFlag(cmd, &component)
	cmd.ValidArgsFunction = a.completeJobs(&component)
	return cmd
}

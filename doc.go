// Package lock runs a job on one instance of a fleet at a time. It uses the database that the
// fleet already has: CockroachDB, PostgreSQL, or SQLite on one machine.
//
// The instances of a component compete for its jobs. They share a component name, and each has a
// component ID; a job has a name, and each run of it a job ID. A lock is a row of the table
// locks, which [New] creates. The row names the holder, the time of the last acquisition or
// renewal, and whether the job is enabled.
//
// # Which call do I want?
//
// All instances fire the ticks of a schedule, and one of them runs each tick:
//
//	err := l.Run(ctx, lock.Job{ComponentName: "shop", JobName: "report", Tick: tick}, report)
//
// One worker runs in the fleet, and the other instances stand by:
//
//	for ctx.Err() == nil {
//		job := lock.Job{ComponentName: "shop", JobName: "outbox", Wait: lock.Forever}
//		err := l.Run(ctx, job, drain)
//		log.Print("outbox: ", err) // and begin again
//		time.Sleep(time.Second)
//	}
//
// A leader uses the same loop, with a function that starts the leader's work, waits for ctx.Done
// and stops the work. [LeaseFrom] returns the lease, with the token of the term.
//
// One instance migrates at start-up, while the others wait:
//
//	job := lock.Job{ComponentName: "shop", JobName: "migrate", Wait: 10 * time.Minute}
//	err := l.Run(ctx, job, migrate)
//
// A job writes to the same database, and must not write after it has lost the lock. It calls
// [Lease.Check] in its transaction:
//
//	job := lock.Job{ComponentName: "shop", JobName: "payout"}
//	err := l.Run(ctx, job, func(ctx context.Context) error {
//		tx, err := db.BeginTx(ctx, nil)
//		if err != nil {
//			return err
//		}
//		defer tx.Rollback()
//		if err := payOut(ctx, tx); err != nil {
//			return err
//		}
//		if err := lock.LeaseFrom(ctx).Check(ctx, tx); err != nil {
//			return err
//		}
//		return tx.Commit()
//	})
//
// [Lock.Lock] and [Lock.Unlock] are for jobs with a known longest duration, and for programs
// written for the 2018 package. They do nothing in the background:
//
//	if err := l.Lock("shop", instanceID, "invoices", runID, 10*time.Minute); err != nil {
//		return err // another holds the lock, the job is disabled, or the database is away
//	}
//	defer l.Unlock("shop", instanceID, "invoices", runID)
//
// [Lock.List], [Lock.Status], [Lock.Disable], [Lock.Enable], [Lock.ForceRelease] and
// [Lock.CheckTable] are for operating.
//
// # The life of a lock
//
//	                 Lock                               Lock by another, once
//	+----------+ ---------------> +-----------------+ --+ the longest duration
//	| UNLOCKED |                  | LOCKED by one   |   | is over: takeover
//	+----------+ <--------------- +-----------------+ <-+
//	              Unlock by it
//
// A holder that dies leaves its lock behind. The lock expires when the challenger's TTL has
// passed since it was acquired or last renewed. Then one challenger takes it over. A lock never
// expires for a challenger with the TTL [Forever], or 0 in a call of [Lock.Lock]. [Lock.Disable]
// keeps everybody from acquiring a lock until [Lock.Enable]; a holder keeps its lock.
//
// The database decides in one atomic step, by its own clock. So one of any number of challengers
// wins, and the clocks of the instances don't matter.
//
// # Leases
//
// [Lock.Acquire] and [Lock.Run] keep a lock by renewing it every third of [Job.TTL]. The TTL
// determines how soon a dead holder is replaced, not how long a run may take.
//
//	            acquired, or last renewed: asked for                      the row expires
//	            |                                                         |
//	holder      +-- trusts its lease -------------------------+ (Margin)  |
//	            |        + renew   + or try again             + context ends, ErrLost
//	others      +-- refused ----------------------------------------------+-- one takes over
//
// The holder counts from before it sent the statement, on its monotonic clock; the database
// counts from when it executed the statement. So the holder never trusts its lease for longer
// than the others respect it, even if a reply is slow, the database is away or the process was
// stopped. Margin must cover what this does not count: the time for which a machine was
// suspended, if its monotonic clock stood still, and the difference of the servers' clocks, if
// another server decides after a failover or on another node of a CockroachDB cluster.
//
// A lease is renewed and released by its term: its IDs, and the lock time that it wrote last. A
// late renewal never takes the lock back, and a release never frees the lock of another holder,
// even of one with the same IDs.
//
// # What a lock can't do
//
// An expired lock can't stop a holder that is still at work: it only lets another begin. A lost
// lease ends the context of its job, but the job must heed it. If a late write would do harm,
// fence it: by [Lease.Check] in the same database; elsewhere by [Lease.Token], if the other side
// refuses a token smaller than one that it has seen.
//
// # Errors
//
// A refusal is an *[ErrUnauthorised], an *[ErrDisabled] or an *[ErrAlreadyRun], never wrapped;
// all three match [ErrRefused]. Every other error names the call, the component and the job, and
// wraps its cause. If the connection broke, or the context ended, and the outcome is unknown, the
// error also matches [ErrOutcomeUnknown]: repeat the call with the same IDs to settle it. The
// error of a lost lease matches [ErrLost].
package lock

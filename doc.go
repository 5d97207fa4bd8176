// Package lock makes sure that a job runs on one instance at a time, across a fleet of instances,
// with the database that the fleet already has: CockroachDB, PostgreSQL, or SQLite if there is
// one machine.
//
// Instances of one component (one component name, a component ID each) compete for a job (one job
// name, a job ID for each run). A lock is a row of the table locks, which [New] creates: who
// holds it, when it was acquired or last renewed, and whether the job is enabled.
//
// # Which call do I want?
//
// A tick of a schedule that all instances fire, and one is to run:
//
//	err := l.Run(ctx, lock.Job{ComponentName: "shop", JobName: "report", Tick: tick}, report)
//
// A worker of which there is one, wherever it runs; the others stand by:
//
//	for ctx.Err() == nil {
//		job := lock.Job{ComponentName: "shop", JobName: "outbox", Wait: lock.Forever}
//		err := l.Run(ctx, job, drain)
//		log.Print("outbox: ", err) // and begin again
//		time.Sleep(time.Second)
//	}
//
// A leader, which does more while it leads: the same with a function that begins what a leader
// does, waits for ctx.Done, and ends it. [LeaseFrom] returns the lease, with the token of its
// term.
//
// A migration at start-up, by one instance while the others wait for it:
//
//	job := lock.Job{ComponentName: "shop", JobName: "migrate", Wait: 10 * time.Minute}
//	err := l.Run(ctx, job, migrate)
//
// A job that writes to the same database, and must not write if it has lost the lock:
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
// A job whose longest run you know, with nothing in the background, or a program written for the
// package of 2018: [Lock.Lock] and [Lock.Unlock].
//
//	if err := l.Lock("shop", instanceID, "invoices", runID, 10*time.Minute); err != nil {
//		return err // another holds the lock, the job is disabled, or the database is away
//	}
//	defer l.Unlock("shop", instanceID, "invoices", runID)
//
// For the one on call: [Lock.List], [Lock.Status], [Lock.Disable], [Lock.Enable],
// [Lock.ForceRelease], [Lock.CheckTable].
//
// # The life of a lock
//
//	                 Lock                               Lock by another, once
//	+----------+ ---------------> +-----------------+ --+ the longest duration
//	| UNLOCKED |                  | LOCKED by one   |   | is over: takeover
//	+----------+ <--------------- +-----------------+ <-+
//	              Unlock by it
//
// A holder that dies leaves its lock behind. The lock expires when the TTL that the challenger
// states has passed since it was acquired or renewed; then one challenger takes it over. A lock
// whose TTL is [Forever], or 0 in a call of [Lock.Lock], is never taken over. [Lock.Disable]
// keeps everybody from acquiring a lock until [Lock.Enable]; its holder goes on holding it.
//
// The database makes every decision in one atomic step and by its own clock, so any number of
// challengers have one winner, and the clocks of the instances don't matter.
//
// # Leases
//
// [Lock.Acquire] and [Lock.Run] keep a lock by renewing it every third of [Job.TTL]. So the TTL
// says how soon a dead holder is replaced, and not how long a run may take.
//
//	            acquired, or last renewed: asked for                      the row expires
//	            |                                                         |
//	holder      +-- trusts its lease -------------------------+ (Margin)  |
//	            |        + renew   + or try again             + context ends, ErrLost
//	others      +-- refused ----------------------------------------------+-- one takes over
//
// The holder counts its time from before the statement was sent, on its monotonic clock; the
// database counts from when it carried the statement out. So a slow reply, a database that is
// away or a process that was stopped never let the holder trust its lease for longer than the
// others respect it. Two things are not counted: the time for which a whole machine is suspended,
// if its monotonic clock stands still; and the difference of the servers' clocks if another
// server decides, after a failover or on another node of a CockroachDB cluster. Margin has to
// cover them.
//
// A lease is renewed and released by its term: the IDs and the lock time that it wrote last. A
// renewal that comes late never takes the lock back, and a release never frees the lock of
// another, not even of one with the same IDs.
//
// # What a lock can't do
//
// A lock that expires can't stop a holder that is still at work: it only lets another begin. A
// lease that is lost ends the context of its job; whether the job heeds it in time is up to the
// job. If a late write would do harm, fence it: by [Lease.Check] in the same database, and by
// [Lease.Token] elsewhere, if that refuses a token smaller than one that it has seen.
//
// # Errors
//
// A refusal is an *[ErrUnauthorised], an *[ErrDisabled] or an *[ErrAlreadyRun], never wrapped;
// all three match [ErrRefused]. Every other error names the call, the component and the job, and
// wraps its cause. If a broken connection or the end of a context leaves open what the database
// did, the error also matches [ErrOutcomeUnknown]: the same call with the same IDs, repeated,
// settles it. The error of a lost lease matches [ErrLost].
package lock

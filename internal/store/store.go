// Package store keeps locks: in a table of a database, or in memory.
package store

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"time"
)

// A Store keeps one record for each lock. Each call is one atomic step on one record.
// A Store is safe for concurrent use.
type Store interface {
	// Acquire locks the record for the caller if the conditions allow it.
	Acquire(context.Context, Request, Conditions) (Result, error)
	// Renew moves the lock time of the caller's term to now, unless the term has expired.
	Renew(context.Context, Request, Term) (Result, error)
	// Release unlocks the record of the caller's term and sets its job ID to run.
	Release(ctx context.Context, r Request, t Term, run string) (Result, error)
	// Enable enables or disables the job.
	Enable(ctx context.Context, r Request, enabled bool) error
	// Delete removes a record that nobody holds.
	Delete(context.Context, Request) (Result, error)
	// Get returns the record.
	Get(context.Context, Request) (Record, error)
	// List returns all records, ordered by name.
	List(context.Context, Request) iter.Seq2[Record, error]
	// Fence returns the record and locks it until tx ends.
	Fence(ctx context.Context, tx Transaction, r Request) (Record, error)
	// Problems returns what is wrong with the store, and what to do about it.
	Problems(context.Context, Request) ([]string, error)
}

// Transaction is the caller's transaction.
type Transaction interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// A Request names the operation, the lock and the caller.
type Request struct {
	Operation     string
	ComponentName string
	ComponentID   string
	JobName       string
	JobID         string
}

// Wrap returns err with the names of the operation and the lock.
func (r Request) Wrap(err error) error {
	if err == nil {
		return nil
	}
	if r.ComponentName == "" && r.JobName == "" {
		return fmt.Errorf("lock: %s: %w", r.Operation, err)
	}
	return fmt.Errorf("lock: %s %s: %w", r.Operation, r.Lock(), err)
}

// Lock returns the name of the lock, for messages.
func (r Request) Lock() string {
	return fmt.Sprintf("job %s of component %s", Quote(r.JobName), Quote(r.ComponentName))
}

// Caller returns the IDs of the caller, for messages.
func (r Request) Caller() string {
	return fmt.Sprintf("component ID %s, job ID %s", Quote(r.ComponentID), Quote(r.JobID))
}

// Quote quotes s, and cuts it off if it is long.
func Quote(s string) string {
	const most = 200
	if len(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q… (%d bytes)", s[:most], len(s))
}

// Conditions say when a lock may be acquired.
type Conditions struct {
	TTL      time.Duration // how long after its lock time another's lock has expired; 0: never
	Tick     bool          // the request's JobID is the name of a tick
	Earliest time.Time     // Tick: the time before which the tick is refused
	Spacing  time.Duration // how long after its lock time a free lock is refused; 0: never
}

// A Term identifies a holder's lock by its lock time, which renewals move. The zero Term matches
// any.
type Term struct {
	First time.Time     // the lock time that was last confirmed
	Last  time.Time     // the latest to which renewals in doubt may have moved it; zero: no bound
	TTL   time.Duration // how far a renewal can move it; 0: no bound
}

// Widen returns the term after a renewal in doubt, which may have moved its lock time.
func (t Term) Widen() Term {
	if t.Last = t.First.Add(t.TTL); t.TTL == 0 {
		t.Last = time.Time{}
	}
	return t
}

// Holds reports whether the record is locked by the caller in the term.
func (t Term) Holds(r Request, rec Record) bool {
	return rec.HeldBy(r) && !rec.LockTime.Before(t.First) &&
		(t.Last.IsZero() || !rec.LockTime.After(t.Last))
}

// A Record is the row of one lock. A missing record reads like a new one.
type Record struct {
	ComponentName string // List only
	JobName       string // List only
	Exists        bool
	ComponentID   string
	JobID         string
	Enabled       bool
	Locked        bool
	LockTime      time.Time
	Now           time.Time // the time at which it was read, by the store's clock
}

// HeldBy reports whether the record is locked by the caller.
func (rec Record) HeldBy(r Request) bool {
	return rec.Locked && rec.ComponentID == r.ComponentID && rec.JobID == r.JobID
}

// Why an acquisition is refused.
const (
	Available = ""         // it is not refused
	Disabled  = "disabled" // the job is disabled
	Held      = "held"     // the holder's lock has not expired
	Already   = "already"  // the tick, or a later one, has been run, or Spacing has not passed
	Ahead     = "ahead"    // the tick is in the future
)

// A Result is the outcome of one step.
type Result struct {
	Done    bool      // the step has written
	Prev    Record    // the record before
	Written time.Time // Acquire, Renew: the lock time that was written
	Refusal string    // Acquire: why nothing was written
	Doubt   bool      // an attempt before the last may have taken effect
	Sent    time.Time // before the last attempt, on our clock; zero in memory
}

package lock

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// rows is where the locks are kept: a table of a database, or memory. Each call is one atomic step on one row, or, where it
// only reads, none. A reading says what it came to.
type rows interface {
	take(ctx context.Context, id identity, c claim) (reading, error)
	free(ctx context.Context, id identity, t term) (reading, error)
	renew(ctx context.Context, id identity, t term, longest time.Duration) (reading, error)
	set(ctx context.Context, id identity, enabled bool) error
	look(ctx context.Context, id identity) (reading, error)
	list(ctx context.Context) ([]Status, error)
}

// identity is which call it is, about what, and on whose behalf.
type identity struct {
	verb          string
	componentName string
	componentID   string
	jobName       string
	jobID         string
}

func (id identity) String() string {
	return fmt.Sprintf("job %s of component %s", short(id.jobName), short(id.componentName))
}

// args is the arguments with which every statement about a holder begins, and more.
func (id identity) args(more ...interface{}) []interface{} {
	return append([]interface{}{id.componentName, id.componentID, id.jobName, id.jobID}, more...)
}

// fail says of err which call it failed.
func (id identity) fail(err error) error {
	if id == (identity{verb: id.verb}) && id.verb == "List" {
		return fmt.Errorf("lock: List: %w", err)
	}
	return fmt.Errorf("lock: %s %s: %w", id.verb, id, err)
}

// A reading is a row as one step saw it, at the time now of the database's clock. A missing row and one full of NULLs read
// the same, as a row that nobody holds.
type reading struct {
	won         bool // the step has written; lockTime is what it wrote then
	componentID string
	jobID       string
	disabled    bool
	locked      bool
	lockTime    time.Time
	before      time.Time // the lock_time before the step
	now         time.Time
	cockroach   bool // it is a CockroachDB that answered

	from *Holder // whose expired lock was taken over, if one was
}

const unlocked = "UNLOCKED"

func (r *reading) heldBy(id identity) bool {
	return r.locked && r.componentID == id.componentID && r.jobID == id.jobID
}

// expired says whether a challenger who states that duration may take the lock over.
func (r *reading) expired(longest time.Duration) bool {
	return longest > 0 && r.now.After(r.lockTime.Add(longest))
}

func (r *reading) holder() Holder {
	return Holder{ComponentID: r.componentID, JobID: r.jobID, Since: r.lockTime, Age: r.now.Sub(r.lockTime)}
}

// A claim is on what terms a lock is to be taken.
type claim struct {
	longest time.Duration // 0: it never expires
	once    bool          // not if the row's job ID, of the same length, sorts after the caller's, or is the caller's and was unlocked
	spacing time.Duration // not before this has passed since the last lock_time
}

type verdict int

const (
	lost    verdict = iota // to another, in a race: nobody can be named before another look
	granted                // or held already, by the same IDs
	disabled
	held
	already // run
)

// judge says what a take came to.
func (c claim) judge(id identity, r reading) verdict {
	live := r.locked && !r.expired(c.longest)
	rival := c.once && len(r.jobID) == len(id.jobID)
	switch {
	case r.won:
		return granted
	case r.disabled:
		return disabled
	case live && r.heldBy(id):
		return granted
	case rival && (r.jobID > id.jobID || r.jobID == id.jobID && (live || !r.locked)):
		return already
	case live:
		return held
	case !r.locked && c.spacing > 0 && !r.lockTime.IsZero() && !r.now.After(r.lockTime.Add(c.spacing)):
		return already
	}
	return lost
}

// A term is a time for which one holder has had a lock: the lock_time lies in it. The zero term is any.
type term struct{ first, last time.Time }

func (t term) holds(id identity, r reading) bool {
	return r.heldBy(id) && (t == term{} || !r.lockTime.Before(t.first) && !r.lockTime.After(t.last))
}

// micros is a duration as the statements take it; none is NULL.
func micros(d time.Duration) interface{} {
	if d <= 0 {
		return nil
	}
	return strconv.FormatInt(d.Microseconds(), 10) + " microseconds"
}

func sinceEpoch(t time.Time) string { return strconv.FormatInt(t.UnixMicro(), 10) + " microseconds" }

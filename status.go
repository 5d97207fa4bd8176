package lock

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// Holder is the holder of a lock, or the last one.
type Holder struct {
	ComponentID string
	JobID       string
	LockTime    time.Time     // of the acquisition or last renewal, by the database's clock, in UTC
	Age         time.Duration // since LockTime, by the database's clock; below 0 in the future
}

func holderOf(rec store.Record) Holder {
	return Holder{ComponentID: rec.ComponentID, JobID: rec.JobID, LockTime: rec.LockTime,
		Age: rec.Now.Sub(rec.LockTime)}
}

// String returns the IDs and the lock time.
func (h Holder) String() string {
	return fmt.Sprintf("component ID %s, job ID %s, lock time %s", store.Quote(h.ComponentID),
		store.Quote(h.JobID), h.LockTime.Format(time.RFC3339Nano))
}

func (h Holder) holds() string {
	s := fmt.Sprintf("component ID %s, job ID %s holds it, acquired or renewed at %s",
		store.Quote(h.ComponentID), store.Quote(h.JobID), h.LockTime.Format(time.RFC3339Nano))
	if h.Age < 0 {
		s += fmt.Sprintf(", which is %v in the future", (-max(h.Age, -Forever)).Round(time.Millisecond))
	}
	return s
}

// Started returns the time at the beginning of the job ID: when the run was asked for, or its
// tick. It is zero if the job ID begins with no time. Unlike [Holder.LockTime], it isn't changed
// by renewals.
func (h Holder) Started() time.Time {
	if len(h.JobID) < len(store.TickLayout) {
		return time.Time{}
	}
	t, err := time.Parse(store.TickLayout, h.JobID[:len(store.TickLayout)])
	if err != nil {
		return time.Time{}
	}
	return t
}

// Status is the row of a lock.
type Status struct {
	ComponentName string
	JobName       string
	Enabled       bool
	Locked        bool
	// Holder is the holder or, if the lock isn't held, the last one. Its IDs are empty if nobody
	// has held the lock.
	Holder Holder
}

// Expired reports whether a challenger with that TTL could have taken the lock over when the
// database answered. It is false for a lock that isn't held, and for the TTLs 0 and [Forever].
func (s Status) Expired(ttl time.Duration) bool {
	return s.Locked && ttl > 0 && ttl != Forever && s.Holder.Age > ttl
}

func statusOf(rec store.Record) Status {
	return Status{ComponentName: rec.ComponentName, JobName: rec.JobName, Enabled: rec.Enabled,
		Locked: rec.Locked, Holder: holderOf(rec)}
}

// Status returns the row of a job's lock. A job without a row is enabled, and nobody holds its
// lock.
func (l *Lock) Status(ctx context.Context, componentName, jobName string) (Status, error) {
	r := store.Request{Operation: "Status", ComponentName: componentName, JobName: jobName}
	if err := l.begin(ctx, r); err != nil {
		return Status{}, err
	}
	rec, err := l.store.Get(ctx, r)
	if err != nil {
		return Status{}, err
	}
	rec.ComponentName, rec.JobName = componentName, jobName
	return statusOf(rec), nil
}

// List returns the rows of all locks, ordered by component name and job name. The Storage must
// also have QueryContext or Query, as *sql.DB and *sql.Tx have. For very many rows, use
// [Lock.All].
func (l *Lock) List(ctx context.Context) ([]Status, error) {
	var all []Status
	for s, err := range l.All(ctx) {
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// All iterates over the rows that [Lock.List] returns, without keeping them. It yields an error
// at most once, at the end. It uses a connection of its own while it runs.
func (l *Lock) All(ctx context.Context) iter.Seq2[Status, error] {
	return func(yield func(Status, error) bool) {
		r := store.Request{Operation: "List"}
		if err := l.begin(ctx, r); err != nil {
			yield(Status{}, err)
			return
		}
		for rec, err := range l.store.List(ctx, r) {
			if err != nil {
				yield(Status{}, err)
				return
			}
			if !yield(statusOf(rec), nil) {
				return
			}
		}
	}
}

// ForceRelease releases the lock of a dead holder, which a [Status] or an [ErrUnauthorised]
// named. It compares both IDs and the lock time; a zero lock time matches any. If the holder has
// renewed its lease since, or another holds the lock, ForceRelease changes nothing and returns an
// *[ErrUnauthorised]. If nobody holds the lock, it returns nil.
//
// It doesn't stop a live holder. A lease notices at its next renewal that it is lost.
func (l *Lock) ForceRelease(ctx context.Context, componentName, jobName string, seen Holder) error {
	r := store.Request{Operation: "ForceRelease", ComponentName: componentName,
		ComponentID: seen.ComponentID, JobName: jobName, JobID: seen.JobID}
	return l.release(ctx, r, store.Term{First: seen.LockTime, Last: seen.LockTime})
}

// Delete removes the row of a job that nobody holds, with the last tick and the disabled flag. If
// there is no row, it returns nil. If somebody holds the lock, it changes nothing and returns an
// *[ErrUnauthorised].
func (l *Lock) Delete(ctx context.Context, componentName, jobName string) error {
	r := store.Request{Operation: "Delete", ComponentName: componentName, JobName: jobName}
	if err := l.begin(ctx, r); err != nil {
		return err
	}
	start := time.Now()
	res, err := l.store.Delete(ctx, r)
	return l.freed(ctx, r, Event{Kind: Deleted}, start, res, err)
}

// CheckTable reports what is wrong with the table, the server or the session, and what to do. It
// checks the types of columns, the key, the precision of lock_time, row-level security, an
// encoding that is not UTF-8, a second table of the name on the search path, missing privileges,
// and an SQLite database that is private to a connection. The error joins all findings; it is nil
// if there are none. CheckTable only reads. The Storage must have QueryContext or Query.
func (l *Lock) CheckTable(ctx context.Context) error {
	r := store.Request{Operation: "CheckTable"}
	if err := l.begin(ctx, r); err != nil {
		return err
	}
	problems, err := l.store.Problems(ctx, r)
	if err != nil || len(problems) == 0 {
		return err
	}
	return r.Wrap(errors.New(strings.Join(problems, "\n")))
}

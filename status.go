package lock

import (
	"context"
	"time"
)

// Status is a row of the table: what is known of one lock.
type Status struct {
	ComponentName string
	JobName       string
	Enabled       bool
	Locked        bool
	// Holder is who holds the lock, or if it isn't locked, who held it last; its IDs are empty if nobody ever did.
	Holder Holder
	// Token is Holder.Since in microseconds since 1970. It is the fencing token of the holder, as long as that has not renewed its
	// lease: the token stays then, and Since moves.
	Token int64
}

func (s *Status) fill(r reading) {
	s.Enabled, s.Locked, s.Holder, s.Token = !r.disabled, r.locked, r.holder(), r.lockTime.UnixMicro()
}

// Expired says whether a challenger who states that longest duration could take the lock over, or could have when the
// database answered. It is false for 0, which means that the job has no longest duration, and for a lock that isn't held.
func (s Status) Expired(longest time.Duration) bool {
	return s.Locked && longest > 0 && s.Holder.Age > longest
}

// Status returns what is known of a job's lock. A job that has no row yet is enabled and nobody holds its lock.
func (l *Lock) Status(ctx context.Context, componentName, jobName string) (Status, error) {
	id := identity{verb: "Status", componentName: componentName, jobName: jobName}
	if err := l.begin(ctx, id); err != nil {
		return Status{}, err
	}
	r, err := l.rows.look(ctx, id)
	if err != nil {
		return Status{}, err
	}
	s := Status{ComponentName: componentName, JobName: jobName}
	s.fill(r)
	return s, nil
}

// List returns what is known of all locks, in the order of the components' and the jobs' names. The Storage must also have
// QueryContext or Query, as *sql.DB and *sql.Tx have.
func (l *Lock) List(ctx context.Context) ([]Status, error) {
	if err := l.begin(ctx, identity{verb: "List"}); err != nil {
		return nil, err
	}
	return l.rows.list(ctx)
}

// ForceRelease releases the lock of a holder that is dead, in its place: the one that was seen in a [Status] or in an
// [ErrUnauthorised]. If it is another run that holds the lock by now, ForceRelease changes nothing and returns an
// *[ErrUnauthorised] that names it; if nobody does, it returns nil.
//
// It doesn't stop a holder that is alive. If that keeps a lease, it learns from its next renewal that the lease is lost.
func (l *Lock) ForceRelease(ctx context.Context, componentName, jobName string, seen Holder) error {
	return l.unlock(ctx, identity{"ForceRelease", componentName, seen.ComponentID, jobName, seen.JobID})
}

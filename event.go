package lock

import (
	"context"
	"log/slog"
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// EventKind is the kind of an [Event].
type EventKind string

// The kinds of an [Event].
const (
	Acquired  EventKind = "acquired"   // the lock was granted, or held already by the same IDs
	TakenOver EventKind = "taken_over" // it was granted after the lock of Event.Holder had expired
	Refused   EventKind = "refused"    // Event.Err says why
	Renewed   EventKind = "renewed"
	Lost      EventKind = "lost"     // a lease; Event.Err says how
	Released  EventKind = "released" // by Unlock, ForceRelease or the release of a lease
	Enabled   EventKind = "enabled"
	Disabled  EventKind = "disabled"
	Deleted   EventKind = "deleted"
	Failed    EventKind = "failed" // neither done nor refused: Event.Err
)

// Event is the outcome of a call, or a change of a lease.
type Event struct {
	Kind EventKind
	// Operation is Lock, Unlock, Enable, Disable, Acquire, Renew, Release, GiveBack, ForceRelease
	// or Delete.
	Operation     string
	ComponentName string
	JobName       string
	ComponentID   string        // the caller's; "" for Enable, Disable and Delete
	JobID         string        // likewise
	Holder        Holder        // Refused: who holds or held the lock; TakenOver: who had it
	Token         int64         // the fencing token of the acquisition; 0 if there is none
	TTL           time.Duration // of Lock and of leases; 0: the lock never expires
	Took          time.Duration // how long the call took, retries included
	Held          time.Duration // Renewed, Lost, Released: since when a lease was held
	Err           error         // Refused, Lost, Failed
}

// Observers returns an observer that calls the given ones in turn. Nil ones are skipped.
func Observers(all ...func(context.Context, Event)) func(context.Context, Event) {
	return func(ctx context.Context, e Event) {
		for _, observe := range all {
			if observe != nil {
				observe(ctx, e)
			}
		}
	}
}

// tell calls the observer and the logger. No mutex may be held, since an observer may call
// anything.
func (l *Lock) tell(ctx context.Context, r store.Request, e Event) {
	e.Operation, e.ComponentName, e.JobName = r.Operation, r.ComponentName, r.JobName
	e.ComponentID, e.JobID = r.ComponentID, r.JobID
	if l.o.Observer != nil {
		l.o.Observer(ctx, e)
	}
	if l.o.Logger != nil {
		l.o.Logger.LogAttrs(ctx, e.level(), "lock "+string(e.Kind), e.attrs()...)
	}
}

func (e Event) level() slog.Level {
	switch e.Kind {
	case Lost:
		return slog.LevelError
	case TakenOver, Failed:
		return slog.LevelWarn
	case Refused, Renewed:
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// attrs returns the attributes for a logger.
func (e Event) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("operation", e.Operation),
		slog.String("component", e.ComponentName), slog.String("job", e.JobName)}
	add := func(known bool, a slog.Attr) {
		if known {
			attrs = append(attrs, a)
		}
	}
	add(e.ComponentID != "", slog.String("component_id", e.ComponentID))
	add(e.JobID != "", slog.String("job_id", e.JobID))
	add(e.Token != 0, slog.Int64("token", e.Token))
	add(e.Holder != Holder{}, slog.Group("holder", slog.String("component_id", e.Holder.ComponentID),
		slog.String("job_id", e.Holder.JobID), slog.Time("lock_time", e.Holder.LockTime)))
	add(true, slog.Duration("took", e.Took))
	add(e.Held != 0, slog.Duration("held", e.Held))
	add(e.Err != nil, slog.Any("error", e.Err))
	return attrs
}

package lock

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"
)

// Options are for [NewWith]. Their zero value is what [New] uses.
type Options struct {
	// Table is the name of the table; "" means locks. It is quoted, so it may have capitals, spaces and dots in it.
	Table string
	// Schema is the schema of the table, quoted like it; "" means that the database looks in its search path.
	Schema string
	// NoDDL keeps NewWith and the calls after it from creating the table.
	NoDDL bool
	// Retry says how often a call is tried that fails.
	Retry RetryPolicy
	// Logger, unless nil, is told what happens: lost leases as errors; takeovers and failures as warnings; acquisitions, releases,
	// Enable and Disable as information; refusals and renewals for debugging.
	Logger *slog.Logger
	// Observer, unless nil, is called at the end of each call and when a lease is renewed or lost, with the context of the call or
	// the lease, so that a span finds its parent; it may have ended. It is called from several goroutines at once, and the call
	// waits for it.
	Observer func(context.Context, Event)
}

// NewWith returns a Lock like [New], with options. The error says which of the options is wrong; it never is about the
// Storage.
func NewWith(s Storage, o Options) (*Lock, error) {
	if err := o.Retry.check(); err != nil {
		return nil, fmt.Errorf("lock: NewWith: %w", err)
	}
	table, err := o.table()
	if err != nil {
		return nil, fmt.Errorf("lock: NewWith: %w", err)
	}
	db := &database{s: s, table: table, noDDL: o.NoDDL, retry: o.Retry}
	db.connect()
	return &Lock{rows: db, o: o}, nil
}

// table returns the name as it stands in statements.
func (o Options) table() (string, error) {
	if o.Table == "" && o.Schema == "" {
		return "locks", nil
	}
	var parts []string
	for _, part := range []struct{ what, name string }{{"schema", o.Schema}, {"table", o.Table}} {
		switch name := part.name; {
		case name == "" && part.what == "schema":
		case name == "":
			parts = append(parts, "locks")
		case strings.IndexByte(name, 0) >= 0 || !utf8.ValidString(name):
			return "", fmt.Errorf("the name of the %s, %q, has a NUL or is not valid UTF-8", part.what, name)
		case len(name) > 63:
			return "", fmt.Errorf("the name of the %s, %q, is longer than 63 bytes, which PostgreSQL would cut off", part.what, name)
		default:
			parts = append(parts, `"`+strings.ReplaceAll(name, `"`, `""`)+`"`)
		}
	}
	return strings.Join(parts, "."), nil
}

// EventKind is what happened.
type EventKind string

// What an [Event] tells of.
const (
	Acquired  EventKind = "acquired"   // the lock was granted, or held already by the same IDs
	TakenOver EventKind = "taken over" // it was granted after the lock of Event.Holder had expired
	Refused   EventKind = "refused"    // Lock, Unlock, Acquire: Event.Err says why
	Renewed   EventKind = "renewed"
	Lost      EventKind = "lost"     // a lease; Event.Err says how
	Released  EventKind = "released" // by Unlock or the release of a lease
	Enabled   EventKind = "enabled"
	Disabled  EventKind = "disabled"
	Failed    EventKind = "failed" // neither done nor refused: Event.Err
)

// Event tells what a call has come to, or what has become of a lease.
type Event struct {
	Kind          EventKind
	Call          string // "Lock", "Unlock", "Enable", "Disable", "Acquire", "Renew", "Release", "ForceRelease"
	ComponentName string
	JobName       string
	ComponentID   string        // the caller's; "" for Enable and Disable
	JobID         string        // likewise
	Holder        Holder        // Refused: who holds or held the lock; TakenOver: who had it
	Token         int64         // the fencing token of the acquisition; 0 where there is none
	MaxDuration   time.Duration // of Lock and of leases: the longest duration that was stated; 0 for the other calls
	Took          time.Duration // how long the call took, retries included
	Held          time.Duration // Renewed, Lost, Released: how long the lease had been held; 0 for Unlock
	Err           error         // Refused, Lost, Failed
}

// tell tells the observer and the logger.
func (l *Lock) tell(ctx context.Context, id identity, e Event) {
	if l.o.Observer == nil && l.o.Logger == nil {
		return
	}
	e.Call, e.ComponentName, e.JobName, e.ComponentID, e.JobID = id.verb, id.componentName, id.jobName, id.componentID, id.jobID
	if l.o.Observer != nil {
		l.o.Observer(ctx, e)
	}
	if l.o.Logger == nil {
		return
	}
	level := slog.LevelInfo
	switch e.Kind {
	case Lost:
		level = slog.LevelError
	case TakenOver, Failed:
		level = slog.LevelWarn
	case Refused, Renewed:
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{slog.String("call", e.Call), slog.String("component", e.ComponentName), slog.String("job", e.JobName)}
	add := func(ok bool, a slog.Attr) {
		if ok {
			attrs = append(attrs, a)
		}
	}
	add(e.ComponentID != "", slog.String("component_id", e.ComponentID))
	add(e.JobID != "", slog.String("job_id", e.JobID))
	add(e.Token != 0, slog.Int64("token", e.Token))
	add(e.Holder != Holder{}, slog.Group("holder", slog.String("component_id", e.Holder.ComponentID),
		slog.String("job_id", e.Holder.JobID), slog.Time("since", e.Holder.Since)))
	add(true, slog.Duration("took", e.Took))
	add(e.Held != 0, slog.Duration("held", e.Held))
	add(e.Err != nil, slog.Any("error", e.Err))
	l.o.Logger.LogAttrs(ctx, level, "lock "+string(e.Kind), attrs...)
}

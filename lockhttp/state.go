package lockhttp

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

// State is what the page shows, as JSON. Its field names stay as they are; others may be added. Durations are in seconds, times
// are RFC 3339.
type State struct {
	// Error says why the table can't be read, with status 503; the rest is what was known before. It is left out otherwise.
	Error string `json:"error,omitempty"`
	// LookedAt is when the table was last read, by the clock of this process, and left out if it never was; Seconds have passed
	// since. The ages below are those at that time, by the database's clock.
	LookedAt *time.Time `json:"looked_at,omitempty"`
	Seconds  float64    `json:"looked_seconds_ago"`
	// Changes says whether there is a hook that may allow changes.
	Changes bool `json:"changes"`
	// Locks are in the order of their components' and jobs' names.
	Locks []Lock `json:"locks"`
	// Handovers are the last 50, the latest first, as far as this process has seen them.
	Handovers []Handover `json:"handovers"`
}

// Lock is a row of the table.
type Lock struct {
	Component string  `json:"component"`
	Job       string  `json:"job"`
	Enabled   bool    `json:"enabled"`
	Held      bool    `json:"held"`
	Holder    *Holder `json:"holder,omitempty"` // left out if nobody holds it
	Last      *Holder `json:"last,omitempty"`   // who held it last; left out if it is held, or never was
	// MaxDuration is how long it may be held; left out where that isn't known, and where there is no limit. Expired says that
	// it has been held for longer: whoever asks for it next, and states the same duration, takes it over.
	MaxDuration float64 `json:"max_duration_seconds,omitempty"`
	Expired     bool    `json:"expired"`
}

// Holder is who holds a lock, or held it.
type Holder struct {
	ComponentID string    `json:"component_id"`
	JobID       string    `json:"job_id"`
	Since       time.Time `json:"since"` // when it took the lock, or last renewed it, by the database's clock
	Age         float64   `json:"age_seconds"`
	// Token is Since in microseconds since 1970, as a string of decimal digits, since JSON's numbers are floating-point to most
	// who read them. It is the fencing token of a holder that has not renewed (see [lock.Status]).
	Token string `json:"token"`
}

// Handover is a lock that was From's and is To's. If Seen is "event", To has taken it over in this process after it had expired.
// If it is "looks", two successive looks at the table have found the one and the other: From may have released the lock, or lost
// it, and others may have had it in between; After is the time of the earlier look, which may be long before At.
type Handover struct {
	Component string     `json:"component"`
	Job       string     `json:"job"`
	Seen      string     `json:"seen"`
	At        time.Time  `json:"at"`              // by the clock of this process
	After     *time.Time `json:"after,omitempty"` // likewise
	From      Run        `json:"from"`
	To        Run        `json:"to"`
}

// Run is who held a lock at the time.
type Run struct {
	ComponentID string    `json:"component_id"`
	JobID       string    `json:"job_id"`
	Since       time.Time `json:"since"`
}

// state looks, and says what there is to see, and whether the look has worked.
func (h *handler) state(ctx context.Context) (State, bool) {
	v := h.table.look(ctx)
	s := State{Changes: h.o.Authorize != nil, Locks: []Lock{}, Handovers: []Handover{}}
	if v.err != nil {
		s.Error = v.err.Error()
	}
	if !v.at.IsZero() {
		at := v.at.UTC()
		s.LookedAt, s.Seconds = &at, time.Since(v.at).Seconds()
	}
	for _, status := range v.locks {
		s.Locks = append(s.Locks, h.lockOf(status))
	}
	for _, c := range merge(h.o.Events.seen(), v.changes) {
		handover := Handover{Component: c.component, Job: c.job, Seen: "event", At: c.at.UTC(), From: runOf(c.from), To: runOf(c.to)}
		if !c.after.IsZero() {
			after := c.after.UTC()
			handover.Seen, handover.After = "looks", &after
		}
		s.Handovers = append(s.Handovers, handover)
	}
	return s, v.err == nil
}

func (h *handler) lockOf(s lock.Status) Lock {
	longest := h.longest(name{s.ComponentName, s.JobName})
	l := Lock{
		Component: s.ComponentName, Job: s.JobName, Enabled: s.Enabled, Held: s.Locked,
		MaxDuration: longest.Seconds(), Expired: s.Expired(longest),
	}
	switch {
	case s.Locked:
		l.Holder = holderOf(s.Holder)
	case s.Holder.ComponentID != "" || s.Holder.JobID != "":
		l.Last = holderOf(s.Holder)
	}
	return l
}

// longest returns how long a job may take, or 0.
func (h *handler) longest(n name) time.Duration {
	var d time.Duration
	if h.o.MaxDuration != nil {
		d = max(0, h.o.MaxDuration(n.component, n.job))
	}
	return cmp.Or(d, h.o.Events.maxDuration(n))
}

func holderOf(h lock.Holder) *Holder {
	return &Holder{
		ComponentID: h.ComponentID, JobID: h.JobID, Since: h.Since.UTC(),
		Age: h.Age.Seconds(), Token: tokenOf(h),
	}
}

func tokenOf(h lock.Holder) string { return strconv.FormatInt(h.Since.UnixMicro(), 10) }

func runOf(h lock.Holder) Run { return Run{h.ComponentID, h.JobID, h.Since.UTC()} }

// reply answers with JSON.
func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(v) // an error is the client's, who has gone
}

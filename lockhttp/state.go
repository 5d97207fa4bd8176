package lockhttp

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

// State is what the page shows, as JSON. Its field names stay as they are; others may be added.
// Durations are in seconds, times are RFC 3339.
type State struct {
	Service  string `json:"service,omitempty"`
	Host     string `json:"host,omitempty"`
	Database string `json:"database,omitempty"`
	// Error is why the table can't be read, with status 503; the rest is what was known before.
	// It is left out otherwise.
	Error string `json:"error,omitempty"`
	// Problem is what is wrong with the table though it can be read. It is left out otherwise.
	Problem string `json:"problem,omitempty"`
	// LookedAt is when the table was last read, by the clock of this process, and left out if it
	// never was; Seconds have passed since. The ages below are those at that time, by the
	// database's clock.
	LookedAt *time.Time `json:"looked_at,omitempty"`
	Seconds  float64    `json:"looked_seconds_ago"`
	// MayChange reports whether there is a hook that may allow changes.
	MayChange bool `json:"may_change"`
	// MayWait reports whether a request with after waits for news: see [Options.Subscribe].
	MayWait bool `json:"may_wait"`
	// Counts has the number of locks in each state (see [Lock]), of those in trouble, and of all,
	// as "trouble" and "all". More reports that there are more locks, after these, which were not
	// read.
	Counts map[string]int `json:"counts"`
	More   bool           `json:"more"`
	// Locks are those that were asked for, the first of as many as Matching. Trouble comes first,
	// in the order of the states, then the order of names; or they are sorted by component, job,
	// holder, running or age, with a - in front downwards.
	Matching int    `json:"matching"`
	Locks    []Lock `json:"locks"`
	// Changes are the last 50, the latest first, as far as this process has seen them.
	Changes []Change `json:"changes"`
}

// Lock is a row of the table.
type Lock struct {
	Component string `json:"component"`
	Job       string `json:"job"`
	// States are what is wrong, in this order: "expired" (whoever asks for it next, and states
	// the same TTL, takes it over), "late" (three quarters of the TTL have passed since it was
	// acquired or renewed), "future" (its lock time is), "failing" (the last call of this process
	// failed, or its lease was lost), "disabled"; and in the end "held" or "free".
	States []string `json:"states"`
	Holder *Holder  `json:"holder,omitempty"` // left out if nobody holds it
	Last   *Holder  `json:"last,omitempty"`   // who held it last; left out if held, or never held
	// TTL is left out where it isn't known, and where there is none.
	TTL      float64    `json:"ttl_seconds,omitempty"`
	FailedAt *time.Time `json:"failed_at,omitempty"` // by the clock of this process
	Failure  string     `json:"failure,omitempty"`   // left out if Authorize is nil
	Changed  *Change    `json:"changed,omitempty"`   // the last change that this process knows of
}

// The states that a [Lock] may have.
const (
	Trouble  = "trouble" // expired, late, future, failing or disabled
	expired  = "expired"
	late     = "late"
	future   = "future"
	failing  = "failing"
	disabled = "disabled"
	held     = "held"
	free     = "free"
)

var states = []string{expired, late, future, failing, disabled, held, free}

// Holder is who holds a lock, or held it.
type Holder struct {
	ComponentID string `json:"component_id"`
	JobID       string `json:"job_id"`
	// LockTime is when it acquired the lock, or last renewed it, and Age how long ago that was, by
	// the database's clock; negative if it is in the future.
	LockTime time.Time `json:"lock_time"`
	Age      float64   `json:"age_seconds"`
	// Started is the time with which the job ID begins, and Running how long ago that was, by the
	// database's clock. They are left out if there is none, and if nobody holds the lock.
	Started *time.Time `json:"started,omitempty"`
	Running float64    `json:"running_seconds,omitempty"`
}

// state looks, and returns what there is to see, and whether the look has worked.
func (h *handler) state(ctx context.Context, q query) (State, bool) {
	v := h.table.look(ctx)
	s := State{Service: h.o.Service, Host: h.o.Host, Database: h.o.Database,
		MayChange: h.o.Authorize != nil, MayWait: h.watcher != nil, Counts: v.counts, More: v.more,
		Changes: h.o.Events.changes()}
	if s.Locks, s.Matching = q.choose(v.locks); s.Counts == nil {
		s.Counts = map[string]int{}
	}
	if v.err != nil {
		s.Error = h.public(v.err)
	}
	if v.problem != nil {
		s.Problem = h.public(v.problem)
	}
	if !v.at.IsZero() {
		at := v.at.UTC()
		s.LookedAt, s.Seconds = &at, time.Since(v.at).Seconds()
	}
	return s, v.err == nil
}

// public is the text of an error as whoever passes may see it.
func (h *handler) public(err error) string {
	if h.o.Authorize == nil {
		return "The reason is only shown where lockhttp.Options.Authorize is set."
	}
	return err.Error()
}

// lockOf describes a row.
func (o Options) lockOf(s lock.Status) Lock {
	n := name{s.ComponentName, s.JobName}
	known := o.Events.known(n)
	ttl := known.ttl
	if o.TTL != nil {
		ttl = cmp.Or(max(0, o.TTL(n.component, n.job)), ttl)
	}
	if ttl == lock.Forever {
		ttl = 0
	}
	l := Lock{Component: s.ComponentName, Job: s.JobName, TTL: ttl.Seconds(), Changed: known.change}
	if known.failure != nil {
		l.FailedAt = &known.failedAt
		if o.Authorize != nil {
			l.Failure = cut(known.failure.Error())
		}
	}
	who := holderOf(s.Holder)
	switch {
	case s.Locked:
		l.Holder = who
	case s.Holder.ComponentID != "" || s.Holder.JobID != "":
		who.Started, who.Running = nil, 0
		l.Last = who
	}
	for i, is := range []bool{
		s.Expired(ttl), s.Locked && ttl > 0 && s.Holder.Age > ttl/4*3 && !s.Expired(ttl),
		s.Holder.Age < -time.Second, known.failure != nil, !s.Enabled, s.Locked, !s.Locked,
	} {
		if is {
			l.States = append(l.States, states[i])
		}
	}
	return l
}

func holderOf(h lock.Holder) *Holder {
	who := &Holder{ComponentID: h.ComponentID, JobID: h.JobID, LockTime: h.LockTime.UTC(),
		Age: h.Age.Seconds()}
	if started := h.Started(); !started.IsZero() {
		who.Started, who.Running = &started, (h.Age + h.LockTime.Sub(started)).Seconds()
	}
	return who
}

// who is the holder, or the last one, or nobody.
func (l *Lock) who() Holder {
	if who := cmp.Or(l.Holder, l.Last); who != nil {
		return *who
	}
	return Holder{}
}

// rank is the place of the worst state; the locks that are well have the same.
func (l *Lock) rank() int { return min(slices.Index(states, l.States[0]), len(states)-2) }

func (l *Lock) troubled() bool { return len(l.States) > 1 }

// count returns how many locks there are in each state.
func count(all []Lock) map[string]int {
	counts := map[string]int{"all": len(all), Trouble: 0}
	for _, s := range states {
		counts[s] = 0
	}
	for i := range all {
		for _, s := range all[i].States {
			counts[s]++
		}
		if all[i].troubled() {
			counts[Trouble]++
		}
	}
	return counts
}

// Package observed is shared by the adapters of a lock's observer: it derives the locks that this
// process holds from the events, and has the words for refusals and losses.
package observed

import (
	"slices"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
)

// maxHolds limits the holds of a job. A hold without an end, such as that of a Lock without an
// Unlock, is dropped when so many have come after it.
const maxHolds = 8

// Holds has the holds of one job by this process, as far as the events tell. Only the hold with
// the newest token can still be good. The others wait for the event of their end, which another
// goroutine may be about to send. It is not safe for concurrent use.
type Holds[T any] struct {
	all    []Hold[T]
	newest int64 // token
}

// Hold is a lock that this process has acquired.
type Hold[T any] struct {
	Tag  T             // what Note was given with the event that began it
	Held time.Duration // set when it has ended

	token              int64
	lease              bool   // got by Acquire, not by Lock
	componentID, jobID string // of Lock: the events of a lease are known by its token
	since              time.Time
	heard              time.Time // when it was acquired or last renewed
	ttl                time.Duration
}

// Note applies an event, and returns the hold that it ends, if any. A hold that it begins gets
// the tag.
func (h *Holds[T]) Note(e lock.Event, now time.Time, tag T) (ended Hold[T], ok bool) {
	switch e.Kind {
	case lock.Acquired, lock.TakenOver:
		h.begin(e, now, tag)
	case lock.Renewed:
		if i := h.find(e); i >= 0 {
			h.all[i].heard = now
		}
	case lock.Lost, lock.Released, lock.Refused:
		i := h.find(e)
		if i < 0 {
			// a challenger was refused; or it had ended before, as that of a lost lease that is released
			break
		}
		ended = h.all[i]
		ended.Held = e.Held + e.Took // with what ended it
		if !ended.lease {
			ended.Held = now.Sub(ended.since)
		}
		h.all = slices.Delete(h.all, i, i+1)
		return ended, true
	}
	return Hold[T]{}, false
}

func (h *Holds[T]) begin(e lock.Event, now time.Time, tag T) {
	n := Hold[T]{Tag: tag, token: e.Token, lease: e.Operation == "Acquire", since: now.Add(-e.Took),
		heard: now, ttl: e.TTL}
	if !n.lease {
		n.componentID, n.jobID = e.ComponentID, e.JobID
	}
	// A Lock or Acquire by the same IDs is granted again, with the same token unless the lock was
	// renewed since.
	if slices.ContainsFunc(h.all, func(o Hold[T]) bool {
		return o.token == n.token &&
			o.lease == n.lease
	}) {
		return
	}
	if len(h.all) == maxHolds {
		h.all = slices.Delete(h.all, 0, 1)
	}
	h.all = append(h.all, n)
	h.newest = max(h.newest, n.token)
}

// find returns the index of the hold of an event, or -1.
func (h *Holds[T]) find(e lock.Event) int {
	switch {
	case e.Kind == lock.Lost, slices.Contains([]string{"Renew", "Release", "GiveBack"}, e.Operation):
		return slices.IndexFunc(h.all, func(o Hold[T]) bool { return o.lease && o.token == e.Token })
	case e.Operation == "Unlock", e.Operation == "ForceRelease" && e.Kind == lock.Released:
		// A lease that is released by force is reported as lost when it notices.
		return slices.IndexFunc(h.all, func(o Hold[T]) bool {
			return !o.lease && o.componentID == e.ComponentID && o.jobID == e.JobID
		})
	}
	return -1
}

// Leased reports whether this process holds a lease at now.
func (h *Holds[T]) Leased(now time.Time) bool {
	until, leased := h.Until()
	return leased && (until.IsZero() || !now.After(until))
}

// Until returns when the lease of this process ends, and whether there is one. The zero time
// means that it doesn't expire.
func (h *Holds[T]) Until() (until time.Time, leased bool) {
	i := slices.IndexFunc(h.all, func(o Hold[T]) bool { return o.lease && o.token == h.newest })
	if i < 0 {
		return time.Time{}, false
	}
	if h.all[i].ttl > 0 {
		until = h.all[i].heard.Add(h.all[i].ttl)
	}
	return until, true
}

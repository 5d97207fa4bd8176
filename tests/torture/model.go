//go:build linux

package torture

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// The model is one row of the table, as documented. It decides by the database's clock, of which
// it knows three things:
//
//   - the lock_time that a call wrote. The row was judged before that, so a takeover is correct
//     only if it wrote a time after the old lock_time plus the longest duration.
//   - the age in a refusal, from which follows when the clock was read, after the row was judged.
//   - the clock's time before and after the call, since the harness runs on the database's
//     machine. What was written lies between them, or a microsecond after the previous lock_time.
//
// A release in doubt is two operations: the term was the caller's at some time after the call
// (held), and is not when it returns (gone).
//
// A renewal or a call with an unknown outcome leaves a lock_time between two bounds, until
// somebody sees it. A takeover is correct if it is for any of them. So no correct history is
// found guilty, whatever the timing.
//
// A call with an unknown outcome may take effect at any time after it was sent, even after a
// later attempt of the same call was answered, or never. Its return is at the end of time. It is
// tried only where it would change the row. That it never took effect is modelled as an effect
// after the last known return of the history, which an operation of its own marks.
type row struct {
	enabled, locked bool
	freed           string // the last holder that was released by force
	owner           string // the holder, or the last one
	first, last     int64  // the token of the term is between them
	lo, hi          int64  // the lock_time is between them
	told            int64  // the last lock_time of the term that its holder knows
	tick            int64  // which was the last to be run; 0: none
	over            bool   // the history has ended: what is left never happened
}

const year1 = -62135596800000000

var fresh = row{enabled: true, lo: year1, hi: year1}

// term reports whether the row may be in the term of the lease, and narrows it down to that.
func (r row) term(o Op) (bool, row) {
	// A release of a tick is also of what a late attempt of its own has acquired again.
	any := o.Lease == 0 || o.Kind == Release && o.Tick != 0
	ok := r.locked && r.owner == o.Owner && (any || r.first <= o.Lease && o.Lease <= r.last)
	if ok && !any {
		r.first, r.last = o.Lease, o.Lease
	}
	return ok, r
}

// lost reports whether a lease may be called lost: the row may be out of its term, or the term
// has expired as far as its holder knows. A lock_time that a renewal without a reply has moved is
// no reason.
func (r row) lost(o Op) bool {
	in := r.locked && r.owner == o.Owner && (o.Lease == 0 || r.first == o.Lease && o.Lease == r.last)
	return !in || o.Max > 0 && o.Before > after(r.told, o.Max)
}

// free unlocks the row.
func (r row) free(o Op) row {
	switch r.locked = false; {
	case o.Kind == Force:
		r.freed = o.Owner
	case o.Kind == Release:
		r.tick = o.leaves()
	}
	return r
}

// see narrows the lock_time down to what somebody saw.
func (r row) see(t int64) (bool, row) {
	ok := r.lo <= t && t <= r.hi
	r.lo, r.hi = t, t
	return ok, r
}

// after is t plus a duration, where t may be for ever.
func after(t, d int64) int64 {
	if t > forever-d {
		return forever
	}
	return t + d
}

func (r row) step(o Op) (bool, row) {
	if r.over {
		return o.Result == Unknown, r
	}
	if o.Result == Unknown {
		return r.perhaps(o)
	}
	switch o.Kind {
	case end:
		r.over = true
		return true, r
	case Enable, Disable:
		r.enabled = o.Kind == Enable
		return true, r
	case Lock, Acquire:
		return r.lock(o)
	case Unlock, Force:
		switch {
		case o.Result == Refused:
			return r.refusal(o)
		case r.named(o):
			return true, r.free(o)
		}
		return !r.locked, r
	case Release:
		switch ours, in := r.term(o); {
		case o.Result == Lost && o.Holder == o.Owner:
			return r.locked && r.owner == o.Owner && r.lost(o), r
		case o.Result == Lost && o.Holder != "":
			return r.refusal(o)
		case o.Result == Lost:
			return !r.locked && (r.owner != o.Owner || r.freed == o.Owner), r
		case ours:
			return true, in.free(o)
		}
		return !r.locked && r.owner == o.Owner && r.freed == o.Owner, r
	case held:
		ok, in := r.term(o)
		// A lease that was released by force is trusted until it notices.
		return ok || !r.locked && r.owner == o.Owner || r.freed == o.Owner, in
	case gone:
		return !r.locked || r.owner != o.Owner || o.Lease != 0 &&
			!(r.first <= o.Lease && o.Lease <= r.last), r
	case Renew:
		if o.Result == Nothing {
			return r.lost(o), r
		}
		ok, in := r.term(o)
		ok = ok && o.Token > r.lo && r.dated(o) && (o.Max == 0 || o.Since <= after(r.hi, o.Max))
		if in.lo, in.hi = o.Token, o.Token; !o.Unheard {
			in.told = o.Token
		}
		return ok, in
	case Renewed, Write:
		return r.term(o)
	case Status:
		ok, seen := r.see(o.LockTime)
		return ok && o.Locked == r.locked && o.Enabled == r.enabled && o.Holder == r.owner &&
			o.Seen == r.tick, seen
	}
	panic("no such call: " + o.Kind)
}

// named reports whether an Unlock or a ForceRelease names this holder.
func (r row) named(o Op) bool {
	return r.locked && r.owner == o.Owner && (o.Kind == Unlock || r.lo <= o.Lease && o.Lease <= r.hi)
}

// dated reports whether the call can have written its lock_time.
func (r row) dated(o Op) bool {
	return o.Since <= o.Token && o.Token <= o.Before || r.lo < o.Token && o.Token <= after(r.hi, 1)
}

// run reports whether the tick of an acquisition counts as run.
func (r row) run(o Op) bool {
	return o.Tick != 0 && (r.tick > o.Tick || r.tick == o.Tick && !r.locked)
}

func (r row) lock(o Op) (bool, row) {
	switch o.Result {
	case JobDisabled:
		return !r.enabled, r
	case Refused:
		if !r.enabled {
			return false, r
		}
		ok, seen := r.refusal(o)
		return ok && (o.Tick == 0 || r.tick < o.Tick), seen
	case AlreadyRun:
		if r.locked && r.tick == o.Tick {
			ok, seen := r.refusal(o)
			return r.enabled && ok && o.Locked, seen
		}
		ok, seen := r.see(o.LockTime)
		now := o.LockTime + o.Age
		return ok && r.enabled && r.run(o) && r.owner == o.Holder && r.tick == o.Seen &&
			r.locked == o.Locked && o.Since <= now && now <= o.Before, seen
	}
	if r.locked && r.owner == o.Owner && r.lo <= o.Token && o.Token <= r.hi {
		// Held already, and not expired.
		r.first, r.last, r.lo, r.hi, r.told = o.Token, o.Token, o.Token, o.Token, o.Token
		return r.enabled && (o.Max == 0 || o.Since <= after(o.Token, o.Max)), r
	}
	ok := r.enabled && !r.run(o) && o.Token > r.lo && r.dated(o) && (!r.locked || o.Max > 0 &&
		o.Token > after(r.lo, o.Max))
	return ok, row{enabled: true, locked: true, freed: r.freed, owner: o.Owner, first: o.Token,
		last: o.Token,
		lo:   o.Token, hi: o.Token, told: o.Token, tick: o.Tick}
}

// refusal checks that a refusal names the true holder, whose lock must not have expired. A
// ForceRelease is also refused after a renewal.
func (r row) refusal(o Op) (bool, row) {
	ok, seen := r.see(o.LockTime)
	now := o.LockTime + o.Age
	ask := o.Kind == Lock || o.Kind == Acquire
	expired := ask && o.Max > 0 && o.Since > after(o.LockTime, o.Max)
	other := o.Holder != o.Owner || o.Kind == Force && o.LockTime != o.Lease
	return ok && other && r.locked && r.owner == o.Holder && r.tick == o.Seen && !expired &&
		o.Since <= now && now <= o.Before, seen
}

// perhaps applies a call with an unknown outcome that takes effect now.
func (r row) perhaps(o Op) (changes bool, _ row) {
	was := r
	switch o.Kind {
	case Enable, Disable:
		r.enabled = o.Kind == Enable
	case Lock, Acquire:
		if !r.enabled || r.locked && o.Max == 0 || r.run(o) {
			return false, r
		}
		r = row{enabled: true, locked: true, freed: r.freed, owner: o.Owner, tick: o.Tick,
			lo: max(o.Since, r.lo+1), hi: forever}
		if was.locked {
			r.lo = max(r.lo, after(was.lo, o.Max))
		}
		r.first, r.last, r.told = r.lo, forever, r.lo
	case Unlock, Force:
		if r.named(o) {
			r = r.free(o)
		}
	case Release:
		if ours, in := r.term(o); ours {
			r = in.free(o)
		}
	case Renew:
		if ours, in := r.term(o); ours {
			r = in
			r.lo, r.hi = max(r.lo+1, o.Since), forever
		}
	}
	return r != was, r
}

var model = porcupine.Model{
	Init: func() any { return fresh },
	Step: func(state, input, _ any) (bool, any) {
		ok, next := state.(row).step(input.(Op))
		return ok, next
	},
	DescribeOperation: func(input, _ any) string { return input.(Op).short() },
	DescribeState: func(state any) string {
		r := state.(row)
		if r.over {
			return "the end"
		}
		s := fmt.Sprintf("last %q, lock_time %d to %d", r.owner, r.lo, r.hi)
		if r.locked {
			s = fmt.Sprintf("LOCKED by %s, token %d to %d, lock_time %d to %d", r.owner, r.first, r.last,
				r.lo, r.hi)
		}
		if r.tick != 0 {
			s += fmt.Sprintf(", tick %d", r.tick)
		}
		if !r.enabled {
			s += ", disabled"
		}
		return s
	},
}

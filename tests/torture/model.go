//go:build linux

package torture

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// The model is one row of the table, as section “What each call does” of the documentation has it. It decides by the
// database's clock, of which it knows three things:
//
//   - the lock_time that a call wrote: the row was judged before that was reckoned, so a takeover is lawful only if what it
//     wrote is past the old lock_time plus the longest duration;
//   - the age that a refusal gives: the clock was read after the row was judged, so a refusal is lawful only if that is no more than
//     the longest duration;
//   - the clock's time before the call and after it, since the harness runs on the database's machine: what was written lies
//     between them, or a microsecond after the lock_time before.
//
// A renewal or a call whose outcome is unknown leaves a lock_time that is only known to lie between two times, until somebody
// sees it; a takeover is lawful if it is for any of them. So no lawful history is found guilty, whatever the timing.
//
// A call whose outcome is unknown may take effect at any time after it was sent, also after a later attempt of the same call has
// been answered, or never. Its return is at the end of time. It is tried only where it would change the row; that it never took
// effect is the same as that it did so after the history's last known return, which an operation of its own marks.
type row struct {
	enabled, locked bool
	owner           string // or who was it last
	token           int64  // of the term; 0 if nobody was told
	lo, hi          int64  // the lock_time is between them
	moved           bool   // by a renewal of which the lease doesn't know: it may believe itself lost
	over            bool   // the history has ended: what is left never happened
}

const year1 = -62135596800000000

var fresh = row{enabled: true, lo: year1, hi: year1}

func (r row) term(o Op) bool {
	return r.locked && r.owner == o.Owner && (r.token == o.Lease || r.token == 0 || o.Lease == 0)
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
		case r.locked && r.owner == o.Owner:
			r.locked = false
			return true, r
		}
		return !r.locked, r
	case Release:
		switch {
		case o.Result == Lost && o.Holder == o.Owner:
			return r.locked && r.owner == o.Owner && (r.moved || !r.term(o)), r
		case o.Result == Lost && o.Holder != "":
			return r.refusal(o)
		case o.Result == Lost:
			return !r.locked, r
		case r.term(o):
			r.locked = false
			return true, r
		}
		return !r.locked && r.owner == o.Owner, r
	case Renew:
		if o.Result == Nothing {
			return !r.term(o) || r.moved || o.Max > 0 && o.Before > after(r.lo, o.Max), r
		}
		ok := r.term(o) && o.Token > r.lo && r.dated(o) && (o.Max == 0 || o.Since <= after(r.hi, o.Max))
		r.lo, r.hi, r.moved = o.Token, o.Token, false
		return ok, r
	case Renewed, Write:
		return r.term(o), r
	case Status:
		ok, seen := r.see(o.LockTime)
		return ok && o.Locked == r.locked && o.Enabled == r.enabled && o.Holder == r.owner, seen
	}
	panic("no such call: " + o.Kind)
}

// dated says whether the call can have written its lock_time.
func (r row) dated(o Op) bool {
	return o.Since <= o.Token && o.Token <= o.Before || r.lo < o.Token && o.Token <= after(r.hi, 1)
}

func (r row) lock(o Op) (bool, row) {
	switch o.Result {
	case JobDisabled:
		return !r.enabled, r
	case Refused:
		if !r.enabled {
			return false, r
		}
		return r.refusal(o)
	}
	if r.locked && r.owner == o.Owner && r.lo <= o.Token && o.Token <= r.hi {
		// Held already, and not expired.
		r.token, r.lo, r.hi = o.Token, o.Token, o.Token
		return r.enabled && (o.Max == 0 || o.Since <= after(o.Token, o.Max)), r
	}
	ok := r.enabled && o.Token > r.lo && r.dated(o) && (!r.locked || o.Max > 0 && o.Token > after(r.lo, o.Max))
	return ok, row{enabled: true, locked: true, owner: o.Owner, token: o.Token, lo: o.Token, hi: o.Token}
}

// refusal names the true holder, who must not have expired.
func (r row) refusal(o Op) (bool, row) {
	ok, seen := r.see(o.LockTime)
	now := o.LockTime + o.Age
	expired := (o.Kind == Lock || o.Kind == Acquire) && o.Max > 0 && o.Age > o.Max
	return ok && r.locked && r.owner == o.Holder && o.Holder != o.Owner && !expired && o.Since <= now && now <= o.Before, seen
}

// perhaps is a call whose outcome is unknown, if it takes effect now.
func (r row) perhaps(o Op) (changes bool, _ row) {
	was := r
	switch o.Kind {
	case Enable, Disable:
		r.enabled = o.Kind == Enable
	case Lock, Acquire:
		if !r.enabled || r.locked && o.Max == 0 {
			return false, r
		}
		r = row{enabled: true, locked: true, owner: o.Owner, lo: max(o.Since, r.lo+1), hi: forever}
		if was.locked {
			r.lo = max(r.lo, after(was.lo, o.Max))
		}
	case Unlock, Force:
		r.locked = r.locked && r.owner != o.Owner
	case Release:
		r.locked = r.locked && !r.term(o)
	case Renew:
		if r.term(o) {
			r.lo, r.hi, r.moved = max(r.lo+1, o.Since), forever, true
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
			s = fmt.Sprintf("LOCKED by %s, token %d, lock_time %d to %d", r.owner, r.token, r.lo, r.hi)
		}
		if !r.enabled {
			s += ", disabled"
		}
		return s
	},
}

//go:build linux

package torture

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Written is a row that a fenced transaction committed, in the order of the table.
type Written struct {
	Job   string
	Token int64
	Op    int64
}

// invariants checks what must hold of a job's history whatever the model says. Each is a few
// lines that can be read on their own, so that a mistake in the model can't hide the worst
// violations.
func invariants(ops []Op, written []Written) (violations []string) {
	bad := func(format string, args ...any) {
		violations = append(violations,
			fmt.Sprintf(format, args...))
	}
	byID := map[int64]Op{}
	var takes []Op
	for _, o := range ops {
		byID[o.ID] = o
		if (o.Kind == Lock || o.Kind == Acquire) && o.Result == OK {
			takes = append(takes, o)
		}
	}
	slices.SortFunc(takes, func(a, b Op) int { return cmp.Compare(a.Token, b.Token) })

	// Tokens grow: if one acquisition began after another had ended, it has the larger token.
	latest := int64(0) // call among those with smaller tokens
	for i, o := range takes {
		if i > 0 && o.Token == takes[i-1].Token && o.Owner != takes[i-1].Owner {
			bad("a token twice:\n\t%v\n\t%v", takes[i-1], o)
		}
		if o.Return < latest {
			bad("a token that is larger than that of an acquisition after it:\n\t%v", o)
		}
		latest = max(latest, o.Call)
	}
	// A tick is run once, and none after a later one.
	for _, o := range takes {
		if o.Tick == 0 {
			continue
		}
		for _, p := range ops {
			before := p.Result == OK && p.Parent == 0 && p.Owner != o.Owner && p.Return < o.Call
			switch {
			case before && p.Kind == Acquire && p.Tick > o.Tick:
				bad("a tick after a later one:\n\t%v\n\t%v", p, o)
			case before && p.Kind == Release && p.leaves() >= o.Tick:
				bad("a tick that was run before:\n\t%v\n\t%v", p, o)
			}
		}
	}
	// Never two holders: whoever wins does so after the one before has let go or its time is up,
	// counted from before it asked.
	for i := 1; i < len(takes); i++ {
		if o, was := takes[i], takes[i-1]; o.Owner != was.Owner {
			if until := holds(was, ops, o.Return); until > o.Return {
				bad("two holders: the first for another %v\n\t%v\n\t%v", time.Duration(until-o.Return), was, o)
			}
		}
	}
	// A lease that was taken over isn't trusted any more. takes is in the order of the tokens.
	for _, o := range ops {
		if o.Kind != Trust {
			continue
		}
		i, _ := slices.BinarySearchFunc(takes, o.Lease+1, func(t Op,
			token int64) int {
			return cmp.Compare(t.Token, token)
		})
		if i < len(takes) && takes[i].Owner != o.Owner && takes[i].Return < o.Call &&
			o.Call > forced(o, ops) {
			bad("a lease that is trusted although another has it:\n\t%v\n\t%v", o, takes[i])
		}
	}
	// Fenced writes: none with a smaller token after a larger one, none twice, and no
	// acknowledged one lost.
	found := map[int64]bool{}
	for i, w := range written {
		found[w.Op] = true
		if i > 0 && w.Token < written[i-1].Token {
			bad("a fenced write with token %d was committed after one with token %d", w.Token,
				written[i-1].Token)
		}
		if o, ok := byID[w.Op]; !ok || o.Lease != w.Token {
			bad("a fenced write with token %d that nobody made", w.Token)
		}
	}
	for _, o := range ops {
		if o.Kind == Write && o.Result == OK && !found[o.ID] {
			bad("a fenced write was acknowledged and is gone:\n\t%v", o)
		}
	}
	for _, o := range ops {
		if well := trusted(o, ops); o.Kind == Ended && strings.Contains(o.Why,
			"could not be renewed in time") && o.Call < well {
			bad("a lease that is called lost although it is well for another %v:\n\t%v",
				time.Duration(well-o.Call), o)
		}
	}
	// What was released is not refused, and what failed has changed nothing.
	for _, done := range ops {
		if done.Parent == 0 || done.Result != OK {
			continue
		}
		if _, ok := byID[done.Parent]; !ok { // see ReadHistory
			bad("a call that failed, although it was done:\n\t%v", done)
		}
		for _, o := range ops {
			refused := o.Result == Refused && o.Kind != Lock && o.Kind != Acquire
			if o.ID == done.Parent && refused || o.Kind == Release && o.Result == Lost &&
				done.Kind == Release && o.Owner == done.Owner {
				bad("%s, although it was done:\n\t%v\n\t%v", o.Result, done, o)
			}
		}
	}
	return append(violations, flags(ops)...)
}

// trusted returns until when a lease can at least be trusted, as far as known before o: a tenth
// of its time before the end, counted from the last answer but one, since it is unknown when a
// renewal was sent. If an attempt found the lock held, its age is subtracted, for the reply, too.
func trusted(o Op, ops []Op) int64 {
	var sent, answered int64
	for _, p := range ops {
		if p.Owner != o.Owner || p.Result != OK || p.Parent != 0 || p.Return > o.Call {
			continue
		}
		switch {
		case p.Kind == Acquire:
			sent = max(sent, 2*p.Call-p.Return+1000*min(0, p.Token-p.Since))
			answered = max(answered, p.Return)
		// or the answer may be too late
		case p.Kind == Renew && !p.Unheard && p.Return > answered && p.Return < sent+900*o.Max:
			sent, answered = max(sent, answered), p.Return
		}
	}
	return sent + 900*o.Max
}

// holds returns until when the winner of a lock may believe that nobody else has it, as far as
// was known at the time at.
func holds(won Op, ops []Op, at int64) int64 {
	until := int64(forever)
	if won.Max > 0 {
		// it may have been held for a while
		until = won.Call + won.Max*1000 + 1000*min(0, won.Token-won.Since)
		for _, o := range ops {
			if o.Owner == won.Owner && o.Kind == Renew && o.Result == OK && !o.Unheard && o.Return <= at {
				until = max(until, o.Call+won.Max*1000)
			}
		}
	}
	for _, o := range ops {
		if o.Owner == won.Owner && (o.Kind == Unlock || o.Kind == Release || o.Kind == Force) &&
			o.Return > won.Call {
			until = min(until, o.Call)
		}
	}
	return until
}

// forced returns until when a lease may not know of its forced release: until its next renewal,
// or its expiry.
func forced(lease Op, ops []Op) (until int64) {
	for _, o := range ops {
		switch {
		case o.Kind != Force || o.Owner != lease.Owner:
		case lease.Max == 0 || o.Return == forever:
			return forever
		default:
			until = max(until, o.Return+1000*lease.Max)
		}
	}
	return until
}

// flags: nothing was found disabled or enabled that nobody had asked for.
func flags(ops []Op) (violations []string) {
	var sets []Op
	for _, o := range ops {
		if o.Kind == Enable || o.Kind == Disable {
			sets = append(sets, o)
		}
	}
	begin := Op{Kind: Enable} // jobs are enabled from the beginning
	for _, o := range ops {
		var saw Kind
		switch {
		case o.Result == JobDisabled, o.Kind == Status && o.Result == OK && !o.Enabled:
			saw = Disable
		case o.Kind == Lock && (o.Result == OK || o.Result == Refused), o.Kind == Acquire &&
			o.Result == OK, o.Kind == Status && o.Result == OK:
			saw = Enable
		default:
			continue
		}
		explained := slices.ContainsFunc(append(sets, begin), func(s Op) bool {
			return s.Kind == saw && s.Call < o.Return && !slices.ContainsFunc(sets, func(t Op) bool {
				return t.Kind != saw && t.Call > s.Return && t.Return < o.Call
			})
		})
		if !explained {
			violations = append(violations, fmt.Sprintf("%sd, which nobody had asked for:\n\t%v", saw, o))
		}
	}
	return violations
}

// Package lease has the rules by which a holder trusts its lease. They need no clock, mutex or
// goroutine: the caller passes the time.
package lease

import (
	"time"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// forever is the interval of renewals of a lease that never expires, which only find a forced
// release.
const forever = 10 * time.Second

// State is a holder's view of its lease.
type State struct {
	ttl      time.Duration // 0: the lease never expires
	margin   time.Duration
	term     store.Term // Last is not used
	reach    time.Time  // the latest lock time that a renewal in doubt may match if it still arrives
	asked    bool       // Tick has asked for a renewal that has not ended
	sent     time.Time  // when the renewal under way was sent; zero if there is none
	due      time.Time  // of the next renewal
	deadline time.Time  // until then nobody else can have the lock; zero if the lease never expires
}

// New returns the state of a lease that was asked for at sent and granted with that lock time,
// which is age old. The TTL counts from sent, before the round trip.
func New(ttl, margin time.Duration, sent, lockTime time.Time, age time.Duration) State {
	s := State{ttl: ttl, margin: margin, sent: sent.Add(-max(age, 0)), term: store.Term{TTL: ttl}}
	s.Answered(lockTime, false)
	return s
}

// Interval returns the time between two renewals.
func (s *State) Interval() time.Duration {
	if s.ttl == 0 {
		return forever
	}
	return s.ttl / 3
}

// Term returns the term for the next statement: one lock time, or up to a TTL more while a
// renewal in doubt or under way may move it.
func (s *State) Term() store.Term {
	if !s.sent.IsZero() || !s.term.First.After(s.reach) {
		return s.term.Widen()
	}
	t := s.term
	t.Last = t.First
	return t
}

// Deadline returns the time until which the lease can be trusted; zero if it never expires.
func (s *State) Deadline() time.Time { return s.deadline }

// Trusted reports whether nobody else can have the lock at now.
func (s *State) Trusted(now time.Time) bool {
	return s.deadline.IsZero() || now.Before(s.deadline)
}

// Sent records that a renewal is sent at now.
func (s *State) Sent(now time.Time) { s.sent = now }

// By returns the time limit of a renewal sent at now: one that hangs leaves time for another.
func (s *State) By(now time.Time) time.Time {
	if s.deadline.IsZero() {
		return now.Add(forever)
	}
	return now.Add(s.deadline.Sub(now) * 2 / 3)
}

// Answered records that the renewal has set the lock time. If it took several attempts, one in
// doubt may still arrive and move the lock time again. The doubt lasts until none can match.
func (s *State) Answered(lockTime time.Time, doubt bool) {
	s.doubt(doubt)
	s.term.First = lockTime
	s.due = s.sent.Add(s.Interval())
	if s.ttl > 0 {
		s.deadline = s.sent.Add(s.ttl - s.margin)
	}
	s.asked, s.sent = false, time.Time{}
}

// Unsent records that a renewal was not sent: its turn did not come. Another may be under way.
func (s *State) Unsent(now time.Time) {
	s.due = now.Add(s.Interval() / 8) // there is time for several more
	s.asked = false
}

// Failed records that the renewal has failed at now, and whether it may have moved the lock time.
func (s *State) Failed(now time.Time, doubt bool) {
	s.doubt(doubt)
	s.Unsent(now)
	s.sent = time.Time{}
}

func (s *State) doubt(doubt bool) {
	if !doubt {
		return
	}
	last := s.term.Widen().Last
	if last.IsZero() {
		last = always
	}
	if last.After(s.reach) {
		s.reach = last
	}
}

// always is after every lock time.
var always = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)

// An Action is the next step of the keeper.
type Action int

// The actions.
const (
	Rest   Action = iota
	Renew         // send a renewal; Answered, Failed or Unsent must follow
	Expire        // the lease can't be trusted any more
)

// Tick returns the action at now, and when to ask again.
func (s *State) Tick(now time.Time) (Action, time.Time) {
	switch {
	case !s.Trusted(now):
		return Expire, time.Time{}
	case s.asked || !s.sent.IsZero(): // its answer comes, or the deadline
		return Rest, s.orDeadline(now.Add(forever))
	case now.Before(s.due):
		return Rest, s.orDeadline(s.due)
	}
	s.asked = true
	return Renew, s.orDeadline(now.Add(forever))
}

func (s *State) orDeadline(t time.Time) time.Time {
	if !s.deadline.IsZero() && s.deadline.Before(t) {
		return s.deadline
	}
	return t
}

package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// at returns a time in seconds after the lease was asked for.
func at(seconds float64) time.Time {
	return time.Unix(1000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

// A move changes a state, and has the expected one. The TTL is 30 s, the margin 3 s.
type move func(t *testing.T, s *State)

func ticks(now float64, want Action, next float64) move {
	return func(t *testing.T, s *State) {
		action, again := s.Tick(at(now))
		require.Equal(t, want, action, "at %v", now)
		if action != Expire {
			require.Equal(t, at(next), again, "at %v", now)
		}
	}
}

func sent(now float64) move { return func(_ *testing.T, s *State) { s.Sent(at(now)) } }

func answered(lockTime float64) move {
	return func(_ *testing.T, s *State) { s.Answered(at(lockTime), false) }
}

// after is a renewal that is answered after an attempt in doubt, which may still arrive.
func after(lockTime float64) move {
	return func(_ *testing.T, s *State) { s.Answered(at(lockTime), true) }
}

func failed(now float64, doubt bool) move {
	return func(_ *testing.T, s *State) { s.Failed(at(now), doubt) }
}

func unsent(now float64) move { return func(_ *testing.T, s *State) { s.Unsent(at(now)) } }

func deadline(want float64) move {
	return func(t *testing.T, s *State) {
		require.Equal(t, at(want), s.Deadline())
		require.True(t, s.Trusted(at(want).Add(-1)))
		require.False(t, s.Trusted(at(want)))
	}
}

func by(now, want float64) move {
	return func(t *testing.T, s *State) { require.Equal(t, at(want), s.By(at(now))) }
}

// term is one lock time, or up to last; 0: no bound.
func term(first, last float64) move {
	return func(t *testing.T, s *State) {
		want := store.Term{First: at(first), Last: at(last), TTL: s.ttl}
		if last == 0 {
			want.Last = time.Time{}
		}
		require.Equal(t, want, s.Term())
	}
}

func never(t *testing.T, s *State) {
	require.True(t, s.Deadline().IsZero())
	require.True(t, s.Trusted(at(1e9)))
}

func TestState(t *testing.T) {
	for name, test := range map[string]struct {
		age   float64
		ttl   float64
		moves []move
	}{
		"granted": {0, 30, []move{deadline(27), term(1, 1), ticks(0, Rest, 10),
			ticks(9.9, Rest, 10), by(10, 10+17*2/3.)}},
		"granted, held already":      {12, 30, []move{deadline(15), ticks(0, Renew, 10)}},
		"granted, age in the future": {-5, 30, []move{deadline(27)}},
		"renewed": {0, 30, []move{ticks(10, Renew, 20), sent(10), term(1, 31),
			answered(11), term(11, 11), deadline(37), ticks(12, Rest, 20)}},
		"deadline counts from the sending": {0, 30, []move{sent(5), answered(20), deadline(32), ticks(20,
			Renew, 30)}},
		"asks once": {0, 30, []move{ticks(10, Renew, 20), ticks(10, Rest, 20),
			sent(10), ticks(18, Rest, 27), ticks(27, Expire, 0)}},
		"by hand": {0, 30, []move{sent(5), ticks(10, Rest, 20), answered(6),
			ticks(10, Rest, 15)}},
		"failed": {0, 30, []move{ticks(10, Renew, 20), sent(10), failed(11,
			false), term(1, 1), deadline(27), ticks(11, Rest, 12.25), ticks(12.25, Renew, 22.25)}},
		"not sent": {0, 30, []move{ticks(10, Renew, 20), unsent(11), term(1, 1),
			ticks(12.25, Renew, 22.25)}},
		"not sent behind another": {0, 30, []move{sent(9), ticks(10, Rest, 20), unsent(11),
			term(1, 31), answered(9), term(9, 9)}},
		"in doubt until answered": {0, 30, []move{sent(10), failed(11, true), term(1, 31),
			sent(12), failed(13, false), term(1, 31), sent(14), answered(15), term(15,
				45), sent(35), answered(36), term(36, 36)}},
		"in doubt of an attempt before": {0, 30, []move{sent(10), after(11), term(11, 41),
			deadline(37), sent(20), answered(21), term(21, 51), sent(31.5), answered(32), term(32, 32)}},
		"expired": {0, 30, []move{ticks(26.9, Renew, 27), sent(26.9), ticks(27,
			Expire, 0)}},
		"never expires": {0, 0, []move{never, ticks(9.9, Rest, 10), ticks(10, Renew,
			20), sent(10), ticks(15, Rest, 25), failed(15, true), never, term(1, 0),
			ticks(16.25, Renew, 26.25), by(10, 20)}},
	} {
		t.Run(name, func(t *testing.T) {
			d := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
			s := New(d(test.ttl), d(test.ttl/10), at(0), at(1), d(test.age))
			for _, m := range test.moves {
				m(t, &s)
			}
		})
	}
}

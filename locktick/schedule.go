package locktick

import "time"

// Schedule is when ticks are due. Those of github.com/robfig/cron/v3 and of gocron's crontabs are Schedules.
type Schedule interface {
	// Next returns the first tick after t, or the zero time if there is none.
	Next(t time.Time) time.Time
}

// Every is the [Schedule] of the multiples of a period in UTC: Every(15*time.Minute) ticks at the full hour and at quarter
// past it, Every(24*time.Hour) at midnight, Every(7*24*time.Hour) on Mondays. It must be whole seconds. 0 and less never tick.
type Every time.Duration

// Next returns the first multiple of the period after t.
func (e Every) Next(t time.Time) time.Time {
	if e <= 0 {
		return time.Time{}
	}
	period := time.Duration(e)
	return t.UTC().Truncate(period).Add(period)
}

// early is by how much a clock may have been stepped back while a scheduler slept, for a tick to be still known for what it is.
const early = time.Second

// Last returns the tick that fires at now: the last one that is due by now, and thus the name that all instances have for it
// whose clocks are at that tick. It is the zero time if there is none in the last hundred years.
//
// Schedulers sleep by the monotonic clock. If the wall clock is stepped back meanwhile, they fire before it gets there. So where
// now is less than a second before a tick, and nearer to it than to the one before, it is that tick.
func Last(s Schedule, now time.Time) time.Time {
	now = now.Round(0) // by the wall clock
	last := lastBy(s, now)
	if next := s.Next(now); !next.IsZero() {
		if left := next.Sub(now); left < early && (last.IsZero() || left < now.Sub(last)) {
			return next
		}
	}
	return last
}

// lastBy returns the last tick that is not after now. A Schedule only says what is next, so its time is found by looking from ever
// further back, and then from as late as possible.
func lastBy(s Schedule, now time.Time) time.Time {
	due := func(back time.Duration) bool {
		t := s.Next(now.Add(-back))
		return !t.IsZero() && !t.After(now)
	}
	near, far := time.Duration(0), time.Second // from near nothing is due, from far something is
	for !due(far) {
		if far > 100*365*24*time.Hour {
			return time.Time{}
		}
		near, far = far, 2*far
	}
	for far-near > time.Second {
		if middle := (far + near) / 2; due(middle) {
			far = middle
		} else {
			near = middle
		}
	}
	last := s.Next(now.Add(-far))
	for { // there may be another within the second
		next := s.Next(last)
		if next.After(now) || !next.After(last) {
			return last
		}
		last = next
	}
}

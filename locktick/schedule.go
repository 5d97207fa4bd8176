package locktick

import "time"

// Schedule determines when ticks are due. The schedules of github.com/robfig/cron/v3 implement
// it; see [In].
type Schedule interface {
	// Next returns the first tick after t, or the zero time if there is none.
	Next(t time.Time) time.Time
}

// Every is the [Schedule] of the multiples of a period in UTC. Every(15*time.Minute) ticks at
// each full and quarter hour, Every(24*time.Hour) at midnight, Every(7*24*time.Hour) on Mondays.
// The period must be whole seconds. 0 and less never tick.
type Every time.Duration

// Next returns the first multiple of the period after t.
func (e Every) Next(t time.Time) time.Time {
	if e <= 0 {
		return time.Time{}
	}
	period := time.Duration(e)
	return t.UTC().Truncate(period).Add(period)
}

// In returns s in a location, for a schedule that uses the location of the time it is given, as
// those of github.com/robfig/cron/v3 do. nil means time.Local. A schedule would skip a tick in
// the hour that is left out when summer time begins; In makes it due as long after the beginning
// of that hour: 02:30 becomes 03:30.
func In(location *time.Location, s Schedule) Schedule {
	if location == nil {
		location = time.Local
	}
	return zoned{location, s}
}

type zoned struct {
	location *time.Location
	s        Schedule
}

func (z zoned) Next(t time.Time) time.Time {
	t = t.In(z.location)
	next := z.s.Next(t)
	for from := t.Add(-24 * time.Hour); ; { // the change may be just over
		_, change := from.ZoneBounds()
		if change.IsZero() || next.IsZero() || !change.Before(next) {
			return next
		}
		_, before := from.Zone()
		_, after := change.Zone()
		if after > before {
			// By the old offset there is no hour that is left out. Its end is when it should have
			// been.
			first := change.Add(-1)
			if t.After(first) {
				first = t
			}
			end := change.Add(time.Duration(after-before) * time.Second)
			skipped := z.s.Next(first.In(time.FixedZone("", before))).In(z.location)
			if skipped.Before(end) && skipped.Before(next) && skipped.After(t) {
				return skipped
			}
		}
		from = change
	}
}

// early is how far a clock may be stepped back while a scheduler sleeps, for a tick to be still
// recognized.
const early = time.Second

// Last returns the tick that fires at now: the last one that is due. All instances whose clocks
// are at that tick get the same. It is the zero time if there was none in the last hundred years.
//
// Schedulers sleep by the monotonic clock. If the wall clock is stepped back meanwhile, they fire
// before it reaches the tick. So if now is less than a second before a tick, and nearer to it
// than to the one before, Last returns that tick.
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

// lastBy returns the last tick that is not after now. A Schedule only has a Next, so lastBy
// searches from ever further back, and then narrows the interval.
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

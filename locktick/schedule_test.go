package locktick_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock/locktick"
)

// at is a Schedule of a few ticks.
type at []time.Time

func (a at) Next(t time.Time) time.Time {
	for _, tick := range a {
		if tick.After(t) {
			return tick
		}
	}
	return time.Time{}
}

func TestEveryTicksAtTheMultiplesInUTC(t *testing.T) {
	east := time.FixedZone("east", 5*60*60+30*60)
	for _, test := range []struct {
		every time.Duration
		t     time.Time
		next  string
	}{
		{time.Minute, noon, "2026-03-29T12:01:00Z"},
		{time.Minute, noon.Add(-1), "2026-03-29T12:00:00Z"},
		{time.Hour, noon.In(east), "2026-03-29T13:00:00Z"},
		{24 * time.Hour, noon.In(east), "2026-03-30T00:00:00Z"},
		{7 * 24 * time.Hour, noon, "2026-03-30T00:00:00Z"}, // a Monday
		{-time.Hour, noon, "0001-01-01T00:00:00Z"},
	} {
		require.Equal(t, test.next, locktick.Every(test.every).Next(test.t).Format(time.RFC3339Nano), test)
	}
}

func TestLastIsTheTickThatFires(t *testing.T) {
	few := at{noon, noon.Add(time.Minute), noon.Add(time.Minute + 300*time.Millisecond), noon.AddDate(4, 0, 0)}
	for name, test := range map[string]struct {
		s    locktick.Schedule
		now  time.Time
		last time.Time
	}{
		"at the tick":                           {locktick.Every(time.Hour), noon, noon},
		"a moment after it":                     {locktick.Every(time.Hour), noon.Add(1), noon},
		"long after it":                         {locktick.Every(time.Hour), noon.Add(59 * time.Minute), noon},
		"a second before the next":              {locktick.Every(time.Hour), noon.Add(time.Hour - time.Second), noon},
		"a clock stepped back a little":         {locktick.Every(time.Hour), noon.Add(-time.Second + 1), noon},
		"dense ticks, nearer to the one before": {locktick.Every(time.Second), noon.Add(499 * time.Millisecond), noon},
		"dense ticks, nearer to the one after":  {locktick.Every(time.Second), noon.Add(501 * time.Millisecond), noon.Add(time.Second)},
		"years after the last one":              {few, noon.AddDate(3, 0, 0), noon.Add(time.Minute + 300*time.Millisecond)},
		"after all of them":                     {few, noon.AddDate(90, 0, 0), noon.AddDate(4, 0, 0)},
		"two within a second":                   {few, noon.Add(time.Minute + 100*time.Millisecond), noon.Add(time.Minute)},
		"before the first":                      {few, noon.Add(-time.Minute), time.Time{}},
		"just before the first":                 {few, noon.Add(-time.Millisecond), noon},
		"no ticks":                              {at{}, noon, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.last, locktick.Last(test.s, test.now))
		})
	}
}

func TestLastIsTheSameAtEveryTimeUntilTheNextTick(t *testing.T) {
	for _, every := range []time.Duration{time.Second, 7 * time.Second, time.Minute, 45 * time.Minute, 30 * time.Hour} {
		s := locktick.Every(every)
		tick := s.Next(noon)
		until := min(every-time.Second, every/2)
		for i := range 1000 {
			now := tick.Add(time.Duration(int64(i) * int64(until) / 1000))
			require.Equal(t, tick, locktick.Last(s, now), now)
		}
	}
}

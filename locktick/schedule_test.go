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

func TestEvery_Next(t *testing.T) {
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
		require.Equal(t, test.next, locktick.Every(test.every).Next(test.t).Format(time.RFC3339Nano),
			test)
	}
}

func TestLast(t *testing.T) {
	few := at{noon, noon.Add(time.Minute), noon.Add(time.Minute + 300*time.Millisecond),
		noon.AddDate(4, 0, 0)}
	for name, test := range map[string]struct {
		s    locktick.Schedule
		now  time.Time
		last time.Time
	}{
		"at the tick":       {locktick.Every(time.Hour), noon, noon},
		"a moment after it": {locktick.Every(time.Hour), noon.Add(1), noon},
		"long after it": {locktick.Every(time.Hour), noon.Add(59 * time.Minute),
			noon},
		"a second before the next": {locktick.Every(time.Hour),
			noon.Add(time.Hour - time.Second), noon},
		"a clock stepped back a little": {locktick.Every(time.Hour), noon.Add(-time.Second + 1),
			noon},
		"dense ticks, nearer to the one before": {locktick.Every(time.Second),
			noon.Add(499 * time.Millisecond), noon},
		"dense ticks, nearer to the one after": {locktick.Every(time.Second),
			noon.Add(501 * time.Millisecond), noon.Add(time.Second)},
		"years after the last one": {few, noon.AddDate(3, 0, 0),
			noon.Add(time.Minute + 300*time.Millisecond)},
		"after all of them": {few, noon.AddDate(90, 0, 0), noon.AddDate(4, 0, 0)},
		"two within a second": {few, noon.Add(time.Minute + 100*time.Millisecond),
			noon.Add(time.Minute)},
		"before the first":      {few, noon.Add(-time.Minute), time.Time{}},
		"just before the first": {few, noon.Add(-time.Millisecond), noon},
		"no ticks":              {at{}, noon, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.last, locktick.Last(test.s, test.now))
		})
	}
}

func TestLast_until_next(t *testing.T) {
	for _, every := range []time.Duration{time.Second, 7 * time.Second, time.Minute, 45 * time.Minute,
		30 * time.Hour} {
		s := locktick.Every(every)
		tick := s.Next(noon)
		until := min(every-time.Second, every/2)
		for i := range 1000 {
			now := tick.Add(time.Duration(int64(i) * int64(until) / 1000))
			require.Equal(t, tick, locktick.Last(s, now), now)
		}
	}
}

// A daily is due at a time of the day in the location of the time that it is given. Like crontabs
// it skips a day that doesn't have that time.
type daily struct{ hour, minute int }

func (d daily) Next(t time.Time) time.Time {
	for day := -1; ; day++ {
		next := time.Date(t.Year(), t.Month(), t.Day()+day, d.hour, d.minute, 0, 0, t.Location())
		if next.After(t) && next.Hour() == d.hour && next.Minute() == d.minute {
			return next
		}
	}
}

func TestIn(t *testing.T) {
	for _, test := range []struct {
		zone string
		s    locktick.Schedule
		from string
		want []string
	}{
		{"Europe/Berlin", daily{2, 30}, "2026-03-28T00:00:00Z", []string{ // summer begins on the 29th
			"2026-03-28T02:30:00+01:00", "2026-03-29T03:30:00+02:00", "2026-03-30T02:30:00+02:00"}},
		{"Europe/Berlin", daily{2, 30}, "2026-03-29T01:10:00Z", []string{"2026-03-29T03:30:00+02:00",
			"2026-03-30T02:30:00+02:00"}},
		{"Europe/Berlin", daily{2, 30}, "2026-03-29T01:30:00Z", []string{"2026-03-30T02:30:00+02:00"}},
		{"Europe/Berlin", daily{3, 0}, "2026-03-28T12:00:00Z", []string{"2026-03-29T03:00:00+02:00",
			"2026-03-30T03:00:00+02:00"}},
		{"Europe/Berlin", daily{1, 59}, "2026-03-28T12:00:00Z", []string{"2026-03-29T01:59:00+01:00",
			"2026-03-30T01:59:00+02:00"}},
		{"Europe/Berlin", daily{2, 0}, "2026-03-28T12:00:00Z", []string{"2026-03-29T03:00:00+02:00",
			"2026-03-30T02:00:00+02:00"}},
		{"America/New_York", daily{2, 30}, "2026-03-07T12:00:00Z",
			[]string{"2026-03-08T03:30:00-04:00", "2026-03-09T02:30:00-04:00"}},
		{"Europe/Berlin", locktick.Every(time.Hour), "2026-03-28T23:30:00Z", []string{
			"2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00"}},
		{"UTC", daily{2, 30}, "2026-03-28T00:00:00Z", []string{"2026-03-28T02:30:00Z",
			"2026-03-29T02:30:00Z"}},
	} {
		location, err := time.LoadLocation(test.zone)
		require.NoError(t, err)
		s := locktick.In(location, test.s)
		at, err := time.Parse(time.RFC3339, test.from)
		require.NoError(t, err)
		for _, want := range test.want {
			at = s.Next(at)
			require.Equal(t, want, at.In(location).Format(time.RFC3339), "%+v", test)
			require.Equal(t, at, locktick.Last(s, at.Add(10*time.Minute)), "%+v", test)
		}
	}
	require.Equal(t, time.Local, locktick.In(nil, daily{2, 30}).Next(noon).Location())
}

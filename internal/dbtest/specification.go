package dbtest

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
)

// What is expected of a call: its answer, and the row after it.
type (
	Answer func(t testing.TB, err error)
	After  func(t testing.TB, before, now *Stored, asked, answered time.Time)
)

func Granted(t testing.TB, err error) { require.NoError(t, err) }

func Disabled(t testing.TB, err error) {
	require.IsType(t, &lock.ErrDisabled{}, err)
	var e *lock.ErrDisabled
	require.ErrorAs(t, err, &e)
	require.Equal(t, []string{Component, Job}, []string{e.ComponentName(), e.JobName()})
	for _, part := range []string{`"shop"`, `"backup"`, "disabled"} {
		require.ErrorContains(t, err, part)
	}
}

func RefusedBy(componentID, jobID string) Answer {
	return func(t testing.TB, err error) {
		require.IsType(t, &lock.ErrUnauthorised{}, err)
		var e *lock.ErrUnauthorised
		require.ErrorAs(t, err, &e)
		require.Equal(t, []string{Component, Job}, []string{e.ComponentName(), e.JobName()})
		require.Equal(t, []string{componentID, jobID}, []string{e.Holder().ComponentID, e.Holder().JobID})
		for _, part := range []string{`"shop"`, `"backup"`, `component ID "a", job ID "1"`,
			`component ID "` + componentID + `", job ID "` + jobID + `"`} {
			require.ErrorContains(t, err, part)
		}
	}
}

func Fails(parts ...string) Answer {
	return func(t testing.TB, err error) {
		for _, part := range append(parts, `"shop"`, `"backup"`) {
			require.ErrorContains(t, err, part)
		}
	}
}

func Unchanged(t testing.TB, before, now *Stored, _, _ time.Time) { require.Equal(t, before, now) }

// Taken: locked by the caller, by the clock of the database.
func Taken(t testing.TB, _, now *Stored, asked, answered time.Time) {
	require.NotNil(t, now)
	require.Equal(t, Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "LOCKED"}, now.Fields())
	require.False(t, now.LockTime.Time.Before(asked), "%v is before %v", now.LockTime.Time, asked)
	require.False(t, now.LockTime.Time.After(answered), "%v is after %v", now.LockTime.Time, answered)
}

// TakenAbove: locked by the caller, just after the lock_time before, which the clock has not reached.
func TakenAbove(t testing.TB, before, now *Stored, _, _ time.Time) {
	require.Equal(t, Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "LOCKED"}, now.Fields())
	require.Equal(t, before.LockTime.Time.Add(time.Microsecond), now.LockTime.Time)
}

// Becomes: the row has these fields, and the lock_time that it had.
func Becomes(r Row) After {
	return func(t testing.TB, before, now *Stored, _, _ time.Time) {
		require.NotNil(t, now)
		require.Equal(t, r, now.Fields())
		if before == nil {
			require.Equal(t, LongPast, now.LockTime.Time)
		} else {
			require.Equal(t, before.LockTime, now.LockTime)
		}
	}
}

// Specification is the table of DESIGN: every call, on every state of the row.
var Specification = func() []Specified {
	var (
		lockFor = func(d time.Duration) func(*lock.Lock) error {
			return func(l *lock.Lock) error { return l.Lock(Component, "a", Job, "1", d) }
		}
		unlock  = func(l *lock.Lock) error { return l.Unlock(Component, "a", Job, "1") }
		enable  = func(l *lock.Lock) error { return l.Enable(Component, Job) }
		disable = func(l *lock.Lock) error { return l.Disable(Component, Job) }

		minute = time.Minute
		years  = 100 * 365 * 24 * time.Hour
		free   = Row{"b", "2", true, "UNLOCKED", minute}
		held   = Row{"b", "2", true, "LOCKED", minute}
		mine   = Row{"a", "1", true, "LOCKED", minute}
		none   = Row{}
		with   = func(r Row, change func(*Row)) Row { change(&r); return r }
		off    = func(r *Row) { r.Enabled = false }
		aged   = func(age any) func(*Row) { return func(r *Row) { r.Age = age } }
		nulls  = Row{Age: "NULL"} // all columns but the key
	)
	return []Specified{
		{"Lock of a missing row", none, lockFor(minute), Granted, Taken},
		{"Lock of a missing row, no longest duration", none, lockFor(0), Granted, Taken},
		{"Lock of a free row", free, lockFor(minute), Granted, Taken},
		{"Lock of a free row, no longest duration", free, lockFor(0), Granted, Taken},
		{"Lock of a free row of the caller's", with(mine, func(r *Row) { r.Status = "UNLOCKED" }), lockFor(minute), Granted, Taken},
		{"Lock of a free row from the future", with(free, aged(-time.Hour)), lockFor(minute), Granted, TakenAbove},

		{"Lock of a disabled free row", with(free, off), lockFor(minute), Disabled, Unchanged},
		{"Lock of a disabled row, for its holder", with(mine, off), lockFor(time.Hour), Disabled, Unchanged},
		{"Lock of a disabled row, for its holder, expired", with(mine, off), lockFor(time.Second), Disabled, Unchanged},
		{"Lock of a disabled row, held", with(held, off), lockFor(time.Hour), Disabled, Unchanged},
		{"Lock of a disabled row, expired", with(held, off), lockFor(time.Second), Disabled, Unchanged},

		{"Lock for the holder", mine, lockFor(time.Hour), Granted, Unchanged},
		{"Lock for the holder, no longest duration", with(mine, aged(years)), lockFor(0), Granted, Unchanged},
		{"Lock for the holder, expired", mine, lockFor(time.Second), Granted, Taken},
		{"Lock for the holder, from the future", with(mine, aged(-time.Hour)), lockFor(time.Second), Granted, Unchanged},
		{"Lock for another run of the holder", with(mine, func(r *Row) { r.JobID = "2" }), lockFor(time.Hour), RefusedBy("a", "2"), Unchanged},
		{"Lock for another instance, same job ID", with(mine, func(r *Row) { r.ComponentID = "b" }), lockFor(time.Hour), RefusedBy("b", "1"), Unchanged},

		{"Lock of a held row", held, lockFor(time.Hour), RefusedBy("b", "2"), Unchanged},
		{"Lock of a held row, the longest of durations", with(held, aged(years)), lockFor(math.MaxInt64), RefusedBy("b", "2"), Unchanged},
		{"Lock of a held row, no longest duration", with(held, aged(years)), lockFor(0), RefusedBy("b", "2"), Unchanged},
		{"Lock of a held row from the future", with(held, aged(-time.Hour)), lockFor(time.Nanosecond), RefusedBy("b", "2"), Unchanged},
		{"Lock of an expired row", held, lockFor(59 * time.Second), Granted, Taken},
		{"Lock of an expired row, the shortest of durations", held, lockFor(time.Nanosecond), Granted, Taken},
		{"Lock of an expired row of another run", with(mine, func(r *Row) { r.JobID = "2" }), lockFor(time.Second), Granted, Taken},

		{"Lock for a negative duration", free, lockFor(-1), Fails("Lock", "negative", "-1ns"), Unchanged},
		{"Lock for the most negative duration", held, lockFor(math.MinInt64), Fails("Lock", "negative"), Unchanged},

		{"Lock of a row full of NULLs", nulls, lockFor(minute), Granted, Taken},
		{"Lock of a row with NULL IDs", with(held, func(r *Row) { r.ComponentID, r.JobID = nil, nil }), lockFor(time.Hour), RefusedBy("", ""), Unchanged},
		{"Lock of a held row, enabled NULL", with(held, func(r *Row) { r.Enabled = nil }), lockFor(time.Hour), RefusedBy("b", "2"), Unchanged},
		{"Lock of an expired row, enabled NULL", with(held, func(r *Row) { r.Enabled = nil }), lockFor(time.Second), Granted, Taken},
		{"Lock of a row with status NULL", with(held, func(r *Row) { r.Status = nil }), lockFor(time.Hour), Granted, Taken},
		{"Lock of a held row with lock_time NULL", with(held, aged("NULL")), lockFor(math.MaxInt64), Granted, Taken},
		{"Lock of a held row with lock_time NULL, no longest duration", with(held, aged("NULL")), lockFor(0), RefusedBy("b", "2"), Unchanged},
		{"Lock of a row with a status of its own", with(held, func(r *Row) { r.Status = "PAUSED" }), lockFor(time.Hour), RefusedBy("b", "2"), Unchanged},

		{"Unlock of a missing row", none, unlock, Granted, Unchanged},
		{"Unlock of a free row", free, unlock, Granted, Unchanged},
		{"Unlock of a free row of the caller's", with(mine, func(r *Row) { r.Status = "UNLOCKED" }), unlock, Granted, Unchanged},
		{"Unlock of a row full of NULLs", nulls, unlock, Granted, Unchanged},
		{"Unlock by the holder", mine, unlock, Granted, Becomes(Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "UNLOCKED"})},
		{"Unlock by the holder, disabled", with(mine, off), unlock, Granted, Becomes(Row{ComponentID: "a", JobID: "1", Enabled: false, Status: "UNLOCKED"})},
		{"Unlock by the holder, enabled NULL", with(mine, func(r *Row) { r.Enabled = nil }), unlock, Granted, Becomes(Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "UNLOCKED"})},
		{"Unlock by another", held, unlock, RefusedBy("b", "2"), Unchanged},
		{"Unlock by another, disabled", with(held, off), unlock, RefusedBy("b", "2"), Unchanged},
		{"Unlock by another run of the holder", with(mine, func(r *Row) { r.JobID = "2" }), unlock, RefusedBy("a", "2"), Unchanged},
		{"Unlock by another, long past", with(held, aged(years)), unlock, RefusedBy("b", "2"), Unchanged},

		{"Enable of a missing row", none, enable, Granted, Becomes(Row{ComponentID: "", JobID: "", Enabled: true, Status: "UNLOCKED"})},
		{"Enable of a disabled row", with(held, off), enable, Granted, Becomes(Row{ComponentID: "b", JobID: "2", Enabled: true, Status: "LOCKED"})},
		{"Enable of an enabled row", free, enable, Granted, Unchanged},
		{"Enable of a row with NULLs", nulls, enable, Granted, Becomes(Row{Enabled: true})},
		{"Disable of a missing row", none, disable, Granted, Becomes(Row{ComponentID: "", JobID: "", Enabled: false, Status: "UNLOCKED"})},
		{"Disable of a held row", held, disable, Granted, Becomes(Row{ComponentID: "b", JobID: "2", Enabled: false, Status: "LOCKED"})},
		{"Disable of a free row", free, disable, Granted, Becomes(Row{ComponentID: "b", JobID: "2", Enabled: false, Status: "UNLOCKED"})},
		{"Disable of a disabled row", with(free, off), disable, Granted, Unchanged},
		{"Disable of a row with NULLs", nulls, disable, Granted, Becomes(Row{Enabled: false})},
	}
}()

type Specified struct {
	Name  string
	Given Row // row{} is none
	Call  func(*lock.Lock) error
	Want  Answer
	Then  After
}

// TestSpecification tests an engine by the specification.
func TestSpecification(t *testing.T, e Engine) {
	all := NewTable(t, e)
	l := all.Lock()
	for _, s := range Specification {
		if !all.CanHold(s.Given) {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			tb := all.With(t)
			tb.Remove()
			if s.Given != (Row{}) {
				tb.Put(s.Given)
			}
			before := tb.Get(Component, Job)
			asked := tb.Now()
			err := s.Call(l)
			answered := tb.Now()
			s.Want(t, err)
			s.Then(t, before, tb.Get(Component, Job), asked, answered)
		})
	}
}

package dbtest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
)

// The expectations of a call: its answer, and the row after it.
type (
	Answer func(t testing.TB, err error)
	After  func(t testing.TB, before, now *Stored, asked, answered time.Time)
)

func Granted(t testing.TB, err error) { require.NoError(t, err) }

func Disabled(t testing.TB, err error) {
	require.IsType(t, &lock.ErrDisabled{}, err)
	require.ErrorIs(t, err, lock.ErrRefused)
	var e *lock.ErrDisabled
	require.ErrorAs(t, err, &e)
	require.Equal(t, []string{Component, Job}, []string{e.ComponentName(), e.JobName()})
	for _, part := range []string{`"shop"`, `"backup"`, "disabled"} {
		require.ErrorContains(t, err, part)
	}
}

// acquire acquires the lease of the caller, and drops it without a release.
func acquire(change func(*lock.Job)) func(*lock.Lock) error {
	return func(l *lock.Lock) error {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		j := lock.Job{ComponentName: Component, ComponentID: "a", JobName: Job, TTL: time.Hour}
		change(&j)
		_, err := l.Acquire(ctx, j)
		return err
	}
}

// AlreadyRun: the tick, or a later one, has been run or is being run.
func AlreadyRun(running bool, jobID string) Answer {
	return func(t testing.TB, err error) {
		var e *lock.ErrAlreadyRun
		require.IsType(t, e, err)
		require.ErrorIs(t, err, lock.ErrRefused)
		require.ErrorAs(t, err, &e)
		require.Equal(t, running, e.Running())
		require.Equal(t, jobID, e.Last().JobID)
		require.Equal(t, []string{Component, Job}, []string{e.ComponentName(), e.JobName()})
		require.ErrorContains(t, err, jobID)
	}
}

// Ahead: the tick is too far ahead.
func Ahead(t testing.TB, err error) {
	var e *lock.ErrTickAhead
	require.IsType(t, e, err)
	require.ErrorAs(t, err, &e)
	require.Greater(t, e.By(), 23*time.Hour)
	require.NotErrorIs(t, err, lock.ErrRefused)
}

func RefusedBy(componentID, jobID string) Answer {
	return func(t testing.TB, err error) {
		require.IsType(t, &lock.ErrUnauthorised{}, err)
		require.ErrorIs(t, err, lock.ErrRefused)
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
var Taken = TakenFor("1")

// TakenFor is Taken for another run.
func TakenFor(jobID string) After {
	return func(t testing.TB, _, now *Stored, asked, answered time.Time) {
		require.NotNil(t, now)
		require.Equal(t, Row{ComponentID: "a", JobID: jobID, Enabled: true, Status: "LOCKED"},
			now.Fields().Plain())
		recent(t, now, asked, answered)
	}
}

func recent(t testing.TB, now *Stored, asked, answered time.Time) {
	require.False(t, now.LockTime.Time.Before(asked), "%v is before %v", now.LockTime.Time, asked)
	require.False(t, now.LockTime.Time.After(answered), "%v is after %v", now.LockTime.Time, answered)
}

// TakenAbove: locked by the caller, just after the previous lock_time, which is ahead of the
// clock.
func TakenAbove(t testing.TB, before, now *Stored, _, _ time.Time) {
	require.Equal(t, Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "LOCKED"}, now.Fields())
	require.Equal(t, before.LockTime.Time.Add(time.Microsecond), now.LockTime.Time)
}

// Becomes: the row has these fields, and its previous lock_time.
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

// Specification has every call on every state of the row.
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
		with   = func(r Row, changes ...func(*Row)) Row {
			for _, change := range changes {
				change(&r)
			}
			return r
		}
		heldBy = func(jobID string) Answer {
			return func(t testing.TB, err error) {
				var e *lock.ErrUnauthorised
				require.ErrorAs(t, err, &e)
				require.Equal(t, jobID, e.Holder().JobID)
			}
		}
		off   = func(r *Row) { r.Enabled = false }
		aged  = func(age any) func(*Row) { return func(r *Row) { r.Age = age } }
		nulls = Row{Age: "NULL"} // all columns but the key

		tick    = time.Date(2020, 3, 29, 2, 0, 0, 0, time.UTC)
		its     = tick.Format(time.RFC3339)
		earlier = tick.Add(-time.Second).Format(time.RFC3339)
		later   = tick.Add(time.Hour).Format(time.RFC3339)
		run     = acquire(func(j *lock.Job) { j.Tick = tick.In(time.FixedZone("CEST", 7200)) })
		of      = func(jobID any) func(*Row) { return func(r *Row) { r.JobID = jobID } }
		ahead   = time.Now().Add(48 * time.Hour).Truncate(time.Second)
		ofAhead = func(by time.Duration) func(*lock.Lock) error {
			return acquire(func(j *lock.Job) { j.Tick, j.TickAhead = ahead, by })
		}
		spaced = func(d time.Duration) func(*lock.Lock) error {
			return acquire(func(j *lock.Job) { j.JobID, j.Spacing = "1", d })
		}
	)
	return []Specified{
		{"Lock of a missing row", none, lockFor(minute), Granted, Taken},
		{"Lock of a missing row, no longest duration", none, lockFor(0), Granted, Taken},
		{"Lock of a free row", free, lockFor(minute), Granted, Taken},
		{"Lock of a free row, no longest duration", free, lockFor(0), Granted, Taken},
		{"Lock of a free row of the caller's", with(mine, func(r *Row) { r.Status = "UNLOCKED" }),
			lockFor(minute), Granted, Taken},
		{"Lock of a free row from the future", with(free, aged(-time.Hour)), lockFor(minute), Granted,
			TakenAbove},

		{"Lock of a disabled free row", with(free, off), lockFor(minute), Disabled, Unchanged},
		{"Lock of a disabled row, for its holder", with(mine, off), lockFor(time.Hour), Disabled,
			Unchanged},
		{"Lock of a disabled row, for its holder, expired", with(mine, off), lockFor(time.Second),
			Disabled, Unchanged},
		{"Lock of a disabled row, held", with(held, off), lockFor(time.Hour), Disabled, Unchanged},
		{"Lock of a disabled row, expired", with(held, off), lockFor(time.Second), Disabled, Unchanged},

		{"Lock for the holder", mine, lockFor(time.Hour), Granted, Unchanged},
		{"Lock for the holder, no longest duration", with(mine, aged(years)), lockFor(0), Granted,
			Unchanged},
		{"Lock for the holder, expired", mine, lockFor(time.Second), Granted, Taken},
		{"Lock for the holder, from the future", with(mine, aged(-time.Hour)), lockFor(time.Second),
			Granted, Unchanged},
		{"Lock for another run of the holder", with(mine, func(r *Row) { r.JobID = "2" }),
			lockFor(time.Hour), RefusedBy("a", "2"), Unchanged},
		{"Lock for another instance, same job ID", with(mine, func(r *Row) { r.ComponentID = "b" }),
			lockFor(time.Hour), RefusedBy("b", "1"), Unchanged},

		{"Lock of a held row", held, lockFor(time.Hour), RefusedBy("b", "2"), Unchanged},
		{"Lock of a held row, the longest of durations", with(held, aged(years)),
			lockFor(lock.Forever - 1), RefusedBy("b", "2"), Unchanged},
		{"Lock of a held row, no longest duration", with(held, aged(years)), lockFor(0),
			RefusedBy("b", "2"), Unchanged},
		{"Lock of a held row from the future", with(held, aged(-time.Hour)), lockFor(time.Microsecond),
			RefusedBy("b", "2"), Unchanged},
		{"Lock of an expired row", held, lockFor(59 * time.Second), Granted, Taken},
		{"Lock of an expired row, the shortest of durations", held, lockFor(time.Microsecond), Granted,
			Taken},
		{"Lock of an expired row of another run", with(mine, func(r *Row) { r.JobID = "2" }),
			lockFor(time.Second), Granted, Taken},

		{"Lock of an expired row, no TTL", held, lockFor(lock.Forever), RefusedBy("b", "2"), Unchanged},
		{"Lock without a unit", held, lockFor(30), Fails("Lock", "microsecond", "unit"), Unchanged},
		{"Lock without IDs", held, func(l *lock.Lock) error {
			return l.Lock(Component, "", Job, "",
				time.Second)
		}, Fails("Lock", "both IDs are empty"), Unchanged},
		{"Unlock without IDs", held, func(l *lock.Lock) error { return l.Unlock(Component, "", Job, "") },
			Fails("Unlock", "both IDs are empty"), Unchanged},
		{"Lock for a negative duration", free, lockFor(-1), Fails("Lock", "negative", "-1ns"), Unchanged},
		{"Lock for the most negative duration", held, lockFor(-lock.Forever), Fails("Lock", "negative"),
			Unchanged},

		{"Lock of a row full of NULLs", nulls, lockFor(minute), Granted, Taken},
		{"Lock of a row with NULL IDs", with(held, func(r *Row) { r.ComponentID, r.JobID = nil, nil }),
			lockFor(time.Hour), RefusedBy("", ""), Unchanged},
		{"Lock of a held row, enabled NULL", with(held, func(r *Row) { r.Enabled = nil }),
			lockFor(time.Hour), RefusedBy("b", "2"), Unchanged},
		{"Lock of an expired row, enabled NULL", with(held, func(r *Row) { r.Enabled = nil }),
			lockFor(time.Second), Granted, Taken},
		{"Lock of a row with status NULL", with(held, func(r *Row) { r.Status = nil }),
			lockFor(time.Hour), Granted, Taken},
		{"Lock of a held row with lock_time NULL", with(held, aged("NULL")), lockFor(lock.Forever - 1),
			Granted, Taken},
		{"Lock of a held row with lock_time NULL, no longest duration", with(held, aged("NULL")),
			lockFor(0), RefusedBy("b", "2"), Unchanged},
		{"Lock of a row with a status of its own", with(held, func(r *Row) { r.Status = "PAUSED" }),
			lockFor(time.Hour), RefusedBy("b", "2"), Unchanged},

		{"Unlock of a missing row", none, unlock, Granted, Unchanged},
		{"Unlock of a free row", free, unlock, Granted, Unchanged},
		{"Unlock of a free row of the caller's", with(mine, func(r *Row) { r.Status = "UNLOCKED" }),
			unlock, Granted, Unchanged},
		{"Unlock of a row full of NULLs", nulls, unlock, Granted, Unchanged},
		{"Unlock by the holder", mine, unlock, Granted, Becomes(Row{ComponentID: "a", JobID: "1",
			Enabled: true, Status: "UNLOCKED"})},
		{"Unlock by the holder, disabled", with(mine, off), unlock, Granted,
			Becomes(Row{ComponentID: "a", JobID: "1", Enabled: false, Status: "UNLOCKED"})},
		{"Unlock by the holder, enabled NULL", with(mine, func(r *Row) { r.Enabled = nil }), unlock,
			Granted, Becomes(Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "UNLOCKED"})},
		{"Unlock by another", held, unlock, RefusedBy("b", "2"), Unchanged},
		{"Unlock by another, disabled", with(held, off), unlock, RefusedBy("b", "2"), Unchanged},
		{"Unlock by another run of the holder", with(mine, func(r *Row) { r.JobID = "2" }), unlock,
			RefusedBy("a", "2"), Unchanged},
		{"Unlock by another, long past", with(held, aged(years)), unlock, RefusedBy("b", "2"), Unchanged},

		{"Enable of a missing row", none, enable, Granted, Becomes(Row{ComponentID: "", JobID: "",
			Enabled: true, Status: "UNLOCKED"})},
		{"Enable of a disabled row", with(held, off), enable, Granted,
			Becomes(Row{ComponentID: "b", JobID: "2", Enabled: true, Status: "LOCKED"})},
		{"Enable of an enabled row", free, enable, Granted, Unchanged},
		{"Enable of a row with NULLs", nulls, enable, Granted, Becomes(Row{Enabled: true})},
		{"Disable of a missing row", none, disable, Granted, Becomes(Row{ComponentID: "", JobID: "",
			Enabled: false, Status: "UNLOCKED"})},
		{"Disable of a held row", held, disable, Granted, Becomes(Row{ComponentID: "b", JobID: "2",
			Enabled: false, Status: "LOCKED"})},
		{"Disable of a free row", free, disable, Granted, Becomes(Row{ComponentID: "b", JobID: "2",
			Enabled: false, Status: "UNLOCKED"})},
		{"Disable of a disabled row", with(free, off), disable, Granted, Unchanged},
		{"Disable of a row with NULLs", nulls, disable, Granted, Becomes(Row{Enabled: false})},

		{"Acquire of a tick, missing row", none, run, Granted, TakenFor(its)},
		{"Acquire of a tick after the one before", with(free, of(earlier)), run, Granted, TakenFor(its)},
		{"Acquire of a tick that has been run", with(free, of(its)), run, AlreadyRun(false, its),
			Unchanged},
		{"Acquire of a tick after a later one", with(free, of(later)), run, AlreadyRun(false, later),
			Unchanged},
		{"Acquire of a tick that is being run", with(held, of(its)), run, AlreadyRun(true, its),
			Unchanged},
		{"Acquire of a tick that is being run by the same instance", with(mine, of(its)), run,
			AlreadyRun(true, its), Unchanged},
		{"Acquire of a tick whose run has died", with(held, of(its), aged(2*time.Hour)), run, Granted,
			TakenFor(its)},
		{"Acquire of a tick after a later one that has died", with(held, of(later), aged(2*time.Hour)),
			run, AlreadyRun(true, later), Unchanged},
		{"Acquire of a tick while the one before is run", with(held, of(earlier)), run, heldBy(earlier),
			Unchanged},
		{"Acquire of a tick after one that has died", with(held, of(earlier), aged(2*time.Hour)), run,
			Granted, TakenFor(its)},
		{"Acquire of a tick after a run that is none", with(free, of("zzz")), run, Granted,
			TakenFor(its)},
		{"Acquire of a tick after a run that begins like one", with(free, of(later+"/X")), run, Granted,
			TakenFor(its)},
		{"Acquire of a tick after NULL", with(free, of(nil)), run, Granted, TakenFor(its)},
		{"Acquire of a tick, disabled", with(free, off, of(earlier)), run, Disabled, Unchanged},
		{"Acquire of a tick a day ahead, missing row", none, ofAhead(0), Ahead, Unchanged},
		{"Acquire of a tick a day ahead", with(free, of(earlier)), ofAhead(0), Ahead, Unchanged},
		{"Acquire of a tick a day ahead, expired row", with(held, of(earlier), aged(2*time.Hour)),
			ofAhead(time.Hour), Ahead, Unchanged},
		{"Acquire of a tick a day ahead, allowed", free, ofAhead(50 * time.Hour), Granted,
			TakenFor(ahead.UTC().Format(time.RFC3339))},

		{"Acquire with a spacing, missing row", none, spaced(time.Hour), Granted, Taken},
		{"Acquire within the spacing", free, spaced(time.Hour), AlreadyRun(false, "2"), Unchanged},
		{"Acquire within the spacing, same IDs", with(mine, func(r *Row) { r.Status = "UNLOCKED" }),
			spaced(time.Hour), AlreadyRun(false, "1"), Unchanged},
		{"Acquire after the spacing", free, spaced(time.Second), Granted, Taken},
		{"Acquire within the spacing of one that has died", with(held, aged(2*time.Hour)),
			spaced(3 * time.Hour), Granted, Taken},
	}
}()

type Specified struct {
	Name  string
	Given Row // row{} means no row
	Call  func(*lock.Lock) error
	Want  Answer
	Then  After
}

// Specify tests an engine by the specification.
func Specify(t *testing.T, e Engine) {
	all := NewTable(t, e)
	l := all.Lock()
	for _, s := range Scenarios {
		t.Run(s.Name, func(t *testing.T) {
			tb := all.With(t)
			tb.Remove()
			s.Play(t, tb, l)
		})
	}
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

package dbtest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
)

// A Scenario specifies several calls in a row.
type Scenario struct {
	Name string
	Play func(t *testing.T, tb Table, l *lock.Lock)
}

// acquired returns a lease of component ID a, which ends with the test.
func acquired(t *testing.T, l *lock.Lock, change func(*lock.Job)) *lock.Lease {
	j := lock.Job{ComponentName: Component, ComponentID: "a", JobName: Job, TTL: time.Hour}
	change(&j)
	le, err := l.Acquire(t.Context(), j)
	require.NoError(t, err)
	return le
}

func run1(j *lock.Job) { j.JobID = "1" }

func holderNow(t *testing.T, l *lock.Lock) lock.Status {
	s, err := l.Status(t.Context(), Component, Job)
	require.NoError(t, err)
	return s
}

var aTick = time.Date(2020, 3, 29, 2, 0, 0, 0, time.UTC)

// lost are the ways in which a lease is lost in the row.
var lost = map[string]func(t *testing.T, tb Table, l *lock.Lock){
	"released by force": func(t *testing.T, tb Table, l *lock.Lock) {
		require.NoError(t, l.ForceRelease(t.Context(), Component, Job, holderNow(t, l).Holder))
	},
	"taken over": func(t *testing.T, tb Table, l *lock.Lock) {
		tb.Age(2 * time.Hour)
		require.NoError(t, l.Lock(Component, "b", Job, "2", time.Hour))
	},
	"locked again with the same IDs": func(t *testing.T, tb Table, l *lock.Lock) {
		require.NoError(t, l.Unlock(Component, "a", Job, "1"))
		require.NoError(t, l.Lock(Component, "a", Job, "1", time.Hour))
	},
	"row removed": func(t *testing.T, tb Table, l *lock.Lock) { tb.Remove() },
}

// Scenarios run on every engine.
var Scenarios = []Scenario{
	{"Lock concerns its row only", func(t *testing.T, tb Table, l *lock.Lock) {
		require.NoError(t, l.Lock("c", "a", "j", "1", 0))
		require.NoError(t, l.Lock("c", "a", "k", "1", 0))
		require.NoError(t, l.Lock("d", "a", "j", "1", 0))
		require.NoError(t, l.Disable("c", "k"))
		require.NoError(t, l.Unlock("d", "a", "j", "1"))
		var all []string
		for s, err := range l.All(t.Context()) {
			require.NoError(t, err)
			require.Equal(t, []any{s.JobName != "k", s.ComponentName == "c", "a"},
				[]any{s.Enabled, s.Locked, s.Holder.ComponentID})
			all = append(all, s.ComponentName+"/"+s.JobName)
		}
		require.Equal(t, []string{"c/j", "c/k", "d/j"}, all)
		for range l.All(t.Context()) {
			break // which gives the connection back
		}
		list, err := l.List(t.Context())
		require.NoError(t, err)
		require.Len(t, list, 3)
	}},
	{"Lock after a clock that was ahead, and within one microsecond",
		func(t *testing.T, tb Table, l *lock.Lock) {
			tb.Put(Row{ComponentID: "b", JobID: "2", Enabled: true, Status: "UNLOCKED", Age: -time.Hour})
			last := tb.LockTime()
			for range 20 {
				require.NoError(t, l.Lock(Component, "a", Job, "1", 0))
				require.True(t, tb.LockTime().After(last))
				last = tb.LockTime()
				require.NoError(t, l.Unlock(Component, "a", Job, "1"))
			}
		}},
	{"Status", func(t *testing.T, tb Table, l *lock.Lock) {
		require.Equal(t, lock.Status{ComponentName: Component, JobName: Job, Enabled: true,
			Holder: lock.Holder{LockTime: LongPast, Age: holderNow(t, l).Holder.Age}}, holderNow(t, l))
		tb.Put(Row{ComponentID: "b", JobID: "2", Enabled: false, Status: "LOCKED", Age: time.Hour})
		s := holderNow(t, l)
		require.Equal(t, []any{false, true, "b", "2", tb.LockTime()},
			[]any{s.Enabled, s.Locked, s.Holder.ComponentID, s.Holder.JobID, s.Holder.LockTime})
		require.GreaterOrEqual(t, s.Holder.Age, time.Hour-time.Millisecond)
		require.True(t, s.Expired(59*time.Minute))
		require.False(t, s.Expired(0) || s.Expired(lock.Forever) || s.Expired(2*time.Hour))
		tb.Put(Row{ComponentID: "b", JobID: "2", Enabled: true, Status: "LOCKED", Age: -time.Hour})
		require.Less(t, holderNow(t, l).Holder.Age, time.Duration(0))
		require.ErrorContains(t, l.Lock(Component, "a", Job, "1", time.Minute), "in the future")
	}},
	{"CheckTable", func(t *testing.T, tb Table, l *lock.Lock) {
		require.NoError(t, l.CheckTable(t.Context()))
	}},
	{"Delete", func(t *testing.T, tb Table, l *lock.Lock) {
		require.NoError(t, l.Delete(t.Context(), Component, Job), "missing")
		tb.Put(Row{ComponentID: "b", JobID: "2", Enabled: true, Status: "LOCKED", Age: 2 * time.Hour})
		err := l.Delete(t.Context(), Component, Job)
		require.IsType(t, &lock.ErrUnauthorised{}, err)
		require.ErrorContains(t, err, `"b"`)
		require.NotNil(t, tb.Get(Component, Job))
		tb.Put(Row{ComponentID: "b", JobID: "2", Enabled: false, Status: "UNLOCKED", Age: time.Hour})
		require.NoError(t, l.Delete(t.Context(), Component, Job))
		require.Nil(t, tb.Get(Component, Job))
		require.True(t, holderNow(t, l).Enabled)
	}},
	{"ForceRelease", func(t *testing.T, tb Table, l *lock.Lock) {
		force := func(h lock.Holder) error { return l.ForceRelease(t.Context(), Component, Job, h) }
		ids := lock.Holder{ComponentID: "b", JobID: "2"}
		require.NoError(t, force(ids), "missing")
		tb.Put(Row{ComponentID: "b", JobID: "2", Enabled: true, Status: "LOCKED", Age: time.Hour})
		seen := holderNow(t, l).Holder
		for _, h := range []lock.Holder{{ComponentID: "b", JobID: "1"}, {ComponentID: "a", JobID: "2"},
			{},
			{ComponentID: "b", JobID: "2", LockTime: seen.LockTime.Add(-time.Microsecond)},
			{ComponentID: "b", JobID: "2", LockTime: seen.LockTime.Add(time.Microsecond)}} {
			require.IsType(t, &lock.ErrUnauthorised{}, force(h), h)
			require.True(t, holderNow(t, l).Locked)
		}
		require.NoError(t, force(seen))
		require.False(t, holderNow(t, l).Locked)
		require.NoError(t, force(seen), "free")
		require.NoError(t, l.Lock(Component, "b", Job, "2", 0))
		require.NoError(t, force(ids), "any lock time")
	}},
	{"Acquire tells from whom it was taken", func(t *testing.T, tb Table, l *lock.Lock) {
		le := acquired(t, l, run1)
		require.Nil(t, le.TakenFrom())
		tb.Age(2 * time.Hour)
		again := acquired(t, l, func(j *lock.Job) { j.JobID = "2" })
		require.Equal(t, "1", again.TakenFrom().JobID)
		require.Greater(t, again.Token(), le.Token()-2*time.Hour.Microseconds())
	}},
	{"Acquire of a run without IDs", func(t *testing.T, tb Table, l *lock.Lock) {
		before := time.Now().Truncate(time.Second)
		le := acquired(t, l, func(j *lock.Job) { j.ComponentID = "" })
		h := holderNow(t, l).Holder
		require.Equal(t, []string{le.Job().ComponentID, le.Job().JobID}, []string{h.ComponentID, h.JobID})
		require.False(t, h.Started().Before(before) || h.Started().After(time.Now()))
		other := lock.Job{ComponentName: Component, JobName: Job}
		_, err := l.Acquire(t.Context(), other)
		require.IsType(t, &lock.ErrUnauthorised{}, err)
	}},
	{"Acquire of a disabled job", func(t *testing.T, tb Table, l *lock.Lock) {
		require.NoError(t, l.Disable(Component, Job))
		_, err := l.Acquire(t.Context(), lock.Job{ComponentName: Component, JobName: Job,
			Wait: lock.Forever})
		require.IsType(t, &lock.ErrDisabled{}, err)
	}},
	{"Lease_Renew", func(t *testing.T, tb Table, l *lock.Lock) {
		le := acquired(t, l, run1)
		token := le.Token()
		require.Equal(t, tb.LockTime().UnixMicro(), token)
		for range 3 {
			last := tb.LockTime()
			require.NoError(t, le.Renew(t.Context()))
			require.True(t, tb.LockTime().After(last))
		}
		require.Equal(t, token, le.Token())
		require.NoError(t, l.Disable(Component, Job))
		require.NoError(t, le.Renew(t.Context()), "disabled")
		require.NoError(t, le.Release(t.Context()))
		require.ErrorIs(t, le.Renew(t.Context()), lock.ErrReleased)
		require.ErrorIs(t, le.Err(), lock.ErrReleased)
		require.Equal(t, Row{ComponentID: "a", JobID: "1", Enabled: false, Status: "UNLOCKED"},
			tb.Get(Component, Job).Fields())
	}},
	{"Lease_Renew of a lease that never expires", func(t *testing.T, tb Table, l *lock.Lock) {
		le := acquired(t, l, func(j *lock.Job) { j.JobID, j.TTL = "1", lock.Forever })
		require.NoError(t, le.Renew(t.Context()))
		require.IsType(t, &lock.ErrUnauthorised{}, l.Lock(Component, "b", Job, "2", 0))
		require.NoError(t, le.Release(t.Context()))
	}},
	{"Lease_Release", func(t *testing.T, tb Table, l *lock.Lock) {
		le := acquired(t, l, run1)
		require.NoError(t, le.Renew(t.Context()))
		require.NoError(t, le.Release(t.Context()))
		require.NoError(t, l.Lock(Component, "b", Job, "2", 0))
		require.NoError(t, le.Release(t.Context()), "a second time")
		require.NoError(t, le.GiveBack(t.Context()), "a third time")
		require.Equal(t, "b", holderNow(t, l).Holder.ComponentID)
		require.True(t, holderNow(t, l).Locked)
		require.ErrorIs(t, context.Cause(le.Context()), lock.ErrReleased)
	}},
	{"Lease_GiveBack leaves the tick free", func(t *testing.T, tb Table, l *lock.Lock) {
		le := acquired(t, l, func(j *lock.Job) { j.Tick = aTick })
		require.NoError(t, le.GiveBack(t.Context()))
		require.False(t, holderNow(t, l).Locked)
		j := lock.Job{ComponentName: Component, ComponentID: "b", JobName: Job,
			Tick: aTick.Add(-time.Second)}
		_, err := l.Acquire(t.Context(), j)
		AlreadyRun(false, aTick.Add(-time.Second).Format(time.RFC3339))(t, err)
		j.Tick = aTick
		again, err := l.Acquire(t.Context(), j)
		require.NoError(t, err)
		require.NoError(t, again.Release(t.Context()))
		_, err = l.Acquire(t.Context(), j)
		AlreadyRun(false, aTick.Format(time.RFC3339))(t, err)
	}},
	{"Lease_Renew, Release and Check of a lease that is lost", func(t *testing.T, tb Table,
		l *lock.Lock) {
		for how, lose := range lost {
			if how == "taken over" && tb.Engine.Memory() {
				continue // the lease uses the clock of the process
			}
			tb.Remove()
			le := acquired(t, l, run1)
			lose(t, tb, l)
			before := tb.Get(Component, Job)
			require.ErrorIs(t,
				tb.InTransaction(func(tx lock.Transaction) error {
					return le.Check(t.Context(),
						tx)
				}), lock.ErrLost, how)
			require.ErrorIs(t, le.Renew(t.Context()), lock.ErrLost, how)
			require.ErrorIs(t, le.Err(), lock.ErrLost, how)
			require.ErrorIs(t, le.Release(t.Context()), lock.ErrLost, how)
			require.Equal(t, before, tb.Get(Component, Job), how)
		}
	}},
	{"Lease_Check", func(t *testing.T, tb Table, l *lock.Lock) {
		le := acquired(t, l, run1)
		for range 2 {
			require.NoError(t,
				tb.InTransaction(func(tx lock.Transaction) error { return le.Check(t.Context(), tx) }))
			require.NoError(t, le.Renew(t.Context()))
		}
		require.NoError(t, le.Release(t.Context()))
		require.ErrorIs(t, tb.InTransaction(func(tx lock.Transaction) error {
			return le.Check(t.Context(),
				tx)
		}), lock.ErrReleased)
	}},
	{"Run", func(t *testing.T, tb Table, l *lock.Lock) {
		boom := errors.New("boom")
		j := lock.Job{ComponentName: Component, JobName: Job, Tick: aTick}
		run := func(err error) error {
			return l.Run(t.Context(), j, func(ctx context.Context) error {
				require.True(t, holderNow(t, l).Locked)
				require.Equal(t, holderNow(t, l).Holder.JobID, lock.LeaseFrom(ctx).Job().JobID)
				return err
			})
		}
		j.RetryFailed = true
		require.ErrorIs(t, run(boom), boom)
		require.ErrorIs(t, run(boom), boom, "the tick is free")
		require.NoError(t, run(nil))
		AlreadyRun(false, aTick.Format(time.RFC3339))(t, run(nil))
		j.Tick, j.RetryFailed = aTick.Add(time.Hour), false
		require.ErrorIs(t, run(boom), boom)
		AlreadyRun(false, aTick.Add(time.Hour).Format(time.RFC3339))(t, run(nil))
	}},
	{"Lease of a job that stops when it is disabled", func(t *testing.T, tb Table, l *lock.Lock) {
		le := acquired(t, l, func(j *lock.Job) { j.JobID, j.StopWhenDisabled = "1", true })
		require.NoError(t, l.Disable(Component, Job))
		err := le.Renew(t.Context())
		require.ErrorIs(t, err, lock.ErrLost)
		require.ErrorAs(t, err, new(*lock.ErrDisabled))
		require.NoError(t, le.Release(t.Context()))
	}},
	{"Names and IDs are data", func(t *testing.T, tb Table, l *lock.Lock) {
		for _, text := range []string{`'"` + "`" + `'; DROP TABLE locks; --`,
			"a\r\n\tb\x01\x7f", "🔒\u0301é\u202e", "%s%_$1?1\\", "{table}", " padded ",
			strings.Repeat("0123456789", 10_000)} {
			require.NoError(t, l.Lock(text, text+"a", text, text+"1", time.Hour))
			require.Equal(t, Row{ComponentID: text + "a", JobID: text + "1", Enabled: true,
				Status: "LOCKED"}, tb.Get(text, text).Fields())
			err := l.Lock(text, text+"b", text, text+"2", time.Hour)
			var refusal *lock.ErrUnauthorised
			require.ErrorAs(t, err, &refusal)
			require.Equal(t, []string{text + "a", text + "1"},
				[]string{refusal.Holder().ComponentID, refusal.Holder().JobID})
			require.Less(t, len(err.Error()), 3000, "a message is for reading")
			require.NoError(t, l.Disable(text, text))
			require.NoError(t, l.Enable(text, text))
			require.NoError(t, l.Unlock(text, text+"a", text, text+"1"))
		}
	}},
}

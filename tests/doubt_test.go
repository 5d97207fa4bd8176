package tests

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

// A doubtful is a call that writes and whose replies are lost.
type doubtful struct {
	name   string
	given  dbtest.Row // Row{}: none
	lease  bool       // the call is a method of the caller's lease
	job    lock.Job   // of the lease
	call   func(t *testing.T, l *lock.Lock, le *lock.Lease) error
	after  dbtest.Row // the row afterwards; Row{}: none
	stolen verdict    // the answer if another acquires the lock before the retry
}

// A verdict is the expectation for an error.
type verdict func(t *testing.T, err error, what string)

func done(t *testing.T, err error, what string) { require.NoError(t, err, what) }

func unknown(t *testing.T, err error, what string) {
	require.ErrorIs(t, err, lock.ErrOutcomeUnknown, what)
	require.NotErrorIs(t, err, lock.ErrRefused, what)
	require.ErrorContains(t, err, `"rival"`, what)
}

func lost(t *testing.T, err error, what string) { require.ErrorIs(t, err, lock.ErrLost, what) }

func byRival(t *testing.T, err error, what string) {
	var held *lock.ErrUnauthorised
	require.ErrorAs(t, err, &held, what)
	require.Equal(t, "rival", held.Holder().ComponentID, what)
}

var doubtfuls = func() []doubtful {
	row := func(id, run string, enabled bool, status string) dbtest.Row {
		return dbtest.Row{ComponentID: id, JobID: run, Enabled: enabled, Status: status, Age: time.Minute}
	}
	mine, free := row("a", "1", true, "LOCKED"), row("b", "2", true, "UNLOCKED")
	unlocked := row("a", "1", true, "UNLOCKED")
	tick := time.Date(2020, 3, 29, 2, 0, 0, 0, time.UTC)
	its, before := tick.Format(time.RFC3339), tick.Add(-time.Second).Format(time.RFC3339)
	ticked := lock.Job{ComponentName: component, JobName: job, ComponentID: "a", Tick: tick,
		TTL: time.Hour}
	acquires := func(j lock.Job) func(*testing.T, *lock.Lock, *lock.Lease) error {
		return func(t *testing.T, l *lock.Lock, _ *lock.Lease) error {
			_, err := l.Acquire(t.Context(), j)
			return err
		}
	}
	alreadyRunByRival := func(t *testing.T, err error, what string) {
		if !errors.As(err, new(*lock.ErrAlreadyRun)) {
			byRival(t, err, what)
		}
	}
	return []doubtful{
		{name: "Lock, no row", call: func(t *testing.T, l *lock.Lock, _ *lock.Lease) error {
			return l.Lock(component, "a", job, "1", time.Hour)
		}, after: mine, stolen: byRival},
		{name: "Lock", given: free, call: func(t *testing.T, l *lock.Lock, _ *lock.Lease) error {
			return l.Lock(component, "a", job, "1", time.Hour)
		}, after: mine, stolen: byRival},
		{name: "Unlock", given: mine, call: func(t *testing.T, l *lock.Lock, _ *lock.Lease) error {
			return l.Unlock(component, "a", job, "1")
		}, after: unlocked, stolen: unknown},
		{name: "Enable", given: row("a", "1", false, "LOCKED"), call: func(t *testing.T, l *lock.Lock,
			_ *lock.Lease) error {
			return l.Enable(component, job)
		}, after: mine, stolen: done},
		{name: "Disable, no row", call: func(t *testing.T, l *lock.Lock, _ *lock.Lease) error {
			return l.Disable(component, job)
		}, after: row("", "", false, "UNLOCKED"), stolen: done},
		{name: "ForceRelease", given: mine, call: func(t *testing.T, l *lock.Lock, _ *lock.Lease) error {
			return l.ForceRelease(t.Context(), component, job, lock.Holder{ComponentID: "a", JobID: "1"})
		}, after: unlocked, stolen: unknown},
		{name: "Delete", given: free, call: func(t *testing.T, l *lock.Lock, _ *lock.Lease) error {
			return l.Delete(t.Context(), component, job)
		}, stolen: unknown},
		{name: "Acquire", given: free, call: acquires(as("a", "1")), after: mine, stolen: byRival},
		{name: "Acquire of a tick", given: free, call: acquires(ticked),
			after: row("a", its, true, "LOCKED"), stolen: alreadyRunByRival},
		{name: "Renew", lease: true, job: as("a", "1"), call: func(t *testing.T, _ *lock.Lock,
			le *lock.Lease) error {
			return le.Renew(t.Context())
		}, after: mine, stolen: lost},
		{name: "Release", lease: true, job: ticked, call: func(t *testing.T, _ *lock.Lock,
			le *lock.Lease) error {
			return le.Release(t.Context())
		}, after: row("a", its, true, "UNLOCKED"), stolen: done},
		{name: "GiveBack", lease: true, job: ticked, call: func(t *testing.T, _ *lock.Lock,
			le *lock.Lease) error {
			return le.GiveBack(t.Context())
		}, after: row("a", before, true, "UNLOCKED"), stolen: done},
	}
}()

// steal gives the lock to a rival, whoever has it.
func steal(t *testing.T, l *lock.Lock) {
	s, err := l.Status(t.Context(), component, job)
	require.NoError(t, err)
	if s.Locked {
		require.NoError(t, l.ForceRelease(t.Context(), component, job, s.Holder))
	}
	require.NoError(t, l.Enable(component, job))
	require.NoError(t, l.Lock(component, "rival", job, "r", time.Hour))
}

// prepare sets the row before the call, and returns the lease if the call is one of its methods.
func (d doubtful) prepare(t *testing.T, tb dbtest.Table, l *lock.Lock) *lock.Lease {
	tb.Remove()
	if d.given != (dbtest.Row{}) {
		tb.Put(d.given)
	}
	if !d.lease {
		return nil
	}
	return acquire(t, l, d.job)
}

func (d doubtful) requireDone(t *testing.T, tb dbtest.Table, what string) {
	want := d.after
	want.Age = nil
	got := dbtest.Row{}
	if s := tb.Get(component, job); s != nil {
		got = s.Fields().Plain()
	}
	require.Equal(t, want, got, what)
}

// A loss is which replies of a call are lost, and what happens meanwhile.
type loss struct {
	err          error
	before       bool // the server has not carried them out
	first, times int  // statements, the first is 0
	rival        bool // another takes the lock before the next attempt
}

// TestLock_lostReplies loses the replies to the first attempts of every call, at each statement,
// before and after the server has executed it, with and without a rival that acquires the lock
// before the next attempt.
func TestLock_lostReplies(t *testing.T) {
	var losses []loss
	// lib/pq returns ErrBadConn also for what was sent.
	for _, err := range []error{io.ErrUnexpectedEOF, driver.ErrBadConn} {
		for _, before := range []bool{true, false} {
			for _, times := range []int{1, 2} {
				for _, rival := range []bool{false, true} {
					losses = append(losses, loss{err, before, 0, times, rival})
				}
			}
		}
	}
	on(t, append(postgresEngines(), cockroachEngines()...), func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		undisturbed := tb.Lock()
		db, faulty := e.OpenFaulty(t, tb.DSN)
		l, err := lock.NewWith(db, lock.Options{NoDDL: true, Dialect: e.Dialect(), Retry: atOnce})
		require.NoError(t, err)
		for _, d := range doubtfuls {
			t.Run(d.name, func(t *testing.T) {
				for _, x := range losses {
					for x.suffer(t, d, tb.With(t), l, undisturbed, faulty) {
						x.first++
					}
				}
			})
		}
	})
}

// suffer makes a call with the loss, and reports whether it has so many statements.
func (x loss) suffer(t *testing.T, d doubtful, tb dbtest.Table, l, undisturbed *lock.Lock,
	faulty *dbtest.Faulty) (happened bool) {
	what := fmt.Sprintf("%+v", x)
	le := d.prepare(t, tb, l)
	faulty.Arm(func(n int) dbtest.Fault {
		if n < x.first || n >= x.first+x.times {
			return dbtest.Fault{}
		}
		happened = true
		f := dbtest.Fault{Err: x.err, Before: x.before}
		if x.rival && n == x.first+x.times-1 {
			f.Then = func() { steal(t, undisturbed) }
		}
		return f
	})
	err := d.call(t, l, le)
	faulty.Arm(nil)
	if !happened || !x.rival {
		require.NoError(t, err, what)
		d.requireDone(t, tb, what)
		return happened
	}
	d.stolen(t, err, what)
	s, err := undisturbed.Status(t.Context(), component, job)
	require.NoError(t, err)
	require.Equal(t, "rival", s.Holder.ComponentID, what)
	require.True(t, s.Locked, what)
	return true
}

// TestLock_everyReplyLost: when a call gives up, its error says that the outcome is unknown, and
// repeating it settles it.
func TestLock_everyReplyLost(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		tb.Lock()
		db, faulty := e.OpenFaulty(t, tb.DSN)
		l, err := lock.NewWith(db, lock.Options{NoDDL: true, Retry: lock.RetryPolicy{Attempts: 3,
			Backoff: time.Microsecond}})
		require.NoError(t, err)
		for _, d := range doubtfuls {
			for _, before := range []bool{true, false} {
				le := d.prepare(t, tb, l)
				faulty.Arm(func(int) dbtest.Fault {
					return dbtest.Fault{Err: io.ErrUnexpectedEOF,
						Before: before}
				})
				err := d.call(t, l, le)
				require.Equal(t, 3, min(faulty.Statements(), 3), d.name)
				faulty.Arm(nil)
				require.ErrorIs(t, err, lock.ErrOutcomeUnknown, d.name)
				require.ErrorIs(t, err, io.ErrUnexpectedEOF, d.name)
				require.NotErrorIs(t, err, lock.ErrRefused)
				if d.name == "Acquire of a tick" {
					_, err := l.Acquire(t.Context(), lock.Job{ComponentName: component, JobName: job,
						ComponentID: "b",
						Tick:        time.Date(2020, 3, 29, 2, 0, 0, 0, time.UTC)})
					if err != nil {
						require.NoError(t, d.call(t, l, le), "somebody runs it: %v", err)
					}
					continue
				}
				require.NoError(t, d.call(t, l, le), d.name)
				d.requireDone(t, tb, d.name)
			}
		}
	})
}

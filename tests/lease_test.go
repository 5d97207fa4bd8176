package tests

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

// as is the job of the specification, for a run.
func as(componentID, jobID string) lock.Job {
	return lock.Job{ComponentName: component, JobName: job, ComponentID: componentID, JobID: jobID, MaxDuration: time.Hour}
}

// acquire gets a lease that nobody keeps after the test.
func acquire(t testing.TB, l *lock.Lock, j lock.Job) *lock.Lease {
	t.Helper()
	lease, err := l.Acquire(t.Context(), j)
	require.NoError(t, err)
	return lease
}

// overtake lets component ID b, job ID 2 take the lock over.
func overtake(tb dbtest.Table) {
	tb.Age(2 * time.Hour)
	require.NoError(tb.T, tb.Lock().Lock(component, "b", job, "2", time.Hour))
}

// A detour leads the renewals of a lease past the test. Other statements go straight to the database.
type detour struct {
	*sql.DB
	via atomic.Pointer[func(ctx context.Context, query string, args ...any) *sql.Row]
}

func (d *detour) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if via := d.via.Load(); via != nil && strings.Contains(query, "UPDATE locks SET lock_time") {
		return (*via)(ctx, query, args...)
	}
	return d.DB.QueryRowContext(ctx, query, args...)
}

func (d *detour) lead(via func(ctx context.Context, query string, args ...any) *sql.Row) {
	d.via.Store(&via)
}

// fails lets the renewals fail as they do when the context ends, after they were carried out or before.
func (d *detour) fails(t testing.TB, carriedOut bool) {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	d.lead(func(ctx context.Context, query string, args ...any) *sql.Row {
		if carriedOut {
			columns := make([]any, 8)
			for i := range columns {
				columns[i] = new(any)
			}
			require.NoError(t, d.DB.QueryRowContext(ctx, query, args...).Scan(columns...))
		}
		return d.DB.QueryRowContext(over, query, args...)
	})
}

func (d *detour) mends() { d.via.Store(nil) }

func TestALeaseIsTheLockOfItsIDs(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		asked := tb.Now()
		lease := acquire(t, l, as("a", "1"))
		dbtest.Taken(t, nil, tb.Get(component, job), asked, tb.Now())
		require.Equal(t, tb.LockTime().UnixMicro(), lease.Token())
		require.NoError(t, lease.Context().Err())

		for _, other := range []lock.Job{as("b", "2"), as("a", "2"), as("b", "1")} {
			none, err := l.Acquire(t.Context(), other)
			require.Nil(t, none)
			require.IsType(t, &lock.ErrUnauthorised{}, err)
			holder := err.(*lock.ErrUnauthorised).Holder()
			require.Equal(t, []string{"a", "1"}, []string{holder.ComponentID, holder.JobID})
			require.Equal(t, tb.LockTime(), holder.Since)
			require.ErrorContains(t, err, "lock: Acquire job")
		}
		require.IsType(t, &lock.ErrUnauthorised{}, l.Lock(component, "b", job, "2", time.Hour))
		require.NoError(t, l.Lock(component, "a", job, "1", time.Hour), "it is the holder's lock")
	})
}

func TestADisabledJobIsNotAcquired(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		require.NoError(t, l.Disable(component, job))
		_, err := l.Acquire(t.Context(), as("a", "1"))
		dbtest.Disabled(t, err)
	})
}

func TestWhatAJobLeavesOutIsFilledIn(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		seen := map[string]bool{"": true}
		for range 3 {
			lease := acquire(t, l, lock.Job{ComponentName: component, JobName: job, MaxDuration: time.Hour})
			j := lease.Job()
			for _, id := range []string{j.ComponentID, j.JobID} {
				require.NotContains(t, seen, id)
				seen[id] = true
			}
			require.Equal(t, dbtest.Row{ComponentID: j.ComponentID, JobID: j.JobID, Enabled: true, Status: "LOCKED"}, tb.Get(component, job).Fields())
			require.Equal(t, 6*time.Minute, j.Margin)
			require.Equal(t, time.Second, j.Poll)
			require.NoError(t, lease.Release(t.Context()))
		}
		full := as("a", "1")
		full.Margin, full.Poll, full.Wait, full.Spacing, full.Once, full.StopWhenDisabled = 1, 2, 3, 4, true, true
		tb.Age(time.Minute) // for the Spacing
		require.Equal(t, full, acquire(t, l, full).Job())
	})
}

func TestAReleaseFreesTheLockAndEndsTheContext(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		lease := acquire(t, l, as("a", "1"))
		before := tb.Get(component, job)
		require.NoError(t, lease.Release(t.Context()))
		dbtest.Becomes(dbtest.Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "UNLOCKED"})(t, before, tb.Get(component, job), time.Time{}, time.Time{})
		require.ErrorIs(t, lease.Context().Err(), context.Canceled)
		require.Equal(t, context.Canceled, context.Cause(lease.Context()))
		require.NoError(t, lease.Release(t.Context()))
		require.ErrorIs(t, lease.Renew(t.Context()), context.Canceled, "it is over")

		acquire(t, l, as("b", "2"))
		before = tb.Get(component, job)
		require.NoError(t, lease.Release(t.Context()), "it has been released")
		require.Equal(t, before, tb.Get(component, job))
	})
}

func TestARenewalMovesTheLockTimeAndNotTheToken(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		lease := acquire(t, tb.Lock(), as("a", "1"))
		token, last := lease.Token(), tb.LockTime()
		for range 20 {
			require.NoError(t, lease.Renew(t.Context()))
			now := tb.LockTime()
			require.True(t, now.After(last), "%v is not after %v", now, last)
			last = now
		}
		require.Equal(t, dbtest.Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "LOCKED"}, tb.Get(component, job).Fields())
		require.Equal(t, token, lease.Token())
		require.NoError(t, lease.Release(t.Context()))
		require.Equal(t, last, tb.LockTime())
	})
}

func TestTokensGrow(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		last := int64(0)
		acquired := func(j lock.Job) *lock.Lease {
			lease := acquire(t, l, j)
			require.Greater(t, lease.Token(), last)
			last = lease.Token()
			return lease
		}
		for i := range 10 {
			lease := acquired(as(instance(i%3), fmt.Sprint(i)))
			for range i {
				require.NoError(t, lease.Renew(t.Context()))
				last = tb.LockTime().UnixMicro() // not a token, but the next one is above it, too
			}
			if i%2 == 0 {
				require.NoError(t, lease.Release(t.Context()))
				continue
			}
			tb.Age(2 * time.Hour)
			last = tb.LockTime().UnixMicro()
		}
		// The clock was ahead and has been put right.
		tb.Put(dbtest.Row{ComponentID: "b", JobID: "2", Enabled: true, Status: "UNLOCKED", Age: -time.Hour})
		last = tb.LockTime().UnixMicro()
		require.NoError(t, acquired(as("a", "1")).Release(t.Context()))
		acquired(as("a", "2"))
	})
}

// The ways to lose a lease of component ID a, job ID 1.
var losses = []struct {
	name string
	lose func(tb dbtest.Table, l *lock.Lock)
	// A lease that doesn't know yet has nothing to complain of at its release.
	released bool
	database bool
}{
	{name: "taken over by another", lose: func(tb dbtest.Table, l *lock.Lock) { overtake(tb) }},
	{name: "taken over by another that is done", lose: func(tb dbtest.Table, l *lock.Lock) {
		overtake(tb)
		require.NoError(tb.T, l.Unlock(component, "b", job, "2"))
	}},
	{name: "taken over by another run of the same instance", lose: func(tb dbtest.Table, l *lock.Lock) {
		tb.Age(2 * time.Hour)
		require.NoError(tb.T, l.Lock(component, "a", job, "2", time.Hour))
	}},
	{name: "expired and begun anew by the same IDs", lose: func(tb dbtest.Table, l *lock.Lock) {
		tb.Age(2 * time.Hour)
		require.NoError(tb.T, l.Lock(component, "a", job, "1", time.Hour))
	}},
	{name: "unlocked and locked again by the same IDs", lose: func(tb dbtest.Table, l *lock.Lock) {
		require.NoError(tb.T, l.Unlock(component, "a", job, "1"))
		require.NoError(tb.T, l.Lock(component, "a", job, "1", time.Hour))
	}},
	{name: "released by force", released: true, lose: func(tb dbtest.Table, l *lock.Lock) { forceRelease(tb, l) }},
	{name: "released by force and taken by another", lose: func(tb dbtest.Table, l *lock.Lock) {
		forceRelease(tb, l)
		require.NoError(tb.T, l.Lock(component, "b", job, "2", time.Hour))
	}},
	{name: "deleted", database: true, lose: func(tb dbtest.Table, l *lock.Lock) { tb.Remove() }},
	{name: "deleted and taken by another", database: true, lose: func(tb dbtest.Table, l *lock.Lock) {
		tb.Remove()
		require.NoError(tb.T, l.Lock(component, "b", job, "2", time.Hour))
	}},
}

func forceRelease(tb dbtest.Table, l *lock.Lock) {
	s, err := l.Status(tb.T.Context(), component, job)
	require.NoError(tb.T, err)
	require.NoError(tb.T, l.ForceRelease(tb.T.Context(), component, job, s.Holder))
}

func TestALeaseThatIsLostSaysSoAndChangesNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		all := dbtest.NewTable(t, e)
		l := all.Lock()
		for _, loss := range losses {
			if loss.database && e.Memory() {
				continue
			}
			begin := func(t *testing.T) (dbtest.Table, *lock.Lease, *dbtest.Stored) {
				tb := all.With(t)
				tb.Remove()
				lease := acquire(t, l, as("a", "1"))
				loss.lose(tb, l)
				return tb, lease, tb.Get(component, job)
			}
			t.Run(loss.name+", Renew", func(t *testing.T) {
				tb, lease, before := begin(t)
				require.NoError(t, lease.Context().Err(), "it can't know yet")
				err := lease.Renew(t.Context())
				require.ErrorIs(t, err, lock.ErrLost)
				dbtest.Fails("lock: Renew job")(t, err)
				require.ErrorIs(t, lease.Context().Err(), context.Canceled)
				require.ErrorIs(t, context.Cause(lease.Context()), lock.ErrLost)
				require.ErrorIs(t, lease.Renew(t.Context()), lock.ErrLost)
				require.ErrorIs(t, lease.Release(t.Context()), lock.ErrLost)
				require.ErrorIs(t, context.Cause(lease.Context()), lock.ErrLost)
				require.Equal(t, before, tb.Get(component, job))
			})
			t.Run(loss.name+", Release", func(t *testing.T) {
				tb, lease, before := begin(t)
				err := lease.Release(t.Context())
				if loss.released {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, lock.ErrLost)
					dbtest.Fails("lock: Release job")(t, err)
				}
				require.ErrorIs(t, lease.Context().Err(), context.Canceled)
				require.Equal(t, before, tb.Get(component, job))
			})
		}
	})
}

func TestWhoHasTakenTheLockIsNamed(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		lease := acquire(t, tb.Lock(), as("a", "1"))
		overtake(tb)
		for _, err := range []error{lease.Renew(t.Context()), context.Cause(lease.Context()), lease.Release(t.Context())} {
			var refusal *lock.ErrUnauthorised
			require.ErrorAs(t, err, &refusal)
			require.Equal(t, "b", refusal.Holder().ComponentID)
		}
	})
}

func TestALeaseThatHasExpiredIsNotRenewed(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		lease := acquire(t, tb.Lock(), as("a", "1"))
		tb.Age(2 * time.Hour)
		before := tb.Get(component, job)
		err := lease.Renew(t.Context())
		require.ErrorIs(t, err, lock.ErrLost)
		require.ErrorContains(t, err, "expired")
		require.ErrorIs(t, context.Cause(lease.Context()), lock.ErrLost)
		require.Equal(t, before, tb.Get(component, job))
	})
}

// TestARenewalThatComesLateNeverTakesTheLockBack: the statement reaches the database when the lock has expired.
func TestARenewalThatComesLateNeverTakesTheLockBack(t *testing.T) {
	const short = 300 * time.Millisecond
	for name, test := range map[string]struct {
		meanwhile func(tb dbtest.Table, l *lock.Lock)
		released  func(t *testing.T, err error, before, now *dbtest.Stored)
	}{
		"expired": {
			func(tb dbtest.Table, l *lock.Lock) {
				require.Eventually(tb.T, func() bool {
					s, err := l.Status(tb.T.Context(), component, job)
					return err == nil && s.Expired(short)
				}, 10*time.Second, 5*time.Millisecond)
			},
			func(t *testing.T, err error, before, now *dbtest.Stored) {
				require.NoError(t, err)
				dbtest.Becomes(dbtest.Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "UNLOCKED"})(t, before, now, time.Time{}, time.Time{})
			},
		},
		"taken over": {
			func(tb dbtest.Table, l *lock.Lock) {
				require.Eventually(tb.T, func() bool { return l.Lock(component, "b", job, "2", short) == nil },
					10*time.Second, 5*time.Millisecond)
			},
			func(t *testing.T, err error, before, now *dbtest.Stored) {
				require.ErrorIs(t, err, lock.ErrLost)
				require.Equal(t, before, now)
			},
		},
		"begun anew by the same IDs": {
			func(tb dbtest.Table, l *lock.Lock) {
				before := tb.LockTime()
				require.Eventually(tb.T, func() bool {
					return l.Lock(component, "a", job, "1", short) == nil && tb.LockTime().After(before)
				}, 10*time.Second, 5*time.Millisecond)
			},
			func(t *testing.T, err error, before, now *dbtest.Stored) {
				require.ErrorIs(t, err, lock.ErrLost)
				require.Equal(t, before, now)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
				tb := dbtest.NewTable(t, e)
				l := tb.Lock()
				sent, deliver := make(chan struct{}), make(chan struct{})
				d := &detour{DB: tb.DB}
				first := sync.OnceFunc(func() { close(sent) })
				d.lead(func(_ context.Context, query string, args ...any) *sql.Row {
					first()
					<-deliver
					return tb.QueryRow(query, args...)
				})
				j := as("a", "1")
				j.MaxDuration = short
				var (
					lease   *lock.Lease
					renewed = make(chan error, 1)
				)
				for late := true; late; { // on a busy machine it may be over before it has begun
					tb.Remove()
					var err error
					if lease, err = lock.New(d).Acquire(t.Context(), j); err != nil {
						require.ErrorIs(t, err, lock.ErrLost)
						continue
					}
					go func() { renewed <- lease.Renew(t.Context()) }()
					select {
					case <-sent:
						late = false
					case <-renewed:
					}
				}
				<-lease.Context().Done()
				require.ErrorIs(t, context.Cause(lease.Context()), lock.ErrLost)
				test.meanwhile(tb, l)
				before := tb.Get(component, job)
				close(deliver)
				require.Error(t, <-renewed)
				require.ErrorIs(t, lease.Renew(t.Context()), lock.ErrLost)
				require.Equal(t, before, tb.Get(component, job))
				test.released(t, lease.Release(t.Context()), before, tb.Get(component, job))
			})
		})
	}
}

func TestARenewalWhoseReplyIsLostIsSettled(t *testing.T) {
	type scene struct {
		tb    dbtest.Table
		l     *lock.Lock
		d     *detour
		lease *lock.Lease
	}
	for _, test := range []struct {
		name string
		then func(t *testing.T, s scene)
	}{
		{"by the next renewal", func(t *testing.T, s scene) {
			last := s.tb.LockTime()
			require.NoError(t, s.lease.Renew(t.Context()))
			require.True(t, s.tb.LockTime().After(last))
			require.NoError(t, s.lease.Renew(t.Context()))
			require.NoError(t, s.lease.Release(t.Context()))
		}},
		{"by the next renewal but one", func(t *testing.T, s scene) {
			s.d.fails(t, true)
			require.ErrorIs(t, s.lease.Renew(t.Context()), lock.ErrOutcomeUnknown)
			s.d.fails(t, false)
			require.ErrorIs(t, s.lease.Renew(t.Context()), lock.ErrOutcomeUnknown)
			s.d.mends()
			require.NoError(t, s.lease.Renew(t.Context()))
			require.NoError(t, s.lease.Release(t.Context()))
		}},
		{"by the release", func(t *testing.T, s scene) {
			before := s.tb.Get(component, job)
			require.NoError(t, s.lease.Release(t.Context()))
			dbtest.Becomes(dbtest.Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "UNLOCKED"})(t, before, s.tb.Get(component, job), time.Time{}, time.Time{})
		}},
		{"by a check", func(t *testing.T, s scene) {
			tx := inTx(t, s.tb.DB)
			require.NoError(t, s.lease.Check(t.Context(), tx))
			require.NoError(t, tx.Commit())
			require.NoError(t, s.lease.Renew(t.Context()))
		}},
		{"when another has taken over", func(t *testing.T, s scene) {
			overtake(s.tb)
			before := s.tb.Get(component, job)
			require.ErrorIs(t, s.lease.Renew(t.Context()), lock.ErrLost)
			require.Equal(t, before, s.tb.Get(component, job))
		}},
		{"when another has taken over, by the release", func(t *testing.T, s scene) {
			overtake(s.tb)
			before := s.tb.Get(component, job)
			require.ErrorIs(t, s.lease.Release(t.Context()), lock.ErrLost)
			require.Equal(t, before, s.tb.Get(component, job))
		}},
	} {
		for _, carriedOut := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/carried out: %t", test.name, carriedOut), func(t *testing.T) {
				onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
					tb := dbtest.NewTable(t, e)
					d := &detour{DB: tb.DB}
					s := scene{tb, lock.New(d), d, nil}
					s.lease = acquire(t, s.l, as("a", "1"))
					before := tb.LockTime()
					d.fails(t, carriedOut)
					err := s.lease.Renew(t.Context())
					require.ErrorIs(t, err, context.Canceled)
					require.ErrorIs(t, err, lock.ErrOutcomeUnknown)
					require.NotErrorIs(t, err, lock.ErrLost)
					require.NoError(t, s.lease.Context().Err())
					require.Equal(t, carriedOut, tb.LockTime().After(before))
					d.mends()
					test.then(t, s)
				})
			})
		}
	}
}

// TestARenewalWhoseContextEndsBeforeItsAnswerIsRead doesn't lose the lease by that.
func TestARenewalWhoseContextEndsBeforeItsAnswerIsRead(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		d := &detour{DB: tb.DB}
		lease := acquire(t, lock.New(d), as("a", "1"))
		for range 10 {
			ctx, cancel := context.WithCancel(t.Context())
			d.lead(func(ctx context.Context, query string, args ...any) *sql.Row {
				answer := tb.QueryRowContext(ctx, query, args...)
				cancel()
				time.Sleep(time.Millisecond) // so that database/sql heeds it
				return answer
			})
			err := lease.Renew(ctx)
			cancel()
			if err != nil {
				require.ErrorIs(t, err, context.Canceled)
				require.NotErrorIs(t, err, lock.ErrLost)
			}
			d.mends()
			require.NoError(t, lease.Renew(t.Context()))
		}
		require.NoError(t, lease.Release(t.Context()))
	})
}

func TestALeaseOfADisabledJob(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		for stop, want := range map[bool]error{true: lock.ErrLost, false: nil} {
			t.Run(fmt.Sprintf("StopWhenDisabled %t", stop), func(t *testing.T) {
				tb := dbtest.NewTable(t, e)
				l := tb.Lock()
				j := as("a", "1")
				j.StopWhenDisabled = stop
				lease := acquire(t, l, j)
				require.NoError(t, lease.Renew(t.Context()))
				require.NoError(t, l.Disable(component, job))
				err := lease.Renew(t.Context())
				require.ErrorIs(t, err, want)
				if stop {
					require.ErrorAs(t, err, new(*lock.ErrDisabled))
					require.ErrorIs(t, context.Cause(lease.Context()), lock.ErrLost)
					require.ErrorAs(t, context.Cause(lease.Context()), new(*lock.ErrDisabled))
				} else {
					require.NoError(t, lease.Context().Err())
				}
				require.NoError(t, lease.Release(t.Context()))
				require.Equal(t, dbtest.Row{ComponentID: "a", JobID: "1", Enabled: false, Status: "UNLOCKED"}, tb.Get(component, job).Fields())
			})
		}
	})
}

func TestAJobThatMakesNoSenseIsRefusedBeforeTheDatabaseIsAsked(t *testing.T) {
	l := lock.New(dbtest.Storage{
		OnExec: func(query string) error {
			require.Contains(t, query, "CREATE TABLE", "only New asks anything")
			return nil
		},
		OnQueryRow: func(query string) *sql.Row { t.Errorf("asked: %s", query); return nil },
	})
	for says, wrong := range map[string]func(j *lock.Job){
		"Job.MaxDuration, -1ns, is negative":                    func(j *lock.Job) { j.MaxDuration = -1 },
		"Job.Margin, -1ns, is negative":                         func(j *lock.Job) { j.Margin = -1 },
		"Job.Poll, -1ns, is negative":                           func(j *lock.Job) { j.Poll = -1 },
		"Job.Spacing, -1s, is negative":                         func(j *lock.Job) { j.Spacing = -time.Second },
		"Job.Margin, 1h0m0s, leaves nothing of Job.MaxDuration": func(j *lock.Job) { j.Margin = time.Hour },
		"Job.Margin, 1h0m0.001s, leaves nothing of":             func(j *lock.Job) { j.Margin = time.Hour + time.Millisecond },
		"a Job with Once needs a JobID":                         func(j *lock.Job) { j.Once, j.JobID = true, "" },
		"the component name has a NUL":                          func(j *lock.Job) { j.ComponentName = "\x00" },
		"the component ID has a NUL":                            func(j *lock.Job) { j.ComponentID = "\x00" },
		`the job name "\xff" is not valid UTF-8`:                func(j *lock.Job) { j.JobName = "\xff" },
		`the job ID "a\xff" is not valid UTF-8`:                 func(j *lock.Job) { j.JobID = "a\xff" },
	} {
		j := as("a", "1")
		wrong(&j)
		_, err := l.Acquire(t.Context(), j)
		require.ErrorContains(t, err, says)
		require.ErrorContains(t, err, "lock: Acquire job")
		require.ErrorContains(t, l.Run(t.Context(), j, func(context.Context) error {
			t.Error("it runs")
			return nil
		}), says)
	}
}

func TestALeaseIsNotHadInATransaction(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		tb.Lock()
		tx := inTx(t, tb.DB)
		for name, s := range map[string]lock.Storage{"Tx": tx, "type that embeds Tx": struct{ *sql.Tx }{tx}} {
			t.Run(name, func(t *testing.T) {
				_, err := lock.New(s).Acquire(t.Context(), as("a", "1"))
				dbtest.Fails("Acquire", "transaction")(t, err)
				require.False(t, refused(err))
			})
		}
		require.NoError(t, tx.Commit())
		require.Nil(t, tb.Get(component, job))
	})
}

// The context of Acquire.

func TestALeaseEndsWithTheContextThatItWasAcquiredIn(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		why := errors.New("the service stops")
		ctx, cancel := context.WithCancelCause(t.Context())
		lease, err := l.Acquire(ctx, as("a", "1"))
		require.NoError(t, err)
		cancel(why)
		<-lease.Context().Done()
		require.Equal(t, why, context.Cause(lease.Context()))
		require.ErrorIs(t, lease.Renew(t.Context()), why)
		require.Equal(t, dbtest.Row{ComponentID: "a", JobID: "1", Enabled: true, Status: "LOCKED"}, tb.Get(component, job).Fields(), "it is still held")
		require.NoError(t, lease.Release(t.Context()))
		require.Equal(t, "UNLOCKED", tb.Get(component, job).Status.String)

		_, err = l.Acquire(ctx, as("b", "2"))
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, "UNLOCKED", tb.Get(component, job).Status.String)
	})
}

func TestALeaseLeavesNoGoroutineBehind(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		require.NoError(t, l.Enable(component, job))
		before := goleak.IgnoreCurrent()
		for name, end := range map[string]func(lease *lock.Lease, cancel func()){
			"released":     func(lease *lock.Lease, _ func()) { require.NoError(t, lease.Release(t.Context())) },
			"context over": func(_ *lock.Lease, cancel func()) { cancel() },
			"context over, then released": func(lease *lock.Lease, cancel func()) {
				cancel()
				require.NoError(t, lease.Release(t.Context()))
			},
			"lost": func(lease *lock.Lease, _ func()) {
				overtake(tb)
				require.ErrorIs(t, lease.Renew(t.Context()), lock.ErrLost)
			},
			"refused": func(*lock.Lease, func()) {
				_, err := l.Acquire(t.Context(), as("b", "2"))
				require.IsType(t, &lock.ErrUnauthorised{}, err)
			},
		} {
			tb.Remove()
			ctx, cancel := context.WithCancel(t.Context())
			lease, err := l.Acquire(ctx, as("a", "1"))
			require.NoError(t, err)
			end(lease, cancel)
			if name == "refused" {
				require.NoError(t, lease.Release(t.Context()))
			}
			require.NoError(t, goleak.Find(before), name)
			cancel()
		}
	})
}

// Once per tick, and not too soon.

var (
	thisTick    = lock.Tick(time.Date(2026, 3, 29, 2, 0, 0, 0, time.UTC))
	earlierTick = lock.Tick(time.Date(2026, 3, 29, 1, 59, 0, 0, time.UTC))
	laterTick   = lock.Tick(time.Date(2026, 3, 29, 2, 1, 0, 0, time.UTC))
)

func TestATickIsTheTimeInUTC(t *testing.T) {
	require.Equal(t, "2026-03-29T02:00:00Z", thisTick)
	zone := time.FixedZone("", 2*60*60)
	require.Equal(t, thisTick, lock.Tick(time.Date(2026, 3, 29, 4, 0, 0, 999, zone)))
}

func alreadyRun(componentID, jobID string) dbtest.Answer {
	return func(t testing.TB, err error) {
		require.IsType(t, &lock.ErrAlreadyRun{}, err)
		var e *lock.ErrAlreadyRun
		require.ErrorAs(t, err, &e)
		require.Equal(t, []string{component, job}, []string{e.ComponentName(), e.JobName()})
		require.Equal(t, []string{componentID, jobID}, []string{e.Last().ComponentID, e.Last().JobID})
		dbtest.Fails("Acquire", "already", `"`+componentID+`"`, `"`+jobID+`"`)(t, err)
	}
}

func heldBy(componentID, jobID string) dbtest.Answer {
	return func(t testing.TB, err error) {
		require.IsType(t, &lock.ErrUnauthorised{}, err)
		holder := err.(*lock.ErrUnauthorised).Holder()
		require.Equal(t, []string{componentID, jobID}, []string{holder.ComponentID, holder.JobID})
	}
}

func TestOnceAndSpacing(t *testing.T) {
	var (
		minute, hour = time.Minute, time.Hour
		years        = 100 * 365 * 24 * hour

		once = func(jobID string) lock.Job {
			j := as("a", jobID)
			j.Once = true
			return j
		}
		spaced = func(by time.Duration) lock.Job {
			j := as("a", "1")
			j.Spacing = by
			return j
		}
		both = func(jobID string, by time.Duration) lock.Job {
			j := once(jobID)
			j.Spacing = by
			return j
		}
		now = once(thisTick)
		ran = func(jobID string, age time.Duration) dbtest.Row {
			return dbtest.Row{ComponentID: "b", JobID: jobID, Enabled: true, Status: "UNLOCKED", Age: age}
		}
		runs = func(jobID string, age time.Duration) dbtest.Row {
			return dbtest.Row{ComponentID: "b", JobID: jobID, Enabled: true, Status: "LOCKED", Age: age}
		}
		off    = func(r dbtest.Row) dbtest.Row { r.Enabled = false; return r }
		byUs   = func(r dbtest.Row) dbtest.Row { r.ComponentID = "a"; return r }
		noTime = func(r dbtest.Row) dbtest.Row { r.Age = "NULL"; return r }
	)
	tests := []struct {
		name  string
		given dbtest.Row
		job   lock.Job
		want  dbtest.Answer
	}{
		{"a tick of a missing row", dbtest.Row{}, now, dbtest.Granted},
		{"a tick that is being run", runs(thisTick, minute), now, alreadyRun("b", thisTick)},
		{"a tick that has been run", ran(thisTick, minute), now, alreadyRun("b", thisTick)},
		{"a tick that has been run long ago", ran(thisTick, years), now, alreadyRun("b", thisTick)},
		{"a tick that this instance has run", byUs(ran(thisTick, minute)), now, alreadyRun("a", thisTick)},
		{"a tick that this instance is running", byUs(runs(thisTick, minute)), now, dbtest.Granted},
		{"a tick whose instance died", runs(thisTick, 2*hour), now, dbtest.Granted},
		{"a tick whose run died on this instance", byUs(runs(thisTick, 2*hour)), now, dbtest.Granted},
		{"a tick that is run without a longest duration", runs(thisTick, years), func() lock.Job {
			j := now
			j.MaxDuration = 0
			return j
		}(), alreadyRun("b", thisTick)},
		{"a tick after one that has been run", ran(earlierTick, minute), now, dbtest.Granted},
		{"a tick while the one before is running", runs(earlierTick, minute), now, heldBy("b", earlierTick)},
		{"a tick after one whose instance died", runs(earlierTick, 2*hour), now, dbtest.Granted},
		{"a tick before one that has been run", ran(laterTick, minute), now, alreadyRun("b", laterTick)},
		{"a tick before one that was run long ago", ran(laterTick, years), now, alreadyRun("b", laterTick)},
		{"a tick before one that is running", runs(laterTick, minute), now, alreadyRun("b", laterTick)},
		{"a tick before one whose instance died", runs(laterTick, 2*hour), now, alreadyRun("b", laterTick)},
		{"a tick after a run that is no tick", ran("z", minute), now, dbtest.Granted},
		{"a tick after a run with a long name", ran(laterTick+"z", minute), now, dbtest.Granted},
		{"a tick after a run with as many letters but more bytes", ran(strings.Repeat("é", len(thisTick)), minute), now, dbtest.Granted},
		{"a tick while a run is at it that is no tick", runs("z", minute), now, heldBy("b", "z")},
		{"a tick of a job that nobody has ever run", ran("", minute), now, dbtest.Granted},
		{"a tick of a disabled job", off(ran(earlierTick, minute)), now, disabledFor},
		{"a tick of a disabled job that has been run", off(ran(thisTick, minute)), now, disabledFor},
		{"a tick of a disabled job that is being run", off(runs(thisTick, minute)), now, disabledFor},
		{"a tick of a row full of NULLs", dbtest.Row{Age: "NULL"}, now, dbtest.Granted},
		{"a tick of a held row with NULL IDs", dbtest.Row{ComponentID: nil, JobID: nil, Enabled: true, Status: "LOCKED", Age: minute}, now, heldBy("", "")},
		{"a tick that has been run, lock_time and enabled NULL", dbtest.Row{ComponentID: "b", JobID: thisTick, Enabled: nil, Status: "UNLOCKED", Age: "NULL"}, now, alreadyRun("b", thisTick)},
		{"a tick that has been run, status NULL", dbtest.Row{ComponentID: "b", JobID: thisTick, Enabled: true, Status: nil, Age: minute}, now, alreadyRun("b", thisTick)},
		{"a tick with a status of its own", dbtest.Row{ComponentID: "b", JobID: thisTick, Enabled: true, Status: "PAUSED", Age: minute}, now, alreadyRun("b", thisTick)},
		{"without Once, a run that has been made", ran("1", minute), as("a", "1"), dbtest.Granted},

		{"spaced, a missing row", dbtest.Row{}, spaced(hour), dbtest.Granted},
		{"spaced, too soon", ran("1", minute), spaced(hour), alreadyRun("b", "1")},
		{"spaced, just too soon", ran("1", 59*minute), spaced(hour), alreadyRun("b", "1")},
		{"spaced, late enough", ran("1", 61*minute), spaced(hour), dbtest.Granted},
		{"spaced, from the future", ran("1", -minute), spaced(time.Second), alreadyRun("b", "1")},
		{"spaced, while another runs", runs("2", minute), spaced(hour), heldBy("b", "2")},
		{"spaced, while another runs for longer than the spacing", runs("2", minute), spaced(time.Second), heldBy("b", "2")},
		{"spaced, after an instance that died", runs("2", 2*hour), spaced(3 * hour), dbtest.Granted},
		{"spaced, held by the caller", byUs(runs("1", minute)), spaced(hour), dbtest.Granted},
		{"spaced, disabled", off(ran("1", minute)), spaced(hour), disabledFor},
		{"spaced, a row full of NULLs", dbtest.Row{Age: "NULL"}, spaced(hour), dbtest.Granted},
		{"spaced, lock_time NULL", noTime(ran("2", 0)), spaced(hour), dbtest.Granted},
		{"spaced, status NULL", dbtest.Row{ComponentID: "b", JobID: "2", Enabled: true, Status: nil, Age: minute}, spaced(hour), alreadyRun("b", "2")},

		{"spaced ticks, too soon", ran(earlierTick, minute), both(thisTick, hour), alreadyRun("b", earlierTick)},
		{"spaced ticks, late enough", ran(earlierTick, 2*hour), both(thisTick, hour), dbtest.Granted},
		{"spaced ticks, late enough but run", ran(thisTick, 2*hour), both(thisTick, hour), alreadyRun("b", thisTick)},
	}
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		all := dbtest.NewTable(t, e)
		l := all.Lock()
		for _, test := range tests {
			if !all.CanHold(test.given) {
				continue
			}
			t.Run(test.name, func(t *testing.T) {
				tb := all.With(t)
				tb.Remove()
				if test.given != (dbtest.Row{}) {
					tb.Put(test.given)
				}
				before := tb.Get(component, job)
				lease, err := l.Acquire(t.Context(), test.job)
				test.want(t, err)
				if err != nil {
					require.Equal(t, before, tb.Get(component, job))
					return
				}
				require.Equal(t, dbtest.Row{ComponentID: "a", JobID: test.job.JobID, Enabled: true, Status: "LOCKED"}, tb.Get(component, job).Fields())
				require.NoError(t, lease.Release(t.Context()))
			})
		}
	})
}

func disabledFor(t testing.TB, err error) { require.IsType(t, &lock.ErrDisabled{}, err) }

func TestARowThatWasOnlyEnabledHasRunNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		require.NoError(t, l.Enable(component, job))
		j := as("a", thisTick)
		j.Once, j.Spacing = true, 100*365*24*time.Hour
		acquire(t, l, j)
	})
}

// TestTicksSortByTheirBytes, whatever the collation of the table: Go and the database must agree.
func TestTicksSortByTheirBytes(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		_, err := tb.Exec(`CREATE TABLE locks (component_name TEXT, component_id TEXT, job_name TEXT, job_id TEXT COLLATE "en-x-icu",
enabled BOOL, status TEXT, lock_time TIMESTAMPTZ, PRIMARY KEY (component_name, job_name))`)
		if err != nil {
			t.Skip(err)
		}
		l := tb.Lock()
		for _, pair := range [][2]string{{"B", "a"}, {"run-B", "run-a"}, {"1-", "10"}} {
			tb.Put(dbtest.Row{ComponentID: "b", JobID: pair[0], Enabled: true, Status: "UNLOCKED", Age: time.Minute})
			j := as("a", pair[1])
			j.Once = true
			lease, err := l.Acquire(t.Context(), j)
			require.NoError(t, err)
			require.NoError(t, lease.Release(t.Context()))

			j.JobID = pair[0]
			_, err = l.Acquire(t.Context(), j)
			alreadyRun("a", pair[1])(t, err)
		}
	})
}

func TestOfAnyNumberOfChallengersOneRunsTheTick(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		first := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for i := range rounds() / 10 {
			tick := lock.Tick(first.Add(time.Duration(i) * time.Minute))
			errs := make([]error, challengers)
			together(challengers, func(i int) {
				j := as(instance(i), tick)
				j.Once = true
				var lease *lock.Lease
				if lease, errs[i] = l.Acquire(t.Context(), j); errs[i] == nil {
					errs[i] = lease.Release(t.Context())
				}
			})
			winners := 0
			for _, err := range errs {
				if err == nil {
					winners++
					continue
				}
				require.IsType(t, &lock.ErrAlreadyRun{}, err)
				require.Equal(t, tick, err.(*lock.ErrAlreadyRun).Last().JobID)
			}
			require.Equal(t, 1, winners)
		}
	})
}

// TestClocksThatDifferRunNoTickTwice: instances whose clocks are some ticks apart fire the same schedule.
func TestClocksThatDifferRunNoTickTwice(t *testing.T) {
	const ticks = 20
	ahead := []int{5, 5, 2, 0, 0, -3} // seconds; there is a tick in each
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		var ran [ticks]atomic.Int32
		first := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for second := -5; second < ticks+3; second++ {
			together(len(ahead), func(i int) {
				tick := second + ahead[i]
				if tick < 0 || tick >= ticks {
					return
				}
				j := as(instance(i), lock.Tick(first.Add(time.Duration(tick)*time.Second)))
				j.Once = true
				err := l.Run(t.Context(), j, func(context.Context) error {
					ran[tick].Add(1)
					return nil
				})
				if already := new(*lock.ErrAlreadyRun); err != nil && !errors.As(err, already) {
					t.Error(err)
				}
			})
		}
		for tick := range ran {
			require.EqualValues(t, 1, ran[tick].Load(), "tick %d", tick)
		}
	})
}

// Looking and administering.

func TestStatus(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		s, err := l.Status(t.Context(), component, job)
		require.NoError(t, err)
		require.True(t, s.Enabled)
		require.False(t, s.Locked)
		require.Equal(t, []string{component, job, "", ""}, []string{s.ComponentName, s.JobName, s.Holder.ComponentID, s.Holder.JobID})
		require.Nil(t, tb.Get(component, job), "to look makes no row")

		for _, given := range []dbtest.Row{
			{ComponentID: "b", JobID: "2", Enabled: true, Status: "LOCKED", Age: time.Minute}, {ComponentID: "b", JobID: "2", Enabled: false, Status: "LOCKED", Age: time.Minute},
			{ComponentID: "b", JobID: "2", Enabled: true, Status: "UNLOCKED", Age: time.Minute}, {ComponentID: "b", JobID: "2", Enabled: false, Status: "UNLOCKED", Age: time.Minute},
		} {
			tb.Put(given)
			before := tb.Get(component, job)
			s, err = l.Status(t.Context(), component, job)
			require.NoError(t, err)
			require.Equal(t, given.Enabled, s.Enabled)
			require.Equal(t, given.Status == "LOCKED", s.Locked)
			require.Equal(t, []string{"b", "2"}, []string{s.Holder.ComponentID, s.Holder.JobID})
			require.Equal(t, before.LockTime.Time, s.Holder.Since)
			require.Equal(t, before.LockTime.Time.UnixMicro(), s.Token)
			require.GreaterOrEqual(t, s.Holder.Age, time.Minute)
			require.LessOrEqual(t, s.Holder.Age, tb.Now().Sub(s.Holder.Since))
			require.Equal(t, s.Locked, s.Expired(time.Second))
			require.False(t, s.Expired(time.Hour))
			require.False(t, s.Expired(0))
			require.Equal(t, before, tb.Get(component, job))

			all, err := l.List(t.Context())
			require.NoError(t, err)
			require.Len(t, all, 1)
			require.GreaterOrEqual(t, all[0].Holder.Age, s.Holder.Age)
			all[0].Holder.Age = s.Holder.Age
			require.Equal(t, s, all[0])
		}
	})
}

func TestStatusOfRowsWrittenByHand(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		for _, test := range []struct {
			given           dbtest.Row
			enabled, locked bool
		}{
			{dbtest.Row{Age: "NULL"}, true, false},
			{dbtest.Row{ComponentID: nil, JobID: nil, Enabled: true, Status: "LOCKED", Age: "NULL"}, true, true},
			{dbtest.Row{ComponentID: "b", JobID: "2", Enabled: nil, Status: "PAUSED", Age: time.Minute}, true, true},
		} {
			tb.Put(test.given)
			s, err := l.Status(t.Context(), component, job)
			require.NoError(t, err)
			require.Equal(t, []bool{test.enabled, test.locked}, []bool{s.Enabled, s.Locked})
			all, err := l.List(t.Context())
			require.NoError(t, err)
			require.Len(t, all, 1)
			require.Equal(t, []bool{test.enabled, test.locked}, []bool{all[0].Enabled, all[0].Locked})
			// A row with no lock_time is as old as can be.
			require.Equal(t, test.locked, s.Expired(time.Second))
		}
	})
}

func TestListIsInTheOrderOfTheNames(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		all, err := l.List(t.Context())
		require.NoError(t, err)
		require.Empty(t, all)
		for _, name := range [][2]string{{"b", "a"}, {"a", "c"}, {"b", "b"}, {"a", "b"}, {"c", ""}} {
			require.NoError(t, l.Lock(name[0], "a", name[1], "1", 0))
		}
		require.NoError(t, l.Unlock("b", "a", "b", "1"))
		require.NoError(t, l.Disable("c", ""))
		require.NoError(t, l.Enable("d", "d"))
		all, err = l.List(t.Context())
		require.NoError(t, err)
		var got []string
		for _, s := range all {
			got = append(got, fmt.Sprintf("%s/%s %t %t %s", s.ComponentName, s.JobName, s.Enabled, s.Locked, s.Holder.ComponentID))
		}
		require.Equal(t, []string{"a/b true true a", "a/c true true a", "b/a true true a", "b/b true false a",
			"c/ false true a", "d/d true false "}, got)
	})
}

func TestAListNeedsAStorageThatAnswersWithManyRows(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		require.NoError(t, tb.Lock().Lock(component, "a", job, "1", 0))
		for name, s := range map[string]lock.Storage{
			"DB": tb.DB, "Tx": inTx(t, tb.DB), "Query without a context": onlyQuery{struct{ lock.Storage }{tb.DB}, tb.DB},
		} {
			all, err := lock.New(s).List(t.Context())
			require.NoError(t, err, name)
			require.Len(t, all, 1, name)
		}
		_, err := lock.New(struct{ lock.Storage }{tb.DB}).List(t.Context())
		require.ErrorContains(t, err, "lock: List")
		require.ErrorContains(t, err, "the Storage has neither QueryContext nor Query")
	})
}

type onlyQuery struct {
	lock.Storage
	db *sql.DB
}

func (q onlyQuery) Query(query string, args ...any) (*sql.Rows, error) {
	return q.db.Query(query, args...)
}

func TestForceReleaseFreesTheLockOfTheHolderThatWasSeen(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		seen := lock.Holder{ComponentID: "b", JobID: "2"}
		force := func() error { return l.ForceRelease(t.Context(), component, job, seen) }

		require.NoError(t, force(), "nobody holds a missing row")
		require.Nil(t, tb.Get(component, job))

		for _, enabled := range []bool{true, false} {
			tb.Put(dbtest.Row{ComponentID: "b", JobID: "2", Enabled: enabled, Status: "LOCKED", Age: time.Minute})
			before := tb.Get(component, job)
			require.NoError(t, force())
			dbtest.Becomes(dbtest.Row{ComponentID: "b", JobID: "2", Enabled: enabled, Status: "UNLOCKED"})(t, before, tb.Get(component, job), time.Time{}, time.Time{})
			before = tb.Get(component, job)
			require.NoError(t, force(), "nobody holds it any more")
			require.Equal(t, before, tb.Get(component, job))
		}
		for _, other := range []dbtest.Row{{ComponentID: "c", JobID: "2", Enabled: true, Status: "LOCKED", Age: time.Minute}, {ComponentID: "b", JobID: "3", Enabled: true, Status: "LOCKED", Age: time.Minute}} {
			tb.Put(other)
			before := tb.Get(component, job)
			err := force()
			heldBy(other.ComponentID.(string), other.JobID.(string))(t, err)
			dbtest.Fails("ForceRelease")(t, err)
			require.Equal(t, before, tb.Get(component, job))
		}
	})
}

// TestForceReleaseOfAHolderThatRenews: the holder that was seen is the same run, however often it has renewed since.
func TestForceReleaseOfAHolderThatRenews(t *testing.T) {
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l := tb.Lock()
		lease := acquire(t, l, as("a", "1"))
		s, err := l.Status(t.Context(), component, job)
		require.NoError(t, err)
		require.NoError(t, lease.Renew(t.Context()))
		require.NoError(t, l.ForceRelease(t.Context(), component, job, s.Holder))
		before := tb.Get(component, job)
		require.Equal(t, "UNLOCKED", before.Status.String)
		require.ErrorIs(t, lease.Renew(t.Context()), lock.ErrLost)
		require.Equal(t, before, tb.Get(component, job))
	})
}

// Beside instances of the old release.

func TestARenewalIsHeededByTheOldRelease(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		for _, renewed := range []bool{false, true} {
			tb := dbtest.NewTable(t, e)
			l := tb.Lock()
			since := tb.Now().Add(-50 * time.Minute)
			before := &oldClient{tb.DB, func() time.Time { return since }}
			require.NoError(t, before.Lock(component, "a", job, "1", time.Hour))
			var lease *lock.Lease
			if renewed {
				lease = acquire(t, l, as("a", "1"))
				require.WithinDuration(t, since, time.UnixMicro(lease.Token()), time.Millisecond, "it has gone on with the lock")
				require.NoError(t, lease.Renew(t.Context()))
			}
			// Twenty minutes later the lock_time of the beginning is too long ago.
			later := &oldClient{tb.DB, func() time.Time { return tb.Now().Add(20 * time.Minute) }}
			err := later.Lock(component, "b", job, "2", time.Hour)
			if renewed {
				require.True(t, refused(err), "%v", err)
				require.NoError(t, lease.Renew(t.Context()))
			} else {
				require.NoError(t, err)
				require.Equal(t, dbtest.Row{ComponentID: "b", JobID: "2", Enabled: true, Status: "LOCKED"}, tb.Get(component, job).Fields())
			}
		}
	})
}

func TestALeaseAndTheOldReleaseOnOneRow(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		tb := dbtest.NewTable(t, e)
		l, old := tb.Lock(), newOldClient(tb.DB)
		require.NoError(t, old.Lock(component, "b", job, "2", time.Hour))
		_, err := l.Acquire(t.Context(), as("a", "1"))
		heldBy("b", "2")(t, err)
		require.NoError(t, old.Unlock(component, "b", job, "2"))

		lease := acquire(t, l, as("a", "1"))
		require.True(t, refused(old.Lock(component, "b", job, "2", time.Hour)))
		require.True(t, refused(old.Unlock(component, "b", job, "2")))
		require.NoError(t, lease.Renew(t.Context()))
		require.NoError(t, lease.Release(t.Context()))
		require.NoError(t, old.Lock(component, "b", job, "2", time.Hour))
		require.NoError(t, lease.Release(t.Context()), "again")
		require.Equal(t, dbtest.Row{ComponentID: "b", JobID: "2", Enabled: true, Status: "LOCKED"}, tb.Get(component, job).Fields())
	})
}

func TestALeaseIsSafeForConcurrentUseOnADatabase(t *testing.T) {
	db := engines[0].Open(t)
	l := lock.New(db)
	for range 3 {
		lease, err := l.Acquire(t.Context(), as("a", "1"))
		require.NoError(t, err)
		var all, users sync.WaitGroup
		for range 4 {
			users.Go(func() {
				for range 10 {
					if err := lease.Renew(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
			users.Go(func() {
				for range 10 {
					tx, err := db.BeginTx(t.Context(), nil)
					if err == nil {
						err = errors.Join(lease.Check(t.Context(), tx), tx.Commit())
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 2 {
			all.Go(func() {
				users.Wait()
				if err := lease.Release(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		s, err := l.Status(t.Context(), component, job)
		require.NoError(t, err)
		require.False(t, s.Locked)
	}
}

// The end of a context may reach a driver when the database has done its work already.
func TestARenewalThatIsCancelledOnADatabaseDoesNotLoseTheLease(t *testing.T) {
	l := lock.New(engines[0].Open(t))
	random := rand.New(rand.NewSource(1))
	for i := range 150 {
		lease, err := l.Acquire(t.Context(), as("a", "1"))
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		timer := time.AfterFunc(time.Duration(random.Intn(1000))*time.Microsecond, cancel)
		for err == nil {
			err = lease.Renew(ctx)
		}
		timer.Stop()
		require.NotErrorIs(t, err, lock.ErrLost)
		if i%2 == 0 {
			require.NoError(t, lease.Renew(t.Context()), "round %d: after %v", i, err)
		}
		require.NoError(t, lease.Release(t.Context()), "round %d: after %v", i, err)
	}
}

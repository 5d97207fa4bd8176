package compat_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
)

// bench has the stack of a case, and direct access to the database.
type bench struct {
	service
	l  *lock.Lock
	db *sql.DB
}

// age makes a component's locks older.
func (b bench) age(t *testing.T, component string, by time.Duration) {
	mustExec(t, b.db,
		`UPDATE locks SET lock_time = lock_time - $2::text::interval WHERE component_name = $1`,
		component, fmt.Sprintf("%d microseconds", by.Microseconds()))
}

// results returns what runs have committed.
func (b bench) results(t *testing.T, run string) (n int) {
	require.NoError(t, b.db.QueryRow(`SELECT count(*) FROM results WHERE run = $1`, run).Scan(&n))
	return n
}

func refusedBy(t *testing.T, err error, componentID, jobID string) {
	var refusal *lock.ErrUnauthorised
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, componentID, refusal.Holder().ComponentID)
	require.Equal(t, jobID, refusal.Holder().JobID)
}

// cases must work on every stack. The name of a case is also the component of its locks.
var cases = []struct {
	name string
	try  func(t *testing.T, b bench, component string)
}{
	{"a lock is granted, refused to others in its holder's name, and given back",
		func(t *testing.T, b bench, component string) {
			require.NoError(t, b.l.Lock(component, "a", "job", "1", time.Hour))
			require.NoError(t, b.l.Lock(component, "a", "job", "1", time.Hour), "its holder's own")
			refusedBy(t, b.l.Lock(component, "b", "job", "2", time.Hour), "a", "1")
			refusedBy(t, b.l.Unlock(component, "b", "job", "2"), "a", "1")
			require.NoError(t, b.l.Unlock(component, "a", "job", "1"))
			require.NoError(t, b.l.Lock(component, "b", "job", "2", time.Hour))
			refusedBy(t, b.l.Lock(component, "a", "job", "1", time.Hour), "b", "2")
		}},
	{"a lock that has expired is taken over", func(t *testing.T, b bench, component string) {
		require.NoError(t, b.l.Lock(component, "a", "job", "1", time.Hour))
		b.age(t, component, 2*time.Hour)
		refusedBy(t, b.l.Lock(component, "b", "job", "2", 3*time.Hour), "a", "1")
		require.NoError(t, b.l.Lock(component, "b", "job", "2", time.Hour))
		refusedBy(t, b.l.Unlock(component, "a", "job", "1"), "b", "2")
	}},
	{"a job is disabled and enabled", func(t *testing.T, b bench, component string) {
		require.NoError(t, b.l.Disable(component, "job"))
		require.IsType(t, &lock.ErrDisabled{}, b.l.Lock(component, "a", "job", "1", time.Hour))
		require.NoError(t, b.l.Enable(component, "job"))
		require.NoError(t, b.l.Lock(component, "a", "job", "1", time.Hour))
	}},
	{"a run commits what it has written, with Check", func(t *testing.T, b bench, component string) {
		run := "of " + component
		job := lock.Job{ComponentName: component, ComponentID: "a", JobName: "job", JobID: "1",
			TTL: time.Hour}
		require.NoError(t, b.l.Run(patient(t), job, func(ctx context.Context) error {
			lease := lock.LeaseFrom(ctx)
			if err := lease.Renew(ctx); err != nil {
				return err
			}
			refusedBy(t, b.l.Lock(component, "b", "job", "2", time.Hour), "a", "1")
			return b.transact(ctx, func(tx lock.Transaction, write func(string) error) error {
				return errors.Join(write(run), lease.Check(ctx, tx))
			})
		}))
		require.Equal(t, 1, b.results(t, run))
		require.NoError(t, b.l.Lock(component, "b", "job", "2", 0), "it has been released")
	}},
	{"until the transaction of a Check ends, nobody can take over",
		func(t *testing.T, b bench, component string) {
			ctx := patient(t)
			lease, err := b.l.Acquire(ctx, lock.Job{ComponentName: component, ComponentID: "a",
				JobName: "job", JobID: "1", TTL: time.Hour})
			require.NoError(t, err)
			require.NoError(t, b.transact(ctx, func(tx lock.Transaction, _ func(string) error) error {
				if err := lease.Check(ctx, tx); err != nil {
					return err
				}
				_, err := b.db.ExecContext(ctx,
					`SELECT 1 FROM locks WHERE component_name = $1 FOR UPDATE NOWAIT`, component)
				require.ErrorContains(t, err, "could not obtain lock on row")
				return nil
			}))
			mustExec(t, b.db, `SELECT 1 FROM locks WHERE component_name = $1 FOR UPDATE NOWAIT`, component)
			require.NoError(t, lease.Release(ctx))
		}},
	{"a run that has lost its lock can't commit", func(t *testing.T, b bench, component string) {
		ctx, run := patient(t), "of "+component
		lease, err := b.l.Acquire(ctx, lock.Job{ComponentName: component, ComponentID: "a",
			JobName: "job", JobID: "1", TTL: time.Hour})
		require.NoError(t, err)
		b.age(t, component, 2*time.Hour)
		require.NoError(t, b.l.Lock(component, "b", "job", "2", time.Hour))
		require.ErrorIs(t, b.transact(ctx, func(tx lock.Transaction, write func(string) error) error {
			if err := write(run); err != nil {
				return err
			}
			return lease.Check(ctx, tx)
		}), lock.ErrLost)
		require.Zero(t, b.results(t, run))
		err = lease.Release(ctx)
		require.ErrorIs(t, err, lock.ErrLost)
		refusedBy(t, err, "b", "2")
	}},
	{"Status and List say who holds what", func(t *testing.T, b bench, component string) {
		ctx := patient(t)
		require.NoError(t, b.l.Lock(component, "a", "held", "1", time.Hour))
		require.NoError(t, b.l.Disable(component, "idle"))
		status, err := b.l.Status(ctx, component, "held")
		require.NoError(t, err)
		require.True(t, status.Locked && status.Enabled)
		require.Equal(t, "a", status.Holder.ComponentID)
		require.False(t, status.Expired(time.Hour))

		all, err := b.l.List(ctx)
		require.NoError(t, err)
		all = slices.DeleteFunc(all, func(s lock.Status) bool { return s.ComponentName != component })
		require.Len(t, all, 2)
		require.Equal(t, "held", all[0].JobName)
		require.Equal(t, status.Holder.LockTime, all[0].Holder.LockTime)
		require.Equal(t, "idle", all[1].JobName)
		require.False(t, all[1].Locked || all[1].Enabled)

		require.NoError(t, b.l.ForceRelease(ctx, component, "held", all[0].Holder))
		status, err = b.l.Status(ctx, component, "held")
		require.NoError(t, err)
		require.False(t, status.Locked)
	}},
	{"of 16 challengers one wins", func(t *testing.T, b bench, component string) {
		for round := range 9 {
			// The lock is new, free, or expired.
			job := fmt.Sprintf("job %d", round/3)
			if round%3 == 2 {
				b.age(t, component, 2*time.Hour)
			} else if round%3 == 1 {
				status, err := b.l.Status(patient(t), component, job)
				require.NoError(t, err)
				require.NoError(t, b.l.Unlock(component, status.Holder.ComponentID, job, status.Holder.JobID))
			}
			require.NoError(t, oneWins(b.l, component, job, fmt.Sprintf("run %d", round)), "round %d", round)
		}
	}},
}

const challengers = 16

// oneWins has 16 challengers ask at once. It returns an error unless one wins, and all others
// name it.
func oneWins(l *lock.Lock, component, job, run string) error {
	var (
		answers [challengers]error
		start   = make(chan struct{})
		wg      sync.WaitGroup
	)
	for i := range challengers {
		wg.Go(func() {
			<-start
			answers[i] = l.Lock(component, fmt.Sprintf("instance %d", i), job, run, time.Hour)
		})
	}
	close(start)
	wg.Wait()
	winner := slices.Index(answers[:], nil)
	if winner < 0 {
		return fmt.Errorf("nobody has won: %w", errors.Join(answers[:]...))
	}
	for i, err := range answers {
		if i == winner {
			continue
		}
		var refusal *lock.ErrUnauthorised
		if !errors.As(err, &refusal) || refusal.Holder().ComponentID != fmt.Sprintf("instance %d",
			winner) || refusal.Holder().JobID != run {
			return fmt.Errorf("instance %d has won, and to instance %d was said: %w", winner, i, err)
		}
	}
	return nil
}

func TestLock_stacks(t *testing.T) {
	for _, s := range stacks {
		t.Run(s.name, func(t *testing.T) {
			p := newDatabase(t)
			tryAll(t, s, p, p)
		})
	}
}

// tryAll tries the cases on a stack. The stack finds the database at p, the test at direct.
func tryAll(t *testing.T, s stack, p, direct place) {
	b := bench{db: direct.open(t, "pgx")}
	mustExec(t, b.db, `CREATE TABLE results (run TEXT)`)
	b.service = s.open(t, p)
	b.l = lock.New(b.storage) // which makes the table
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.try(t, b, c.name) })
	}
}

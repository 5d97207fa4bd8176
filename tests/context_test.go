package tests

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/dbtest"
)

// The calls with a context, and their changes of a row. Those of doings have none.
var withContext = map[string]func(ctx context.Context, l *lock.Lock) error{
	"Lock": func(ctx context.Context, l *lock.Lock) error {
		return l.LockContext(ctx, component, "a", job, "1", time.Hour)
	},
	"Unlock": func(ctx context.Context, l *lock.Lock) error {
		return l.UnlockContext(ctx, component,
			"a", job, "1")
	},
	"Enable": func(ctx context.Context, l *lock.Lock) error {
		return l.EnableContext(ctx, component,
			job)
	},
	"Disable": func(ctx context.Context, l *lock.Lock) error {
		return l.DisableContext(ctx, component,
			job)
	},
	"Acquire": func(ctx context.Context, l *lock.Lock) error {
		lease, err := l.Acquire(ctx, as("a", "1"))
		if err == nil {
			err = lease.Release(ctx)
		}
		return err
	},
	"Status": func(ctx context.Context, l *lock.Lock) error {
		_,
			err := l.Status(ctx, component, job)
		return err
	},
	"ForceRelease": func(ctx context.Context, l *lock.Lock) error {
		return l.ForceRelease(ctx, component, job, lock.Holder{ComponentID: "a", JobID: "1"})
	},
}

func TestLock_contextIsOver(t *testing.T) {
	asked := dbtest.Storage{
		OnExec: func(query string) error {
			require.Contains(t, query, "CREATE TABLE", "only New asks anything")
			return nil
		},
		OnQueryRow: func(query string) *sql.Row { t.Errorf("asked: %s", query); return nil },
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Hour))
	defer cancel()
	for verb, call := range withContext {
		for want, ctx := range map[error]context.Context{context.Canceled: over,
			context.DeadlineExceeded: late} {
			for _, l := range []*lock.Lock{lock.New(asked), lock.NewMemory(lock.Options{})} {
				err := call(ctx, l)
				require.ErrorIs(t, err, want)
				notRefused(t, err, verb)
				require.NotErrorIs(t, err, lock.ErrOutcomeUnknown)
			}
		}
	}
	everywhere(t, func(t *testing.T, e dbtest.Engine) {
		all := dbtest.NewTable(t, e)
		l := all.Lock()
		for _, d := range doings {
			tb := all.With(t)
			d.prepare(tb)
			err := withContext[d.verb](over, l)
			require.ErrorIs(t, err, context.Canceled)
			require.NotErrorIs(t, err, lock.ErrOutcomeUnknown)
			require.False(t, d.done(tb))
		}
	})
}

// TestLock_contextEndsWhileItWaitsForARow that another transaction has locked.
func TestLock_contextEndsWhileItWaitsForARow(t *testing.T) {
	onPostgres(t, func(t *testing.T, e dbtest.Engine) {
		all := dbtest.NewTable(t, e)
		l := all.Lock()
		for _, d := range doings[1:] {
			for want, within := range map[error]func() (context.Context, func()){
				context.Canceled: func() (context.Context, func()) { return context.WithCancel(t.Context()) },
				context.DeadlineExceeded: func() (context.Context, func()) {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					return ctx, func() {
						<-ctx.Done()
						cancel()
					}
				},
			} {
				if want == context.DeadlineExceeded && d.verb != "Lock" {
					continue // it takes its time
				}
				t.Run(d.verb+", "+want.Error(), func(t *testing.T) {
					tb := all.With(t)
					d.prepare(tb)
					other := inTx(t, tb.DB)
					_, err := other.Exec("UPDATE locks SET enabled = enabled")
					require.NoError(t, err)
					ctx, cancel := within()
					done := make(chan error, 1)
					go func() { done <- withContext[d.verb](ctx, l) }()
					waitsFor(t, other, 0)
					cancel()
					select {
					case err := <-done:
						require.ErrorIs(t, err, want)
						notRefused(t, err, d.verb)
					case <-time.After(time.Minute):
						t.Fatal("it still waits")
					}
					require.NoError(t, other.Rollback())
					require.NoError(t, withContext[d.verb](t.Context(), l))
					require.True(t, d.done(tb))
				})
			}
		}
	})
}

// TestLock_contextEndsAtAnyMoment, whether it was carried out or not.
func TestLock_contextEndsAtAnyMoment(t *testing.T) {
	onEveryEngine(t, func(t *testing.T, e dbtest.Engine) {
		for _, d := range doings {
			t.Run(d.name, func(t *testing.T) {
				for i := range 10 {
					// A cut-off statement may arrive late: each round has its own table.
					tb := dbtest.NewTable(t, e)
					l := tb.Lock()
					d.prepare(tb)
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*200*time.Microsecond)
					err := withContext[d.verb](ctx, l)
					cancel()
					done := d.done(tb)
					switch {
					case err == nil:
						require.True(t, done)
					case !errors.Is(err, lock.ErrOutcomeUnknown):
						require.ErrorIs(t, err, context.DeadlineExceeded)
						if done {
							// It may still be on its way when the row is read, but not the other
							// way round.
							t.Error("it was carried out, and the error doesn't say that it may have been: ", err)
						}
					default:
						require.ErrorIs(t, err, context.DeadlineExceeded)
					}
					require.NoError(t, withContext[d.verb](t.Context(), l))
					require.True(t, d.done(tb))
				}
			})
		}
	})
}

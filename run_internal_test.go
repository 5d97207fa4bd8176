package lock

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errJob = errors.New("the job failed")

func TestRunHoldsTheLockWhileTheFunctionRuns(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		type key struct{}
		ctx := context.WithValue(t.Context(), key{}, "value")
		calls := 0
		require.NoError(t, w.Run(ctx, backup, func(ctx context.Context) error {
			calls++
			require.Equal(t, "value", ctx.Value(key{}))
			lease := LeaseFrom(ctx)
			require.Equal(t, w.start.UnixMicro(), lease.Token())
			require.Equal(t, backup.JobID, lease.Job().JobID)
			for range 100 {
				time.Sleep(longest / 10)
				require.NoError(t, ctx.Err())
				requireRefused(t, w.challenge(longest))
			}
			return nil
		}))
		require.Equal(t, 1, calls)
		require.Empty(t, w.holder())
		require.NoError(t, w.challenge(longest))
	})
}

func TestOnlyTheContextOfRunHasALease(t *testing.T) {
	require.Nil(t, LeaseFrom(context.Background()))
	inBubble(t, func(t *testing.T, w *world) {
		require.Nil(t, LeaseFrom(w.acquire(backup).Context()))
	})
}

func TestRunReturnsWhyItHasNoLockAsAcquireSaysIt(t *testing.T) {
	run := func(w *world, j Job) error {
		return w.Run(w.t.Context(), j, func(context.Context) error {
			w.t.Error("it must not be called")
			return nil
		})
	}
	inBubble(t, func(t *testing.T, w *world) {
		require.NoError(t, w.challenge(0))
		require.IsType(t, &ErrUnauthorised{}, run(w, backup))
		again := backup
		again.Once = true
		require.IsType(t, &ErrAlreadyRun{}, run(w, again), "the job ID of the other is larger")
		require.NoError(t, w.Disable("shop", "backup"))
		require.IsType(t, &ErrDisabled{}, run(w, backup))
		w.rows.does(script{before: on("take", fails(errAway))})
		require.ErrorIs(t, run(w, backup), errAway)
		broken := backup
		broken.Margin = longest
		require.ErrorContains(t, run(w, broken), "Margin")
		require.Empty(t, w.rows.when("free"))
	})
}

func TestRunReturnsTheErrorsOfTheFunctionTheLeaseAndTheRelease(t *testing.T) {
	untilLost := func(result error) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			<-ctx.Done()
			return result
		}
	}
	for name, test := range map[string]struct {
		now  script
		f    func(ctx context.Context) error
		want []error
	}{
		"the function": {f: func(context.Context) error { return errJob }, want: []error{errJob}},
		"the lease, though the function says all is well": {
			now: script{before: on("renew", fails(errAway))}, f: untilLost(nil), want: []error{ErrLost},
		},
		"the function and the lease": {
			now: script{before: on("renew", fails(errAway))}, f: untilLost(errJob), want: []error{errJob, ErrLost},
		},
		"the release": {
			now: script{before: on("free", fails(errAway))}, f: func(context.Context) error { return nil }, want: []error{errAway},
		},
		"all": {
			now: script{before: func(_ context.Context, call string) error {
				switch call {
				case "renew":
					return context.DeadlineExceeded
				case "free":
					return errAway
				}
				return nil
			}},
			f: untilLost(errJob), want: []error{errJob, ErrLost, errAway},
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.rows.does(test.now)
				err := w.Run(t.Context(), backup, test.f)
				for _, want := range []error{errJob, ErrLost, errAway} {
					if slices.Contains(test.want, want) {
						require.ErrorIs(t, err, want)
					} else {
						require.NotErrorIs(t, err, want)
					}
				}
			})
		})
	}
	t.Run("the lease, once, when another has the lock", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			err := w.Run(t.Context(), backup, func(ctx context.Context) error {
				time.Sleep(time.Second)
				require.NoError(t, w.challenge(time.Millisecond))
				<-ctx.Done()
				return context.Cause(ctx)
			})
			require.ErrorIs(t, err, ErrLost)
			require.ErrorAs(t, err, new(*ErrUnauthorised))
			require.Equal(t, "b", w.holder())
		})
	})
	t.Run("a lease that is found lost at the release", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			err := w.Run(t.Context(), backup, func(context.Context) error {
				time.Sleep(time.Second)
				return w.challenge(time.Millisecond)
			})
			require.ErrorIs(t, err, ErrLost)
			require.Equal(t, "b", w.holder())
		})
	})
}

func TestRunReleasesTheLockWhenTheFunctionPanics(t *testing.T) {
	for name, now := range map[string]script{
		"":                             {},
		"though the release fails too": {after: on("free", fails(errAway))},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.rows.does(now)
				value := &struct{ what string }{"the same"}
				func() {
					defer func() { require.Same(t, value, recover()) }()
					_ = w.Run(t.Context(), backup, func(context.Context) error { panic(value) })
				}()
				require.Empty(t, w.holder())
			})
		})
	}
}

func TestRunReleasesTheLockWhenTheFunctionEndsItsGoroutine(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		returned := false
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = w.Run(t.Context(), backup, func(context.Context) error {
				runtime.Goexit()
				return nil
			})
			returned = true
		}()
		<-done
		require.False(t, returned)
		require.Empty(t, w.holder())
	})
}

func TestRunReleasesTheLockWhenItsContextHasEnded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.rows.does(script{before: on("free", func(ctx context.Context) error { return ctx.Err() })})
		ctx, cancel := context.WithCancel(t.Context())
		err := w.Run(ctx, backup, func(ctx context.Context) error {
			cancel()
			<-ctx.Done()
			return context.Cause(ctx)
		})
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, ErrLost)
		require.Empty(t, w.holder())
		require.Empty(t, w.told(Lost))
	})
	t.Run("and nothing else went wrong", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			ctx, cancel := context.WithCancel(t.Context())
			require.NoError(t, w.Run(ctx, backup, func(context.Context) error {
				cancel()
				return nil
			}))
			require.Empty(t, w.holder())
		})
	})
}

func TestRunDoesNotHangInTheRelease(t *testing.T) {
	t.Run("that is not answered", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			w.rows.does(script{before: on("free", hangs)})
			err := w.Run(t.Context(), backup, func(context.Context) error { return errJob })
			require.ErrorIs(t, err, errJob)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, releaseTimeout, w.elapsed())
		})
	})
	t.Run("behind a renewal that is not answered, over a Storage that knows no contexts", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			end := make(chan struct{})
			w.rows.does(script{before: on("renew", func(context.Context) error { <-end; return errAway })})
			err := w.Run(t.Context(), backup, func(ctx context.Context) error {
				<-ctx.Done()
				require.Equal(t, trusted, w.elapsed())
				return errJob
			})
			require.ErrorIs(t, err, errJob)
			require.ErrorIs(t, err, ErrLost)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, trusted+releaseTimeout, w.elapsed())
			close(end)
		})
	})
	t.Run("that is not answered, over a Storage that knows no contexts", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			w.rows.does(script{before: on("free", takes(time.Hour))})
			err := w.Run(t.Context(), backup, func(context.Context) error { return errJob })
			require.ErrorIs(t, err, errJob)
			require.LessOrEqual(t, w.elapsed(), 2*releaseTimeout)
			time.Sleep(2 * time.Hour) // until the Storage has answered
		})
	})
}

func TestRunWaitsForTheLock(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		require.NoError(t, w.challenge(0))
		time.AfterFunc(time.Minute, func() {
			if err := w.Unlock("shop", "b", "backup", "2"); err != nil {
				t.Error(err)
			}
		})
		require.NoError(t, w.Run(t.Context(), waitingFor(-1), func(context.Context) error {
			require.Equal(t, "w", w.holder())
			return nil
		}))
		require.LessOrEqual(t, w.elapsed(), time.Minute+poll*3/2)
	})
}

func TestANoopLockerRunsEverything(t *testing.T) {
	for name, l := range map[string]*NoopLocker{"zero": {}, "nil": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, err := l.Acquire(t.Context(), backup)
				require.NoError(t, err)
				second, err := l.Acquire(t.Context(), backup)
				require.NoError(t, err)
				time.Sleep(10 * longest)
				for _, lease := range []*Lease{first, second} {
					require.NoError(t, lease.Context().Err())
					require.NoError(t, lease.Renew(t.Context()))
					require.NoError(t, lease.Release(t.Context()))
					require.ErrorIs(t, lease.Context().Err(), context.Canceled)
				}

				require.ErrorIs(t, l.Run(t.Context(), backup, func(ctx context.Context) error {
					time.Sleep(10 * longest)
					require.NoError(t, ctx.Err())
					require.NotZero(t, LeaseFrom(ctx).Token())
					return l.Run(ctx, backup, func(context.Context) error { return errJob })
				}), errJob)
				require.NoError(t, l.Run(t.Context(), Job{}, func(context.Context) error { return nil }))

				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				require.ErrorIs(t, l.Run(ctx, backup, func(ctx context.Context) error {
					<-ctx.Done()
					return ctx.Err()
				}), context.DeadlineExceeded)
			})
		})
	}
}

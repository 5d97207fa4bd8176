package lock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// waitingFor is the job of an instance that waits, and polls every second. No lock expires in the
// time of these tests, unless they say so.
func waitingFor(wait time.Duration) Job {
	return Job{ComponentName: "shop", ComponentID: "w", JobName: "backup", JobID: "3", MaxDuration: 24 * time.Hour, Wait: wait}
}

const poll = time.Second

func TestWithoutWaitThereIsOneAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		require.NoError(t, w.challenge(longest))
		_, err := w.Acquire(t.Context(), waitingFor(0))
		requireRefused(t, err)
		require.Zero(t, w.elapsed())
		w.rows.does(script{before: on("take", fails(io.EOF))})
		_, err = w.Acquire(t.Context(), waitingFor(0))
		require.ErrorIs(t, err, io.EOF)
		require.Zero(t, w.elapsed())
		require.Len(t, w.rows.when("take"), 2)
	})
}

func TestAWaitEndsInTimeWithTheLastRefusal(t *testing.T) {
	for _, wait := range []time.Duration{time.Millisecond, poll / 2, 10 * time.Second, 61 * time.Second} {
		t.Run(wait.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Lock.Lock("shop", "a", "backup", "1", 0))
				go func() {
					time.Sleep(wait / 2)
					if err := errors.Join(w.Unlock("shop", "a", "backup", "1"), w.challenge(0)); err != nil {
						t.Error(err)
					}
				}()
				lease, err := w.Acquire(t.Context(), waitingFor(wait))
				require.Nil(t, lease)
				require.Equal(t, wait, w.elapsed(), "there is a last attempt at the end")
				requireRefused(t, err)
				require.Equal(t, "b", err.(*ErrUnauthorised).Holder().ComponentID)
				require.Equal(t, "b", w.holder())
			})
		})
	}
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	for _, wait := range []time.Duration{-1, time.Hour} {
		t.Run(wait.String(), func(t *testing.T) {
			for range 20 {
				inBubble(t, func(t *testing.T, w *world) {
					require.NoError(t, w.challenge(0))
					end := 30*time.Second + time.Duration(rand.Int63n(int64(poll)))
					ctx, cancel := context.WithTimeout(t.Context(), end)
					defer cancel()
					_, err := w.Acquire(ctx, waitingFor(wait))
					require.Equal(t, end, w.elapsed())
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.ErrorAs(t, err, new(*ErrUnauthorised), "it also says who held it")
					require.Equal(t, "b", w.holder())
				})
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			require.NoError(t, w.challenge(0))
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(12345*time.Millisecond, cancel)
			_, err := w.Acquire(ctx, waitingFor(-1))
			require.Equal(t, 12345*time.Millisecond, w.elapsed())
			require.ErrorIs(t, err, context.Canceled)
		})
	})
	t.Run("during an attempt", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			w.rows.does(script{before: on("take", hangs)})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := w.Acquire(ctx, waitingFor(-1))
			require.Equal(t, time.Minute, w.elapsed())
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
	})
	t.Run("before it began", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := w.Acquire(ctx, waitingFor(-1))
			require.ErrorIs(t, err, context.Canceled)
			require.Empty(t, w.rows.when("take"))
		})
	})
}

func TestOnlyARivalIsWaitedFor(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Disable("shop", "backup"))
		_, err := w.Acquire(t.Context(), waitingFor(-1))
		require.IsType(t, &ErrDisabled{}, err)
		require.NoError(t, w.Enable("shop", "backup"))

		done := waitingFor(-1)
		done.Once = true
		lease := w.acquire(done)
		require.NoError(t, lease.Release(t.Context()))
		_, err = w.Acquire(t.Context(), done)
		require.IsType(t, &ErrAlreadyRun{}, err)

		spaced := waitingFor(-1)
		spaced.JobID, spaced.Spacing = "4", time.Minute
		_, err = w.Acquire(t.Context(), spaced)
		require.IsType(t, &ErrAlreadyRun{}, err)

		w.rows.does(script{before: on("take", fails(errAway))})
		_, err = w.Acquire(t.Context(), waitingFor(-1))
		require.ErrorIs(t, err, errAway)
		w.rows.does(script{})

		broken := waitingFor(-1)
		broken.MaxDuration = -1
		_, err = w.Acquire(t.Context(), broken)
		require.Error(t, err)
		require.Zero(t, w.elapsed())
	})
	for name, test := range map[string]struct {
		happens func(w *world) error
		want    error
	}{
		"the job is disabled meanwhile": {func(w *world) error { return w.Disable("shop", "backup") }, &ErrDisabled{}},
		"a later tick is run meanwhile": {func(w *world) error {
			return errors.Join(w.Unlock("shop", "a", "backup", "1"), w.Lock.Lock("shop", "a", "backup", "9", 0))
		}, &ErrAlreadyRun{}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				require.NoError(t, w.Lock.Lock("shop", "a", "backup", "1", 0))
				time.AfterFunc(time.Minute, func() {
					if err := test.happens(w); err != nil {
						t.Error(err)
					}
				})
				tick := waitingFor(-1)
				tick.Once = true
				_, err := w.Acquire(t.Context(), tick)
				require.IsType(t, test.want, err)
				require.LessOrEqual(t, w.elapsed()-time.Minute, poll*3/2)
			})
		})
	}
}

func TestAWaitPutsUpWithADatabaseThatIsAway(t *testing.T) {
	for _, failure := range []error{io.EOF, state("57P01"), state("40001"), fmt.Errorf("%w (%w)", io.EOF, ErrOutcomeUnknown)} {
		t.Run(failure.Error(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.rows.does(script{before: on("take", fails(failure))})
				_, err := w.Acquire(t.Context(), waitingFor(time.Minute))
				require.ErrorIs(t, err, failure)
				require.Equal(t, time.Minute, w.elapsed())

				time.AfterFunc(time.Minute, func() { w.rows.does(script{}) })
				lease, err := w.Acquire(t.Context(), waitingFor(-1))
				require.NoError(t, err)
				require.LessOrEqual(t, w.elapsed()-2*time.Minute, poll*3/2)
				require.NoError(t, lease.Release(t.Context()))
			})
		})
	}
	t.Run("a grant whose reply is lost is found by the next attempt", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			w.rows.does(script{after: once("take", fails(fmt.Errorf("%w (%w)", io.EOF, ErrOutcomeUnknown)))})
			lease, err := w.Acquire(t.Context(), waitingFor(-1))
			require.NoError(t, err)
			require.Equal(t, w.start.UnixMicro(), lease.Token())
			require.Less(t, w.elapsed(), poll)
			require.WithinDuration(t, w.start.Add(lease.Job().MaxDuration-lease.Job().Margin), lease.until(), time.Microsecond)
			require.NoError(t, lease.Release(t.Context()))
		})
	})
}

// Nobody knows the job ID that Acquire made up: nobody else can settle it, and without a longest
// duration it never expires.
func TestAnAcquireThatIsCutShortLeavesNoLockBehind(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.rows.does(script{after: on("take", func(ctx context.Context) error {
			return fmt.Errorf("%w (%w)", hangs(ctx), ErrOutcomeUnknown)
		})})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := w.Acquire(ctx, Job{ComponentName: "shop", JobName: "backup"})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Minute, w.elapsed())
		require.Empty(t, w.holder())
	})
}

// waits runs rounds in which an instance waits for a lock that is another's until a time that
// hold returns. It returns how long after that the one that waits has had it, in order.
func waits(t *testing.T, j Job, hold func(w *world) (until func() time.Time)) []time.Duration {
	const rounds = 200
	random := rand.New(rand.NewSource(1))
	var all []time.Duration
	for range rounds {
		inBubble(t, func(t *testing.T, w *world) {
			until := hold(w)
			time.Sleep(time.Duration(random.Int63n(int64(longest))))
			lease, err := w.Acquire(t.Context(), j)
			require.NoError(t, err)
			all = append(all, time.Since(until()))
			require.Positive(t, all[len(all)-1])
			require.NoError(t, lease.Release(t.Context()))
		})
	}
	slices.Sort(all)
	t.Logf("median %v, longest %v", all[rounds/2], all[rounds-1])
	return all
}

func TestWhoWaitsGetsALockSoonAfterItExpires(t *testing.T) {
	j := waitingFor(-1)
	j.MaxDuration = longest
	all := waits(t, j, func(w *world) func() time.Time {
		require.NoError(w.t, w.challenge(longest))
		return func() time.Time { return w.start.Add(longest) }
	})
	require.LessOrEqual(t, all[len(all)-1], poll/8+3*time.Millisecond)
}

func TestWhoWaitsGetsALockSoonAfterItsRelease(t *testing.T) {
	random := rand.New(rand.NewSource(2))
	all := waits(t, waitingFor(-1), func(w *world) func() time.Time {
		require.NoError(w.t, w.challenge(0))
		from := w.start.Add(longest + time.Duration(random.Int63n(int64(longest))))
		time.AfterFunc(time.Until(from), func() {
			if err := w.Unlock("shop", "b", "backup", "2"); err != nil {
				w.t.Error(err)
			}
		})
		return func() time.Time { return from }
	})
	require.LessOrEqual(t, all[len(all)/2], poll*3/2)
	require.LessOrEqual(t, all[len(all)-1], poll*3/2)
}

func TestAReleaseWakesNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		require.NoError(t, w.challenge(0))
		time.AfterFunc(time.Minute, func() {
			if err := w.Unlock("shop", "b", "backup", "2"); err != nil {
				t.Error(err)
			}
		})
		w.acquire(waitingFor(-1))
		looks := w.rows.when("take")
		require.Equal(t, looks[len(looks)-1], time.Now())
		for i := range looks[1:] {
			least := poll / 2
			if i < 2 {
				least = poll / 8 << i
			}
			require.GreaterOrEqual(t, looks[i+1].Sub(looks[i]), least, "look %d", i)
			require.LessOrEqual(t, looks[i+1].Sub(looks[i]), poll*3/2, "look %d", i)
		}
	})
}

func TestTheTimesAtWhichManyAskAreSpread(t *testing.T) {
	for _, n := range []int{10, 100, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				require.NoError(t, w.challenge(0))
				ctx, cancel := context.WithCancel(t.Context())
				var (
					wg   sync.WaitGroup
					gets = make(chan *Lease, n)
				)
				for i := range n {
					wg.Go(func() {
						j := waitingFor(-1)
						j.ComponentID = fmt.Sprint("w", i)
						if lease, err := w.Acquire(ctx, j); err == nil {
							gets <- lease
						}
					})
				}
				time.Sleep(time.Minute)
				inASecond := map[int]int{}
				for _, at := range w.rows.when("take") {
					inASecond[int(at.Sub(w.start)/time.Second)]++
				}
				total := len(w.rows.when("take"))
				require.LessOrEqual(t, total, n*66, "about once in a poll; the first ones are closer together")
				for second, asked := range inASecond {
					require.LessOrEqual(t, asked, 4*n, "second %d", second)
					if second > 3 {
						require.LessOrEqual(t, asked, n*3/2+10, "second %d", second)
					}
				}

				require.NoError(t, w.Unlock("shop", "b", "backup", "2"))
				released := time.Now()
				first := <-gets
				t.Logf("%d waiting: %.1f queries/s, %v from the release until one of them has it", n,
					float64(total)/time.Minute.Seconds(), time.Since(released))
				require.Less(t, time.Since(released), poll*3/2)
				synctest.Wait()
				require.Empty(t, gets)
				cancel()
				wg.Wait()
				require.NoError(t, first.Release(t.Context()))
			})
		})
	}
}

// BenchmarkWaiters has N instances wait for a lock that is passed on every three polls. A bubble
// of package synctest needs a *testing.T, so the time is real, and the poll a tenth of what it is
// by default: so are ms-to-acquire, and queries/s ten times as many.
func BenchmarkWaiters(b *testing.B) {
	const poll = 100 * time.Millisecond
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("N=%d", n), func(b *testing.B) {
			counted := &counting{rows: NewLocal(nil).rows}
			l := &Lock{rows: counted}
			j := func(i int) Job {
				return Job{ComponentName: "shop", ComponentID: fmt.Sprint("w", i), JobName: "backup",
					MaxDuration: time.Minute, Wait: -1, Poll: poll}
			}
			ctx, cancel := context.WithCancel(b.Context())
			holder, err := l.Acquire(ctx, j(n))
			require.NoError(b, err)
			var wg sync.WaitGroup
			gets := make(chan *Lease)
			for i := range n {
				wg.Go(func() {
					for {
						lease, err := l.Acquire(ctx, j(i))
						if err != nil {
							return
						}
						select {
						case gets <- lease:
							<-lease.Context().Done() // released
						case <-ctx.Done():
							return
						}
					}
				})
			}
			time.Sleep(3 * poll) // until the first looks, which are closer together, have been taken

			var asked int64
			var held, waited time.Duration
			for b.Loop() {
				begin, before := time.Now(), counted.takes.Load()
				time.Sleep(3 * poll)
				held += time.Since(begin)
				asked += counted.takes.Load() - before
				if err := holder.Release(ctx); err != nil {
					b.Fatal(err)
				}
				released := time.Now()
				holder = <-gets
				waited += time.Since(released)
			}
			cancel()
			wg.Wait()
			b.ReportMetric(float64(asked)/held.Seconds(), "queries/s")
			b.ReportMetric(1000*waited.Seconds()/float64(b.N), "ms-to-acquire")
		})
	}
}

// counting is rows that count how often they are asked for a lock.
type counting struct {
	rows
	takes atomic.Int64
}

func (c *counting) take(ctx context.Context, id identity, cl claim) (reading, error) {
	c.takes.Add(1)
	return c.rows.take(ctx, id, cl)
}

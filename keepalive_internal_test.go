package lock

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A script is what becomes of a call to the rows. Before it is carried out, and after, it may
// take time, or fail.
type script struct {
	before func(ctx context.Context, call string) error // an error: it is not carried out
	after  func(ctx context.Context, call string) error // an error: its reply is lost
}

// scripted is rows to which a script happens.
type scripted struct {
	rows

	mu    sync.Mutex
	now   script
	asked map[string][]time.Time
}

// does sets what happens to the calls from now on.
func (s *scripted) does(now script) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

// when returns at what times a call was made.
func (s *scripted) when(call string) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Time(nil), s.asked[call]...)
}

func (s *scripted) step(ctx context.Context, call string, id identity, do func() (reading, error)) (reading, error) {
	s.mu.Lock()
	now := s.now
	if s.asked == nil {
		s.asked = map[string][]time.Time{}
	}
	s.asked[call] = append(s.asked[call], time.Now())
	s.mu.Unlock()
	if now.before != nil {
		if err := now.before(ctx, call); err != nil {
			return reading{}, id.fail(err)
		}
	}
	r, err := do()
	if err == nil && now.after != nil {
		if err := now.after(ctx, call); err != nil {
			return reading{}, id.fail(err)
		}
	}
	return r, err
}

func (s *scripted) take(ctx context.Context, id identity, c claim) (reading, error) {
	return s.step(ctx, "take", id, func() (reading, error) { return s.rows.take(ctx, id, c) })
}

func (s *scripted) free(ctx context.Context, id identity, t term) (reading, error) {
	return s.step(ctx, "free", id, func() (reading, error) { return s.rows.free(ctx, id, t) })
}

func (s *scripted) renew(ctx context.Context, id identity, t term, longest time.Duration) (reading, error) {
	return s.step(ctx, "renew", id, func() (reading, error) { return s.rows.renew(ctx, id, t, longest) })
}

var errAway = errors.New("the database is away")

// on makes one call fail, or take time, and no other.
func on(call string, do func(ctx context.Context) error) func(context.Context, string) error {
	return func(ctx context.Context, c string) error {
		if c != call {
			return nil
		}
		return do(ctx)
	}
}

// first does one thing to the first such call, and another to those after it.
func first(call string, do, then func(ctx context.Context) error) func(context.Context, string) error {
	var done atomic.Bool
	return on(call, func(ctx context.Context) error {
		if done.Swap(true) {
			return then(ctx)
		}
		return do(ctx)
	})
}

// once does something to the first such call only.
func once(call string, do func(ctx context.Context) error) func(context.Context, string) error {
	return first(call, do, fails(nil))
}

// either does to each call what one of the two does to it.
func either(a, b func(context.Context, string) error) func(context.Context, string) error {
	return func(ctx context.Context, call string) error {
		return errors.Join(a(ctx, call), b(ctx, call))
	}
}

func fails(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

// takes is a call that takes time, whatever its context says.
func takes(d time.Duration) func(context.Context) error {
	return func(context.Context) error {
		time.Sleep(d)
		return nil
	}
}

// hangs is a call that takes for ever, as long as its context.
func hangs(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// world is a Lock in a bubble of package synctest, where time passes only when nothing else can.
type world struct {
	*Lock
	t     *testing.T
	rows  *scripted
	truth *memory // what the script happens to
	start time.Time

	mu     sync.Mutex
	events []Event
}

func inBubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		truth := NewLocal(nil).rows.(*memory)
		w := &world{t: t, truth: truth, rows: &scripted{rows: truth}, start: time.Now()}
		w.Lock = &Lock{rows: w.rows, o: Options{Observer: func(_ context.Context, e Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
		}}}
		t.Cleanup(func() {
			if t.Failed() {
				time.Sleep(24 * time.Hour) // or what is left behind hides why
			}
		})
		test(t, w)
	})
}

// told returns the events of a kind.
func (w *world) told(kind EventKind) (all []Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Kind == kind {
			all = append(all, e)
		}
	}
	return all
}

func (w *world) elapsed() time.Duration { return time.Since(w.start) }

func (w *world) acquire(j Job) *Lease {
	w.t.Helper()
	lease, err := w.Acquire(w.t.Context(), j)
	require.NoError(w.t, err)
	return lease
}

// challenge is an attempt of another instance's, to whose database nothing happens.
func (w *world) challenge(longest time.Duration) error {
	return (&Lock{rows: w.truth}).Lock("shop", "b", "backup", "2", longest)
}

func (w *world) holder() string {
	r, err := w.truth.look(w.t.Context(), identity{componentName: "shop", jobName: "backup"})
	require.NoError(w.t, err)
	if !r.locked {
		return ""
	}
	return r.componentID
}

// The job of instance a. Its lease is renewed every 10 s, and can be trusted for 27 s.
const (
	longest = 30 * time.Second
	trusted = 27 * time.Second
)

var backup = Job{ComponentName: "shop", ComponentID: "a", JobName: "backup", JobID: "1", MaxDuration: longest}

func ofDuration(d time.Duration) Job {
	j := backup
	j.MaxDuration = d
	return j
}

func requireRefused(t *testing.T, err error) {
	t.Helper()
	require.IsType(t, &ErrUnauthorised{}, err)
}

// requireEnded makes sure that a lease has ended, at a time since the start, because it was lost.
func (w *world) requireEnded(lease *Lease, after time.Duration) {
	w.t.Helper()
	select {
	case <-lease.Context().Done():
	case <-time.After(time.Hour):
	}
	require.Equal(w.t, after, w.elapsed())
	require.ErrorIs(w.t, context.Cause(lease.Context()), ErrLost)
	synctest.Wait()
	require.Len(w.t, w.told(Lost), 1)
	require.ErrorIs(w.t, w.told(Lost)[0].Err, ErrLost)
}

func TestALeaseIsKeptUntilItIsReleased(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		lease := w.acquire(backup)
		token := lease.Token()
		for w.elapsed() < 10*longest {
			requireRefused(t, w.challenge(longest))
			time.Sleep(time.Second)
		}
		synctest.Wait()
		require.NoError(t, lease.Context().Err())
		require.Equal(t, token, lease.Token())
		renewals := w.rows.when("renew")
		require.Len(t, renewals, 30)
		for i, at := range renewals {
			require.Equal(t, time.Duration(i+1)*longest/3, at.Sub(w.start))
		}

		require.NoError(t, lease.Release(t.Context()))
		require.NoError(t, w.challenge(longest))
		require.ErrorIs(t, lease.Context().Err(), context.Canceled)
		require.Empty(t, w.told(Lost))
		require.Len(t, w.told(Released), 1)
		require.NoError(t, lease.Release(t.Context()), "a second time")
		require.Equal(t, "b", w.holder())
		require.Len(t, w.rows.when("free"), 1)
		time.Sleep(10 * longest)
		require.Len(t, w.rows.when("renew"), 30)
	})
}

// The renewal that comes next may be due at the very moment at which the slow one is answered, so
// the script must be there before.
func TestTheDeadlineCountsFromBeforeTheRoundTrip(t *testing.T) {
	const slow = longest * 4 / 10
	away := fails(errAway)
	for name, now := range map[string]script{
		"on its way there": {before: either(on("take", takes(slow)), on("renew", away))},
		"on its way back":  {before: on("renew", away), after: on("take", takes(slow))},
	} {
		t.Run("of Acquire, "+name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.rows.does(now)
				lease := w.acquire(backup)
				require.Equal(t, slow, w.elapsed())
				w.requireEnded(lease, trusted)
			})
		})
	}
	for name, now := range map[string]script{
		"on its way there": {before: first("renew", takes(slow), away)},
		"on its way back":  {before: first("renew", takes(0), away), after: on("renew", takes(slow))},
	} {
		t.Run("of a renewal, "+name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				lease := w.acquire(backup)
				time.Sleep(5 * time.Second)
				w.rows.does(now)
				require.NoError(t, lease.Renew(t.Context()))
				require.Equal(t, 5*time.Second+slow, w.elapsed())
				w.requireEnded(lease, 5*time.Second+trusted)
			})
		})
	}
}

func TestALeaseThatIsGrantedTooLateIsGivenBack(t *testing.T) {
	for name, now := range map[string]script{
		"the question is late": {before: on("take", takes(trusted))},
		"the answer is late":   {after: on("take", takes(trusted))},
		"later than others":    {after: on("take", takes(2*longest))},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.rows.does(now)
				lease, err := w.Acquire(t.Context(), backup)
				require.ErrorIs(t, err, ErrLost)
				require.Nil(t, lease)
				require.Empty(t, w.holder())
				require.NoError(t, w.challenge(longest))
			})
		})
	}
	t.Run("unless another has it", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			w.rows.does(script{after: on("take", func(context.Context) error {
				time.Sleep(longest + time.Second)
				return w.challenge(longest)
			})})
			_, err := w.Acquire(t.Context(), backup)
			require.ErrorIs(t, err, ErrLost)
			require.Equal(t, "b", w.holder())
		})
	})
	t.Run("and the database that is away again holds nobody up", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			w.rows.does(script{after: on("take", takes(trusted)), before: on("free", func(ctx context.Context) error {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(time.Hour):
					return errAway
				}
			})})
			_, err := w.Acquire(t.Context(), backup)
			require.ErrorIs(t, err, ErrLost)
			require.LessOrEqual(t, w.elapsed(), trusted+releaseTimeout)
		})
	})
}

// A slow answer leaves less of the time; what is left must be used.
func TestASlowAnswerDoesNotPutOffTheNextRenewal(t *testing.T) {
	kept := func(t *testing.T, w *world, lease *Lease) {
		for w.elapsed() < 10*longest {
			time.Sleep(time.Second)
			require.NoError(t, context.Cause(lease.Context()), "after %v", w.elapsed())
			requireRefused(t, w.challenge(longest))
		}
		require.NoError(t, lease.Release(t.Context()))
	}
	for name, now := range map[string]script{
		"one of Acquire, 60 %":   {after: once("take", takes(longest*6/10))},
		"one of a renewal, 55 %": {after: once("renew", takes(longest*55/100))},
		"all, 40 %":              {after: func(ctx context.Context, _ string) error { return takes(longest * 4 / 10)(ctx) }},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.rows.does(now)
				kept(t, w, w.acquire(backup))
			})
		})
	}
	t.Run("a lock that was taken before by the same IDs", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			require.NoError(t, w.Lock.Lock("shop", "a", "backup", "1", longest))
			time.Sleep(20 * time.Second)
			kept(t, w, w.acquire(backup))
		})
	})
}

func TestALockThatIsHeldByTheSameIDsIsTrustedForWhatIsLeft(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		require.NoError(t, w.Lock.Lock("shop", "a", "backup", "1", longest))
		time.Sleep(12 * time.Second)
		w.rows.does(script{before: on("renew", fails(errAway))}) // the first is due at once
		lease := w.acquire(backup)
		require.Equal(t, w.start.UnixMicro(), lease.Token())
		w.requireEnded(lease, trusted)
	})
}

// state is an error of a server's.
type state string

func (s state) Error() string    { return "the server says " + string(s) }
func (s state) SQLState() string { return string(s) }

func TestALeaseThatCannotBeRenewedEndsBeforeAnotherCanTakeOver(t *testing.T) {
	for _, failure := range []struct {
		name  string
		renew func(ctx context.Context, end chan struct{}) error
	}{
		{"a refused connection", func(context.Context, chan struct{}) error { return driver.ErrBadConn }},
		{"a broken connection", func(context.Context, chan struct{}) error { return io.ErrUnexpectedEOF }},
		{"a server that starts", func(context.Context, chan struct{}) error { return state("57P03") }},
		{"an error that nothing cures", func(context.Context, chan struct{}) error { return errAway }},
		{"an unknown outcome", func(context.Context, chan struct{}) error { return fmt.Errorf("%w (%w)", io.EOF, ErrOutcomeUnknown) }},
		{"an error that takes its time", func(context.Context, chan struct{}) error { time.Sleep(2 * time.Second); return errAway }},
		{"no answer", func(ctx context.Context, _ chan struct{}) error { return hangs(ctx) }},
		{"no answer, and no heed paid to contexts", func(_ context.Context, end chan struct{}) error { <-end; return errAway }},
	} {
		for _, renewals := range []int{0, 3} {
			t.Run(fmt.Sprintf("%s, after %d renewals", failure.name, renewals), func(t *testing.T) {
				inBubble(t, func(t *testing.T, w *world) {
					lease := w.acquire(backup)
					ended := make(chan time.Duration, 1)
					context.AfterFunc(lease.Context(), func() { ended <- w.elapsed() })
					last := time.Duration(renewals) * longest / 3
					time.Sleep(last + time.Millisecond)
					end := make(chan struct{})
					w.rows.does(script{before: on("renew", func(ctx context.Context) error { return failure.renew(ctx, end) })})

					for pause := time.Second; w.challenge(longest) != nil; time.Sleep(pause) {
						if require.Less(t, w.elapsed(), last+2*longest); w.elapsed() > last+trusted-2*time.Second {
							pause = time.Millisecond
						}
					}
					require.Equal(t, last+longest+time.Millisecond, w.elapsed(), "it is taken over")
					require.Equal(t, last+trusted, <-ended)
					require.ErrorIs(t, context.Cause(lease.Context()), ErrLost)
					require.Len(t, w.told(Lost), 1)
					require.Greater(t, len(w.rows.when("renew")), renewals)

					close(end)
					require.ErrorIs(t, lease.Renew(t.Context()), ErrLost)
					require.ErrorIs(t, lease.Release(t.Context()), ErrLost)
					require.Equal(t, "b", w.holder())
				})
			})
		}
	}
}

func TestOneRenewalThatFailsDoesNotLoseTheLease(t *testing.T) {
	for name, renew := range map[string]func(context.Context) error{
		"with an error":             fails(errAway),
		"with an error, after 10 s": func(context.Context) error { time.Sleep(10 * time.Second); return errAway },
		"without an answer":         hangs, // as over a connection that is dead at the other end
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				lease := w.acquire(backup)
				w.rows.does(script{before: once("renew", renew)})
				for w.elapsed() < 5*longest {
					time.Sleep(time.Second)
					require.NoError(t, context.Cause(lease.Context()), "after %v", w.elapsed())
					requireRefused(t, w.challenge(longest))
				}
				require.Empty(t, w.told(Lost))
				require.NoError(t, lease.Release(t.Context()))
			})
		})
	}
}

func TestARenewalWhoseReplyIsLostIsSettledByTheNext(t *testing.T) {
	unknown := fmt.Errorf("%w (%w)", io.ErrUnexpectedEOF, ErrOutcomeUnknown)
	for name, lossy := range map[string]func(n int) bool{
		"one":                 func(n int) bool { return n == 1 },
		"every second":        func(n int) bool { return n%2 == 1 },
		"five of six in turn": func(n int) bool { return n%6 != 0 },
	} {
		for _, carriedOut := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, carried out: %t", name, carriedOut), func(t *testing.T) {
				inBubble(t, func(t *testing.T, w *world) {
					lease := w.acquire(backup)
					var n atomic.Int64
					lose := on("renew", func(context.Context) error {
						if lossy(int(n.Add(1))) {
							return unknown
						}
						return nil
					})
					if carriedOut {
						w.rows.does(script{after: lose})
					} else {
						w.rows.does(script{before: lose})
					}
					for w.elapsed() < 10*longest {
						time.Sleep(time.Second)
						require.NoError(t, context.Cause(lease.Context()), "after %v", w.elapsed())
					}
					require.NotEmpty(t, w.told(Failed))
					require.NoError(t, lease.Release(t.Context()))
					require.Empty(t, w.holder())
				})
			})
		}
	}
	for _, lost := range []int{1, 2, 3} {
		t.Run(fmt.Sprintf("or by the release, after %d", lost), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				lease := w.acquire(backup)
				w.rows.does(script{after: on("renew", fails(unknown))})
				for range lost {
					time.Sleep(5 * time.Second)
					require.ErrorIs(t, lease.Renew(t.Context()), ErrOutcomeUnknown)
				}
				require.NoError(t, lease.Release(t.Context()))
				require.Empty(t, w.holder())
			})
		})
	}
	t.Run("if none comes it is lost", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			lease := w.acquire(backup)
			w.rows.does(script{after: on("renew", fails(unknown))})
			w.requireEnded(lease, trusted)
			require.NoError(t, lease.Release(t.Context()))
			require.Empty(t, w.holder())
		})
	})
	t.Run("but not the renewals of another run with the same IDs", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			lease := w.acquire(backup)
			w.rows.does(script{before: on("renew", fails(unknown))})
			w.requireEnded(lease, trusted)
			time.Sleep(longest)
			w.rows.does(script{})
			again := w.acquire(backup)
			require.Greater(t, again.Token(), lease.Token())
			require.ErrorIs(t, lease.Release(t.Context()), ErrLost)
			require.Equal(t, "a", w.holder())
			require.NoError(t, again.Renew(t.Context()))
			require.NoError(t, again.Release(t.Context()))
		})
	})
}

func TestAReleaseWhoseReplyIsLostCanBeRepeated(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		lease := w.acquire(backup)
		w.rows.does(script{after: once("free", fails(ErrOutcomeUnknown))})
		require.ErrorIs(t, lease.Release(t.Context()), ErrOutcomeUnknown)
		require.NoError(t, lease.Release(t.Context()))
		require.NoError(t, lease.Release(t.Context()))
		require.Len(t, w.rows.when("free"), 2)
		require.Empty(t, w.holder())
	})
}

func TestALeaseThatIsTakenAwayIsLostAtTheNextRenewal(t *testing.T) {
	away := time.Second // after it was acquired
	force := func(t *testing.T, w *world) {
		s, err := w.Status(t.Context(), "shop", "backup")
		require.NoError(t, err)
		require.NoError(t, w.ForceRelease(t.Context(), "shop", "backup", s.Holder))
	}
	for name, test := range map[string]struct {
		take  func(t *testing.T, w *world)
		as    any // the error is one, too
		after string
	}{
		"released by force": {take: force},
		"released by force, and locked by another": {
			take: func(t *testing.T, w *world) {
				force(t, w)
				require.NoError(t, w.challenge(longest))
			},
			as: new(*ErrUnauthorised), after: "b",
		},
		"taken over by another with a shorter duration": {
			take: func(t *testing.T, w *world) {
				require.NoError(t, w.challenge(time.Millisecond))
			},
			as: new(*ErrUnauthorised), after: "b",
		},
		"deleted": {take: func(t *testing.T, w *world) {
			w.truth.mu.Lock()
			defer w.truth.mu.Unlock()
			clear(w.truth.rows)
		}},
		"released by force, and locked again with the same IDs": {
			take: func(t *testing.T, w *world) {
				force(t, w)
				require.NoError(t, w.Lock.Lock("shop", "a", "backup", "1", longest))
			},
			as: new(*ErrUnauthorised), after: "a",
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				lease := w.acquire(backup)
				time.Sleep(away)
				test.take(t, w)
				w.requireEnded(lease, longest/3)
				if test.as != nil {
					require.ErrorAs(t, context.Cause(lease.Context()), test.as)
				}
				renewals := len(w.rows.when("renew"))
				require.ErrorIs(t, lease.Renew(t.Context()), ErrLost)
				require.Len(t, w.rows.when("renew"), renewals, "nothing is asked")
				require.ErrorIs(t, lease.Release(t.Context()), ErrLost)
				require.Equal(t, test.after, w.holder())
				require.Len(t, w.told(Lost), 1)
			})
		})
	}
}

func TestALeaseIsLostWhenTheJobIsDisabledIfItsJobSaysSo(t *testing.T) {
	for _, stop := range []bool{true, false} {
		t.Run(fmt.Sprint(stop), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				j := backup
				j.StopWhenDisabled = stop
				lease := w.acquire(j)
				time.Sleep(time.Second)
				require.NoError(t, w.Disable("shop", "backup"))
				if stop {
					w.requireEnded(lease, longest/3)
					require.ErrorAs(t, context.Cause(lease.Context()), new(*ErrDisabled))
				} else {
					time.Sleep(5 * longest)
					require.NoError(t, lease.Context().Err())
				}
				require.NoError(t, lease.Release(t.Context()), "the lock is still its own")
				require.Empty(t, w.holder())
			})
		})
	}
}

func TestALeaseThatHasExpiredByTheClockOfTheDatabaseIsNotRenewed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var ahead atomic.Int64
		w.truth.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		lease := w.acquire(backup)
		time.Sleep(time.Second)
		ahead.Store(int64(longest))
		w.requireEnded(lease, longest/3)
		require.NoError(t, w.challenge(longest))
		require.ErrorIs(t, lease.Release(t.Context()), ErrLost)
		require.Equal(t, "b", w.holder())
	})
}

func TestALeaseWithoutALongestDurationIsNotLostByTime(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		lease := w.acquire(ofDuration(0))
		time.Sleep(time.Minute)
		w.rows.does(script{before: on("renew", fails(errAway))})
		time.Sleep(time.Hour)
		w.rows.does(script{after: on("renew", fails(ErrOutcomeUnknown))})
		time.Sleep(time.Hour)
		w.rows.does(script{})
		time.Sleep(time.Hour)
		require.NoError(t, lease.Context().Err())
		requireRefused(t, w.challenge(0))

		before := w.elapsed()
		s, err := w.Status(t.Context(), "shop", "backup")
		require.NoError(t, err)
		require.NoError(t, w.ForceRelease(t.Context(), "shop", "backup", s.Holder))
		<-lease.Context().Done()
		require.LessOrEqual(t, w.elapsed()-before, renewal)
		require.ErrorIs(t, context.Cause(lease.Context()), ErrLost)
	})
}

func TestALeaseEndsWithTheContextOfAcquire(t *testing.T) {
	for _, during := range []string{"between renewals", "during a renewal"} {
		t.Run(during, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				why := errors.New("enough")
				ctx, cancel := context.WithCancelCause(t.Context())
				lease, err := w.Acquire(ctx, backup)
				require.NoError(t, err)
				time.Sleep(longest/3 - time.Millisecond)
				if during == "during a renewal" {
					w.rows.does(script{before: on("renew", hangs)})
					time.Sleep(time.Second)
				}
				cancel(why)
				synctest.Wait() // who renewed it is gone now, or the bubble could not end
				require.ErrorIs(t, context.Cause(lease.Context()), why)
				require.ErrorIs(t, lease.Renew(t.Context()), why)
				before := len(w.rows.when("renew"))
				requireRefused(t, w.challenge(longest))
				time.Sleep(longest)
				if during == "between renewals" {
					require.NoError(t, w.challenge(longest), "it expires")
					require.ErrorIs(t, lease.Release(t.Context()), ErrLost)
				} else {
					require.NoError(t, lease.Release(t.Context()))
					require.NoError(t, w.challenge(longest))
				}
				require.Empty(t, w.told(Lost))
				require.Len(t, w.rows.when("renew"), before)
			})
		})
	}
	t.Run("that ended while it was granted", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			ctx, cancel := context.WithCancel(t.Context())
			w.rows.does(script{after: on("take", func(context.Context) error { cancel(); return nil })})
			lease, err := w.Acquire(ctx, backup)
			require.NoError(t, err, "it has the lock, which somebody has to release")
			require.ErrorIs(t, lease.Context().Err(), context.Canceled)
			require.NoError(t, lease.Release(context.Background()))
			require.Empty(t, w.holder())
		})
	})
}

func TestARenewalThatIsAnsweredAfterTheLeaseWasLostHasFailed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		lease := w.acquire(backup)
		time.Sleep(time.Second)
		w.rows.does(script{after: on("renew", takes(trusted))})
		err := lease.Renew(t.Context())
		require.ErrorIs(t, context.Cause(lease.Context()), ErrLost)
		require.ErrorIs(t, err, ErrLost)
		require.Empty(t, w.told(Renewed))
		require.NoError(t, lease.Release(t.Context()))
		require.Empty(t, w.holder())
	})
}

func TestALeaseThatWasReleasedIsNotRenewed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		lease := w.acquire(backup)
		require.NoError(t, lease.Release(t.Context()))
		err := lease.Renew(t.Context())
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, ErrLost)
		require.Empty(t, w.rows.when("renew"))
		require.Empty(t, w.holder())
	})
}

func TestAReleaseComesAfterTheRenewalThatIsUnderWay(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		lease := w.acquire(backup)
		// The database has the renewal, and will carry it out although nobody waits for it any
		// more.
		w.rows.does(script{before: on("renew", takes(2*time.Second)), after: on("renew", func(ctx context.Context) error {
			if ctx.Err() != nil {
				return fmt.Errorf("%w (%w)", ctx.Err(), ErrOutcomeUnknown)
			}
			return nil
		})})
		time.Sleep(longest/3 + time.Second)
		require.NoError(t, lease.Release(t.Context()))
		require.Empty(t, w.holder())
		time.Sleep(longest)
		require.Empty(t, w.holder())
		require.Empty(t, w.told(Lost))
	})
}

func TestALeaseIsSafeForConcurrentUse(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for range 20 {
			lease := w.acquire(backup)
			var wg sync.WaitGroup
			for i := range 16 {
				wg.Go(func() {
					for range 20 {
						time.Sleep(time.Millisecond)
						if err := lease.Renew(t.Context()); err != nil {
							require.ErrorIs(t, err, context.Canceled)
						}
						_, _, _ = lease.Token(), lease.Job(), lease.Context().Err()
					}
					if i%4 == 0 {
						require.NoError(t, lease.Release(t.Context()))
					}
				})
			}
			wg.Wait()
			require.Empty(t, w.holder())
		}
		require.Empty(t, w.told(Lost))
	})
}

// A flawed clock is a database's, in front of the time or behind it, by half of the margin at
// most.
type flawedClock struct{ ahead atomic.Int64 }

func (c *flawedClock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *flawedClock) jump(random *rand.Rand) {
	margin := int64(longest - trusted)
	c.ahead.Store(random.Int63n(margin+1) - margin/2)
}

// ledger is what must hold for all leases of a job.
type ledger struct {
	mu     sync.Mutex
	leases []*Lease
	forced map[string]bool // job IDs whose lock was released by force: their holders don't know yet
	token  time.Time
	wrong  []string
}

func (l *ledger) say(format string, args ...any) {
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

// granted is told of the lock_times in the order in which they are written.
func (l *ledger) granted(lockTime time.Time) {
	if !lockTime.After(l.token) {
		l.say("lock_time %v was given after %v", lockTime, l.token)
	}
	l.token = lockTime
}

// add is told of a new lease: no other may live.
func (l *ledger) add(lease *Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, other := range append(l.leases, lease) {
		if other != lease && other.Context().Err() == nil && lease.Context().Err() == nil &&
			!l.forced[other.Job().JobID] && !l.forced[lease.Job().JobID] {
			l.say("%v and %v are held at the same time", other.Job().JobID, lease.Job().JobID)
		}
	}
	l.leases = append(l.leases, lease)
}

// honest is the memory that tells the ledger.
type honest struct {
	*memory
	*ledger
}

func (h honest) take(ctx context.Context, id identity, c claim) (reading, error) {
	h.mu().Lock()
	defer h.mu().Unlock()
	r, err := h.memory.take(ctx, id, c)
	if r.won {
		h.granted(r.lockTime)
	}
	return r, err
}

func (h honest) renew(ctx context.Context, id identity, t term, longest time.Duration) (reading, error) {
	h.mu().Lock()
	defer h.mu().Unlock()
	r, err := h.memory.renew(ctx, id, t, longest)
	if r.won {
		h.granted(r.lockTime)
	}
	return r, err
}

func (h honest) mu() *sync.Mutex { return &h.ledger.mu }

// link is the way of one instance to the database, on which things go wrong for a while.
func link(random *rand.Rand) script {
	var mu sync.Mutex
	chance := func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return random.Float64()
	}
	slow := func(ctx context.Context) error {
		select {
		case <-time.After(time.Duration(chance() * chance() * float64(longest))):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	switch chance := chance(); {
	case chance < 0.4:
		return script{}
	case chance < 0.5:
		return script{before: func(context.Context, string) error { return errAway }}
	case chance < 0.6:
		return script{before: func(ctx context.Context, _ string) error { return slow(ctx) }}
	case chance < 0.7:
		return script{after: func(ctx context.Context, _ string) error {
			if err := slow(ctx); err != nil {
				return fmt.Errorf("%w (%w)", err, ErrOutcomeUnknown)
			}
			return nil
		}}
	case chance < 0.8:
		return script{before: func(ctx context.Context, _ string) error { return takes(longest / 5)(ctx) }}
	}
	return script{after: func(context.Context, string) error {
		if chance() < 0.5 {
			return fmt.Errorf("%w (%w)", io.EOF, ErrOutcomeUnknown)
		}
		return nil
	}}
}

// TestWhateverHappensNoTwoLeasesLive runs instances that do things at random, over links on which
// things go wrong at random, to a database whose clock jumps by as much as the margin covers.
func TestWhateverHappensNoTwoLeasesLive(t *testing.T) {
	const instances, steps = 4, 1000
	for seed := range int64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				clock := &flawedClock{}
				truth := honest{NewLocal(clock.now).rows.(*memory), &ledger{forced: map[string]bool{}}}
				var (
					wg         sync.WaitGroup
					lost, held atomic.Int64
				)
				for i := range instances {
					wg.Go(func() {
						random := rand.New(rand.NewSource(seed*instances + int64(i)))
						rows := &scripted{rows: truth}
						l := &Lock{rows: rows, o: Options{Observer: func(_ context.Context, e Event) {
							if e.Kind == Lost {
								lost.Add(1)
							}
						}}}
						j := backup
						j.ComponentID = fmt.Sprint("instance ", i)
						var lease *Lease
						var ctx context.Context // of the instance, until it crashes
						crash := func() {}
						begin := func() {
							c, cancel := context.WithCancel(t.Context())
							ctx, crash = c, cancel
						}
						begin()
						defer func() { crash() }()
						for step := range steps {
							time.Sleep(time.Duration(random.Float64() * random.Float64() * float64(longest) / 2))
							switch chance := random.Float64(); {
							case chance < 0.1:
								clock.jump(random)
							case chance < 0.2:
								rows.does(link(rand.New(rand.NewSource(random.Int63()))))
							case chance < 0.22:
								_ = l.Disable("shop", "backup")
								time.Sleep(time.Second)
								fallthrough
							case chance < 0.25:
								_ = (&Lock{rows: truth}).Enable("shop", "backup")
							case chance < 0.27:
								s, err := l.Status(t.Context(), "shop", "backup")
								if err == nil && s.Locked {
									truth.ledger.mu.Lock()
									truth.forced[s.Holder.JobID] = true
									truth.ledger.mu.Unlock()
									_ = l.ForceRelease(t.Context(), "shop", "backup", s.Holder)
								}
							case chance < 0.3:
								crash()
								begin()
								lease = nil
							case lease == nil:
								if random.Float64() < 0.8 { // else the same again
									j.JobID = fmt.Sprintf("%d-%d", i, step)
								}
								j.Wait = time.Duration(random.Intn(2)) * time.Second
								if got, err := l.Acquire(ctx, j); err == nil {
									lease = got
									truth.add(lease)
									held.Add(1)
								}
							case chance < 0.6:
								_ = lease.Renew(t.Context())
							case chance < 0.75:
								if lease.Release(t.Context()) == nil {
									j.JobID = fmt.Sprintf("%d-%d", i, step)
								}
								lease = nil
							}
							if lease == nil {
								continue
							}
							r, _ := truth.look(t.Context(), lease.identity(""))
							truth.ledger.mu.Lock()
							if lease.Context().Err() == nil && !truth.forced[lease.Job().JobID] && !r.heldBy(lease.identity("")) {
								truth.say("%v lives, but %v holds the lock", lease.Job().JobID, r.jobID)
							}
							truth.ledger.mu.Unlock()
						}
					})
				}
				wg.Wait()
				time.Sleep(longest) // until the renewals under way are answered
				require.Empty(t, truth.wrong)
				require.Greater(t, held.Load(), int64(50), "leases")
				require.Greater(t, lost.Load(), int64(10), "lost leases")
				t.Logf("%d leases, %d lost", held.Load(), lost.Load())
			})
		})
	}
}

package lock

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// A script delays or fails a call to the store, before or after it is executed.
type script struct {
	before func(ctx context.Context, call string) error // an error: it is not executed
	after  func(ctx context.Context, call string) error // an error: its reply is lost
}

// scripted is a Store with a script.
type scripted struct {
	store.Store

	mu    sync.Mutex
	now   script
	asked map[string][]time.Time
}

// does sets the script of the calls from now on.
func (s *scripted) does(now script) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

// when returns the times of a call.
func (s *scripted) when(call string) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Time(nil), s.asked[call]...)
}

func (s *scripted) step(ctx context.Context, call string, r store.Request,
	do func() (store.Result, error)) (store.Result, error) {
	s.mu.Lock()
	now := s.now
	if s.asked == nil {
		s.asked = map[string][]time.Time{}
	}
	s.asked[call] = append(s.asked[call], time.Now())
	s.mu.Unlock()
	if now.before != nil {
		if err := now.before(ctx, call); err != nil {
			return store.Result{}, r.Wrap(err)
		}
	}
	res, err := do()
	if err == nil && now.after != nil {
		if err := now.after(ctx, call); err != nil {
			return store.Result{}, r.Wrap(err)
		}
	}
	return res, err
}

func (s *scripted) Acquire(ctx context.Context, r store.Request, c store.Conditions) (store.Result,
	error) {
	return s.step(ctx, "acquire", r, func() (store.Result, error) {
		return s.Store.Acquire(ctx, r,
			c)
	})
}

func (s *scripted) Release(ctx context.Context, r store.Request, t store.Term,
	run string) (store.Result, error) {
	return s.step(ctx, "release", r, func() (store.Result, error) {
		return s.Store.Release(ctx, r, t,
			run)
	})
}

func (s *scripted) Renew(ctx context.Context, r store.Request, t store.Term) (store.Result, error) {
	return s.step(ctx, "renew", r, func() (store.Result, error) { return s.Store.Renew(ctx, r, t) })
}

var (
	errAway    = errors.New("the database is away")
	errUnknown = fmt.Errorf("%w (%w)", io.ErrUnexpectedEOF, ErrOutcomeUnknown)
)

// on makes one kind of call fail or take time.
func on(call string, do func(ctx context.Context) error) func(context.Context, string) error {
	return func(ctx context.Context, c string) error {
		if c != call {
			return nil
		}
		return do(ctx)
	}
}

// first does one thing to the first such call, and another to later ones.
func first(call string, do, then func(ctx context.Context) error) func(context.Context,
	string) error {
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

// either combines two scripts of different calls.
func either(a, b func(context.Context, string) error) func(context.Context, string) error {
	return func(ctx context.Context, call string) error {
		return errors.Join(a(ctx, call), b(ctx, call))
	}
}

func fails(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

// takes makes a call take time, whatever its context says.
func takes(d time.Duration) func(context.Context) error {
	return func(context.Context) error {
		time.Sleep(d)
		return nil
	}
}

// hangs makes a call last as long as its context.
func hangs(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// world is a Lock in a bubble of package synctest, where time passes only when nothing else can.
type world struct {
	*Lock
	t      *testing.T
	script *scripted
	truth  store.Store // without the script
	ahead  atomic.Int64
	start  time.Time

	mu     sync.Mutex
	events []Event
}

func inBubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, start: time.Now()}
		w.truth = store.NewMemory(func() time.Time {
			return time.Now().Add(time.Duration(w.ahead.Load()))
		})
		w.script = &scripted{Store: w.truth}
		w.Lock = &Lock{store: w.script, hub: newHub(nil), o: Options{Observer: func(_ context.Context,
			e Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
		}}}
		t.Cleanup(func() {
			if t.Failed() {
				time.Sleep(24 * time.Hour) // so that goroutines left behind don't hide the failure
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

// other is the Lock of another instance, without a script.
func (w *world) other() *Lock { return &Lock{store: w.truth, hub: newHub(nil)} }

func (w *world) challenge(ttl time.Duration) error {
	return w.other().Lock("shop", "b", "backup", "2", ttl)
}

// holder returns the holder of the lock, or "".
func (w *world) holder() string {
	rec, err := w.truth.Get(w.t.Context(), backup.request(""))
	require.NoError(w.t, err)
	if !rec.Locked {
		return ""
	}
	return rec.ComponentID
}

// lastRun returns the job ID in the row.
func (w *world) lastRun() string {
	rec, err := w.truth.Get(w.t.Context(), backup.request(""))
	require.NoError(w.t, err)
	return rec.JobID
}

// The job of instance a. Its lease is renewed every 10 s, and can be trusted for 27 s.
const (
	ttl     = 30 * time.Second
	trusted = 27 * time.Second
)

var (
	backup = Job{ComponentName: "shop", ComponentID: "a", JobName: "backup", JobID: "1", TTL: ttl}
	ticked = func() Job {
		j := backup
		j.JobID, j.Tick = "", time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // when the bubble begins
		return j
	}()
)

func requireRefused(t *testing.T, err error) {
	t.Helper()
	require.IsType(t, &ErrUnauthorised{}, err)
}

// requireLost requires that a lease was lost, at a time since the start.
func (w *world) requireLost(lease *Lease, after time.Duration) {
	w.t.Helper()
	select {
	case <-lease.Context().Done():
	case <-time.After(time.Hour):
	}
	require.Equal(w.t, after, w.elapsed())
	require.ErrorIs(w.t, context.Cause(lease.Context()), ErrLost)
	require.ErrorIs(w.t, lease.Err(), ErrLost)
	synctest.Wait()
	require.Len(w.t, w.told(Lost), 1)
	require.Equal(w.t, context.Cause(lease.Context()), w.told(Lost)[0].Err)
}

func TestLease_keep(t *testing.T) {
	t.Run("renews every third of the TTL until the release", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			lease := w.acquire(backup)
			for w.elapsed() < 10*ttl {
				requireRefused(t, w.challenge(ttl))
				time.Sleep(time.Second)
			}
			synctest.Wait()
			require.NoError(t, lease.Err())
			renewals := w.script.when("renew")
			require.Len(t, renewals, 30)
			for i, at := range renewals {
				require.Equal(t, time.Duration(i+1)*ttl/3, at.Sub(w.start))
			}
			require.NoError(t, lease.Release(t.Context()))
			require.NoError(t, w.challenge(ttl))
			time.Sleep(10 * ttl)
			require.Len(t, w.script.when("renew"), 30)
			require.Empty(t, w.told(Lost))
		})
	})
	t.Run("loses the lease before another can take over", func(t *testing.T) {
		for name, renew := range map[string]func(ctx context.Context, end chan struct{}) error{
			"refused connection": func(context.Context,
				chan struct{}) error {
				return driver.ErrBadConn
			},
			"error that nothing cures": func(context.Context, chan struct{}) error { return errAway },
			"unknown outcome":          func(context.Context, chan struct{}) error { return errUnknown },
			"error that takes its time": func(context.Context,
				chan struct{}) error {
				time.Sleep(2 * time.Second)
				return errAway
			},
			"no answer": func(ctx context.Context,
				_ chan struct{}) error {
				return hangs(ctx)
			},
			"no heed is paid to contexts": func(_ context.Context,
				end chan struct{}) error {
				<-end
				return errAway
			},
		} {
			t.Run(name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, w *world) {
					lease := w.acquire(backup)
					ended := make(chan time.Duration, 1)
					context.AfterFunc(lease.Context(), func() { ended <- w.elapsed() })
					time.Sleep(ttl + time.Millisecond) // after three renewals
					end := make(chan struct{})
					w.script.does(script{before: on("renew", func(ctx context.Context) error {
						return renew(ctx,
							end)
					})})
					time.Sleep(ttl - time.Millisecond)
					requireRefused(t, w.challenge(ttl))
					time.Sleep(time.Microsecond)
					require.NoError(t, w.challenge(ttl))
					require.Equal(t, ttl+trusted, <-ended)
					close(end)
					require.Len(t, w.told(Lost), 1)
					require.ErrorIs(t, lease.Renew(t.Context()), ErrLost)
					require.ErrorIs(t, lease.Release(t.Context()), ErrLost)
					require.Equal(t, "b", w.holder())
				})
			})
		}
	})
	t.Run("survives a renewal that fails, hangs or is slow", func(t *testing.T) {
		for name, now := range map[string]script{
			"error": {before: once("renew", fails(errAway))},
			"error after 10 s": {before: once("renew",
				func(context.Context) error { time.Sleep(10 * time.Second); return errAway })},
			"no answer":              {before: once("renew", hangs)},
			"slow answer":            {after: once("renew", takes(ttl*55/100))},
			"slow answer of Acquire": {after: once("acquire", takes(ttl*6/10))},
			"all slow": {after: func(ctx context.Context,
				_ string) error {
				return takes(ttl * 4 / 10)(ctx)
			}},
		} {
			t.Run(name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, w *world) {
					w.script.does(now)
					lease := w.acquire(backup)
					for w.elapsed() < 5*ttl {
						time.Sleep(time.Second)
						require.NoError(t, lease.Err(), "after %v", w.elapsed())
						requireRefused(t, w.challenge(ttl))
					}
					require.Empty(t, w.told(Lost))
					require.NoError(t, lease.Release(t.Context()))
				})
			})
		}
	})
	t.Run("survives renewals whose replies are lost", func(t *testing.T) {
		for name, lossy := range map[string]func(n int64) bool{
			"one":                 func(n int64) bool { return n == 1 },
			"every second":        func(n int64) bool { return n%2 == 1 },
			"five of six in turn": func(n int64) bool { return n%6 != 0 },
		} {
			for _, carriedOut := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, carried out: %t", name, carriedOut), func(t *testing.T) {
					inBubble(t, func(t *testing.T, w *world) {
						lease := w.acquire(backup)
						var n atomic.Int64
						lose := on("renew", func(context.Context) error {
							if lossy(n.Add(1)) {
								return errUnknown
							}
							return nil
						})
						if carriedOut {
							w.script.does(script{after: lose})
						} else {
							w.script.does(script{before: lose})
						}
						for w.elapsed() < 10*ttl {
							time.Sleep(time.Second)
							require.NoError(t, lease.Err(), "after %v", w.elapsed())
						}
						require.NotEmpty(t, w.told(Failed))
						require.NoError(t, lease.Release(t.Context()))
						require.Empty(t, w.holder())
					})
				})
			}
		}
	})
	t.Run("notices that the lock was taken away", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			lease := w.acquire(backup)
			time.Sleep(time.Second)
			require.NoError(t, w.challenge(time.Millisecond))
			w.requireLost(lease, ttl/3)
			require.ErrorAs(t, context.Cause(lease.Context()), new(*ErrUnauthorised))
			renewals := len(w.script.when("renew"))
			require.ErrorIs(t, lease.Renew(t.Context()), ErrLost)
			require.Len(t, w.script.when("renew"), renewals, "nothing is asked")
			require.ErrorIs(t, lease.Release(t.Context()), ErrLost)
			require.Equal(t, "b", w.holder())
		})
	})
	t.Run("notices that the job is disabled, if it is to", func(t *testing.T) {
		for _, stop := range []bool{true, false} {
			inBubble(t, func(t *testing.T, w *world) {
				j := backup
				j.StopWhenDisabled = stop
				lease := w.acquire(j)
				require.NoError(t, w.Disable("shop", "backup"))
				if stop {
					w.requireLost(lease, ttl/3)
					require.ErrorAs(t, lease.Err(), new(*ErrDisabled))
				} else {
					time.Sleep(5 * ttl)
					require.NoError(t, lease.Err())
				}
				require.NoError(t, lease.Release(t.Context()), "the lock is still its own")
				require.Empty(t, w.holder())
			})
		}
	})
	t.Run("notices that the lease has expired by the clock of the database", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			lease := w.acquire(backup)
			w.ahead.Store(int64(ttl))
			w.requireLost(lease, ttl/3)
			require.NoError(t, w.challenge(ttl))
		})
	})
	t.Run("never loses a lease without a TTL by time", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			j := backup
			j.TTL = Forever
			lease := w.acquire(j)
			for _, now := range []script{{}, {before: on("renew", fails(errAway))},
				{after: on("renew", fails(errUnknown))}, {}} {
				w.script.does(now)
				time.Sleep(time.Hour)
			}
			require.NoError(t, lease.Err())
			requireRefused(t, w.challenge(0))
			before := w.elapsed()
			require.NoError(t, w.ForceRelease(t.Context(), "shop", "backup", Holder{ComponentID: "a",
				JobID: "1"}))
			<-lease.Context().Done()
			require.LessOrEqual(t, w.elapsed()-before, 10*time.Second)
			require.ErrorIs(t, lease.Err(), ErrLost)
		})
	})
	t.Run("ends with the context of Acquire", func(t *testing.T) {
		for _, during := range []string{"between renewals", "during a renewal"} {
			inBubble(t, func(t *testing.T, w *world) {
				why := errors.New("enough")
				ctx, cancel := context.WithCancelCause(t.Context())
				lease, err := w.Acquire(ctx, backup)
				require.NoError(t, err)
				time.Sleep(ttl/3 - time.Millisecond)
				if during == "during a renewal" {
					w.script.does(script{before: on("renew", hangs)})
					time.Sleep(time.Second)
				}
				cancel(why)
				synctest.Wait() // who renewed it is gone now, or the bubble could not end
				require.ErrorIs(t, lease.Err(), why)
				require.ErrorIs(t, lease.Renew(t.Context()), why)
				require.NoError(t, lease.Release(t.Context()))
				require.Empty(t, w.holder())
				require.Empty(t, w.told(Lost))
			})
		}
	})
}

func TestLease_Err(t *testing.T) {
	t.Run("deadline counts from before the round trip", func(t *testing.T) {
		const slow = ttl * 4 / 10
		away := fails(errAway)
		for name, now := range map[string]script{
			"on its way there": {before: either(on("acquire", takes(slow)), on("renew", away))},
			"on its way back":  {before: on("renew", away), after: on("acquire", takes(slow))},
		} {
			t.Run("Acquire/"+name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, w *world) {
					w.script.does(now)
					w.requireLost(w.acquire(backup), trusted)
				})
			})
		}
		for name, now := range map[string]script{
			"on its way there": {before: first("renew", takes(slow), away)},
			"on its way back":  {before: first("renew", takes(0), away), after: on("renew", takes(slow))},
		} {
			t.Run("Renew/"+name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, w *world) {
					lease := w.acquire(backup)
					time.Sleep(5 * time.Second)
					w.script.does(now)
					require.NoError(t, lease.Renew(t.Context()))
					w.requireLost(lease, 5*time.Second+trusted)
				})
			})
		}
	})
	t.Run("lock that the same IDs hold already is trusted for what is left", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			require.NoError(t, w.Lock.Lock("shop", "a", "backup", "1", ttl))
			time.Sleep(12 * time.Second)
			w.script.does(script{before: on("renew", fails(errAway))}) // the first is due at once
			lease := w.acquire(backup)
			require.Equal(t, w.start.UnixMicro(), lease.Token())
			w.requireLost(lease, trusted)
		})
	})
	t.Run("compares the clock at this moment", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			res, e := w.Lock.acquire(t.Context(), backup.request("Acquire"), backup.conditions(), false)
			// which nobody keeps
			lease := newLease(t.Context(), w.Lock, backup.fill(w.start), false, res, e, w.start)
			defer lease.cancel(nil)
			time.Sleep(trusted - 1)
			require.NoError(t, lease.Err())
			time.Sleep(time.Nanosecond)
			require.ErrorIs(t, lease.Err(), ErrLost)
		})
	})
	t.Run("renewal that is answered after the deadline", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			lease := w.acquire(backup)
			time.Sleep(time.Second)
			w.script.does(script{after: on("renew", takes(trusted))})
			require.ErrorIs(t, lease.Renew(t.Context()), ErrLost)
			require.ErrorIs(t, lease.Err(), ErrLost)
			require.Empty(t, w.told(Renewed))
			require.NoError(t, lease.Release(t.Context()))
			require.Empty(t, w.holder())
		})
	})
}

func TestLease_Check_behindARenewal(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		lease := w.acquire(backup)
		w.script.does(script{after: on("renew", takes(5*time.Second))})
		go lease.Renew(t.Context())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		time.Sleep(time.Millisecond)
		require.ErrorIs(t, lease.Renew(ctx), context.DeadlineExceeded, "its turn does not come")
		require.NoError(t, lease.Check(t.Context(), nil), "the renewal under way has moved the row")
		require.NoError(t, lease.Release(t.Context()))
	})
}

func TestLease_Release(t *testing.T) {
	t.Run("after renewals whose replies are lost", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			lease := w.acquire(backup)
			w.script.does(script{after: on("renew", fails(errUnknown))})
			for range 3 {
				time.Sleep(5 * time.Second)
				require.ErrorIs(t, lease.Renew(t.Context()), ErrOutcomeUnknown)
			}
			require.NoError(t, lease.Release(t.Context()))
			require.Empty(t, w.holder())
		})
	})
	t.Run("never frees a later run with the same IDs", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			lease := w.acquire(backup)
			w.script.does(script{before: on("renew", fails(errUnknown))})
			w.requireLost(lease, trusted)
			time.Sleep(ttl)
			w.script.does(script{})
			again := w.acquire(backup)
			require.Greater(t, again.Token(), lease.Token())
			require.ErrorIs(t, lease.Release(t.Context()), ErrLost)
			require.Equal(t, "a", w.holder())
			require.NoError(t, again.Release(t.Context()))
		})
	})
	t.Run("comes after the renewal that is under way", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			lease := w.acquire(backup)
			// The database has the renewal, and executes it although nobody waits any more.
			w.script.does(script{before: on("renew", takes(2*time.Second)),
				after: on("renew", func(ctx context.Context) error {
					if ctx.Err() != nil {
						return errUnknown
					}
					return nil
				})})
			time.Sleep(ttl/3 + time.Second)
			require.NoError(t, lease.Release(t.Context()))
			time.Sleep(ttl)
			require.Empty(t, w.holder())
			require.Empty(t, w.told(Lost))
		})
	})
	t.Run("comes after a renewal that was answered too late, and one behind it", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			lease := w.acquire(backup)
			w.script.does(script{after: on("renew", takes(trusted+time.Second))})
			go lease.Renew(t.Context())
			time.Sleep(time.Second)
			go lease.Renew(lease.Context())
			w.requireLost(lease, trusted)
			time.Sleep(2 * time.Second)
			require.NoError(t, lease.Release(t.Context()))
			require.Empty(t, w.holder())
		})
	})
	for _, end := range []struct {
		name    string
		release func(*Lease, context.Context) error
	}{{"Release", (*Lease).Release}, {"GiveBack", (*Lease).GiveBack}} {
		for _, carriedOut := range []bool{true, false} {
			for _, rival := range []bool{true, false} {
				for _, late := range []bool{true, false} {
					t.Run(fmt.Sprintf("reply lost/%s, carried out: %t, rival: %t, after the deadline: %t",
						end.name, carriedOut, rival, late), func(t *testing.T) {
						inBubble(t, func(t *testing.T, w *world) {
							lease := w.acquire(ticked)
							if late {
								w.script.does(script{before: on("renew", fails(errAway))})
								time.Sleep(trusted + time.Second)
							}
							if lose := once("release", fails(errUnknown)); carriedOut {
								w.script.does(script{after: lose})
							} else {
								w.script.does(script{before: lose})
							}
							require.ErrorIs(t, end.release(lease, t.Context()), ErrOutcomeUnknown)
							if rival {
								time.Sleep(ttl + time.Second)  // or it waits for the end of the TTL
								next := "2000-01-01T00:01:00Z" // the next tick
								if end.name == "GiveBack" && carriedOut {
									next = "2000-01-01T00:00:00Z" // which is free
								}
								require.NoError(t, w.other().Lock("shop", "b", "backup", next, ttl))
							}
							err := end.release(lease, t.Context())
							switch {
							case rival && late && errors.Is(err, ErrOutcomeUnknown):
								require.ErrorContains(t, err, `"b"`)
							case rival && late:
								t.Errorf("whether it was released is unknown, but the answer is: %v", err)
							default:
								require.NoError(t, err)
								require.NoError(t, end.release(lease, t.Context()), "once more")
							}
							require.Equal(t, map[bool]string{true: "b"}[rival], w.holder())
							if !rival {
								want := map[string]string{"Release": "2000-01-01T00:00:00Z",
									"GiveBack": "1999-12-31T23:59:59Z"}[end.name]
								require.Equal(t, want, w.lastRun())
							}
						})
					})
				}
			}
		}
	}
}

func TestLock_Acquire(t *testing.T) {
	t.Run("answer that comes too late", func(t *testing.T) {
		for name, now := range map[string]script{
			"the question is late": {before: once("acquire", takes(trusted))},
			"the answer is late":   {after: once("acquire", takes(trusted))},
			"later than others":    {after: once("acquire", takes(2*ttl))},
		} {
			t.Run(name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, w *world) {
					w.script.does(now)
					_, err := w.Acquire(t.Context(), ticked)
					require.ErrorIs(t, err, ErrLost)
					require.Empty(t, w.holder())
					require.NoError(t, w.acquire(ticked).Release(t.Context()), "the tick is free")
				})
			})
		}
		t.Run("another has the lock by then", func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.script.does(script{after: on("acquire", func(context.Context) error {
					time.Sleep(ttl + time.Second)
					return w.challenge(ttl)
				})})
				_, err := w.Acquire(t.Context(), backup)
				require.ErrorIs(t, err, ErrLost)
				require.Equal(t, "b", w.holder())
			})
		})
		t.Run("the release hangs", func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.script.does(script{after: on("acquire", takes(trusted)), before: on("release", hangs)})
				_, err := w.Acquire(t.Context(), backup)
				require.ErrorIs(t, err, ErrLost)
				require.LessOrEqual(t, w.elapsed(), trusted+releaseTimeout)
			})
		})
	})
	t.Run("reply lost", func(t *testing.T) {
		unnamed := backup
		unnamed.ComponentID, unnamed.JobID = "", ""
		for _, away := range []time.Duration{0, 8 * time.Second} { // afterwards
			inBubble(t, func(t *testing.T, w *world) {
				w.script.does(script{after: on("acquire", fails(errUnknown)),
					before: on("release", fails(errAway))})
				if away == 0 {
					w.script.does(script{after: on("acquire", fails(errUnknown))})
				}
				_, err := w.Acquire(t.Context(), unnamed)
				require.ErrorIs(t, err, ErrOutcomeUnknown)
				time.Sleep(away)
				w.script.does(script{})
				time.Sleep(2 * time.Second)
				require.Empty(t, w.holder(), "nobody else knows the IDs: it is given back")
			})
		}
		t.Run("named run stays to be settled by the same call", func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.script.does(script{after: once("acquire", fails(errUnknown))})
				_, err := w.Acquire(t.Context(), backup)
				require.ErrorIs(t, err, ErrOutcomeUnknown)
				require.Equal(t, "a", w.holder())
				require.NoError(t, w.acquire(backup).Release(t.Context()))
			})
		})
		t.Run("tick is run by somebody", func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.script.does(script{after: once("acquire", fails(errUnknown))})
				_, err := w.Acquire(t.Context(), ticked)
				require.ErrorIs(t, err, ErrOutcomeUnknown)
				again := ticked
				again.ComponentID = "b"
				require.NoError(t, w.acquire(again).Release(t.Context()))
			})
		})
		t.Run("while waiting", func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.script.does(script{after: once("acquire", fails(fmt.Errorf("%w (%w)", driver.ErrBadConn,
					ErrOutcomeUnknown)))})
				j := ticked
				j.Wait = time.Minute
				require.NoError(t, w.acquire(j).Err(), "the tick is its own")
			})
		})
	})
	t.Run("context ended meanwhile", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			ctx, cancel := context.WithCancel(t.Context())
			w.script.does(script{after: on("acquire", func(context.Context) error { cancel(); return nil })})
			_, err := w.Acquire(ctx, ticked)
			require.ErrorIs(t, err, context.Canceled)
			require.Empty(t, w.holder())
			w.script.does(script{})
			require.NoError(t, w.acquire(ticked).Release(t.Context()), "the tick is free")
		})
	})
}

func TestJob_Wait(t *testing.T) {
	waiting := func(wait time.Duration) Job {
		j := backup
		j.Wait = wait
		return j
	}
	t.Run("none is one attempt", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			require.NoError(t, w.challenge(0))
			_, err := w.Acquire(t.Context(), backup)
			requireRefused(t, err)
			require.Len(t, w.script.when("acquire"), 1)
			require.Zero(t, w.elapsed())
		})
	})
	t.Run("ends in time with the last refusal", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			j := waiting(10 * time.Second)
			j.TTL = Forever
			require.NoError(t, w.challenge(0))
			_, err := w.Acquire(t.Context(), j)
			requireRefused(t, err)
			require.Equal(t, 10*time.Second, w.elapsed())
			require.Len(t, w.told(Refused), 1, "what it is told meanwhile is no news")
			require.InDelta(t, 12, len(w.script.when("acquire")), 8)
		})
	})
	t.Run("ends with the context", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			require.NoError(t, w.challenge(0))
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := w.Acquire(ctx, waiting(Forever))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorAs(t, err, new(*ErrUnauthorised))
			require.Equal(t, 5*time.Second, w.elapsed())
			require.Len(t, w.told(Refused), 1)
		})
	})
	t.Run("until the lock expires", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			require.NoError(t, w.challenge(ttl))
			lease := w.acquire(waiting(Forever))
			require.InDelta(t, ttl, w.elapsed(), float64(time.Second))
			require.Equal(t, "b", lease.TakenFrom().ComponentID)
		})
	})
	t.Run("until the release in this process", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			leader := w.acquire(backup)
			j := waiting(Forever)
			j.JobID, j.Poll = "2", 10*time.Second
			go func() {
				time.Sleep(25 * time.Second)
				leader.Release(t.Context())
			}()
			w.acquire(j)
			require.Equal(t, 25*time.Second, w.elapsed())
		})
	})
	t.Run("puts up with what may pass", func(t *testing.T) {
		for _, state := range []state{"40001", "57P03", "55P03", "57014", "25006", "53300"} {
			inBubble(t, func(t *testing.T, w *world) {
				w.script.does(script{before: on("acquire", func(context.Context) error {
					if w.elapsed() < time.Minute {
						return state
					}
					return nil
				})})
				w.acquire(waiting(Forever))
				require.InDelta(t, time.Minute, w.elapsed(), float64(2*time.Second))
			})
		}
	})
	t.Run("not for what stays", func(t *testing.T) {
		for _, err := range []error{errAway, state("42501"), state("28P01")} {
			inBubble(t, func(t *testing.T, w *world) {
				w.script.does(script{before: on("acquire", fails(err))})
				_, got := w.Acquire(t.Context(), waiting(Forever))
				require.ErrorIs(t, got, err)
				require.Zero(t, w.elapsed())
			})
		}
	})
	t.Run("not for a tick that is or was run", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			lease := w.acquire(ticked)
			j := ticked
			j.Wait, j.ComponentID = Forever, "b"
			for _, running := range []bool{true, false} {
				var already *ErrAlreadyRun
				_, err := w.Acquire(t.Context(), j)
				require.ErrorAs(t, err, &already)
				require.Equal(t, running, already.Running())
				require.NoError(t, lease.Release(t.Context()))
			}
		})
	})
	t.Run("the times at which many ask are spread", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			require.NoError(t, w.challenge(0))
			var wg sync.WaitGroup
			for i := range 10 {
				wg.Go(func() {
					j := waiting(20 * time.Second)
					j.JobID, j.TTL = fmt.Sprint(i), Forever
					(&Lock{store: w.script, hub: newHub(nil)}).Acquire(t.Context(), j)
				})
			}
			wg.Wait()
			at := map[time.Duration]int{}
			for _, when := range w.script.when("acquire") {
				at[when.Sub(w.start)]++
			}
			delete(at, 0)              // all come at once, and look twice
			delete(at, 20*time.Second) // and all give up at once
			for when, n := range at {
				require.LessOrEqual(t, n, 2, when)
			}
		})
	})
}

// state is an error of a server.
type state string

func (s state) Error() string    { return "the server says " + string(s) }
func (s state) SQLState() string { return string(s) }

func TestLock_Run(t *testing.T) {
	t.Run("renews while the function runs", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			require.NoError(t, w.Run(t.Context(), backup, func(ctx context.Context) error {
				time.Sleep(5 * ttl)
				requireRefused(t, w.challenge(ttl))
				return ctx.Err()
			}))
			require.Empty(t, w.holder())
		})
	})
	t.Run("tells of a lost lease, and of the function", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			boom := errors.New("boom")
			err := w.Run(t.Context(), backup, func(ctx context.Context) error {
				time.Sleep(time.Second)
				require.NoError(t, w.challenge(time.Millisecond))
				<-ctx.Done()
				return boom
			})
			require.ErrorIs(t, err, ErrLost)
			require.ErrorIs(t, err, boom)
			require.ErrorContains(t, err, `job "backup" of component "shop"`)
			require.Equal(t, "b", w.holder())
		})
	})
	t.Run("releases the lock whatever ends the function", func(t *testing.T) {
		for name, end := range map[string]func(cancel func()){
			"panic":       func(func()) { panic("boom") },
			"its context": func(cancel func()) { cancel() },
		} {
			inBubble(t, func(t *testing.T, w *world) {
				ctx, cancel := context.WithCancel(t.Context())
				func() {
					defer func() { require.Equal(t, name == "panic", recover() != nil) }()
					require.NoError(t, w.Run(ctx, ticked, func(context.Context) error { end(cancel); return nil }))
				}()
				require.Empty(t, w.holder())
				require.Equal(t, "2000-01-01T00:00:00Z", w.lastRun(), "it has begun: it counts")
			})
		}
	})
	t.Run("leaves the tick free if its context ends before the function begins", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			ctx, cancel := context.WithCancel(t.Context())
			w.script.does(script{after: on("acquire", func(context.Context) error { cancel(); return nil })})
			require.ErrorIs(t, w.Run(ctx, ticked,
				func(context.Context) error { t.Error("begun"); return nil }), context.Canceled)
			require.Equal(t, "1999-12-31T23:59:59Z", w.lastRun())
		})
	})
	t.Run("leaves the tick free after a panic, if the job says so", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			j := ticked
			j.RetryFailed = true
			require.Panics(t, func() {
				w.Run(t.Context(), j,
					func(context.Context) error { panic("boom") })
			})
			require.Equal(t, "1999-12-31T23:59:59Z", w.lastRun())
		})
	})
	t.Run("does not hang in the release", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			end := make(chan struct{})
			w.script.does(script{before: on("release",
				func(context.Context) error { <-end; return errAway })})
			require.ErrorIs(t, w.Run(t.Context(), backup, func(context.Context) error { return nil }),
				context.DeadlineExceeded)
			require.Equal(t, releaseTimeout, w.elapsed())
			close(end)
		})
	})
}

// TestOptions_Observer: it may release the lease of whose loss it is told.
func TestOptions_Observer(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var lease atomic.Pointer[Lease]
		tell := w.o.Observer
		w.o.Observer = Observers(nil, tell, func(ctx context.Context, e Event) {
			if le := lease.Load(); le != nil {
				le.Err()
				le.Token()
				if e.Kind == Lost {
					require.NoError(t, le.Release(ctx))
					require.ErrorIs(t, le.Renew(ctx), ErrReleased)
					_, err := w.Status(ctx, "shop", "backup")
					require.NoError(t, err)
				}
			}
		})
		lease.Store(w.acquire(backup))
		w.script.does(script{before: on("renew", fails(errAway))})
		<-lease.Load().Context().Done()
		time.Sleep(time.Second)
		require.Empty(t, w.holder())
		require.Len(t, w.told(Lost), 1)
		require.Len(t, w.told(Released), 1)
	})
}

func TestLease_concurrent(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for range 20 {
			lease := w.acquire(backup)
			var wg sync.WaitGroup
			for i := range 16 {
				wg.Go(func() {
					for range 20 {
						time.Sleep(time.Millisecond)
						if err := lease.Renew(t.Context()); err != nil && !errors.Is(err, ErrReleased) {
							require.ErrorIs(t, err, context.Canceled)
						}
						_, _, _, _ = lease.Token(), lease.Job(), lease.Err(), lease.TakenFrom()
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

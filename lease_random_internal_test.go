package lock

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock/internal/store"
)

// TestLease_random runs instances that do things at random, over links on which things go wrong at
// random, to a database whose clock jumps by less than the margin. A lease that is trusted always
// holds the lock.
func TestLease_random(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ahead, leases, lost atomic.Int64
				truth := store.NewMemory(func() time.Time {
					return time.Now().Add(time.Duration(ahead.Load()))
				})
				observe := func(_ context.Context, e Event) {
					if e.Kind == Lost {
						lost.Add(1)
					}
				}
				var all sync.WaitGroup
				for i := range uint64(4) {
					link := &scripted{Store: truth}
					in := instance{Rand: rand.New(rand.NewPCG(seed, i)), t: t, id: i, link: link,
						Lock: &Lock{store: link, hub: newHub(nil), o: Options{Observer: observe}}}
					all.Go(func() {
						for range 500 {
							time.Sleep(time.Duration(in.Float64() * in.Float64() * float64(ttl)))
							if in.IntN(10) == 0 {
								ahead.Store(in.Int64N(int64(ttl-trusted) - 1))
							}
							if in.step() {
								leases.Add(1)
							}
						}
						in.crash()
					})
				}
				all.Wait()
				time.Sleep(2 * ttl) // until what is under way is answered
				t.Logf("%d leases, %d lost", leases.Load(), lost.Load())
				require.Greater(t, leases.Load(), int64(20))
				require.Positive(t, lost.Load())
			})
		})
	}
}

// An instance is a process, which may crash and begin again.
type instance struct {
	*rand.Rand
	*Lock
	t    *testing.T
	id   uint64
	link *scripted

	run   int
	lease *Lease
	crash context.CancelFunc
}

// step does something, and reports whether that has acquired the lock.
func (in *instance) step() (acquired bool) {
	if in.crash == nil {
		in.crash = func() {}
	}
	switch chance := in.IntN(100); {
	case chance < 15:
		in.link.does(in.fault())
	case chance < 20:
		in.crash() // the lock stays in the row
		in.lease = nil
	case in.lease == nil && chance < 80:
		if in.IntN(5) > 0 { // else as the same run again
			in.run++
		}
		var ctx context.Context
		ctx, in.crash = context.WithCancel(in.t.Context())
		lease, err := in.Acquire(ctx, Job{ComponentName: "shop", JobName: "backup", TTL: ttl,
			ComponentID: fmt.Sprint(in.id), JobID: fmt.Sprintf("%d-%d", in.id, in.run),
			Wait: time.Duration(in.Int64N(int64(2 * time.Second)))})
		if err != nil {
			in.crash()
			break
		}
		in.lease, acquired = lease, true
	case in.lease == nil:
	case chance < 60:
		in.lease.Renew(in.t.Context())
	case chance < 75:
		in.lease.Release(in.t.Context())
		in.run++ // the IDs of a run that is over are not used again
		in.lease = nil
	}
	if in.lease != nil && in.lease.Err() == nil {
		r := in.lease.Job().request("")
		rec, err := in.link.Store.Get(in.t.Context(), r)
		require.NoError(in.t, err)
		if !rec.HeldBy(r) {
			in.t.Errorf("%v is trusted, but the lock is held by %+v", r.JobID, rec)
		}
	}
	return acquired
}

// fault is what becomes of the instance's calls from now on.
func (in *instance) fault() script {
	d := time.Duration(in.Int64N(int64(2 * ttl)))
	always := func(do func(context.Context) error) func(context.Context, string) error {
		return func(ctx context.Context, _ string) error { return do(ctx) }
	}
	switch in.IntN(6) {
	case 0:
		return script{before: always(takes(d))}
	case 1:
		return script{after: always(takes(d))}
	case 2:
		return script{before: always(fails(errAway))}
	case 3:
		return script{after: always(fails(errUnknown))}
	case 4:
		return script{before: always(takes(d)), after: always(fails(errUnknown))}
	}
	return script{}
}

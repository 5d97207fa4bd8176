package lockprom_test

import (
	"testing"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/observed/observedtest"
	"github.com/cloudtrust/go-jobs/lock/lockprom"
)

// BenchmarkObserve measures what a call of the lock waits for.
func BenchmarkObserve(b *testing.B) {
	db := observedtest.Open(b)
	if err := db.Observed(b, nil).Lock("shop", "b", "backup", "2", 0); err != nil {
		b.Fatal(err)
	}
	refusal := db.Observed(b, nil).Lock("shop", "a", "backup", "1", 0)
	for name, events := range map[string][]lock.Event{
		"renewed": {{Kind: lock.Renewed, Operation: "Renew", Token: 1, Took: time.Millisecond,
			Held: time.Minute}},
		"refused": {{Kind: lock.Refused, Operation: "Lock", Took: time.Millisecond, Err: refusal}},
		"acquired and released": {
			{Kind: lock.Acquired, Operation: "Acquire", Token: 1, Took: time.Millisecond},
			{Kind: lock.Released, Operation: "Release", Token: 1, Took: time.Millisecond, Held: time.Minute},
		},
	} {
		for i := range events {
			events[i].ComponentName, events[i].JobName, events[i].TTL = "shop", "backup", time.Minute
		}
		b.Run(name, func(b *testing.B) {
			m := lockprom.New()
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				for _, e := range events {
					m.Observe(ctx, e)
				}
			}
		})
	}
}

package browser

import (
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/lockhttp"
	"github.com/cloudtrust/go-jobs/lock/locktest"
)

// memory returns a Lock in memory with a clock, which begins now.
func memory(observers ...func(*lock.Options)) (*lock.Lock, *locktest.Clock) {
	var o lock.Options
	for _, set := range observers {
		set(&o)
	}
	return locktest.NewWith(o)
}

// A fleet has locks in each state.
type fleet struct {
	*testing.T
	*lock.Lock
	clock   *locktest.Clock
	events  lockhttp.Events
	options lockhttp.Options
}

var ttls = map[string]time.Duration{
	"backup": time.Hour, "invoices": 10 * time.Minute, "outbox": time.Minute,
	"report": 15 * time.Minute,
	"sync-catalogue-with-warehouse-north-east": time.Minute,
}

func (f *fleet) hold(component, job, instance, run string) {
	require.NoError(f, f.Lock.Lock(component, instance, job, run, ttls[job]))
}

// newFleet returns a fleet with the locks of the gallery, and further ones without trouble.
func newFleet(t *testing.T, n int) *fleet {
	f := &fleet{T: t}
	f.Lock, f.clock = memory(func(o *lock.Options) { o.Observer = f.events.Observe })
	f.options = lockhttp.Options{
		Service: "shop", Host: "shop-7d4b9c5f6-x2kqp", Database: "orders at pg-1.internal",
		Events: &f.events, Authorize: anything,
		TTL: func(_, job string) time.Duration { return ttls[job] },
	}
	started := func(ago time.Duration, suffix string) string {
		return f.clock.Now().Add(-ago).UTC().Format("2006-01-02T15:04:05Z") + suffix
	}
	if n > 3 {
		f.clock.Advance(26 * time.Hour)
		f.hold("mail", "future", "mail-1", "run-9")
		f.clock.Advance(-26*time.Hour - 3*time.Hour)
		f.hold("shop", "migrate", "shop-2", "schema-42")
		require.NoError(t, f.Unlock("shop", "shop-2", "migrate", "schema-42"))
		f.hold("search", "reindex", "search-7d4b9c5f6-x2kqp/1/M7ZB4K2T", "01K9Z4T7")
		require.NoError(t, f.Disable("mail", "digest"))
		f.clock.Advance(3*time.Hour - 18*time.Minute)
		f.hold("shop", "report", "shop-1", started(0, ""))
		f.clock.Advance(9*time.Minute + 20*time.Second)
		f.hold("shop", "invoices", "shop-2", "run-118")
		f.clock.Advance(8*time.Minute + 30*time.Second)
	}
	f.hold("shop", "backup", "shop-7f9c/4711/QX7RS2LB", started(40*time.Minute, "/QX7RS2LB"))
	f.hold("shop", "sync-catalogue-with-warehouse-north-east", "shop-7d4b9c5f6-x2kqp/1/M7ZB4K2T",
		started(3*time.Hour, "/M7ZB4K2T"))
	f.hold("mail", "outbox", "mail-1", started(26*time.Hour, "/UGZ5N3PQ"))
	require.NoError(t, f.Unlock("mail", "mail-1", "outbox", started(26*time.Hour, "/UGZ5N3PQ")))
	for i := range n - 9 {
		component, job := fmt.Sprintf("component-%c", 'a'+i%7), fmt.Sprintf("job-%04d", i)
		instance, run := fmt.Sprint("instance-", i%9), started(time.Duration(i)*time.Second, "/R")
		f.hold(component, job, instance, run)
		if i%3 > 0 {
			require.NoError(t, f.Unlock(component, instance, job, run))
		}
	}
	f.clock.Advance(10 * time.Second)
	return f
}

func (f *fleet) open(before ...chromedp.Action[chromedp.Void]) tab {
	f.Helper()
	return open(f.T, serve(f.T, f.Lock, f.options).url, before...)
}

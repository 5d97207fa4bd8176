package lockprom_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/observed/observedtest"
	"github.com/cloudtrust/go-jobs/lock/lockprom"
)

func registered(t testing.TB, all ...prometheus.Collector) *prometheus.Registry {
	r := prometheus.NewPedanticRegistry()
	for _, c := range all {
		require.NoError(t, r.Register(c))
	}
	return r
}

// text returns the metrics of a registry, without the buckets of the histograms.
func text(t testing.TB, r prometheus.Gatherer) string {
	families, err := r.Gather()
	require.NoError(t, err)
	var b strings.Builder
	for _, f := range families {
		_, err := expfmt.MetricFamilyToText(&b, f)
		require.NoError(t, err)
	}
	return regexp.MustCompile(`(?m)^\S+_bucket\{.*\n`).ReplaceAllString(b.String(), "")
}

// value returns the value of a gauge or a counter in a text, or "".
func value(text, series string) string {
	_, after, ok := strings.Cut("\n"+text, "\n"+series+" ")
	if !ok {
		return ""
	}
	v, _, _ := strings.Cut(after, "\n")
	return v
}

const (
	held      = `lock_lease_held{lock_component="shop",lock_job="backup"}`
	heldCount = `lock_held_duration_seconds_count{lock_component="shop",lock_job="backup"}`
	heldSum   = `lock_held_duration_seconds_sum{lock_component="shop",lock_job="backup"}`
)

func event(operation, kind, reason string) string {
	return fmt.Sprintf(`lock_events_total{kind="%s",lock_component="shop",lock_job="backup",`+
		`operation="%s",reason="%s"}`, kind, operation, reason)
}

func job(id string) lock.Job {
	return lock.Job{ComponentName: "shop", JobName: "backup", ComponentID: id, JobID: "run-" + id,
		TTL: 30 * time.Second}
}

// TestMetrics_README runs what the README says.
func TestMetrics_README(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := observedtest.Open(t)
		other := db.Observed(t, nil)
		db.Takes = 2 * time.Millisecond
		m := lockprom.New()
		l := db.Observed(t, m.Observe)
		r := registered(t, m, lockprom.NewTable(l, 0))

		// An instance dies, and this one takes over when the lock has expired.
		_, err := other.Acquire(canceled(t), job("instance-1"))
		require.NoError(t, err)
		require.Error(t, l.Run(t.Context(), job("instance-2"), nil))
		time.Sleep(time.Minute)
		require.NoError(t, l.Run(t.Context(), job("instance-2"), func(context.Context) error {
			time.Sleep(25 * time.Second)
			return nil
		}))
		// Somebody else is at the report, for which no longest duration is stated.
		require.NoError(t, other.Lock("shop", "instance-3", "report", "run-3", 0))
		time.Sleep(time.Hour)
		require.Error(t, l.LockContext(t.Context(), "shop", "instance-2", "report", "run-4", 0))

		requireSample(t, text(t, r))
	})
}

var update = flag.Bool("update", false, "write the sample")

// requireSample compares the sample that the README links to.
func requireSample(t *testing.T, sample string) {
	const file = "testdata/metrics.txt"
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(sample), 0o644))
		return
	}
	is, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, sample, string(is), "go test -run README -update writes it")
}

// canceled returns a context that ends as soon as a lock has been acquired in it, as if the
// process had died.
func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Second, cancel)
	return ctx
}

func TestMetrics_conventions(t *testing.T) {
	m := lockprom.New()
	l := observedtest.Open(t).Observed(t, m.Observe)
	other := observedtest.Open(t).Observed(t, nil)
	require.NoError(t, l.Lock("shop", "a", "backup", "1", time.Hour))
	require.Error(t, l.Lock("shop", "b", "backup", "2", time.Hour))
	lease, err := l.Acquire(t.Context(), lock.Job{ComponentName: "shop", JobName: "report"})
	require.NoError(t, err)
	require.NoError(t, lease.Release(t.Context()))
	require.NoError(t, other.Lock("shop", "a", "backup", "1", time.Hour))
	problems, err := testutil.GatherAndLint(registered(t, m, lockprom.NewTable(other, 0)))
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestMetrics_Observe(t *testing.T) {
	for _, c := range []struct {
		want string
		do   func(t *testing.T, l, other *lock.Lock, db *observedtest.Database)
	}{
		{event("Lock", "acquired", ""), func(t *testing.T, l, other *lock.Lock,
			db *observedtest.Database) {
			require.NoError(t, l.Lock("shop", "a", "backup", "1", 0))
		}},
		{event("Lock", "taken_over", ""), func(t *testing.T, l, other *lock.Lock,
			db *observedtest.Database) {
			require.NoError(t, other.Lock("shop", "b", "backup", "2", 0))
			time.Sleep(time.Minute)
			require.NoError(t, l.Lock("shop", "a", "backup", "1", time.Second))
		}},
		{event("Lock", "refused", "held"), func(t *testing.T, l, other *lock.Lock,
			db *observedtest.Database) {
			require.NoError(t, other.Lock("shop", "b", "backup", "2", 0))
			require.Error(t, l.Lock("shop", "a", "backup", "1", 0))
		}},
		{event("Acquire", "refused", "disabled"), func(t *testing.T, l, other *lock.Lock,
			db *observedtest.Database) {
			require.NoError(t, other.Disable("shop", "backup"))
			_, err := l.Acquire(t.Context(), job("a"))
			require.Error(t, err)
		}},
		{event("Acquire", "refused", "already_run"), func(t *testing.T, l, other *lock.Lock,
			db *observedtest.Database) {
			j := job("a")
			j.JobID, j.Tick = "", time.Now()
			require.NoError(t, other.Run(t.Context(), j, func(context.Context) error { return nil }))
			_, err := l.Acquire(t.Context(), j)
			require.Error(t, err)
		}},
		// which waits
		{event("Acquire", "refused", "held"), func(t *testing.T, l, other *lock.Lock,
			db *observedtest.Database) {
			require.NoError(t, other.Lock("shop", "b", "backup", "2", 0))
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			j := job("a")
			j.Wait, j.TTL = lock.Forever, lock.Forever
			_, err := l.Acquire(ctx, j)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}},
		{event("Unlock", "refused", "lost"), func(t *testing.T, l, other *lock.Lock,
			db *observedtest.Database) {
			require.NoError(t, other.Lock("shop", "b", "backup", "2", 0))
			require.Error(t, l.Unlock("shop", "a", "backup", "1"))
		}},
		{event("ForceRelease", "refused", "held"), func(t *testing.T, l, other *lock.Lock,
			db *observedtest.Database) {
			require.NoError(t, other.Lock("shop", "b", "backup", "2", 0))
			require.Error(t, l.ForceRelease(t.Context(), "shop", "backup", lock.Holder{ComponentID: "a",
				JobID: "1"}))
		}},
		{event("Enable", "enabled", ""), func(t *testing.T, l, other *lock.Lock,
			db *observedtest.Database) {
			require.NoError(t, l.Enable("shop", "backup"))
		}},
		{event("Renew", "renewed", ""), func(t *testing.T, l, other *lock.Lock,
			db *observedtest.Database) {
			require.NoError(t, l.Run(t.Context(), job("a"), func(context.Context) error {
				time.Sleep(11 * time.Second)
				return nil
			}))
		}},
		{event("Renew", "failed", "unknown_outcome"), func(t *testing.T, l, other *lock.Lock,
			db *observedtest.Database) {
			require.NoError(t, l.Run(t.Context(), job("a"), func(context.Context) error {
				db.Hung.Store(true)
				time.Sleep(25 * time.Second)
				db.Hung.Store(false)
				return nil
			}))
		}},
		{event("Renew", "lost", "other"), func(t *testing.T, l, other *lock.Lock,
			db *observedtest.Database) {
			require.ErrorIs(t, l.Run(t.Context(), job("a"), func(ctx context.Context) error {
				db.Hung.Store(true)
				<-ctx.Done()
				db.Hung.Store(false)
				return nil
			}), lock.ErrLost)
		}},
		{event("Renew", "lost", "disabled"), func(t *testing.T, l, other *lock.Lock,
			db *observedtest.Database) {
			j := job("a")
			j.StopWhenDisabled = true
			require.ErrorIs(t, l.Run(t.Context(), j, func(ctx context.Context) error {
				require.NoError(t, other.Disable("shop", "backup"))
				<-ctx.Done()
				return nil
			}), lock.ErrLost)
		}},
		{event("Renew", "lost", "held"), func(t *testing.T, l, other *lock.Lock,
			db *observedtest.Database) {
			require.ErrorIs(t, l.Run(t.Context(), job("a"), func(ctx context.Context) error {
				time.Sleep(time.Second)
				require.NoError(t, other.Lock("shop", "b", "backup", "2", time.Millisecond))
				<-ctx.Done()
				return nil
			}), lock.ErrLost)
		}},
		{event("Release", "refused", "lost"), func(t *testing.T, l, other *lock.Lock,
			db *observedtest.Database) {
			require.ErrorIs(t, l.Run(t.Context(), job("a"), func(ctx context.Context) error {
				time.Sleep(time.Second)
				return other.Lock("shop", "b", "backup", "2", time.Millisecond)
			}), lock.ErrLost)
		}},
		{event("Unlock", "failed", "error"), func(t *testing.T, l, other *lock.Lock,
			db *observedtest.Database) {
			require.NoError(t, db.DB.Close())
			require.Error(t, l.Unlock("shop", "a", "backup", "1"))
		}},
	} {
		t.Run(strings.NewReplacer(`lock_component="shop",lock_job="backup",`, "", `"`,
			"").Replace(c.want), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := observedtest.Open(t)
				m := lockprom.New()
				c.do(t, db.Observed(t, m.Observe), db.Observed(t, nil), db)
				got := text(t, registered(t, m))
				require.Equal(t, "1", value(got, c.want), got)
				require.NotContains(t, got, "run-")
			})
		})
	}
}

// TestMetrics_Observe_failed: only some failures are easy to get from a database.
func TestMetrics_Observe_failed(t *testing.T) {
	_, ahead := lock.NewMemory(lock.Options{}).Acquire(t.Context(),
		lock.Job{JobName: "backup", Tick: time.Now().AddDate(1, 0, 0).Truncate(time.Second)})
	for want, err := range map[string]error{
		"unknown_outcome": fmt.Errorf("%w: %w", context.Canceled, lock.ErrOutcomeUnknown),
		"cancelled":       fmt.Errorf("lock: Lock: %w", context.Canceled),
		"tick_ahead":      ahead,
		"timeout":         fmt.Errorf("lock: Lock: %w", context.DeadlineExceeded),
		"error":           errors.New("the disk is full"),
	} {
		m := lockprom.New()
		m.Observe(t.Context(), lock.Event{Kind: lock.Failed, Operation: "Lock", ComponentName: "shop",
			JobName: "backup", Err: err})
		require.Equal(t, "1", value(text(t, registered(t, m)), event("Lock", "failed", want)), want)
	}
}

// isFunc checks whether a lease counts as held, how many holds have ended, and after how many
// seconds in all.
type isFunc = func(want ...string)

func TestMetrics_Collect_lease(t *testing.T) {
	acquire := func(t *testing.T, l *lock.Lock) *lock.Lease {
		lease, err := l.Acquire(t.Context(), job("a"))
		require.NoError(t, err)
		return lease
	}
	for name, test := range map[string]func(t *testing.T, l, other *lock.Lock,
		db *observedtest.Database, is isFunc){
		"released": func(t *testing.T, l, _ *lock.Lock, _ *observedtest.Database, is isFunc) {
			lease := acquire(t, l)
			time.Sleep(100 * time.Second) // renewed meanwhile
			is("1", "", "")
			require.NoError(t, lease.Release(t.Context()))
			is("0", "1", "100")
			require.NoError(t, lease.Release(t.Context()))
			is("0", "1", "100")
		},
		"lost, then released": func(t *testing.T, l, _ *lock.Lock, db *observedtest.Database, is isFunc) {
			lease := acquire(t, l)
			db.Hung.Store(true)
			<-lease.Context().Done()
			synctest.Wait()
			is("0", "1", "27")
			db.Hung.Store(false)
			require.NoError(t, lease.Release(t.Context()), "the row is still its own")
			is("0", "1", "27")
		},
		"its context ended, and nobody released it": func(t *testing.T, l, _ *lock.Lock,
			_ *observedtest.Database, is isFunc) {
			_, err := l.Acquire(canceled(t), job("a"))
			require.NoError(t, err)
			time.Sleep(30 * time.Second)
			is("1", "", "")
			time.Sleep(time.Millisecond)
			is("0", "", "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := observedtest.Open(t)
				m := lockprom.New()
				r := registered(t, m)
				test(t, db.Observed(t, m.Observe), db.Observed(t, nil), db, func(want ...string) {
					t.Helper()
					got := text(t, r)
					require.Equal(t, want, []string{value(got, held), value(got, heldCount), value(got, heldSum)},
						got)
				})
			})
		})
	}
}

// TestMetrics_Collect_Lock: it is held from Lock to Unlock, and is no lease.
func TestMetrics_Collect_Lock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := observedtest.Open(t)
		m := lockprom.New()
		r := registered(t, m)
		l, other := db.Observed(t, m.Observe), db.Observed(t, nil)
		is := func(ended, seconds string) {
			t.Helper()
			got := text(t, r)
			require.Equal(t, []string{"", ended, seconds}, []string{value(got, held), value(got, heldCount),
				value(got, heldSum)}, got)
		}
		asA := func() error { return l.Lock("shop", "a", "backup", "1", time.Minute) }

		require.NoError(t, asA())
		time.Sleep(10 * time.Second)
		require.NoError(t, asA(), "again")
		time.Sleep(10 * time.Second)
		is("", "")
		require.NoError(t, l.Unlock("shop", "a", "backup", "1"))
		is("1", "20")
		require.NoError(t, l.Unlock("shop", "a", "backup", "1"), "when nobody holds it")
		is("1", "20")

		require.NoError(t, asA())
		time.Sleep(time.Second)
		require.NoError(t, l.ForceRelease(t.Context(), "shop", "backup", lock.Holder{ComponentID: "a",
			JobID: "1"}))
		is("2", "21")

		require.NoError(t, asA())
		time.Sleep(100 * time.Second)
		require.NoError(t, other.Lock("shop", "b", "backup", "2", time.Minute))
		require.Error(t, l.Unlock("shop", "a", "backup", "1"), "it has been taken over")
		is("3", "121")
		require.NoError(t, other.Unlock("shop", "b", "backup", "2"))

		db.Takes = time.Second
		begun := time.Now()
		require.NoError(t, l.LockContext(t.Context(), "shop", "a", "backup", "1", time.Minute))
		require.NotEqual(t, begun, time.Now())
		require.NoError(t, l.UnlockContext(t.Context(), "shop", "a", "backup", "1"))
		is("4", fmt.Sprint(121+time.Since(begun).Seconds())) // from when it was asked for
	})
}

// TestMetrics_Observe_late: goroutines report in another order than that of the database.
func TestMetrics_Observe_late(t *testing.T) {
	tell := func(m *lockprom.Metrics, kind lock.EventKind, call string, token int64) {
		m.Observe(t.Context(), lock.Event{Kind: kind, Operation: call, ComponentName: "shop",
			JobName: "backup",
			Token:   token, TTL: time.Hour, Held: time.Second})
	}
	t.Run("the end of the one before", func(t *testing.T) {
		m := lockprom.New()
		r := registered(t, m)
		tell(m, lock.Acquired, "Acquire", 1)
		tell(m, lock.Acquired, "Acquire", 2)
		tell(m, lock.Released, "Release", 1)
		require.Equal(t, "1", value(text(t, r), held))
		require.Equal(t, "1", value(text(t, r), heldCount))
		tell(m, lock.Released, "Release", 2)
		require.Equal(t, "0", value(text(t, r), held))
		require.Equal(t, "2", value(text(t, r), heldCount))
	})
	t.Run("the end of the one after", func(t *testing.T) {
		m := lockprom.New()
		r := registered(t, m)
		tell(m, lock.Acquired, "Acquire", 1)
		tell(m, lock.Acquired, "Acquire", 2)
		tell(m, lock.Released, "Release", 2)
		require.Equal(t, "0", value(text(t, r), held))
		tell(m, lock.Released, "Release", 1)
		require.Equal(t, "2", value(text(t, r), heldCount))
	})
	t.Run("the beginning of the one before", func(t *testing.T) {
		m := lockprom.New()
		r := registered(t, m)
		tell(m, lock.Acquired, "Acquire", 2)
		tell(m, lock.Acquired, "Acquire", 1)
		tell(m, lock.Released, "Release", 2)
		require.Equal(t, "0", value(text(t, r), held))
		tell(m, lock.Lost, "Renew", 1)
		require.Equal(t, "2", value(text(t, r), heldCount))
		require.NotContains(t, text(t, r), `operation="Renew"} `, "to lose a lease is no call")
	})
}

// TestMetrics_Observe_never_ends: a Lock without an Unlock, as one does to pace something.
func TestMetrics_Observe_never_ends(t *testing.T) {
	m := lockprom.New()
	for i := range 9 {
		m.Observe(t.Context(), lock.Event{Kind: lock.Acquired, Operation: "Lock", ComponentName: "shop",
			JobName:     "backup",
			ComponentID: "a", JobID: fmt.Sprint(i), Token: int64(i)})
	}
	r := registered(t, m)
	for i, want := range []string{0: "", 1: "1", 8: "2"} {
		if i == 0 || want != "" {
			m.Observe(t.Context(), lock.Event{Kind: lock.Released, Operation: "Unlock",
				ComponentName: "shop", JobName: "backup",
				ComponentID: "a", JobID: fmt.Sprint(i)})
			require.Equal(t, want, value(text(t, r), heldCount), i)
		}
	}
}

func TestMetrics_Collect_last_attempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := observedtest.Open(t)
		m := lockprom.New()
		r := registered(t, m)
		l, other := db.Observed(t, m.Observe), db.Observed(t, nil)
		begun := float64(time.Now().Unix())
		at := func(d time.Duration) string { return fmt.Sprint(begun + d.Seconds()) }
		is := func(got, longest, age, refused string) {
			t.Helper()
			out := text(t, r)
			for series, want := range map[string]string{
				"lock_last_acquired_timestamp_seconds": got, "lock_ttl_seconds": longest,
				"lock_refusing_holder_age_seconds": age, "lock_last_refused_timestamp_seconds": refused,
			} {
				require.Equal(t, want, value(out, series+`{lock_component="shop",lock_job="backup"}`), out)
			}
		}
		require.NoError(t, l.Enable("shop", "backup"))
		is("", "", "", "")
		require.NoError(t, other.Lock("shop", "b", "backup", "2", 0))
		time.Sleep(time.Minute)
		require.Error(t, l.Lock("shop", "a", "backup", "1", 0))
		is("", "0", "60", at(time.Minute))
		time.Sleep(time.Minute)
		require.Error(t, l.Lock("shop", "a", "backup", "1", time.Hour))
		is("", "3600", "120", at(2*time.Minute))
		time.Sleep(time.Minute)
		require.NoError(t, other.Disable("shop", "backup"))
		require.Error(t, l.Lock("shop", "a", "backup", "1", time.Hour))
		is("", "3600", "120", at(2*time.Minute))
		require.NoError(t, other.Enable("shop", "backup"))
		require.NoError(t, other.Unlock("shop", "b", "backup", "2"))
		require.NoError(t, l.Lock("shop", "a", "backup", "1", time.Hour))
		is(at(3*time.Minute), "3600", "", "")
	})
}

// Two of one registry would overwrite each other.
func TestNew_twice(t *testing.T) {
	require.ErrorAs(t, registered(t, lockprom.New()).Register(lockprom.New()),
		&prometheus.AlreadyRegisteredError{})
	both := registered(t)
	for _, table := range []string{"locks", "other"} {
		require.NoError(t, prometheus.WrapRegistererWith(prometheus.Labels{"lock_table": table},
			both).Register(lockprom.New()))
	}
}

func TestMaxJobs(t *testing.T) {
	m := lockprom.New()
	for i := range lockprom.MaxJobs + 5 {
		for _, e := range []lock.Event{{Kind: lock.Acquired, Operation: "Acquire"},
			{Kind: lock.Released, Operation: "Release"}} {
			e.ComponentName, e.JobName, e.Token = "shop", fmt.Sprint("customer-", i), 1
			m.Observe(t.Context(), e)
		}
	}
	got := text(t, registered(t, m))
	require.Equal(t, "5", value(got,
		`lock_events_total{kind="released",lock_component="_other",lock_job="_other",`+
			`operation="Release",reason=""}`))
	require.Equal(t, "1", value(got,
		`lock_events_total{kind="released",lock_component="shop",lock_job="customer-999",`+
			`operation="Release",reason=""}`))
	require.NotContains(t, got, "customer-1000")
	require.Equal(t, lockprom.MaxJobs, strings.Count(got, "\nlock_lease_held{"))
}

func TestMetrics_concurrent(t *testing.T) {
	m := lockprom.New()
	l := observedtest.Open(t).Observed(t, m.Observe)
	r := registered(t, m, lockprom.NewTable(l, time.Minute))
	var runs sync.WaitGroup
	for i := range 8 {
		runs.Go(func() {
			for k := range 10 {
				j := job(fmt.Sprint(i))
				j.JobName, j.Wait, j.Poll = fmt.Sprint("job-", k%3), time.Minute, 5*time.Millisecond
				if err := l.Run(t.Context(), j, func(context.Context) error { return nil }); err != nil {
					t.Error(err)
				}
				if _, err := r.Gather(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	runs.Wait()
	got := text(t, r)
	for i, want := range []string{"32", "24", "24"} {
		labels := fmt.Sprintf(`{lock_component="shop",lock_job="job-%d"}`, i)
		require.Equal(t, "0", value(got, "lock_lease_held"+labels))
		require.Equal(t, want, value(got, "lock_held_duration_seconds_count"+labels))
	}
}

package lockprom_test

import (
	"context"
	"errors"
	"fmt"
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
	"modernc.org/sqlite"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/observed/observedtest"
	"github.com/cloudtrust/go-jobs/lock/lockprom"
)

func init() { observedtest.Register(&sqlite.Driver{}) }

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

		observedtest.RequireSample(t, "testdata/metrics.txt", text(t, r))
	})
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
	l := lock.NewMemory(lock.Options{})
	require.NoError(t, l.Lock("shop", "b", "backup", "2", 0))
	refusal := l.Lock("shop", "a", "backup", "1", 0)
	for want, e := range map[string]lock.Event{
		event("Enable", "enabled", ""): {Operation: "Enable", Kind: lock.Enabled},
		event("Lock", "refused", "held"): {Operation: "Lock", Kind: lock.Refused,
			Err: refusal},
		event("Unlock", "refused", "lost"): {Operation: "Unlock", Kind: lock.Refused,
			Err: refusal},
		event("Renew", "lost", "other"): {Operation: "Renew", Kind: lock.Lost, Err: lock.ErrLost},
		event("Lock", "failed", "timeout"): {Operation: "Lock", Kind: lock.Failed,
			Err: fmt.Errorf("lock: Lock: %w", context.DeadlineExceeded)},
		event("Lock", "failed", "error"): {Operation: "Lock", Kind: lock.Failed,
			Err: errors.New("the disk is full")},
	} {
		m := lockprom.New()
		e.ComponentName, e.JobName, e.ComponentID, e.JobID = "shop", "backup", "a", "run-a"
		m.Observe(t.Context(), e)
		got := text(t, registered(t, m))
		require.Equal(t, "1", value(got, want), got)
		require.NotContains(t, got, "run-")
		require.Equal(t, e.Kind != lock.Lost, strings.Contains(got, "lock_operation_duration_seconds"),
			"to lose a lease is no call")
	}
}

func TestMetrics_Collect_lease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := lockprom.New()
		r := registered(t, m)
		l := lock.NewMemory(lock.Options{Observer: m.Observe})
		is := func(want ...string) {
			t.Helper()
			got := text(t, r)
			require.Equal(t, want, []string{value(got, held), value(got, heldCount), value(got, heldSum)},
				got)
		}
		require.NoError(t, l.Lock("shop", "a", "backup", "1", time.Minute))
		is("", "", "") // it is no lease
		require.NoError(t, l.Unlock("shop", "a", "backup", "1"))
		lease, err := l.Acquire(t.Context(), job("a"))
		require.NoError(t, err)
		time.Sleep(100 * time.Second) // renewed meanwhile
		is("1", "1", "0")
		require.NoError(t, lease.Release(t.Context()))
		is("0", "2", "100")

		_, err = l.Acquire(canceled(t), job("a")) // and nobody releases it
		require.NoError(t, err)
		time.Sleep(30 * time.Second)
		is("1", "2", "100")
		time.Sleep(time.Millisecond)
		is("0", "2", "100")
	})
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

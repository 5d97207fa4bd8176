// Package lockprom provides metrics of package lock for Prometheus.
//
//	m := lockprom.New()
//	prometheus.MustRegister(m)
//	l, err := lock.NewWith(db, lock.Options{Observer: m.Observe})
//
// # Metrics
//
//	lock_events_total{operation, kind, reason}   outcomes of calls, and leases lost
//	lock_operation_duration_seconds{operation}   how long calls took, with retries and waiting
//	lock_held_duration_seconds                   how long locks were held, from Acquire or Lock
//	lock_lease_held                              1 while this process holds a lease, else 0
//	lock_last_acquired_timestamp_seconds         when this process last acquired the lock
//	lock_ttl_seconds                             the TTL that it stated last; 0 is for ever
//	lock_refusing_holder_age_seconds             how old the lock was of who refused it last
//	lock_last_refused_timestamp_seconds          when that was
//
// All have the labels lock_component and lock_job. Targets have no such labels, so Prometheus
// doesn't rename them, as it would a label job. The label operation is a [lock.Event.Operation],
// and kind a [lock.EventKind]. reason is "", except for
//
//	refused   held, disabled, already_run, or lost: Unlock or a release, when another has taken over
//	lost      held (by another), disabled, or other: it was not renewed in time, or released by force
//	failed    tick_ahead (a clock is fast), unknown_outcome, cancelled, timeout, or error
//
// No label holds the ID of an instance or a run. The first [MaxJobs] jobs have their own labels;
// the others share lock_component="_other", lock_job="_other", and are only counted and timed.
//
// A lease counts as held until it is released or lost, or until its TTL has passed since its last
// renewal: a lease whose context ended, and that nobody released, counts while it keeps the
// others waiting. The age of a refusing holder falls with each of its renewals. The age and the
// time of the refusal disappear when this process acquires the lock.
//
// [NewTable] is another collector, which lists the table at each scrape.
package lockprom

import (
	"cmp"
	"context"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/observed"
)

// MaxJobs limits how many jobs, of all components together, have their own labels.
const MaxJobs = 1000

// other is the component and job label of the jobs after MaxJobs.
const other = "_other"

// Metrics is a [prometheus.Collector] for the events of locks. Create it with [New]; its methods
// are safe for concurrent use. The Locks of one table share one: a registry refuses a second.
// Locks of several tables need one each, registered with [prometheus.WrapRegistererWith] and a
// label that distinguishes them.
type Metrics struct {
	events *prometheus.CounterVec
	calls  *prometheus.HistogramVec
	held   *prometheus.HistogramVec

	mu   sync.Mutex
	jobs map[name]*job
}

type name struct{ component, job string }

// job has the values of a job's gauges.
type job struct {
	holds  observed.Holds[struct{}]
	leases bool          // this process asks for leases of it
	got    time.Time     // when this process last acquired the lock; zero: never
	stated bool          // a TTL
	ttl    time.Duration // which; 0: the lock never expires
	// by a holder, the last time since this process acquired the lock; zero: never
	refused time.Time
	age     time.Duration // of that holder
}

var perJob = []string{"lock_component", "lock_job"}

func describe(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, perJob,
		nil)
}

var (
	leaseHeld = describe("lock_lease_held",
		"Whether this process holds a lease of the job's lock (1) or not (0).")
	lastAcquired = describe("lock_last_acquired_timestamp_seconds",
		"When this process last acquired the lock, by its own clock.")
	ttl = describe("lock_ttl_seconds",
		"The TTL that this process stated last; 0 means that the lock never expires.")
	refusingAge = describe("lock_refusing_holder_age_seconds",
		"The time since the holder that refused this process last had acquired the lock or renewed "+
			"it, when it refused.")
	lastRefused = describe("lock_last_refused_timestamp_seconds",
		"When a holder last refused this process, by its own clock.")
)

// New returns empty Metrics, which are not registered yet.
func New() *Metrics {
	histogram := func(name, help string, buckets []float64,
		labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: buckets,
			// For a Prometheus that asks for native histograms.
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
			NativeHistogramMinResetDuration: time.Hour,
		}, labels)
	}
	return &Metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lock_events_total", Help: "Outcomes of calls, and leases that were lost.",
		}, []string{"lock_component", "lock_job", "operation", "kind", "reason"}),
		calls: histogram("lock_operation_duration_seconds",
			"How long calls took, with their retries and their waiting.",
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5,
				10}, "lock_component", "lock_job", "operation"),
		held: histogram("lock_held_duration_seconds",
			"How long locks were held, until they were released or lost.",
			[]float64{.1, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400}, perJob...),
		jobs: map[name]*job{},
	}
}

// Observe is for [lock.Options.Observer].
func (m *Metrics) Observe(_ context.Context, e lock.Event) {
	component, jobName, held, wasHeld := m.note(e, time.Now())
	m.events.WithLabelValues(component, jobName, e.Operation, string(e.Kind), reason(e)).Inc()
	if e.Kind != lock.Lost { // which is no call
		m.calls.WithLabelValues(component, jobName, e.Operation).Observe(e.Took.Seconds())
	}
	if wasHeld {
		m.held.WithLabelValues(component, jobName).Observe(held.Seconds())
	}
}

// reason is the label of that name.
func reason(e lock.Event) string {
	switch e.Kind {
	case lock.Refused:
		return observed.Refusal(e)
	case lock.Lost:
		return observed.Loss(e)
	case lock.Failed:
		return cmp.Or(observed.Failure(e), "error")
	}
	return ""
}

// note applies an event to the gauges. It returns the labels of the job and, if the event ends a
// hold, its duration.
func (m *Metrics) note(e lock.Event, now time.Time) (component, jobName string, held time.Duration,
	wasHeld bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := name{e.ComponentName, e.JobName}
	j := m.jobs[n]
	if j == nil {
		if len(m.jobs) == MaxJobs {
			return other, other, 0, false
		}
		// What an Event keeps alive may be large.
		n = name{strings.Clone(n.component), strings.Clone(n.job)}
		j = &job{}
		m.jobs[n] = j
	}
	hold, wasHeld := j.holds.Note(e, now, struct{}{})
	if e.Operation == "Acquire" {
		j.leases = true
	}
	if e.Operation == "Acquire" || e.Operation == "Lock" {
		j.stated, j.ttl = true, e.TTL
		switch {
		case e.Kind == lock.Acquired || e.Kind == lock.TakenOver:
			j.got, j.refused = now, time.Time{}
		case e.Kind == lock.Refused && observed.Refusal(e) == observed.Held:
			j.refused, j.age = now, e.Holder.Age
		}
	}
	return n.component, n.job, hold.Held, wasHeld
}

// Describe is for the registry.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.events.Describe(ch)
	m.calls.Describe(ch)
	m.held.Describe(ch)
	ch <- leaseHeld
	ch <- lastAcquired
	ch <- ttl
	ch <- refusingAge
	ch <- lastRefused
}

// Collect is for the registry.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.events.Collect(ch)
	m.calls.Collect(ch)
	m.held.Collect(ch)
	for _, g := range m.gauges(time.Now()) {
		ch <- g
	}
}

// gauges returns all at once, so that a slow reader blocks no call.
func (m *Metrics) gauges(now time.Time) (all []prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n, j := range m.jobs {
		add := func(ok bool, desc *prometheus.Desc, value float64) {
			if ok {
				all = append(all, gauge(desc, value, n.component, n.job))
			}
		}
		add(j.leases, leaseHeld, number(j.holds.Leased(now)))
		add(!j.got.IsZero(), lastAcquired, seconds(j.got))
		add(j.stated, ttl, j.ttl.Seconds())
		add(!j.refused.IsZero(), refusingAge, j.age.Seconds())
		add(!j.refused.IsZero(), lastRefused, seconds(j.refused))
	}
	return all
}

func gauge(desc *prometheus.Desc, value float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Package lockotel tells OpenTelemetry what package lock does, in metrics and spans.
//
//	o, err := lockotel.New(lockotel.Options{})
//	if err != nil {
//		return err
//	}
//	l, err := lock.NewWith(db, lock.Options{Observer: o.Observe})
//
// It needs the API of OpenTelemetry and no more: the SDK and the exporters are the program's.
//
// # Metrics
//
//	lock.operation.duration  histogram, s            how long a call took, with its retries and its waiting
//	lock.hold.duration       histogram, s            for how long a lock was held, from Acquire or Lock to the end
//	lock.lease.losses        counter, {loss}         leases that were lost
//	lock.lease.active        updowncounter, {lease}  leases that this process holds
//	lock.holder.age          gauge, s                how old the lock was of the holder that refused this process last; 0 since
//	                                                 this process got it
//
// How often a call was made, and what it came to, is the count of lock.operation.duration. A lease is active until it is released
// or lost, or until its MaxDuration has passed since it was last renewed: so one whose context ended, and that nobody released,
// is active for as long as it keeps the others waiting. Holds and leases are those of the first [MaxJobs] jobs; how many sets
// of attributes there may be is up to the SDK.
//
// # Spans
//
// A call is a span such as lock.Acquire, made when it has ended: a child of the span in its context. Renewals that succeed have
// none, since a lease may have any number of them.
//
// The life of a lock in this process is a span, too, lock.Hold: from when it was asked for, by Acquire or Lock, until it was released
// or lost. It is a child of the span in the context of that Acquire or Lock, as those of the job are in a Run.
//
// # Conventions
//
// error.type, the status of spans, the names of instruments, the units, and the buckets of lock.operation.duration, which are
// those of db.client.operation.duration, follow the semantic conventions 1.43.0. They know no locks, so the names that begin
// with "lock." are of this package.
//
//	lock.component.name    the component
//	lock.job.name          its job
//	lock.operation.name    an Event.Call: Lock, Unlock, Enable, Disable, Acquire, Renew, Release or ForceRelease
//	lock.operation.result  an Event.Kind: acquired, taken_over, refused, renewed, released, enabled, disabled or failed
//	lock.refusal.reason    held, disabled, already_run, or lost: Unlock or Release, when another has taken over
//	lock.loss.reason       held (by another), disabled, or other: it was not renewed in time, or released by force
//	error.type             unknown_outcome, cancelled, timeout, lost, or _OTHER
//
// Spans alone have what no metric should, for there is no end of its values:
//
//	lock.component.id, lock.job.id                of the caller
//	lock.holder.component.id, lock.holder.job.id  of who has refused it, or of whose lock it has taken over
//	lock.holder.age                               how old the lock of that one was, in seconds
//	lock.token                                    the fencing token
//	db.response.status_code                       the SQLSTATE of an error that has one
//
// A refusal is an answer: its span has no status. A lost lease is an error; so is an Unlock or a Release that was refused, since
// the caller thought to have the lock.
package lockotel

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/observed"
)

// The instrumentation scope.
const (
	scope   = "github.com/cloudtrust/go-jobs/lock/lockotel"
	version = "1.0.0"
)

// MaxJobs is of how many jobs, of all components together, it is kept in mind what this process holds.
const MaxJobs = 1000

// Options are for [New]. Their zero value is the global providers.
type Options struct {
	MeterProvider  metric.MeterProvider // nil: that of otel.GetMeterProvider
	TracerProvider trace.TracerProvider // nil: that of otel.GetTracerProvider
}

// Observer makes metrics and spans of what the observer of a lock is told. Make it with [New]. Its method is safe for concurrent
// use. Locks of several tables need one each, whose providers tell them apart.
type Observer struct {
	tracer     trace.Tracer
	operations metric.Float64Histogram
	held       metric.Float64Histogram
	losses     metric.Int64Counter
	age        metric.Float64Gauge

	mu   sync.Mutex
	jobs map[name]*job
}

type name struct{ component, job string }

// hold has the span in whose context it was acquired; not valid: none.
type hold = observed.Hold[trace.SpanContext]

type job struct {
	holds  observed.Holds[trace.SpanContext]
	leases bool // this process asks for leases of it
}

// New returns an Observer. The error is one of the MeterProvider, which may refuse an instrument.
func New(o Options) (*Observer, error) {
	if o.MeterProvider == nil {
		o.MeterProvider = otel.GetMeterProvider()
	}
	if o.TracerProvider == nil {
		o.TracerProvider = otel.GetTracerProvider()
	}
	ob := &Observer{
		tracer: o.TracerProvider.Tracer(scope, trace.WithInstrumentationVersion(version), trace.WithSchemaURL(semconv.SchemaURL)),
		jobs:   map[name]*job{},
	}
	if err := ob.instruments(o.MeterProvider); err != nil {
		return nil, fmt.Errorf("lockotel: New: %w", err)
	}
	return ob, nil
}

func (o *Observer) instruments(p metric.MeterProvider) (err error) {
	m := p.Meter(scope, metric.WithInstrumentationVersion(version), metric.WithSchemaURL(semconv.SchemaURL))
	if o.operations, err = m.Float64Histogram("lock.operation.duration", metric.WithUnit("s"),
		metric.WithDescription("Duration of calls, with their retries and their waiting."),
		metric.WithExplicitBucketBoundaries(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)); err != nil {
		return err
	}
	if o.held, err = m.Float64Histogram("lock.hold.duration", metric.WithUnit("s"),
		metric.WithDescription("For how long locks were held, until they were released or lost."),
		metric.WithExplicitBucketBoundaries(0.1, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400)); err != nil {
		return err
	}
	if o.losses, err = m.Int64Counter("lock.lease.losses", metric.WithUnit("{loss}"),
		metric.WithDescription("Leases that were lost.")); err != nil {
		return err
	}
	if o.age, err = m.Float64Gauge("lock.holder.age", metric.WithUnit("s"),
		metric.WithDescription("How old the lock of the holder was that refused this process last; 0 since it got the lock."),
	); err != nil {
		return err
	}
	_, err = m.Int64ObservableUpDownCounter("lock.lease.active", metric.WithUnit("{lease}"),
		metric.WithDescription("Leases that this process holds."), metric.WithInt64Callback(o.active))
	return err
}

// active counts the leases when they are asked for: one expires without an event if its context has ended.
func (o *Observer) active(_ context.Context, to metric.Int64Observer) error {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	for n, j := range o.jobs {
		if !j.leases {
			continue
		}
		var leases int64
		if j.holds.Leased(now) {
			leases = 1
		}
		to.Observe(leases, metric.WithAttributes(componentName.String(n.component), jobName.String(n.job)))
	}
	return nil
}

// Observe is for [lock.Options.Observer].
func (o *Observer) Observe(ctx context.Context, e lock.Event) {
	now := time.Now()
	ended, ok := o.note(ctx, e, now)
	of := metric.WithAttributeSet(attribute.NewSet(componentName.String(e.ComponentName), jobName.String(e.JobName)))

	if e.Kind == lock.Lost {
		if !ok { // there were too many jobs, or holds
			ended, ok = hold{Held: e.Held, Tag: trace.SpanContextFromContext(ctx)}, true
		}
		o.losses.Add(ctx, 1, metric.WithAttributes(attributes(e)...))
	} else {
		// Within the span, for exemplars.
		o.operations.Record(o.call(ctx, e, now), e.Took.Seconds(), metric.WithAttributes(attributes(e)...))
	}
	switch {
	case e.Operation != "Lock" && e.Operation != "Acquire":
	case e.Kind == lock.Acquired, e.Kind == lock.TakenOver:
		o.age.Record(ctx, 0, of)
	case e.Kind == lock.Refused && observed.Refusal(e) == observed.Held:
		o.age.Record(ctx, e.Holder.Age.Seconds(), of)
	}
	if ok {
		within := o.hold(ctx, e, ended, now)
		if errorType(e) != "" {
			of = metric.WithAttributes(componentName.String(e.ComponentName), jobName.String(e.JobName),
				semconv.ErrorTypeKey.String(errorType(e)))
		}
		o.held.Record(within, ended.Held.Seconds(), of)
	}
}

// note notes what an event means for the holds, and returns the one that it ends, if it does.
func (o *Observer) note(ctx context.Context, e lock.Event, now time.Time) (ended hold, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := name{e.ComponentName, e.JobName}
	j := o.jobs[n]
	if j == nil {
		if len(o.jobs) == MaxJobs {
			return hold{}, false
		}
		// What an Event keeps alive may be large.
		n = name{strings.Clone(n.component), strings.Clone(n.job)}
		j = &job{}
		o.jobs[n] = j
	}
	if e.Operation == "Acquire" {
		j.leases = true
	}
	return j.holds.Note(e, now, trace.SpanContextFromContext(ctx))
}

// Package lockotel provides metrics and spans of package lock for OpenTelemetry.
//
//	o, err := lockotel.New(lockotel.Options{})
//	if err != nil {
//		return err
//	}
//	l, err := lock.NewWith(db, lock.Options{Observer: o.Observe})
//
// It needs only the API of OpenTelemetry. The program chooses the SDK and the exporters.
//
// # Metrics
//
//	lock.operation.duration  histogram, s            how long a call took, with retries and waiting
//	lock.hold.duration       histogram, s            how long a lock was held, from Acquire or Lock
//	lock.holder.age          histogram, s            how old the lock of a refusing holder was
//	lock.lease.losses        counter, {loss}         leases that were lost
//	lock.lease.active        updowncounter, {lease}  leases that this process holds
//
// The count of lock.operation.duration is the number of calls, by result. A lease is active until
// it is released or lost, or until its TTL has passed since its last renewal: a lease whose
// context ended, and that nobody released, is active while it keeps the others waiting. Holds and
// leases are those of the first [MaxJobs] jobs. The SDK limits the number of attribute sets.
// Several observers of one provider add up.
//
// # Spans
//
// A call is a span such as lock.Acquire, a child of the span in its context. It is created when
// the call has ended. Successful renewals have no span, since a lease may have any number of
// them.
//
// The span lock.Hold is the time for which this process holds a lock: from the Acquire or Lock
// that asked for it until it is released or lost. It is a child of the span in the context of
// that call, as the spans of the job are in a Run.
//
// # Conventions
//
// error.type, the status of spans, the names of instruments, the units, and the buckets of
// lock.operation.duration (those of db.client.operation.duration) follow the semantic conventions
// 1.43.0. The conventions have no names for locks; those that begin with "lock." are this
// package's.
//
//	lock.component.name    the component
//	lock.job.name          its job
//	lock.operation.name    an Event.Operation
//	lock.operation.result  an Event.Kind
//	lock.refusal.reason    held, disabled, already_run, or lost (to another: Unlock or a release)
//	lock.loss.reason       held (by another), disabled, or other: run out, or released by force
//	error.type             tick_ahead (fast clock), unknown_outcome, cancelled, timeout, lost, _OTHER
//
// Only spans have the attributes with an unlimited number of values:
//
//	lock.component.id, lock.job.id                of the caller
//	lock.holder.component.id, lock.holder.job.id  of who refused it, or whose lock it has taken over
//	lock.holder.age                               how old the lock of that one was, in seconds
//	lock.token                                    the fencing token
//	db.response.status_code                       the SQLSTATE of an error that has one
//
// A refusal is an answer: its span has no status. A lost lease is an error, and so is a refused
// Unlock or release, since the caller expected to hold the lock.
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
	"go.opentelemetry.io/otel/trace"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/observed"
)

// The instrumentation scope.
const (
	scope   = "github.com/cloudtrust/go-jobs/lock/lockotel"
	version = "1.0.0"
	schema  = "https://opentelemetry.io/schemas/1.43.0"
)

// MaxJobs limits how many jobs, of all components together, are tracked.
const MaxJobs = 1000

// Options are the options of [New]. The zero value uses the global providers.
type Options struct {
	MeterProvider  metric.MeterProvider // nil: that of otel.GetMeterProvider
	TracerProvider trace.TracerProvider // nil: that of otel.GetTracerProvider
}

// Observer makes metrics and spans of the events of a lock. Create it with [New]. Its method is
// safe for concurrent use. Locks of several tables need one each, with providers that distinguish
// them.
type Observer struct {
	tracer     trace.Tracer
	operations metric.Float64Histogram
	held       metric.Float64Histogram
	losses     metric.Int64Counter
	age        metric.Float64Histogram
	active     metric.Int64UpDownCounter

	mu   sync.Mutex
	jobs map[name]*job
}

type name struct{ component, job string }

// hold has the span in whose context the lock was acquired; it is invalid if there was none.
type hold = observed.Hold[trace.SpanContext]

type job struct {
	holds  observed.Holds[trace.SpanContext]
	active bool        // as it has been counted
	expiry *time.Timer // of the lease; nil: there is none, or it doesn't expire
}

// New returns an Observer. The error is the MeterProvider's, which may refuse an instrument.
func New(o Options) (*Observer, error) {
	if o.MeterProvider == nil {
		o.MeterProvider = otel.GetMeterProvider()
	}
	if o.TracerProvider == nil {
		o.TracerProvider = otel.GetTracerProvider()
	}
	ob := &Observer{
		tracer: o.TracerProvider.Tracer(scope, trace.WithInstrumentationVersion(version),
			trace.WithSchemaURL(schema)),
		jobs: map[name]*job{},
	}
	if err := ob.instruments(o.MeterProvider); err != nil {
		return nil, fmt.Errorf("lockotel: New: %w", err)
	}
	return ob, nil
}

func (o *Observer) instruments(p metric.MeterProvider) (err error) {
	m := p.Meter(scope, metric.WithInstrumentationVersion(version), metric.WithSchemaURL(schema))
	if o.operations, err = m.Float64Histogram("lock.operation.duration", metric.WithUnit("s"),
		metric.WithDescription("Duration of calls, with their retries and their waiting."),
		metric.WithExplicitBucketBoundaries(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)); err != nil {
		return err
	}
	if o.held, err = m.Float64Histogram("lock.hold.duration", metric.WithUnit("s"),
		metric.WithDescription("How long locks were held, until they were released or lost."),
		metric.WithExplicitBucketBoundaries(0.1, 1, 5, 15, 60, 300, 900, 3600, 14400,
			86400)); err != nil {
		return err
	}
	if o.losses, err = m.Int64Counter("lock.lease.losses", metric.WithUnit("{loss}"),
		metric.WithDescription("Leases that were lost.")); err != nil {
		return err
	}
	if o.age, err = m.Float64Histogram("lock.holder.age", metric.WithUnit("s"),
		metric.WithDescription("How old the locks of the holders were that refused this process."),
		metric.WithExplicitBucketBoundaries(0.1, 1, 5, 15, 60, 300, 900, 3600, 14400,
			86400)); err != nil {
		return err
	}
	o.active, err = m.Int64UpDownCounter("lock.lease.active", metric.WithUnit("{lease}"),
		metric.WithDescription("Leases that this process holds."))
	return err
}

// count counts whether a lease of the job is active, now and when it expires: a lease whose
// context has ended expires without an event. The mutex is held.
func (o *Observer) count(n name, j *job) {
	now := time.Now()
	if j.expiry != nil {
		j.expiry.Stop()
		j.expiry = nil
	}
	until, _ := j.holds.Until()
	active := j.holds.Leased(now)
	if active != j.active {
		j.active = active
		change := int64(-1)
		if active {
			change = 1
		}
		o.active.Add(context.Background(), change,
			metric.WithAttributes(componentName.String(n.component), jobName.String(n.job)))
	}
	if active && !until.IsZero() {
		j.expiry = time.AfterFunc(until.Sub(now)+1, func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.count(n, j)
		})
	}
}

// Observe is for [lock.Options.Observer].
func (o *Observer) Observe(ctx context.Context, e lock.Event) {
	now := time.Now()
	ended, ok := o.note(ctx, e, now)
	of := metric.WithAttributeSet(attribute.NewSet(componentName.String(e.ComponentName),
		jobName.String(e.JobName)))

	if e.Kind == lock.Lost {
		if !ok { // there were too many jobs, or holds
			ended, ok = hold{Held: e.Held, Tag: trace.SpanContextFromContext(ctx)}, true
		}
		o.losses.Add(ctx, 1, metric.WithAttributes(attributes(e)...))
	} else {
		// Within the span, for exemplars.
		o.operations.Record(o.call(ctx, e, now), e.Took.Seconds(),
			metric.WithAttributes(attributes(e)...))
	}
	if (e.Operation == "Lock" || e.Operation == "Acquire") && e.Kind == lock.Refused &&
		observed.Refusal(e) == observed.Held {
		o.age.Record(ctx, max(e.Holder.Age, 0).Seconds(), of)
	}
	if ok {
		within := o.hold(ctx, e, ended, now)
		if errorType(e) != "" {
			of = metric.WithAttributes(componentName.String(e.ComponentName), jobName.String(e.JobName),
				errorTypeKey.String(errorType(e)))
		}
		o.held.Record(within, ended.Held.Seconds(), of)
	}
}

// note applies an event to the holds, and returns the hold that it ends, if any.
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
	defer o.count(n, j)
	return j.holds.Note(e, now, trace.SpanContextFromContext(ctx))
}

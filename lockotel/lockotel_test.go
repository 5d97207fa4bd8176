package lockotel_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"modernc.org/sqlite"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/internal/observed/observedtest"
	"github.com/cloudtrust/go-jobs/lock/lockotel"
)

func init() { observedtest.Register(&sqlite.Driver{}) }

// telemetry is an SDK that keeps everything.
type telemetry struct {
	t      testing.TB
	begun  time.Time
	reader *sdkmetric.ManualReader
	meters *sdkmetric.MeterProvider
	spans  *tracetest.SpanRecorder
	traces *sdktrace.TracerProvider
}

func newTelemetry(t testing.TB) *telemetry {
	s := &telemetry{t: t, begun: time.Now(), reader: sdkmetric.NewManualReader(),
		spans: tracetest.NewSpanRecorder()}
	s.meters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(s.reader))
	s.traces = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(s.spans))
	return s
}

func (s *telemetry) observer() *lockotel.Observer {
	o, err := lockotel.New(lockotel.Options{MeterProvider: s.meters, TracerProvider: s.traces})
	require.NoError(s.t, err)
	return o
}

// in returns a context in a span of the caller, and a function that ends the span.
func (s *telemetry) in(name string) (context.Context, func()) {
	ctx, span := s.traces.Tracer("the program").Start(s.t.Context(), name)
	return ctx, func() { span.End() }
}

func (s *telemetry) scopes() []metricdata.ScopeMetrics {
	var all metricdata.ResourceMetrics
	require.NoError(s.t, s.reader.Collect(s.t.Context(), &all))
	return all.ScopeMetrics
}

// metrics returns a line for each point of each metric.
func (s *telemetry) metrics() string {
	var lines []string
	for _, scope := range s.scopes() {
		for _, m := range scope.Metrics {
			add := func(set attribute.Set, value string) {
				lines = append(lines, fmt.Sprintf("%s %s %s", m.Name, attributes(set.ToSlice()), value))
			}
			switch data := m.Data.(type) {
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, fmt.Sprintf("count=%d sum=%v%s", p.Count, p.Sum, m.Unit))
				}
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, fmt.Sprint(p.Value, m.Unit))
				}
			default:
				require.Fail(s.t, "another type", "%T", data)
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// tree returns a line for each span, beneath its parent.
func (s *telemetry) tree() string {
	all := s.spans.Ended()
	slices.SortStableFunc(all, func(a,
		b sdktrace.ReadOnlySpan) int {
		return a.StartTime().Compare(b.StartTime())
	})
	var b strings.Builder
	var write func(parent trace.SpanID, indent string)
	write = func(parent trace.SpanID, indent string) {
		for _, span := range all {
			if span.Parent().SpanID() != parent {
				continue
			}
			line := fmt.Sprintf("%s%s at %v for %v %s", indent, span.Name(), span.StartTime().Sub(s.begun),
				span.EndTime().Sub(span.StartTime()), attributes(span.Attributes()))
			if span.Status().Code != codes.Unset {
				line += fmt.Sprintf(" %s: %s", span.Status().Code, span.Status().Description)
			}
			b.WriteString(strings.TrimSuffix(line, " {}") + "\n")
			write(span.SpanContext().SpanID(), indent+"  ")
		}
	}
	write(trace.SpanID{}, "")
	return b.String()
}

func attributes(all []attribute.KeyValue) string {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b attribute.KeyValue) int { return cmp.Compare(a.Key, b.Key) })
	var pairs []string
	for _, a := range all {
		pairs = append(pairs, string(a.Key)+"="+fmt.Sprint(a.Value.AsInterface()))
	}
	return "{" + strings.Join(pairs, " ") + "}"
}

// ended returns the spans with a name.
func (s *telemetry) ended(name string) (all []sdktrace.ReadOnlySpan) {
	for _, span := range s.spans.Ended() {
		if span.Name() == name {
			all = append(all, span)
		}
	}
	return all
}

func job(id string) lock.Job {
	return lock.Job{ComponentName: "shop", JobName: "backup", ComponentID: id, JobID: "run-" + id,
		TTL: 30 * time.Second}
}

// TestObserver_README runs what the README says.
func TestObserver_README(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := observedtest.Open(t)
		other := db.Observed(t, nil)
		s := newTelemetry(t)
		l := db.Observed(t, s.observer().Observe)
		db.Takes = 2 * time.Millisecond

		// An instance dies, and this one takes over when the lock has expired.
		died, cancel := context.WithCancel(t.Context())
		_, err := other.Acquire(died, job("instance-1"))
		require.NoError(t, err)
		cancel()
		ctx, end := s.in("nightly")
		require.Error(t, l.Run(ctx, job("instance-2"), nil))
		time.Sleep(time.Minute)
		require.NoError(t, l.Run(ctx, job("instance-2"), func(ctx context.Context) error {
			_, span := s.traces.Tracer("the program").Start(ctx, "dump")
			time.Sleep(25 * time.Second)
			span.End()
			return nil
		}))
		end()
		// Somebody releases the lock of the next run by force.
		ctx, end = s.in("nightly")
		require.ErrorIs(t, l.Run(ctx, job("instance-2"), func(ctx context.Context) error {
			held, err := other.Status(t.Context(), "shop", "backup")
			require.NoError(t, err)
			require.NoError(t, other.ForceRelease(t.Context(), "shop", "backup", held.Holder))
			<-ctx.Done()
			return nil
		}), lock.ErrLost)
		end()

		everywhere := regexp.MustCompile(`lock\.(component|job)\.(name|id)=[^ }]+ ?`)
		sample := everywhere.ReplaceAllString(s.tree()+"\n"+s.metrics(), "")
		observedtest.RequireSample(t, "testdata/sample.txt",
			regexp.MustCompile(` ?\{ ?\}| (})`).ReplaceAllString(sample, "$1"))
	})
}

func TestNew_zero_Options(t *testing.T) {
	meters, traces := otel.GetMeterProvider(), otel.GetTracerProvider()
	defer func() { otel.SetMeterProvider(meters); otel.SetTracerProvider(traces) }()
	s := newTelemetry(t)
	otel.SetMeterProvider(s.meters)
	otel.SetTracerProvider(s.traces)
	o, err := lockotel.New(lockotel.Options{})
	require.NoError(t, err)
	o.Observe(t.Context(), lock.Event{Kind: lock.Enabled, Operation: "Enable", ComponentName: "shop",
		JobName: "backup"})
	require.Len(t, s.ended("lock.Enable"), 1)
	require.Contains(t, s.metrics(), "lock.operation.name=Enable")
}

func TestNew_scope(t *testing.T) {
	s := newTelemetry(t)
	s.observer().Observe(t.Context(), lock.Event{Kind: lock.Enabled, Operation: "Enable"})
	const url = "https://opentelemetry.io/schemas/1.43.0"
	for _, scope := range []struct{ Name, Version, SchemaURL string }{
		{s.scopes()[0].Scope.Name, s.scopes()[0].Scope.Version, s.scopes()[0].Scope.SchemaURL},
		{s.spans.Ended()[0].InstrumentationScope().Name,
			s.spans.Ended()[0].InstrumentationScope().Version,
			s.spans.Ended()[0].InstrumentationScope().SchemaURL},
	} {
		require.Equal(t, "github.com/cloudtrust/go-jobs/lock/lockotel", scope.Name)
		require.Equal(t, "1.0.0", scope.Version)
		require.Equal(t, url, scope.SchemaURL)
	}
}

// refusing is a MeterProvider that refuses an instrument.
type refusing struct {
	metricnoop.MeterProvider
	name string
}

func (r refusing) Meter(string, ...metric.MeterOption) metric.Meter {
	return refusingMeter{name: r.name}
}

type refusingMeter struct {
	metricnoop.Meter
	name string
}

var errRefused = errors.New("no such instrument here")

func (r refusingMeter) refuses(name string) error {
	if name == r.name {
		return errRefused
	}
	return nil
}

func (r refusingMeter) Float64Histogram(name string,
	_ ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return metricnoop.Float64Histogram{}, r.refuses(name)
}

func (r refusingMeter) Int64Counter(name string,
	_ ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return metricnoop.Int64Counter{}, r.refuses(name)
}

func (r refusingMeter) Int64UpDownCounter(name string,
	_ ...metric.Int64UpDownCounterOption) (metric.Int64UpDownCounter, error) {
	return metricnoop.Int64UpDownCounter{}, r.refuses(name)
}

func TestNew_refused(t *testing.T) {
	for _, name := range []string{
		"lock.operation.duration", "lock.hold.duration", "lock.lease.losses",
		"lock.holder.age", "lock.lease.active",
	} {
		o, err := lockotel.New(lockotel.Options{MeterProvider: refusing{name: name}})
		require.Nil(t, o)
		require.ErrorIs(t, err, errRefused, name)
		require.EqualError(t, err, "lockotel: New: no such instrument here")
	}
}

// sqlError is an error like those of PostgreSQL's drivers.
type sqlError string

func (e sqlError) Error() string    { return "a deadlock" }
func (e sqlError) SQLState() string { return string(e) }

// TestObserver_Observe_status in its span and the attribute in its metric.
func TestObserver_Observe_status(t *testing.T) {
	l := observedtest.Open(t).Observed(t, nil)
	require.NoError(t, l.Lock("shop", "b", "backup", "2", 0))
	held := l.Lock("shop", "a", "backup", "1", 0)
	require.NoError(t, l.Disable("shop", "backup"))
	disabled := l.Lock("shop", "a", "backup", "1", 0)
	done := lock.Job{ComponentName: "shop", ComponentID: "a", JobName: "report", Tick: time.Unix(0, 0)}
	require.NoError(t, l.Run(t.Context(), done, func(context.Context) error { return nil }))
	already := l.Run(t.Context(), done, nil)
	lost := fmt.Errorf("%w: %w", lock.ErrLost, held)

	for _, c := range []struct {
		call      string
		kind      lock.EventKind
		err       error
		span      string
		reason    string // of the refusal or the loss
		errorType string
	}{
		{"Lock", lock.Acquired, nil, "lock.Lock", "", ""},
		{"Enable", lock.Enabled, nil, "lock.Enable", "", ""},
		{"Lock", lock.Refused, held, "lock.Lock", "held", ""},
		{"Lock", lock.Refused, disabled, "lock.Lock", "disabled", ""},
		{"Acquire", lock.Refused, already, "lock.Acquire", "already_run", ""},
		{"Acquire", lock.Refused, fmt.Errorf("%w while waiting: %w", context.Canceled, held),
			"lock.Acquire", "held", ""},
		{"ForceRelease", lock.Refused, held, "lock.ForceRelease", "held", ""},
		{"Unlock", lock.Refused, held, "lock.Unlock", "lost", "lost"},
		{"Release", lock.Refused, lost, "lock.Release", "lost", "lost"},
		{"Renew", lock.Lost, lost, "lock.Hold", "held", "lost"},
		{"Renew", lock.Lost, fmt.Errorf("%w: %w", lock.ErrLost, disabled), "lock.Hold", "disabled",
			"lost"},
		{"Renew", lock.Lost, lock.ErrLost, "lock.Hold", "other", "lost"},
		{"Renew", lock.Failed, fmt.Errorf("%w: %w", context.DeadlineExceeded, lock.ErrOutcomeUnknown),
			"lock.Renew", "", "unknown_outcome"},
		{"Lock", lock.Failed, fmt.Errorf("lock: %w", context.Canceled), "lock.Lock", "", "cancelled"},
		{"Lock", lock.Failed, fmt.Errorf("lock: %w", context.DeadlineExceeded), "lock.Lock", "",
			"timeout"},
		{"Lock", lock.Failed, fmt.Errorf("lock: %w", sqlError("40P01")), "lock.Lock", "", "_OTHER"},
	} {
		t.Run(c.call+" "+string(c.kind)+" "+c.reason+c.errorType, func(t *testing.T) {
			s := newTelemetry(t)
			s.observer().Observe(t.Context(), lock.Event{Kind: c.kind, Operation: c.call,
				ComponentName: "shop", JobName: "backup", Err: c.err})
			require.Len(t, s.spans.Ended(), 1)
			span := s.spans.Ended()[0]
			require.Equal(t, c.span, span.Name())
			require.Empty(t, span.Events())
			want := sdktrace.Status{}
			if c.errorType != "" {
				want = sdktrace.Status{Code: codes.Error, Description: c.err.Error()}
			}
			require.Equal(t, want, span.Status())

			of := attribute.NewSet(span.Attributes()...)
			text := func(key attribute.Key) string {
				v, _ := of.Value(key)
				return v.AsString()
			}
			reason := text("lock.refusal.reason") + text("lock.loss.reason")
			require.Equal(t, c.reason, reason)
			require.Equal(t, c.errorType, text("error.type"))
			if errors.As(c.err, new(sqlError)) {
				require.Equal(t, "40P01", text("db.response.status_code"))
			}
			if c.errorType != "" {
				require.Contains(t, s.metrics(), "error.type="+c.errorType+" ")
			} else {
				require.NotContains(t, s.metrics(), "error.type")
			}
		})
	}
}

func TestObserver_Observe_hold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTelemetry(t)
		l := observedtest.Open(t).Observed(t, s.observer().Observe)
		start, end := s.in("start")
		lease, err := l.Acquire(start, job("a"))
		require.NoError(t, err)
		require.NoError(t, l.LockContext(start, "shop", "a", "report", "1", 0))
		end()
		time.Sleep(65 * time.Second)
		stop, end := s.in("stop")
		require.NoError(t, lease.Release(stop))
		require.NoError(t, l.UnlockContext(stop, "shop", "a", "report", "1"))
		end()
		require.NoError(t, l.Lock("shop", "a", "mail", "1", 0))
		require.NoError(t, l.UnlockContext(stop, "shop", "a", "mail", "1"))

		parents := map[string]trace.SpanID{}
		for _, name := range []string{"start", "stop"} {
			parents[name] = s.ended(name)[0].SpanContext().SpanID()
		}
		holds := s.ended("lock.Hold")
		require.Len(t, holds, 3)
		for _, hold := range holds[:2] {
			require.Equal(t, parents["start"], hold.Parent().SpanID())
			require.Equal(t, s.begun, hold.StartTime())
			require.Equal(t, 65*time.Second, hold.EndTime().Sub(hold.StartTime()))
		}
		require.False(t, holds[2].Parent().IsValid(), "a Lock without a context")
		require.Equal(t, parents["stop"], s.ended("lock.Release")[0].Parent().SpanID())
		require.Empty(t, s.ended("lock.Renew"), "though it was renewed")
		require.Contains(t, s.metrics(),
			"lock.operation.name=Renew lock.operation.result=renewed} count=6 ")
		require.NotContains(t, s.metrics(),
			"lock.lease.active {lock.component.name=shop lock.job.name=report}", "a Lock is no lease")
	})
}

// TestObserver_Observe_exemplar, so that one finds from a slow call in a histogram to its trace.
func TestObserver_Observe_exemplar(t *testing.T) {
	s := newTelemetry(t)
	l := observedtest.Open(t).Observed(t, s.observer().Observe)
	require.NoError(t, l.Lock("shop", "a", "backup", "1", 0))
	require.NoError(t, l.Unlock("shop", "a", "backup", "1"))
	found := map[string]string{}
	for _, m := range s.scopes()[0].Metrics {
		if h, ok := m.Data.(metricdata.Histogram[float64]); ok {
			for _, p := range h.DataPoints {
				name, _ := p.Attributes.Value("lock.operation.name")
				require.Len(t, p.Exemplars, 1)
				found[m.Name+" "+name.AsString()] = trace.SpanID(p.Exemplars[0].SpanID).String()
			}
		}
	}
	id := func(name string) string { return s.ended(name)[0].SpanContext().SpanID().String() }
	require.Equal(t, map[string]string{
		"lock.operation.duration Lock":   id("lock.Lock"),
		"lock.operation.duration Unlock": id("lock.Unlock"),
		"lock.hold.duration ":            id("lock.Hold"),
	}, found)
}

func TestObserver_Observe_active(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTelemetry(t)
		l := lock.NewMemory(lock.Options{Observer: s.observer().Observe})
		// is checks how many leases are active, and how many holds have ended.
		is := func(active, ended int) {
			t.Helper()
			require.Contains(t, s.metrics(), fmt.Sprintf(
				"lock.lease.active {lock.component.name=shop lock.job.name=backup} %d{lease}\n", active))
			require.Len(t, s.ended("lock.Hold"), ended)
		}
		lease, err := l.Acquire(t.Context(), job("a"))
		require.NoError(t, err)
		time.Sleep(100 * time.Second) // renewed meanwhile
		is(1, 0)
		require.NoError(t, lease.Release(t.Context()))
		is(0, 1)

		ctx, cancel := context.WithCancel(t.Context())
		_, err = l.Acquire(ctx, job("a")) // and nobody releases it
		require.NoError(t, err)
		cancel()
		time.Sleep(30 * time.Second)
		is(1, 1)
		time.Sleep(time.Millisecond)
		is(0, 1)
	})
}

func TestObserver_Observe_buckets(t *testing.T) {
	s := newTelemetry(t)
	s.observer().Observe(t.Context(), lock.Event{Kind: lock.Enabled, Operation: "Enable"})
	h := s.scopes()[0].Metrics[0].Data.(metricdata.Histogram[float64])
	require.Equal(t, []float64{0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10}, h.DataPoints[0].Bounds)
}

func TestObserver_Observe_holder_age(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := observedtest.Open(t), newTelemetry(t)
		l, other := db.Observed(t, s.observer().Observe), db.Observed(t, nil)
		is := func(ages string) {
			t.Helper()
			require.Contains(t, s.metrics(),
				"lock.holder.age {lock.component.name=shop lock.job.name=backup} "+ages+"\n")
		}
		require.NoError(t, other.Lock("shop", "b", "backup", "2", 0))
		time.Sleep(time.Minute)
		require.Error(t, l.Lock("shop", "a", "backup", "1", 0))
		is("count=1 sum=60s")
		require.NoError(t, other.Disable("shop", "backup"))
		require.Error(t, l.Lock("shop", "a", "backup", "1", 0), "by nobody")
		require.NoError(t, other.Enable("shop", "backup"))
		time.Sleep(time.Minute)
		require.Error(t, l.Lock("shop", "a", "backup", "1", 0))
		is("count=2 sum=180s")
	})
}

func TestMaxJobs(t *testing.T) {
	s := newTelemetry(t)
	o := s.observer()
	for i := range lockotel.MaxJobs + 5 {
		for _, e := range []lock.Event{{Kind: lock.Acquired, Operation: "Acquire"},
			{Kind: lock.Released, Operation: "Release"}} {
			e.ComponentName, e.JobName, e.Token = "shop", fmt.Sprint("customer-", i), 1
			o.Observe(t.Context(), e)
		}
	}
	require.Len(t, s.ended("lock.Hold"), lockotel.MaxJobs)
	require.Equal(t, lockotel.MaxJobs, strings.Count(s.metrics(), "lock.lease.active {"))
	o.Observe(t.Context(), lock.Event{Kind: lock.Lost, Operation: "Renew", ComponentName: "shop",
		JobName: "another", Err: lock.ErrLost})
	require.Len(t, s.ended("lock.Hold"), lockotel.MaxJobs+1, "a lost lease is always told")
}

func TestObserver_concurrent(t *testing.T) {
	s := newTelemetry(t)
	l := observedtest.Open(t).Observed(t, s.observer().Observe)
	var runs sync.WaitGroup
	for i := range 8 {
		runs.Go(func() {
			for k := range 10 {
				j := job(fmt.Sprint(i))
				j.JobName, j.Wait, j.Poll = fmt.Sprint("job-", k%3), time.Minute, 5*time.Millisecond
				if err := l.Run(t.Context(), j, func(context.Context) error { return nil }); err != nil {
					t.Error(err)
				}
				s.metrics()
			}
		})
	}
	runs.Wait()
	require.Len(t, s.ended("lock.Hold"), 80)
	require.Equal(t, 3, strings.Count(s.metrics(), "} 0{lease}\n"))
}

// Several observers on one provider are added up.
func TestNew_several(t *testing.T) {
	s := newTelemetry(t)
	one := lock.NewMemory(lock.Options{Observer: s.observer().Observe})
	two := lock.NewMemory(lock.Options{Observer: s.observer().Observe})
	is := func(line string) {
		t.Helper()
		require.Contains(t, s.metrics(), line+"\n")
	}
	var leases []*lock.Lease
	for _, l := range []*lock.Lock{one, two} {
		lease, err := l.Acquire(t.Context(), job("a"))
		require.NoError(t, err)
		leases = append(leases, lease)
		_, err = l.Acquire(t.Context(), job("b"))
		require.Error(t, err)
	}
	is("lock.lease.active {lock.component.name=shop lock.job.name=backup} 2{lease}")
	require.Contains(t, s.metrics(),
		"lock.holder.age {lock.component.name=shop lock.job.name=backup} count=2 ")
	for i, left := range []string{"1{lease}", "0{lease}"} {
		require.NoError(t, leases[i].Release(t.Context()))
		is("lock.lease.active {lock.component.name=shop lock.job.name=backup} " + left)
	}
	require.Contains(t, s.metrics(),
		"lock.hold.duration {lock.component.name=shop lock.job.name=backup} count=2 ")
}

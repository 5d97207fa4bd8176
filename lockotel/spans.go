package lockotel

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/cloudtrust/go-jobs/lock"
)

// call makes the span of a call that has ended, and returns a context in which it is the span; or
// ctx if the call has none.
func (o *Observer) call(ctx context.Context, e lock.Event, now time.Time) context.Context {
	if e.Kind == lock.Renewed {
		return ctx
	}
	attrs := append(attributes(e), identities(e)...)
	ctx, span := o.tracer.Start(ctx, "lock."+e.Operation, trace.WithTimestamp(now.Add(-e.Took)),
		trace.WithAttributes(attrs...))
	end(span, e, now)
	return ctx
}

// hold makes the span of a hold that has ended, and returns a context in which it is the span.
// Where the hold ended has nothing to do with where its span belongs: a lock may be taken in one
// request and given back in another.
func (o *Observer) hold(ctx context.Context, e lock.Event, h hold, now time.Time) context.Context {
	attrs := append(attributes(e), identities(e)...)
	ctx, span := o.tracer.Start(trace.ContextWithSpanContext(ctx, h.Tag), "lock.Hold",
		trace.WithTimestamp(now.Add(-h.Held)), trace.WithAttributes(attrs...))
	end(span, e, now)
	return ctx
}

// end ends a span. The conventions advise against an event for its error.
func end(span trace.Span, e lock.Event, now time.Time) {
	if errorType(e) != "" {
		span.SetStatus(codes.Error, e.Err.Error())
	}
	span.End(trace.WithTimestamp(now))
}

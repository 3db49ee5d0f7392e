package activities

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"postroad/delivery"
	"postroad/event"
	"postroad/internal/tracing"
)

// linksMax bounds how many traces a request is linked to.
const linksMax = 32

// begin starts the span of a request whose events are in a recorded trace, and
// returns the trace context that the request carries: of one event its own span
// is a child, so that publishing and delivering are one trace; a batch, which
// may carry many, begins a trace and links to them. Without a tracer an event's
// own context is passed on. nil and "": there is nothing to trace.
func (r *run) begin(batch []*event.Event, attempt int) (trace.Span, string) {
	traced := firstTraced(batch)
	if traced < 0 {
		return nil, ""
	}
	tracer := r.a.cfg.Tracer
	if tracer == nil {
		if len(batch) > 1 {
			return nil, ""
		}
		return nil, batch[0].Trace
	}
	ctx := context.Background()
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("http.request.method", "POST"), attribute.String("server.address", r.target.Host()),
		attribute.String("postroad.subscriber", r.id), attribute.String("postroad.feed", r.loaded.FeedName),
		attribute.Int64("postroad.sequence", batch[0].Sequence), attribute.Int64("postroad.last_sequence", batch[len(batch)-1].Sequence),
		attribute.Int("postroad.count", len(batch)), attribute.Int("postroad.attempt", attempt),
	)}
	if len(batch) == 1 {
		if parent, ok := tracing.Parse(batch[0].Trace); ok {
			ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
		}
	} else {
		options = append(options, trace.WithLinks(links(batch[traced:])...))
	}
	_, span := tracer.Start(ctx, "POST", options...)
	if !span.SpanContext().IsSampled() {
		return nil, ""
	}
	return span, tracing.Traceparent(span.SpanContext())
}

// firstTraced returns the place of the first event that is in a trace, or -1.
func firstTraced(batch []*event.Event) int {
	for i, e := range batch {
		if e.Trace != "" {
			return i
		}
	}
	return -1
}

// links are one for each trace context of a batch: events published together
// share theirs.
func links(batch []*event.Event) []trace.Link {
	var list []trace.Link
	last := ""
	for _, e := range batch {
		if e.Trace == "" || e.Trace == last {
			continue
		}
		last = e.Trace
		if sc, ok := tracing.Parse(e.Trace); ok {
			list = append(list, trace.Link{SpanContext: sc, Attributes: []attribute.KeyValue{attribute.Int64("postroad.sequence", e.Sequence)}})
		}
		if len(list) == linksMax {
			break
		}
	}
	return list
}

// finish ends a request's span. Of the endpoint it holds the host, and nothing
// of the answer but its status.
func finish(span trace.Span, answer *delivery.Answer) {
	if span == nil {
		return
	}
	span.SetAttributes(attribute.String("postroad.class", answer.Class.String()), attribute.Int("http.request.body.size", answer.RequestBytes))
	if answer.Status != 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", answer.Status))
	}
	if answer.Class != delivery.ClassSuccess {
		span.SetAttributes(attribute.String("error.type", string(answer.Fault.Code)))
		span.SetStatus(codes.Error, answer.Class.String())
	}
	span.End(trace.WithTimestamp(answer.StartedAt.Add(answer.Duration)))
}

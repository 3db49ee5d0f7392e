package api

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/tracing"
)

// publishTrace is the trace of a request to publish. Its events carry it through
// the log, so that the request that delivers them is part of it.
type publishTrace struct {
	tracer trace.Tracer
	span   trace.Span // of the request; nil: it is not recorded
	// passed is the publisher's own context, where there is nobody here to
	// record anything: its trace goes on at the consumer all the same.
	passed string
}

// beginTrace starts the span of a request to publish, if its trace is recorded.
func (s *Server) beginTrace(r *http.Request) publishTrace {
	header := r.Header.Get("Traceparent")
	tracer := s.config.Tracer
	if tracer == nil {
		if header == "" {
			return publishTrace{}
		}
		return publishTrace{passed: tracing.Sampled(header)}
	}
	ctx := context.Background()
	if parent, ok := tracing.Parse(header); ok {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	_, span := tracer.Start(ctx, "publish", trace.WithSpanKind(trace.SpanKindServer))
	if !span.SpanContext().IsSampled() {
		return publishTrace{}
	}
	return publishTrace{tracer: tracer, span: span}
}

// append stores events within the trace.
func (t publishTrace) append(ctx context.Context, log PublishingLog, feed eventlog.Feed, events []event.Event) (eventlog.Result, error) {
	if t.span == nil {
		if t.passed != "" {
			mark(events, t.passed)
		}
		return log.Append(ctx, feed, events)
	}
	_, span := t.tracer.Start(trace.ContextWithSpan(ctx, t.span), "append", trace.WithSpanKind(trace.SpanKindProducer))
	defer span.End()
	mark(events, tracing.Traceparent(span.SpanContext()))
	result, err := log.Append(ctx, feed, events)
	span.SetAttributes(attribute.String("postroad.feed", feed.Name), attribute.Int("postroad.count", len(events)))
	if err != nil {
		span.SetStatus(codes.Error, string(problemOf(err).Code))
		return result, err
	}
	span.SetAttributes(attribute.Int64("postroad.sequence", result.First), attribute.Int64("postroad.last_sequence", result.Last),
		attribute.Int("postroad.duplicates", result.Duplicates))
	return result, nil
}

func mark(events []event.Event, traceparent string) {
	for i := range events {
		events[i].Trace = traceparent
	}
}

// end ends the request's span. It holds no text of the request's.
func (t publishTrace) end(status int, err error) {
	if t.span == nil {
		return
	}
	if err != nil {
		p := problemOf(err)
		status = p.Status()
		t.span.SetAttributes(attribute.String("error.type", string(p.Code)))
		if status >= http.StatusInternalServerError {
			t.span.SetStatus(codes.Error, string(p.Code))
		}
	}
	t.span.SetAttributes(attribute.String("http.request.method", http.MethodPost), attribute.Int("http.response.status_code", status),
		attribute.String("http.route", "/v1/feeds/{feed}/events"))
	t.span.End()
}

// id is the trace for log lines; empty: none.
func (t publishTrace) id() string {
	if t.span != nil {
		return t.span.SpanContext().TraceID().String()
	}
	return tracing.TraceID(t.passed)
}

// logPublished writes the one line of a publication that was taken.
func (p *publication) logPublished(ctx context.Context, bytes int64, tokenID string, took time.Duration) {
	logger := p.server.config.Logger
	if !logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	r := p.published
	logger.LogAttrs(ctx, slog.LevelDebug, "published", slog.String("feed", p.name), slog.Int64("first_sequence", r.first),
		slog.Int64("last_sequence", r.last), slog.Int64("accepted", r.accepted), slog.Int64("duplicates", r.duplicates),
		slog.Int64("bytes", bytes), slog.Float64("duration_ms", took.Seconds()*1000), slog.String("token_id", tokenID), slog.String("trace_id", p.trace.id()))
}

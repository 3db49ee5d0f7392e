package activities_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"postroad/activities"
	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
)

// traceparentOf is a sampled trace context, another one for each n.
func traceparentOf(n int) string { return fmt.Sprintf("00-%032x-%016x-01", n+1, n+100) }

func traced(events []event.Event) []event.Event {
	for i := range events {
		events[i].Trace = traceparentOf(i)
	}
	return events
}

// recorded returns a tracer that records everything, and its spans by the first
// sequence of the request.
func recorded() (trace.Tracer, func() map[int64]sdktrace.ReadOnlySpan) {
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder), sdktrace.WithSampler(sdktrace.AlwaysSample()))
	return provider.Tracer("test"), func() map[int64]sdktrace.ReadOnlySpan {
		spans := map[int64]sdktrace.ReadOnlySpan{}
		for _, span := range recorder.Ended() {
			for _, a := range span.Attributes() {
				if a.Key == "postroad.sequence" {
					spans[a.Value.AsInt64()] = span
				}
			}
		}
		return spans
	}
}

func attributes(span sdktrace.ReadOnlySpan) map[attribute.Key]string {
	all := map[attribute.Key]string{}
	for _, a := range span.Attributes() {
		all[a.Key] = a.Value.String()
	}
	return all
}

func TestTraceSingle(t *testing.T) {
	t.Parallel()
	tracer, spans := recorded()
	b := setup(t, func(c *activities.Config) { c.Tracer = tracer })
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, _ *testkit.Request) testkit.Answer {
		if n == 1 {
			return testkit.Answer{Status: 502, Body: "an-answers-secret"}
		}
		return testkit.Answer{}
	}})
	b.create(r.URL()+"/a-paths-secret?q=secret", nil)
	events := append(traced(properties(1)), properties(1)...)
	b.publish(events...)
	b.drive(contract.OutcomeParked)
	requests := r.Requests()
	if len(requests) != 3 || len(spans()) != 1 {
		t.Fatalf("%d requests, spans %v", len(requests), spans())
	}
	span := spans()[1] // of the second attempt: the first one's has the same sequence
	if got := span.Parent().TraceID().String() + span.Parent().SpanID().String(); got != traceparentOf(0)[3:35]+traceparentOf(0)[36:52] {
		t.Errorf("its parent is %s", got)
	}
	if got, want := requests[1].Header.Get("Traceparent"), "00-"+span.SpanContext().TraceID().String()+"-"+span.SpanContext().SpanID().String()+"-01"; got != want {
		t.Errorf("the request carries %s, want %s", got, want)
	}
	if first := requests[0].Header.Get("Traceparent"); first[:36] != traceparentOf(0)[:36] || first == requests[1].Header.Get("Traceparent") {
		t.Errorf("the first attempt carries %s", first)
	}
	if untraced := requests[2].Header.Get("Traceparent"); len(untraced) != 55 || untraced[3:35] == traceparentOf(0)[3:35] {
		t.Errorf("the event in no trace carries %s", untraced)
	}
	want := map[attribute.Key]string{
		"http.request.method": "POST", "server.address": "127.0.0.1", "http.response.status_code": "200", "http.request.body.size": fmt.Sprint(len(requests[1].Body)),
		"postroad.subscriber": "acme", "postroad.feed": "default", "postroad.sequence": "1", "postroad.last_sequence": "1",
		"postroad.count": "1", "postroad.attempt": "2", "postroad.class": "success",
	}
	if diff := cmp.Diff(want, attributes(span)); diff != "" {
		t.Error(diff)
	}
}

func TestTraceBatch(t *testing.T) {
	t.Parallel()
	tracer, spans := recorded()
	b := setup(t, func(c *activities.Config) { c.Tracer = tracer })
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	b.create(r.URL(), func(s *event.Subscriber) { s.BatchSize = 100 })
	events := properties(60)
	traced(events[10:])
	events[12].Trace = events[11].Trace // published together
	b.publish(events...)
	b.drive(contract.OutcomeParked)
	span := spans()[1]
	if span == nil || r.Count() != 1 {
		t.Fatalf("%d requests, spans %v", r.Count(), spans())
	}
	if span.Parent().IsValid() {
		t.Errorf("a batch has the parent %v", span.Parent())
	}
	links := span.Links()
	if len(links) != 32 {
		t.Fatalf("%d links", len(links))
	}
	for i, at := range []int{10, 11, 13, 14} {
		if got := links[i].SpanContext.TraceID().String(); got != events[at].Trace[3:35] {
			t.Errorf("link %d leads to %s, want that of event %d", i, got, at)
		}
	}
	if got := r.Requests()[0].Header.Get("Traceparent"); got[3:35] != span.SpanContext().TraceID().String() {
		t.Errorf("the request carries %s", got)
	}
}

// TestTracePassedOn: without a tracer the publisher's trace goes on at the
// consumer, where the request is of one event.
func TestTracePassedOn(t *testing.T) {
	t.Parallel()
	for size, want := range map[int]int{1: 3, 100: 0} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
			b.create(r.URL(), func(s *event.Subscriber) { s.BatchSize = event.Count(size) })
			b.publish(traced(properties(3))...)
			b.drive(contract.OutcomeParked)
			passed := 0
			for i, request := range r.Requests() {
				if request.Header.Get("Traceparent") == traceparentOf(i) {
					passed++
				}
			}
			if passed != want {
				t.Errorf("%d requests carry the trace of their event, want %d", passed, want)
			}
		})
	}
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

// String is what was written.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// TestAttemptLog: one line an attempt, of those that are wanted, without a
// secret.
func TestAttemptLog(t *testing.T) {
	t.Parallel()
	for which, want := range map[string][2]int{ // lines for people, and with debugging
		activities.LogAllAttempts: {3, 3}, "": {1, 3}, activities.LogFailedAttempts: {1, 3}, activities.LogNoAttempts: {0, 0},
	} {
		for debugging, level := range []slog.Level{slog.LevelInfo, slog.LevelDebug} {
			t.Run(fmt.Sprintf("%s/%s", which, level), func(t *testing.T) {
				t.Parallel()
				lines := attemptLines(t, which, level)
				if len(lines) != want[debugging] {
					t.Fatalf("%d lines, want %d: %v", len(lines), want[debugging], lines)
				}
				if len(lines) == 0 {
					return
				}
				failure := lines[0]
				delete(failure, "time")
				if duration, ok := failure["duration_ms"].(float64); !ok || duration <= 0 {
					t.Errorf("duration %v", failure["duration_ms"])
				}
				delete(failure, "duration_ms")
				if bytes, ok := failure["bytes"].(float64); !ok || bytes < 50 {
					t.Errorf("bytes %v", failure["bytes"])
				}
				delete(failure, "bytes")
				if diff := cmp.Diff(map[string]any{
					"level": "INFO", "msg": "attempt", "subscriber": "acme", "feed": "default", "first_sequence": 1.0, "last_sequence": 1.0, "count": 1.0,
					"attempt": 1.0, "class": "asked", "status": 503.0, "retry_after": "1", "error_class": "http_status", "error": "HTTP 503 from the consumer",
					"trace_id": traceparentOf(0)[3:35],
				}, failure); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// attemptLines delivers two events, the first of them at the second attempt.
func attemptLines(t *testing.T, which string, level slog.Level) []map[string]any {
	var out lockedBuffer
	b := setup(t, func(c *activities.Config) {
		c.LogAttempts, c.Logger = which, slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: level}))
	})
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, _ *testkit.Request) testkit.Answer {
		if n == 1 {
			return testkit.Answer{Status: 503, Header: map[string][]string{"Retry-After": {"1"}}, Body: "secret"}
		}
		return testkit.Answer{}
	}})
	b.create(r.URL()+"/secret", func(s *event.Subscriber) { s.Auth = event.Auth{Type: event.AuthBearer, Token: "secret-token"} })
	b.publish(traced(properties(2))...)
	b.drive(contract.OutcomeParked)
	if strings.Contains(out.String(), "secret") {
		t.Errorf("the log tells secrets: %s", out.String())
	}
	var lines []map[string]any
	for line := range strings.Lines(out.String()) {
		var members map[string]any
		check(t, json.Unmarshal([]byte(line), &members))
		if members["msg"] == "attempt" {
			lines = append(lines, members)
		}
	}
	return lines
}

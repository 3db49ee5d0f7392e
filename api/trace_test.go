package api_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"postroad/api"
)

const sampledTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// traces are what the log holds of the events' traces, in order.
func (b *bundle) traces() (list []string) {
	b.t.Helper()
	rows, err := b.pool.Query(b.t.Context(), `SELECT coalesce(extras::jsonb ->> 'trace', '') FROM events ORDER BY sequence`)
	must(b.t, err)
	defer rows.Close()
	for rows.Next() {
		var text string
		must(b.t, rows.Scan(&text))
		list = append(list, text)
	}
	return list
}

// TestTracePassedOn: without a tracer a sampled trace of the publisher's goes
// into the log; nothing else does, and no answer shows it.
func TestTracePassedOn(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	for _, header := range []string{sampledTrace, strings.TrimSuffix(sampledTrace, "1") + "0", "nonsense"} {
		b.publish(one("1"), "Traceparent", header, "Idempotency-Key", header).want(201, nil)
	}
	b.publish(one("1")).want(201, nil)
	b.publishLines(one("1")+"\n"+one("2"), "Traceparent", sampledTrace).want(201, nil)
	if diff := cmp.Diff([]string{sampledTrace, "", "", "", sampledTrace, sampledTrace}, b.traces()); diff != "" {
		t.Error(diff)
	}
	// The same content is a repeat, whatever trace it comes in.
	b.publish(one("1"), "Traceparent", strings.Replace(sampledTrace, "0af", "1af", 1), "Idempotency-Key", sampledTrace).want(200, nil)
	for _, path := range []string{"/v1/feeds/default/events?after=0", "/v1/feeds/default/events/1"} {
		if a := b.call("GET", path, ""); a.status != 200 || strings.Contains(string(a.body), sampledTrace[3:35]) || strings.Contains(string(a.body), "trace") {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

func TestTracePublish(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample())))
	b := setup(t, options{api: func(c *api.Config) { c.Tracer = provider.Tracer("test") }})
	b.publish(one("1")).want(201, nil)
	b.publish("["+one("1")+","+one("2")+"]", "Traceparent", sampledTrace).want(201, nil)
	b.publish("{secret", "Traceparent", sampledTrace).refused(400, "malformed", "")
	b.call("POST", "/v1/feeds/no-such-feed/events", one("1"), "Content-Type", "application/json", "Traceparent", sampledTrace).refused(404, "not-found", "?feed")
	spans := recorder.Ended()
	var told []string
	for _, s := range spans {
		var attributes []string
		for _, a := range s.Attributes() {
			attributes = append(attributes, string(a.Key)+"="+a.Value.String())
		}
		told = append(told, fmt.Sprint(s.Name(), " ", s.SpanKind(), " ", strings.Join(attributes, " ")))
		if s.SpanContext().TraceID().String() != sampledTrace[3:35] || s.Status().Code == codes.Error {
			t.Errorf("%s: %v", s.Name(), s)
		}
	}
	const published = "publish server http.request.method=POST http.response.status_code=201 http.route=/v1/feeds/{feed}/events"
	if diff := cmp.Diff([]string{
		"append producer postroad.feed=default postroad.count=2 postroad.sequence=2 postroad.last_sequence=3 postroad.duplicates=0", published,
		"publish server error.type=malformed" + strings.Replace(strings.TrimPrefix(published, "publish server"), "201", "400", 1),
		"publish server error.type=not-found" + strings.Replace(strings.TrimPrefix(published, "publish server"), "201", "404", 1),
	}, told); diff != "" {
		t.Fatal(diff)
	}
	if got := spans[0].Parent().SpanID(); got != spans[1].SpanContext().SpanID() {
		t.Errorf("append has the parent %s", got)
	}
	if got := spans[1].Parent().SpanID().String(); got != sampledTrace[36:52] {
		t.Errorf("publish has the parent %s", got)
	}
	appended := "00-" + sampledTrace[3:35] + "-" + spans[0].SpanContext().SpanID().String() + "-01"
	if diff := cmp.Diff([]string{"", appended, appended}, b.traces()); diff != "" {
		t.Error(diff)
	}
}

// TestPublishLog: one line for whoever debugs, with the trace.
func TestPublishLog(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.publish("["+one("1")+","+one("2")+"]", "Traceparent", sampledTrace).want(201, nil)
	line := ""
	for l := range strings.Lines(b.logs.String()) {
		if strings.Contains(l, "msg=published") {
			line += l
		}
	}
	for _, part := range []string{"level=DEBUG", "feed=default", "first_sequence=1", "last_sequence=2", "accepted=2", "duplicates=0", "bytes=", "duration_ms=", "trace_id=" + sampledTrace[3:35]} {
		if strings.Count(line, part) != 1 {
			t.Errorf("no %s, or more than one line: %s", part, line)
		}
	}
}

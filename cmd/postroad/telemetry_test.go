package main_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"postroad/internal/apiclient"
	"postroad/internal/config"
	"postroad/internal/testkit"
)

// collector takes spans by OTLP over HTTP.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracepb.Span
	raw   []byte
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collectorpb.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raw = append(c.raw, body...)
		for _, resource := range request.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// trace returns the spans of a trace, by name.
func (c *collector) trace(id string) map[string]*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	spans := map[string]*tracepb.Span{}
	for _, span := range c.spans {
		if hex.EncodeToString(span.GetTraceId()) == id {
			spans[span.GetName()] = span
		}
	}
	return spans
}

func attributesOf(span *tracepb.Span) map[string]any {
	all := map[string]any{}
	for _, a := range span.GetAttributes() {
		switch value := a.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			all[a.GetKey()] = value.StringValue
		case *commonpb.AnyValue_IntValue:
			all[a.GetKey()] = value.IntValue
		}
	}
	return all
}

// TestTelemetry follows an event from the request that publishes it to the one
// that delivers it, and holds docs/METRICS.md to what is served.
func TestTelemetry(t *testing.T) {
	t.Parallel()
	const traceID, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	spans, dir := newCollector(t), devDir(t)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	if err := config.RemoveAddress(dir); err != nil {
		t.Fatal(err)
	}
	c := startChildWith(t, t.TempDir(), []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + spans.URL, "OTEL_BSP_SCHEDULE_DELAY=100"},
		devArgs(dir, "--metrics-listen", "127.0.0.1:0", "--log-format", "json", "--log-attempts", "all")...)
	api := c.ready(dir)
	create := func(id, more string) {
		t.Helper()
		body := fmt.Sprintf(`{"id":%q,"endpoint":{"url":%q}%s}`, id, r.URL()+"/a-secret-path?key=a-secret", more)
		do(t, api, apiclient.Request{Method: http.MethodPost, Path: "/v1/subscribers", Body: strings.NewReader(body), ContentType: "application/json"})
	}
	create("acme", "")
	create("held", "")
	do(t, api, apiclient.Request{Method: http.MethodPost, Path: "/v1/subscribers/held/pause"})
	publishTraced(t, api, "")
	publishTraced(t, api, "00-"+traceID+"-"+parent+"-01")

	testkit.Eventually(t, waitMax, func() bool { return len(spans.trace(traceID)) == 3 }, "the trace is there")
	trace := spans.trace(traceID)
	publish, stored, post := trace["publish"], trace["append"], trace["POST"]
	if hex.EncodeToString(publish.GetParentSpanId()) != parent || string(stored.GetParentSpanId()) != string(publish.GetSpanId()) ||
		string(post.GetParentSpanId()) != string(stored.GetSpanId()) {
		t.Errorf("it does not hang together: %v", trace)
	}
	post2 := attributesOf(post)
	delete(post2, "http.request.body.size")
	if diff := cmp.Diff(map[string]any{
		"http.request.method": "POST", "server.address": "127.0.0.1", "http.response.status_code": int64(200), "postroad.subscriber": "acme", "postroad.feed": "default",
		"postroad.sequence": int64(2), "postroad.last_sequence": int64(2), "postroad.count": int64(1), "postroad.attempt": int64(1), "postroad.class": "success",
	}, post2); diff != "" {
		t.Error(diff)
	}
	requests := r.WaitFor(t, 2, waitMax)
	if got, want := requests[1].Header.Get("Traceparent"), "00-"+traceID+"-"+hex.EncodeToString(post.GetSpanId())+"-01"; got != want {
		t.Errorf("the consumer got %s, want %s", got, want)
	}
	spans.mu.Lock()
	if len(spans.spans) != 3 || strings.Contains(string(spans.raw), "secret") {
		t.Errorf("%d spans, or a secret in them", len(spans.spans))
	}
	spans.mu.Unlock()
	t.Log("\n" + renderTrace(publish, stored, post))

	testkit.Eventually(t, waitMax, func() bool { return strings.Contains(c.stderr.String(), `"trace_id":"`+traceID+`"`) }, "the attempt's line names the trace")
	if strings.Contains(c.stderr.String(), "a-secret") {
		t.Error("the log tells secrets")
	}
	c.awaitMetric(`postroad_subscriber_lag_events{subscriber="held"} 2`) // by the second look of the waker
	comparePage(t, c.metricsText())
}

func do(t *testing.T, api *apiclient.Client, request apiclient.Request) {
	t.Helper()
	if _, err := api.Do(t.Context(), request, nil); err != nil {
		t.Fatal(err)
	}
}

func publishTraced(t *testing.T, api *apiclient.Client, traceparent string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, api.URL+"/v1/feeds/default/events",
		strings.NewReader(`{"resourceName":"Property","resourceRecordKey":"a-secret-key","data":"a secret"}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+api.Token)
	request.Header.Set("Content-Type", "application/json")
	if traceparent != "" {
		request.Header.Set("Traceparent", traceparent)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		t.Fatal(response.Status)
	}
}

// renderTrace writes a trace for people: docs/OPERATIONS.md has one.
func renderTrace(spans ...*tracepb.Span) string {
	var b strings.Builder
	for depth, span := range spans {
		after := time.Duration(span.GetStartTimeUnixNano() - spans[0].GetStartTimeUnixNano())
		took := time.Duration(span.GetEndTimeUnixNano() - span.GetStartTimeUnixNano())
		attributes, _ := json.Marshal(attributesOf(span))
		fmt.Fprintf(&b, "%s%s  +%.1f ms, %.1f ms  %s\n", strings.Repeat("  ", depth), span.GetName(),
			after.Seconds()*1000, took.Seconds()*1000, attributes)
	}
	return b.String()
}

var (
	listedMetric = regexp.MustCompile("(?m)^\\| `(postroad_[a-z_]+)` \\| (counter|gauge|histogram) \\|")
	servedMetric = regexp.MustCompile(`(?m)^# TYPE (postroad_[a-z_]+) (\w+)$`)
)

// comparePage holds docs/METRICS.md to what a process serves, both ways.
func comparePage(t *testing.T, served string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "METRICS.md"))
	if err != nil {
		t.Fatal(err)
	}
	of := func(pattern *regexp.Regexp, text string) map[string]string {
		kinds := map[string]string{}
		for _, match := range pattern.FindAllStringSubmatch(text, -1) {
			kinds[match[1]] = match[2]
		}
		return kinds
	}
	if diff := cmp.Diff(of(listedMetric, string(text)), of(servedMetric, served)); diff != "" {
		t.Errorf("docs/METRICS.md (-) and what is served (+): %s", diff)
	}
}

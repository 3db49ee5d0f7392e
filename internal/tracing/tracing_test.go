package tracing

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

const sampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{ // what Traceparent makes of it again
		sampled:                                sampled,
		strings.TrimSuffix(sampled, "1") + "0": strings.TrimSuffix(sampled, "1") + "0",
		strings.TrimSuffix(sampled, "1") + "3": sampled, // a flag of a later level: random trace id
		"":                                     "",
		sampled + "-":                          "",
		"01" + sampled[2:]:                     "",
		strings.ToUpper(sampled):               "",
		strings.ReplaceAll(sampled, "-", "_"):  "",
		strings.TrimSuffix(sampled, "1") + "g": "",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": "",
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": "",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ZZ": "",
	} {
		sc, ok := Parse(text)
		if got := Traceparent(sc); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %t", text, got, ok)
		}
		if want = strings.TrimSuffix(want, "-00"); len(want) < len(sampled) {
			want = ""
		}
		if got := Sampled(text); got != want {
			t.Errorf("Sampled %q: %q", text, got)
		}
	}
	if got := TraceID(sampled); got != sampled[3:35] {
		t.Errorf("trace %q", got)
	}
	if got := TraceID("no trace"); got != "" {
		t.Errorf("trace %q", got)
	}
}

func TestEndpoint(t *testing.T) {
	t.Parallel()
	for want, env := range map[string]map[string]string{
		"":                              {"OTEL_TRACES_SAMPLER": "always_on"},
		"http://one:4318/v1/traces":     {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://one:4318/"},
		"http://two:4318/own":           {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://one:4318", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://two:4318/own"},
		"http://otlp:4318/v1/traces":    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otlp:4318", "OTEL_TRACES_EXPORTER": "otlp"},
		"http://enabled:4318/v1/traces": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://enabled:4318", "OTEL_SDK_DISABLED": "false"},
	} {
		if got := endpointOf(env); got != want {
			t.Errorf("%v: %q", env, got)
		}
	}
	for _, off := range []string{"OTEL_SDK_DISABLED=true", "OTEL_TRACES_EXPORTER=none"} {
		name, value, _ := strings.Cut(off, "=")
		none, err := Open(t.Context(), Config{Env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://one:4318", name: value}})
		if err != nil || none.Tracer() != nil || none.Close(t.Context()) != nil {
			t.Errorf("%s: %v, %v", off, none, err)
		}
	}
	_, err := Open(t.Context(), Config{Env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://one:4318", "OTEL_TRACES_SAMPLER": "jaeger_remote"}})
	if err == nil {
		t.Error("a sampler that is not there is taken")
	}
}

// TestSamplers says which of three spans each records: one in a recorded trace,
// one that begins a trace, one that begins a trace and is linked to a recorded one.
func TestSamplers(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"": "in,linked", "parentbased_always_off": "in,linked", "parentbased_always_on": "in,root,linked",
		"always_off": "", "always_on": "in,root,linked",
		"traceidratio": "", "parentbased_traceidratio": "in,linked", // of 0
	} {
		got := exported(t, map[string]string{"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": "0"}, func(tracer trace.Tracer) {
			parent, _ := Parse(sampled)
			_, in := tracer.Start(trace.ContextWithRemoteSpanContext(t.Context(), parent), "in")
			in.End()
			_, root := tracer.Start(t.Context(), "root")
			root.End()
			_, linked := tracer.Start(t.Context(), "linked", trace.WithLinks(trace.Link{SpanContext: parent}))
			linked.End()
		})
		if diff := cmp.Diff(want, strings.Join(got, ",")); diff != "" {
			t.Errorf("%q: %s", name, diff)
		}
	}
}

// exported returns the names of the spans that arrive at a collector.
func exported(t *testing.T, env map[string]string, make func(trace.Tracer)) (names []string) {
	t.Helper()
	arrived := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		for _, of := range request.GetResourceSpans() {
			for _, scope := range of.GetScopeSpans() {
				for _, span := range scope.GetSpans() {
					names = append(names, span.GetName())
				}
			}
		}
	})
	server := httptest.NewServer(arrived)
	defer server.Close()
	env["OTEL_EXPORTER_OTLP_ENDPOINT"] = server.URL
	tracing, err := Open(t.Context(), Config{Env: env, Service: "test", Version: "1", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	make(tracing.Tracer())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := tracing.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return names
}

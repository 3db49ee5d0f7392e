package api_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"postroad/api"
	"postroad/store"
)

func TestAuthorization(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	for name, header := range map[string]string{
		"none": "", "another token": "Bearer other", "a longer one": "Bearer " + token + "x", "another scheme": "Basic " + token, "no scheme": token,
		"empty": "Bearer ",
	} {
		a := b.call("GET", "/v1/feeds", "", "Authorization", header)
		a.refused(401, "unauthorized", "")
		challenge := a.header.Get("WWW-Authenticate")
		if !strings.HasPrefix(challenge, "Bearer realm=") || strings.Contains(challenge, "invalid_token") != (header != "") {
			t.Errorf("%s: challenge %q", name, challenge)
		}
	}
	b.call("GET", "/v1/feeds", "", "Authorization", "bearer  "+token).want(200, nil)
	for _, path := range []string{"/healthz", "/readyz", "/openapi.json", "/docs", "/problems/busy"} {
		b.call("GET", path, "", "Authorization", "").want(200, nil)
	}
}

func TestRouting(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.call("GET", "/v1/nothing", "").refused(404, "not-found", "")
	b.call("GET", "/v1/feeds/", "").refused(404, "not-found", "")
	a := b.call("PUT", "/v1/feeds", "{}")
	a.refused(405, "method-not-allowed", "")
	if allow := a.header.Get("Allow"); !strings.Contains(allow, "GET") || !strings.Contains(allow, "POST") {
		t.Errorf("Allow: %q", allow)
	}
	b.call("GET", "/v1/feeds?offset=5", "").refused(400, "invalid-parameter", "?offset")
	b.call("GET", "/v1/feeds/default?x=1", "").refused(400, "invalid-parameter", "?x")
	b.call("GET", "/v1/feeds?limit=1&limit=2", "").refused(400, "invalid-parameter", "?limit")
	b.call("GET", "/v1/feeds?limit=0", "").refused(400, "invalid-parameter", "?limit")
	b.call("GET", "/v1/feeds?limit=1001", "").refused(400, "invalid-parameter", "?limit")
	b.call("GET", "/v1/feeds?pageToken=xyz", "").refused(400, "invalid-parameter", "?pageToken")
	b.call("GET", "/v1/feeds?limit=%zz", "").refused(400, "invalid-parameter", "")
	b.call("GET", "/problems/no-such", "").refused(404, "not-found", "?code")
}

func TestRequestID_isTheClientsWhereItIsDecent(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	if p := b.call("GET", "/v1/nothing", "", "X-Request-Id", "abc-1").refused(404, "not-found", ""); p.RequestID != "abc-1" {
		t.Errorf("request id %q", p.RequestID)
	}
	if p := b.call("GET", "/v1/nothing", "", "X-Request-Id", strings.Repeat("x", 200)).refused(404, "not-found", ""); len(p.RequestID) > 40 {
		t.Errorf("request id %q", p.RequestID)
	}
	if logs := b.logs.String(); !strings.Contains(logs, "request_id=abc-1") {
		t.Errorf("no request id in the log:\n%s", logs)
	}
}

// TestInternal_saysNothing: the cause is for the log, not for the client.
func TestInternal_saysNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.exec(`ALTER TABLE feeds RENAME TO hidden_feeds`)
	a := b.call("GET", "/v1/feeds", "")
	p := a.refused(500, "internal", "")
	if strings.Contains(string(a.body), "feeds") || strings.Contains(string(a.body), "relation") {
		t.Errorf("the cause is shown: %s", a.body)
	}
	if logs := b.logs.String(); !strings.Contains(logs, "request_id="+p.RequestID) || !strings.Contains(logs, "level=ERROR") || !strings.Contains(logs, `relation \"feeds\"`) {
		t.Errorf("the cause is not in the log:\n%s", logs)
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	failing := errors.New("dial tcp 10.1.2.3:5432: refused")
	var err error
	b := setup(t, options{api: func(c *api.Config) {
		c.Ready = map[string]func(context.Context) error{
			"postgresql": func(context.Context) error { return err }, "schema": func(context.Context) error { return nil },
		}
	}})
	b.call("GET", "/readyz", "").want(200, nil)
	err = failing
	a := b.call("GET", "/readyz", "")
	p := a.refused(503, "not-ready", "")
	if p.Checks["postgresql"] != "failed" || p.Checks["schema"] != "ok" || strings.Contains(string(a.body), "10.1.2.3") {
		t.Errorf("%s", a.body)
	}
	err = nil
	connection := func() string {
		recorder := httptest.NewRecorder()
		b.server.Handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/healthz", nil))
		return recorder.Header().Get("Connection")
	}
	if got := connection(); got != "" {
		t.Errorf("Connection: %s", got)
	}
	b.server.Drain()
	b.call("GET", "/readyz", "").refused(503, "not-ready", "")
	b.call("GET", "/healthz", "").want(200, nil)
	if got := connection(); got != "close" {
		t.Errorf("Connection: %q while it drains, want close", got)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	b := setup(t, options{api: func(c *api.Config) { c.Registry = registry }})
	b.publish("["+one("1")+","+one("2")+"]", "Idempotency-Key", "k").want(201, nil)
	b.publish("["+one("1")+","+one("2")+"]", "Idempotency-Key", "k").want(200, nil)
	b.publish("{").refused(400, "malformed", "")
	b.call("GET", "/v1/feeds/nowhere", "").refused(404, "not-found", "?feed")
	b.call("BREW", "/coffee/123", "").want(404, nil)

	recorder := httptest.NewRecorder()
	b.server.MetricsHandler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text, err := io.ReadAll(recorder.Body)
	must(t, err)
	for _, line := range []string{
		`postroad_published_events_total{result="stored"} 2`, `postroad_published_events_total{result="duplicate"} 2`,
		`postroad_http_requests_total{class="2xx",method="POST",route="/v1/feeds/:feed/events"} 2`,
		`postroad_http_requests_total{class="4xx",method="POST",route="/v1/feeds/:feed/events"} 1`,
		`postroad_http_requests_total{class="4xx",method="any",route="unknown"} 1`,
		`postroad_http_problems_total{code="malformed"} 1`,
		`postroad_http_request_duration_seconds_count{class="4xx",method="GET",route="/v1/feeds/:feed"} 1`,
	} {
		if !strings.Contains(string(text), line) {
			t.Errorf("no %s in\n%s", line, text)
		}
	}
	if strings.Contains(string(text), "nowhere") || strings.Contains(string(text), "coffee") {
		t.Error("a path became a label")
	}
}

func TestNew_namesTheField(t *testing.T) {
	t.Parallel()
	if _, err := api.New(api.Config{}); err == nil || !strings.Contains(err.Error(), "field Store is required") {
		t.Errorf("%v", err)
	}
}

func TestPanic_isAProblem(t *testing.T) {
	t.Parallel()
	sealer, err := store.NewSealer([store.KeyBytes]byte{1})
	must(t, err)
	b := setup(t, options{api: func(c *api.Config) { c.Store = store.New(nil, sealer) }})
	b.call("GET", "/v1/subscribers", "").refused(500, "internal", "")
	if logs := b.logs.String(); !strings.Contains(logs, "handler panicked") || !strings.Contains(logs, "goroutine") {
		t.Errorf("no stack in the log:\n%s", logs)
	}
	b.call("GET", "/healthz", "").want(200, nil)
}

package delivery_test

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"postroad/delivery"
	"postroad/event"
	"postroad/internal/testkit"
)

func TestTest(t *testing.T) {
	t.Parallel()
	receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{TLS: true, Script: func(n int, _ *testkit.Request) testkit.Answer {
		return testkit.Answer{Status: 210 + n, Body: "hello"}
	}})
	roots := receiver.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	c := newTestClient(t, func(cfg *delivery.Config) { cfg.RootCAs = roots })
	const reso = `{"@reso.context":"urn:reso:metadata:2.0:resource:entityevent","value":[]}`
	for i, tt := range []struct {
		format string
		batch  int
		want   string
	}{{event.FormatRESO, 1, reso}, {event.FormatRESO, 10, reso}, {event.FormatRaw, 1, `[]`}, {event.FormatRaw, 10, `[]`}} {
		sub := event.Subscriber{Format: tt.format, BatchSize: event.Count(tt.batch), Endpoint: event.Endpoint{URL: receiver.URL()}, Auth: event.Auth{Type: event.AuthBearer}}
		target := targetOf(t, c, sub, event.Secrets{Token: "tok"}, time.Time{})
		result := c.Test(context.Background(), target)
		if a := result.Answer; a.Class != delivery.ClassSuccess || a.Status != 210+i+1 || string(a.Response) != "hello" || a.Duration <= 0 {
			t.Errorf("answer %+v", a)
		}
		if result.DNS != 0 || result.Connect <= 0 || result.TLS <= 0 || result.Connect+result.TLS > result.Answer.Duration {
			t.Errorf("stages %+v", result)
		}
		request := receiver.Requests()[i]
		if string(request.Body) != tt.want {
			t.Errorf("body %s, want %s", request.Body, tt.want)
		}
		id := request.Header.Get("Webhook-Id")
		if !regexp.MustCompile(`^acme_test-[0-9a-f]{1,16}$`).MatchString(id) || verify(t, vectorSecret, request.Header, "Webhook-", request.Body) != nil {
			t.Errorf("id %s is not signed as it should be", id)
		}
		request.Header.Del("Connection") // each test has one of its own
		checkHeaders(t, request.Header, map[string]string{}, map[string]string{
			"Content-Type": "application/json", "User-Agent": "Postroad/1.2.3", "Postroad-Subscriber": "acme", "Postroad-Feed": "default;epoch=3",
			"Authorization": "Bearer tok", "Postroad-Test": "true", "Webhook-Id": id,
		})
	}
}

func TestTestStages(t *testing.T) {
	t.Parallel()
	c := newTestClient(t)
	closed := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	closed.Close()
	for _, tt := range []struct {
		url  string
		code delivery.Code
	}{
		{"https://no-such-host.invalid/top-secret", delivery.CodeDNS},
		{strings.Replace(closed.URL(), "127.0.0.1", "localhost", 1) + "/top-secret", delivery.CodeConnectRefused},
		{"https://10.0.0.1/top-secret", delivery.CodeBlockedAddress},
	} {
		result := c.Test(context.Background(), targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: tt.url}}, event.Secrets{}, time.Time{}))
		checkFault(t, result.Answer, tt.code)
		if looked := !strings.Contains(tt.url, "10.0.0.1"); (result.DNS > 0) != looked || result.TLS != 0 {
			t.Errorf("%s: stages %+v", tt.url, result)
		}
	}
}

// A test request shares nothing with the deliveries that follow it.
func TestTestBetweenDeliveries(t *testing.T) {
	t.Parallel()
	receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	c := newTestClient(t)
	target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: receiver.URL()}}, event.Secrets{}, time.Time{})
	for range 5 {
		c.Test(context.Background(), target)
		c.Do(context.Background(), target, delivery.Request{Events: testEvents(1), Attempt: 1})
	}
	for _, r := range receiver.WaitFor(t, 10, time.Second) {
		if isTest := r.N%2 == 1; (r.Header.Get("Postroad-Test") != "") != isTest || (r.Header.Get("Postroad-Sequence") == "") != isTest {
			t.Errorf("request %d: %v", r.N, r.Header)
		}
	}
}

package delivery

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"postroad/event"
)

// benchEvent renders to about 500 bytes, the size that rates are quoted for.
func benchEvent() *event.Event {
	return &event.Event{
		Sequence: 1_234_567, ResourceName: "Property", ResourceRecordKey: "235021", EventType: "StatusChanged",
		ResourceRecordURL: "https://reso.example/odata/Property('" + strings.Repeat("2", 280) + "')",
	}
}

func benchTarget(b *testing.B, c *Client, url string) *Target {
	b.Helper()
	sub := event.Subscriber{
		ID: "acme", Feed: "default", Label: "Acme IDX", Endpoint: event.Endpoint{URL: url}, Auth: event.Auth{Type: event.AuthBearer},
	}
	t, err := c.NewTarget(TargetConfig{
		Subscriber: sub, FeedEpoch: 1,
		Secrets: event.Secrets{Token: "0123456789abcdef0123456789abcdef", Signing: []event.SigningSecret{{Secret: NewSigningSecret()}}},
	})
	if err != nil {
		b.Fatal(err)
	}
	return t
}

// benchReceiver answers with an empty 200, as cheaply as net/http can.
func benchReceiver(b *testing.B) string {
	b.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	b.Cleanup(s.Close)
	return s.URL
}

// BenchmarkPost compares one request after another over one connection: by
// Do on either path, and by a bare net/http client with the same body, which is the floor.
func BenchmarkPost(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		url := benchReceiver(b)
		body := AppendBody(nil, event.FormatRESO, false, []*event.Event{benchEvent()})
		client := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{}).DialContext}, Timeout: 15 * time.Second}
		b.ReportAllocs()
		for b.Loop() {
			resp, err := client.Post(url, "application/json", bytes.NewReader(body))
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	})
	for name, noDirect := range map[string]bool{"direct": false, "transport": true} {
		b.Run(name, func(b *testing.B) {
			c := NewClient(Config{Guard: GuardConfig{AllowHTTP: true, AllowLoopback: true}})
			defer c.Close()
			c.noDirect = noDirect
			t := benchTarget(b, c, benchReceiver(b))
			r := Request{Events: []*event.Event{benchEvent()}, Attempt: 1, Previous: 1_234_566}
			ctx, cancel := context.WithCancel(context.Background()) // as a delivery run's
			defer cancel()
			b.ReportAllocs()
			for b.Loop() {
				if a := c.Do(ctx, t, r); a.Class != ClassSuccess {
					b.Fatal(a.Fault)
				}
			}
		})
	}
}

// BenchmarkPrepare is all that a request costs before it meets the network:
// body, headers, signature.
func BenchmarkPrepare(b *testing.B) {
	c := NewClient(Config{})
	defer c.Close()
	x := newExchange(benchTarget(b, c, "https://consumer.example/hook"))
	r := Request{Events: []*event.Event{benchEvent()}, Attempt: 1, Previous: 1_234_566}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		x.prepare(r, now)
	}
}

func BenchmarkAppendBody(b *testing.B) {
	for _, bench := range []struct {
		name, format string
		events       int
	}{{"reso", event.FormatRESO, 1}, {"reso, batch of 100", event.FormatRESO, 100}, {"raw", event.FormatRaw, 1}} {
		b.Run(bench.name, func(b *testing.B) {
			events := make([]*event.Event, bench.events)
			for i := range events {
				events[i] = benchEvent()
				events[i].Data = []byte(`{"StandardStatus":"Closed"}`)
			}
			var body []byte
			b.ReportAllocs()
			for b.Loop() {
				body = AppendBody(body[:0], bench.format, bench.events > 1, events)
			}
			b.SetBytes(int64(len(body)))
		})
	}
}

// BenchmarkSign signs 500 bytes with one key, which is used again.
func BenchmarkSign(b *testing.B) {
	mac := hmac.New(sha256.New, make([]byte, signingSecretBytes))
	head, body := []byte("acme_1234567.1700000000."), make([]byte, 500)
	var signature []byte
	b.ReportAllocs()
	for b.Loop() {
		signature = appendSignature(signature[:0], mac, head, body)
	}
}

func BenchmarkSize(b *testing.B) {
	e := benchEvent()
	b.ReportAllocs()
	for b.Loop() {
		Size(event.FormatRESO, e)
	}
}

package delivery

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"postroad/event"
)

// newTestTarget fills in what the test does not care about.
func newTestTarget(t *testing.T, sub event.Subscriber, secrets event.Secrets, now time.Time) *Target {
	t.Helper()
	c := NewClient(Config{})
	t.Cleanup(c.Close)
	sub.ID = "acme"
	if sub.Endpoint.URL == "" {
		sub.Endpoint.URL = "https://consumer.example/hook"
	}
	if secrets.Signing == nil {
		secrets.Signing = []event.SigningSecret{{Secret: vectorSecret}}
	}
	target, err := c.NewTarget(TargetConfig{Subscriber: sub, Secrets: secrets, FeedEpoch: 3, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// testEvents makes events with the sequences 101, 102 …
func testEvents(n int) []*event.Event {
	events := make([]*event.Event, n)
	for i := range events {
		events[i] = &event.Event{Sequence: int64(101 + i), ResourceName: "Property", ResourceRecordKey: fmt.Sprint(i), EventType: "StatusChanged"}
	}
	return events
}

// A request uses the memory of the one before: nothing of it may be left.
func TestHeadersOfRequestsInTurn(t *testing.T) {
	t.Parallel()
	for _, batchSize := range []int{1, 5} {
		target := newTestTarget(t, event.Subscriber{BatchSize: event.Count(batchSize), Signing: event.Signing{Scheme: event.SigningNone}}, event.Secrets{}, time.Time{})
		x := newExchange(target)
		now := time.Unix(1614265330, 0)
		requests := []Request{
			{Events: testEvents(1), Attempt: 1},
			{Events: testEvents(batchSize), Attempt: 12, Previous: 1 << 60},
			{Events: []*event.Event{{Sequence: 7, ResourceName: "R", ResourceRecordKey: "1"}}, Attempt: 3, Previous: 6},
			{Events: testEvents(batchSize), Attempt: 1, Previous: 6, NoPrevious: true, Replay: 1 << 60, Compacted: 123456},
			{Events: testEvents(1), Attempt: 1},
		}
		for i, r := range requests {
			r.Traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
			fresh := newExchange(target)
			fresh.prepare(r, now)
			x.prepare(r, now)
			fresh.fillHeader()
			x.fillHeader()
			if !maps.EqualFunc(x.request.Header, fresh.request.Header, slices.Equal[[]string]) || string(x.body) != string(fresh.body) {
				t.Errorf("request %d after others: %v %s\nfresh: %v %s", i, x.request.Header, x.body, fresh.request.Header, fresh.body)
			}
			if x.request.Header.Get("Traceparent") != r.Traceparent || x.request.Header["Webhook-Signature"] != nil {
				t.Errorf("request %d: %v", i, x.request.Header)
			}
		}
	}
}

func TestHeaderNames(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"X-Api-Key": true, "a!#$%&'*+-.^_`|~9": true, "": false, "X Y": false, "X:Y": false, "X\r\nY": false, "é": false, "@": false, "[": false, "{": false,
	} {
		if validHeaderName(name) != ok {
			t.Errorf("validHeaderName(%q) = %v", name, !ok)
		}
	}
}

func TestDirectAddress(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"http://a.example/": "a.example:80", "https://a.example/": "a.example:443", "https://a.example:8443/": "a.example:8443",
		"https://[2001:200::1]/": "[2001:200::1]:443", "https://bücher.example/": "", "https://[fe80::1%25eth0]/": "", "http://a.example:/": "a.example:80",
	} {
		target := newTestTarget(t, event.Subscriber{Endpoint: event.Endpoint{URL: url}}, event.Secrets{}, time.Time{})
		if target.address != want {
			t.Errorf("%s: %q, want %q", url, target.address, want)
		}
	}
}

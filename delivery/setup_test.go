package delivery

import (
	"fmt"
	"testing"
	"time"

	"postroad/event"
)

// newTestClient may call this host, without TLS.
func newTestClient(t *testing.T, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{Guard: GuardConfig{AllowHTTP: true, AllowLoopback: true}, Version: "1.2.3"}
	for _, f := range change {
		f(&cfg)
	}
	c := NewClient(cfg)
	t.Cleanup(c.Close)
	return c
}

// clientMaker is newTestClient, or a test's own.
type clientMaker func(*testing.T, ...func(*Config)) *Client

// eachPath runs a test over connections of our own and over net/http's.
func eachPath(t *testing.T, test func(*testing.T, clientMaker)) {
	t.Helper()
	t.Parallel()
	t.Run("direct", func(t *testing.T) {
		t.Parallel()
		test(t, newTestClient)
	})
	t.Run("transport", func(t *testing.T) {
		t.Parallel()
		test(t, func(t *testing.T, change ...func(*Config)) *Client {
			t.Helper()
			c := newTestClient(t, change...)
			c.noDirect = true
			return c
		})
	})
}

func newTestTarget(t *testing.T, sub event.Subscriber, secrets event.Secrets, now time.Time) *Target {
	t.Helper()
	return targetOf(t, newTestClient(t), sub, secrets, now)
}

// targetOf fills in what the test does not care about.
func targetOf(t *testing.T, c *Client, sub event.Subscriber, secrets event.Secrets, now time.Time) *Target {
	t.Helper()
	if sub.ID == "" {
		sub.ID = "acme"
	}
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

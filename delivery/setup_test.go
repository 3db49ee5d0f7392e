package delivery_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"postroad/delivery"
	"postroad/event"
)

// vectorSecret signs what these tests deliver.
const vectorSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// newTestClient may call this host, without TLS.
func newTestClient(t *testing.T, change ...func(*delivery.Config)) *delivery.Client {
	t.Helper()
	cfg := delivery.Config{Guard: delivery.GuardConfig{AllowHTTP: true, AllowLoopback: true}, Version: "1.2.3"}
	for _, f := range change {
		f(&cfg)
	}
	c := delivery.NewClient(cfg)
	t.Cleanup(c.Close)
	return c
}

// clientMaker is newTestClient, or a test's own.
type clientMaker func(*testing.T, ...func(*delivery.Config)) *delivery.Client

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
		test(t, func(t *testing.T, change ...func(*delivery.Config)) *delivery.Client {
			t.Helper()
			c := newTestClient(t, change...)
			c.ForceTransport()
			return c
		})
	})
}

// targetOf fills in what the test does not care about.
func targetOf(t *testing.T, c *delivery.Client, sub event.Subscriber, secrets event.Secrets, now time.Time) *delivery.Target {
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
	target, err := c.NewTarget(delivery.TargetConfig{Subscriber: sub, Secrets: secrets, FeedEpoch: 3, Now: now})
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

// deliver sends one event.
func deliver(t *testing.T, c *delivery.Client, target *delivery.Target) delivery.Answer {
	t.Helper()
	return c.Do(context.Background(), target, delivery.Request{Events: testEvents(1), Attempt: 1})
}

// verify checks a request's signature with the standard's own library.
func verify(t *testing.T, secret string, header http.Header, prefix string, body []byte) error {
	t.Helper()
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	named := http.Header{}
	for _, name := range []string{"Id", "Timestamp", "Signature"} {
		named["Webhook-"+name] = header[prefix+name]
	}
	return webhook.Verify(body, named)
}

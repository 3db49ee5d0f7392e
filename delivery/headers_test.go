package delivery_test

import (
	"bufio"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"postroad/delivery"
	"postroad/event"
	"postroad/internal/testkit"
)

// variable are headers whose values differ with each request.
var variable = map[string]*regexp.Regexp{
	"Traceparent":       regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-01$`),
	"Webhook-Timestamp": regexp.MustCompile(`^[0-9]{10}$`),
	"Webhook-Signature": regexp.MustCompile(`^v1,[A-Za-z0-9+/]{43}=$`),
}

// Every header that arrives is one the contract lists, and the other way
// round.
func TestHeaders(t *testing.T) { eachPath(t, testHeaders) }

func testHeaders(t *testing.T, newTestClient clientMaker) {
	always := map[string]string{
		"Content-Type": "application/json", "User-Agent": "Postroad/1.2.3", "Postroad-Subscriber": "acme",
		"Postroad-Feed": "listings;epoch=3", "Postroad-Previous-Sequence": "77", "Postroad-Attempt": "2",
	}
	tests := []struct {
		name    string
		sub     event.Subscriber
		secrets event.Secrets
		events  int
		want    map[string]string
	}{
		{
			"one event",
			event.Subscriber{},
			event.Secrets{},
			1,
			map[string]string{"Webhook-Id": "acme_101", "Postroad-Sequence": "101", "Postroad-Event-Type": "StatusChanged"},
		},
		{
			"batch",
			event.Subscriber{BatchSize: 10},
			event.Secrets{},
			3,
			map[string]string{"Webhook-Id": "acme_101-103", "Postroad-Sequence": "101", "Postroad-Last-Sequence": "103", "Postroad-Count": "3"},
		},
		{
			"batch of one",
			event.Subscriber{BatchSize: 10},
			event.Secrets{},
			1,
			map[string]string{
				"Webhook-Id": "acme_101", "Postroad-Sequence": "101", "Postroad-Last-Sequence": "101", "Postroad-Count": "1",
				"Postroad-Event-Type": "StatusChanged",
			},
		},
		{
			"label and bearer",
			event.Subscriber{Label: "Acme IDX", Auth: event.Auth{Type: event.AuthBearer}},
			event.Secrets{Token: "tok"},
			1,
			map[string]string{
				"Webhook-Id": "acme_101", "Postroad-Sequence": "101", "Postroad-Event-Type": "StatusChanged",
				"Entityeventsource": "Acme IDX", "Authorization": "Bearer tok",
			},
		},
		{
			"old label and basic",
			event.Subscriber{Label: "L", LabelHeader: event.LabelConsumerLabel, Auth: event.Auth{Type: event.AuthBasic, Username: "me"}},
			event.Secrets{Password: "p:w"},
			1,
			map[string]string{
				"Webhook-Id": "acme_101", "Postroad-Sequence": "101", "Postroad-Event-Type": "StatusChanged",
				"Consumerlabel": "L", "Authorization": "Basic bWU6cDp3",
			},
		},
		{
			"both labels, a header for a key, operator's headers",
			event.Subscriber{Label: "L", LabelHeader: event.LabelBoth, Auth: event.Auth{Type: event.AuthHeader, Name: "x-api-key"}},
			event.Secrets{Value: "k", Headers: map[string]string{"x-tenant": "7", "Accept": "application/json"}},
			1,
			map[string]string{
				"Webhook-Id": "acme_101", "Postroad-Sequence": "101", "Postroad-Event-Type": "StatusChanged",
				"Consumerlabel": "L", "Entityeventsource": "L", "X-Api-Key": "k", "X-Tenant": "7", "Accept": "application/json",
			},
		},
		{
			"authorization by another scheme",
			event.Subscriber{Auth: event.Auth{Type: event.AuthHeader, Name: "authorization"}},
			event.Secrets{Value: "access_token abc"},
			1,
			map[string]string{
				"Webhook-Id": "acme_101", "Postroad-Sequence": "101", "Postroad-Event-Type": "StatusChanged",
				"Authorization": "access_token abc",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{})
			c := newTestClient(t)
			tt.sub.Feed, tt.sub.Endpoint.URL = "listings", receiver.URL()+"/hook?key=1"
			a := c.Do(context.Background(), targetOf(t, c, tt.sub, tt.secrets, time.Time{}), delivery.Request{Events: testEvents(tt.events), Attempt: 2, Previous: 77})
			if a.Class != delivery.ClassSuccess {
				t.Fatalf("answer %+v", a)
			}
			request := receiver.WaitFor(t, 1, time.Second)[0]
			if request.Method != http.MethodPost || request.Path != "/hook?key=1" || !strings.HasSuffix(receiver.URL(), request.Host) {
				t.Errorf("%s %s at %s", request.Method, request.Path, request.Host)
			}
			checkHeaders(t, request.Header, always, tt.want)
			if a.WebhookID != tt.want["Webhook-Id"] || a.Traceparent != request.Header.Get("Traceparent") || a.RequestBytes != len(request.Body) {
				t.Errorf("the answer tells of another request: %+v", a)
			}
		})
	}
}

// What is not said of every request: the replay it is part of, what was left out
// for it, and no previous event.
func TestHeadersOfReplays(t *testing.T) { eachPath(t, testHeadersOfReplays) }

func testHeadersOfReplays(t *testing.T, newTestClient clientMaker) {
	always := map[string]string{
		"Content-Type": "application/json", "User-Agent": "Postroad/1.2.3", "Postroad-Subscriber": "acme", "Postroad-Feed": "default;epoch=3",
		"Postroad-Attempt": "1", "Postroad-Sequence": "101",
	}
	one := map[string]string{"Postroad-Event-Type": "StatusChanged"}
	batch := map[string]string{"Postroad-Last-Sequence": "103", "Postroad-Count": "3"}
	for name, tt := range map[string]struct {
		events  int
		request delivery.Request
		fixed   map[string]string
		want    map[string]string
	}{
		"a replayed event": {
			1,
			delivery.Request{Replay: 12, Previous: 77},
			one,
			map[string]string{"Webhook-Id": "acme_101_r12", "Postroad-Replay": "12", "Postroad-Previous-Sequence": "77"},
		},
		"a replayed batch": {
			3,
			delivery.Request{Replay: 9007199254740993, NoPrevious: true},
			batch,
			map[string]string{"Webhook-Id": "acme_101-103_r9007199254740993", "Postroad-Replay": "9007199254740993"},
		},
		"a compacted event": {
			1,
			delivery.Request{Compacted: 2},
			one,
			map[string]string{"Webhook-Id": "acme_101", "Postroad-Compacted": "2", "Postroad-Previous-Sequence": "0"},
		},
		"a compacted batch without a previous event": {
			3,
			delivery.Request{Compacted: 150000, Previous: 77, NoPrevious: true},
			batch,
			map[string]string{"Webhook-Id": "acme_101-103", "Postroad-Compacted": "150000"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{})
			c := newTestClient(t)
			sub := event.Subscriber{Endpoint: event.Endpoint{URL: receiver.URL()}}
			if tt.events > 1 {
				sub.BatchSize = event.Auto
			}
			tt.request.Events, tt.request.Attempt = testEvents(tt.events), 1
			target := targetOf(t, c, sub, event.Secrets{}, time.Time{})
			if a := c.Do(context.Background(), target, tt.request); a.Class != delivery.ClassSuccess || a.WebhookID != tt.want["Webhook-Id"] {
				t.Fatalf("answer %+v", a)
			}
			request := receiver.WaitFor(t, 1, time.Second)[0]
			want := maps.Clone(tt.want)
			maps.Copy(want, tt.fixed)
			checkHeaders(t, request.Header, always, want)
			if err := verify(t, vectorSecret, request.Header, "Webhook-", request.Body); err != nil {
				t.Errorf("the signature: %v", err)
			}
		})
	}
}

func checkHeaders(t *testing.T, got http.Header, always, want map[string]string) {
	t.Helper()
	got = got.Clone()
	got.Del("Content-Length")
	all := maps.Clone(always)
	maps.Copy(all, want)
	for name, pattern := range variable {
		if !pattern.MatchString(got.Get(name)) {
			t.Errorf("%s: %q does not match %s", name, got.Get(name), pattern)
		}
		got.Del(name)
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if value, ok := all[name]; !ok || len(got[name]) != 1 || got[name][0] != value {
			t.Errorf("%s: %q, want %q", name, got[name], value)
		}
		delete(all, name)
	}
	for name, value := range all {
		t.Errorf("%s is missing; want %q", name, value)
	}
}

// An operator's headers may come from a row that no validation of today has
// seen.
func TestHeadersNotOverridden(t *testing.T) { eachPath(t, testHeadersNotOverridden) }

func testHeadersNotOverridden(t *testing.T, newTestClient clientMaker) {
	receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	c := newTestClient(t)
	hostile := map[string]string{}
	for _, name := range []string{
		"host", "content-length", "connection", "transfer-encoding", "trailer", "te", "upgrade", "expect", "idempotency-key",
		"x-idempotency-key", "accept-encoding", "content-type", "user-agent", "traceparent", "tracestate", "authorization", "webhook-id",
		"webhook-other", "svix-id", "POSTROAD-SEQUENCE", "postroad-test", "postroad-feed", "entityeventsource", "consumerlabel",
	} {
		hostile[name] = "7"
	}
	hostile["x-fine"] = "fine"
	sub := event.Subscriber{Feed: "f", Label: "L", Endpoint: event.Endpoint{URL: receiver.URL()}}
	target := targetOf(t, c, sub, event.Secrets{Headers: hostile}, time.Time{})
	for range 2 { // the second request uses the first one's memory
		if a := c.Do(context.Background(), target, delivery.Request{Events: testEvents(1), Attempt: 1}); a.Class != delivery.ClassSuccess {
			t.Fatalf("answer %+v", a)
		}
	}
	for _, request := range receiver.WaitFor(t, 2, time.Second) {
		if !strings.HasSuffix(receiver.URL(), request.Host) {
			t.Errorf("host %s", request.Host)
		}
		checkHeaders(t, request.Header, map[string]string{}, map[string]string{
			"Content-Type": "application/json", "User-Agent": "Postroad/1.2.3", "Postroad-Subscriber": "acme", "Postroad-Feed": "f;epoch=3",
			"Postroad-Previous-Sequence": "0", "Postroad-Attempt": "1", "Webhook-Id": "acme_101", "Postroad-Sequence": "101",
			"Postroad-Event-Type": "StatusChanged", "Entityeventsource": "L", "X-Fine": "fine",
		})
	}
}

// An event type may hold anything, and must not fail the request or smuggle a
// header into it.
func TestHeadersEventType(t *testing.T) { eachPath(t, testHeadersEventType) }

func testHeadersEventType(t *testing.T, newTestClient clientMaker) {
	receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	c := newTestClient(t)
	target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: receiver.URL()}}, event.Secrets{}, time.Time{})
	for i, eventType := range []string{"Status Changed", " x ", "50%", "é😀", "a\r\nX-Evil: 1", "\x00\x7f", "\xff", "a+b/c"} {
		e := &event.Event{Sequence: 1, ResourceName: "R", ResourceRecordKey: "1", EventType: eventType}
		if a := c.Do(context.Background(), target, delivery.Request{Events: []*event.Event{e}, Attempt: 1}); a.Class != delivery.ClassSuccess {
			t.Fatalf("%q: answer %+v", eventType, a)
		}
		header := receiver.WaitFor(t, i+1, time.Second)[i].Header
		got, err := url.PathUnescape(header.Get("Postroad-Event-Type"))
		if got != eventType || err != nil || header.Get("X-Evil") != "" {
			t.Errorf("%q arrived as %q, %v", eventType, header.Get("Postroad-Event-Type"), err)
		}
	}
}

// A blank in a URL's query would end the request line's target early.
func TestDoRequestLine(t *testing.T) { eachPath(t, testDoRequestLine) }

func testDoRequestLine(t *testing.T, newTestClient clientMaker) {
	tests := []struct{ path, line string }{
		{"", "POST / HTTP/1.1"},
		{"/a b?c d", "POST /a%20b?c%20d HTTP/1.1"},
		{"/?x HTTP/1.1", "POST /?x%20HTTP/1.1 HTTP/1.1"},
		{"/ü?q=ü&r=%20+", "POST /%C3%BC?q=%C3%BC&r=%20+ HTTP/1.1"},
		{"//a/../b?", "POST //a/../b? HTTP/1.1"},
		{"/a%2Fb", "POST /a%2Fb HTTP/1.1"},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			t.Parallel()
			lines := make(chan string, 1)
			server := newRawServer(t, func(conn net.Conn, _ int) {
				line, _ := bufio.NewReader(conn).ReadString('\n')
				lines <- strings.TrimSpace(line)
				_, _ = io.WriteString(conn, okAnswer)
			})
			c := newTestClient(t)
			target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: server.url + tt.path}}, event.Secrets{}, time.Time{})
			deliver(t, c, target)
			if line := <-lines; line != tt.line {
				t.Errorf("sent %q, want %q", line, tt.line)
			}
		})
	}
}

package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// TestStream_subscriber: a subscriber's stream has what it matches from its cursor
// on, and the cursor stays.
func TestStream_subscriber(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.publishLines(lines(1, 10)).want(201, nil)
	b.publish(`{"resourceName":"Member","resourceRecordKey":"m"}`).want(201, nil)
	b.call("POST", "/v1/subscribers", `{"id":"s","start":{"sequence":4},"filter":{"resourceNames":["Property"]},"endpoint":{"url":"http://127.0.0.1:1/"}}`).want(201, nil)
	o := b.open("/v1/subscribers/s/stream?format=ndjson")
	if i := o.must1(); i.After == nil || *i.After != 4 {
		t.Errorf("begins with %s", i.text)
	}
	b.publish(one("12")).want(201, nil)
	for _, want := range []int64{5, 6, 7, 8, 9, 10, 12} {
		if i := o.must1(); i.Sequence != want {
			t.Errorf("%s, want %d", i.text, want)
		}
	}
	var status struct{ Cursor int64 }
	b.call("GET", "/v1/subscribers/s/status", "").want(200, &status)
	if status.Cursor != 4 {
		t.Errorf("the cursor is at %d", status.Cursor)
	}
}

// TestStream_asRequests: an item is a request that a consumer takes for a push, and
// nothing secret is in it.
func TestStream_asRequests(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.publishLines(lines(1, 3)).want(201, nil)
	var made struct{ Signing struct{ Secret string } }
	b.call("POST", "/v1/subscribers", `{"id":"s","start":"beginning","label":"acme",
		"endpoint":{"url":"http://127.0.0.1:1/secret-path","headers":{"X-Key":"secret-header"}},"auth":{"type":"bearer","token":"secret-token"}}`).want(201, &made)
	verify, err := webhooks.NewWebhook(made.Signing.Secret)
	must(t, err)
	check := func(sequence int64, text string) {
		t.Helper()
		var r struct {
			Sequence     int64
			Method, Body string
			Headers      map[string]string
		}
		must(t, json.Unmarshal([]byte(text), &r))
		header := http.Header{}
		for name, value := range r.Headers {
			header.Set(name, value)
		}
		if err := verify.Verify([]byte(r.Body), header); err != nil {
			t.Errorf("%d: %v", sequence, err)
		}
		want := fmt.Sprintf(`{"@reso.context":"urn:reso:metadata:2.0:resource:entityevent","EntityEventSequence":%d,"ResourceName":"Property","ResourceRecordKey":"%d"}`, sequence, sequence)
		if r.Sequence != sequence || r.Method != "POST" || r.Body != want {
			t.Errorf("%s, want the body %s", text, want)
		}
		for name, want := range map[string]string{
			"Webhook-Id": fmt.Sprintf("s_%d", sequence), "Postroad-Sequence": fmt.Sprint(sequence), "Postroad-Attempt": "1",
			"Content-Type": "application/json", "Entityeventsource": "acme", "Postroad-Feed": "default;epoch=1", "Postroad-Subscriber": "s",
		} {
			if got := header.Get(name); got != want {
				t.Errorf("%d: %s is %q, want %q", sequence, name, got, want)
			}
		}
		previous := ""
		if sequence > 1 {
			previous = fmt.Sprint(sequence - 1)
		}
		if got := header.Get("Postroad-Previous-Sequence"); got != previous {
			t.Errorf("%d: previous %q, want %q", sequence, got, previous)
		}
		if header.Get("Authorization") != "" || strings.Contains(text, "secret") {
			t.Errorf("a secret is shown: %s", text)
		}
	}
	const path = "/v1/subscribers/s/stream?as=requests&after=0"
	o, conn := b.open(path+"&format=ndjson"), b.dial(path)
	for sequence := range int64(3) {
		check(sequence+1, o.must1().text)
		check(sequence+1, message(t, conn).text)
	}
}

package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// setAside holds a key of Property with these events.
func (b *bundle) setAside(id, key string, sequences ...int64) {
	b.t.Helper()
	b.exec(`INSERT INTO held_keys (subscriber, resource_name, resource_key, attempts, not_before, last_status, last_error)
		VALUES ($1, 'Property', $2, 5, clock_timestamp() + interval '1 hour', 422, 'HTTP 422 from the consumer')`, id, key)
	for _, sequence := range sequences {
		b.exec(`INSERT INTO held_events (subscriber, sequence, resource_name, resource_key) VALUES ($1, $2, 'Property', $3)`, id, sequence, key)
	}
}

type heldKey struct {
	ResourceName, ResourceRecordKey, LastError  string
	Since                                       time.Time
	Events, FirstSequence, Attempts, LastStatus int64
	NotBefore                                   *time.Time
}

func (b *bundle) heldKeys(id string) (list []heldKey) {
	b.t.Helper()
	for query := ""; ; {
		var part struct {
			HeldKeys      []heldKey
			NextPageToken string
		}
		b.call("GET", "/v1/subscribers/"+id+"/held-keys?limit=2"+query, "").want(200, &part)
		list = append(list, part.HeldKeys...)
		if part.NextPageToken == "" {
			return list
		}
		query = "&pageToken=" + part.NextPageToken
	}
}

func (b *bundle) heldEvents(id, key string) (sequences []int64) {
	b.t.Helper()
	for query := ""; ; {
		var part struct {
			Events        []struct{ Sequence int64 }
			NextPageToken string
		}
		b.call("GET", "/v1/subscribers/"+id+"/held-keys/events?limit=2&resourceName=Property&resourceRecordKey="+key+query, "").want(200, &part)
		for _, e := range part.Events {
			sequences = append(sequences, e.Sequence)
		}
		if part.NextPageToken == "" {
			return sequences
		}
		query = "&pageToken=" + part.NextPageToken
	}
}

func TestHeldKeys(t *testing.T) {
	t.Parallel()
	b := tenEvents(t)
	if none := b.heldKeys("acme"); len(none) != 0 {
		t.Errorf("%+v", none)
	}
	b.setAside("acme", "b", 4)
	b.setAside("acme", "a", 2, 3, 5, 8, 9)
	b.setAside("acme", "c", 6)
	keys := b.heldKeys("acme")
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.ResourceRecordKey
	}
	if !slices.Equal(names, []string{"a", "b", "c"}) {
		t.Fatalf("held: %v", names)
	}
	a := keys[0]
	if a.ResourceName != "Property" || a.Events != 5 || a.FirstSequence != 2 || a.Attempts != 5 || a.LastStatus != 422 ||
		a.LastError == "" || a.NotBefore == nil || a.NotBefore.Before(time.Now()) || time.Since(a.Since) > time.Minute {
		t.Errorf("%+v", a)
	}
	if events := b.heldEvents("acme", "a"); !slices.Equal(events, []int64{2, 3, 5, 8, 9}) {
		t.Errorf("events %v", events)
	}
	var s struct{ HeldKeys, DeadLetters int }
	b.call("GET", "/v1/subscribers/acme/status", "").want(200, &s)
	if s.HeldKeys != 3 || s.DeadLetters != 0 {
		t.Errorf("%+v", s)
	}
}

func TestHeldKeys_controls(t *testing.T) {
	t.Parallel()
	b := tenEvents(t)
	b.setAside("acme", "a", 2, 3, 5)
	b.setAside("acme", "b", 4, 6)
	b.call("POST", "/v1/subscribers/acme/held-keys/retry", record("a")).want(200, nil)
	if a := b.heldKeys("acme")[0]; a.NotBefore != nil {
		t.Errorf("it still waits: %+v", a)
	}
	b.call("POST", "/v1/subscribers/acme/held-keys/skip", `{"resourceName":"Property","resourceRecordKey":"a","sequence":2}`).want(200, nil)
	if events := b.heldEvents("acme", "a"); !slices.Equal(events, []int64{3, 5}) {
		t.Errorf("events %v", events)
	}
	for range 2 {
		b.call("POST", "/v1/subscribers/acme/held-keys/skip", record("a"), "Idempotency-Key", "K").want(200, nil)
	}
	if events := b.heldEvents("acme", "a"); !slices.Equal(events, []int64{5}) {
		t.Errorf("events %v", events)
	}
	b.call("POST", "/v1/subscribers/acme/held-keys/release", record("b")).want(200, nil)
	if keys := b.heldKeys("acme"); len(keys) != 1 || keys[0].ResourceRecordKey != "a" {
		t.Errorf("%+v", keys)
	}
	var got []string
	for _, d := range b.deadLetters("acme") {
		got = append(got, fmt.Sprintf("%d %s %s", d.Sequence, d.ResourceRecordKey, d.Reason))
	}
	if diff := cmp.Diff([]string{"2 a skipped", "3 a skipped", "4 b released", "6 b released"}, got); diff != "" {
		t.Error(diff)
	}
	// Skipping the last event releases the key.
	b.call("POST", "/v1/subscribers/acme/held-keys/skip", record("a")).want(200, nil)
	b.call("GET", "/v1/subscribers/acme/held-keys/events?resourceName=Property&resourceRecordKey=a", "").refused(404, "key-not-held", "")
}

func TestHeldKeys_badInput(t *testing.T) {
	t.Parallel()
	b := tenEvents(t)
	b.setAside("acme", "a", 2, 3)
	before := b.snapshot()
	for _, action := range []string{"retry", "skip", "release"} {
		path := "/v1/subscribers/acme/held-keys/" + action
		for body, places := range map[string]string{
			`{}`: "/resourceName /resourceRecordKey", `{"resourceName":"Property"}`: "/resourceRecordKey", `{"resourceName":"","resourceRecordKey":"a"}`: "/resourceName",
			`{"resourceName":"Property","resourceRecordKey":7}`:                                  "/resourceRecordKey",
			`{"resourceName":"Property","resourceRecordKey":"a","key":"a"}`:                      "/key",
			`{"resourceName":"Property","resourceRecordKey":"` + strings.Repeat("é", 256) + `"}`: "/resourceRecordKey",
			`{"resourceName":"Property","resourceRecordKey":"a","sequence":0}`:                   "/sequence",
		} {
			b.call("POST", path, body).refused(422, "invalid", places)
		}
		b.call("POST", path, "").refused(400, "malformed", "")
		b.call("POST", path, record("none")).refused(404, "key-not-held", "")
		b.call("POST", "/v1/subscribers/nobody/held-keys/"+action, record("a")).refused(404, "not-found", "?id")
	}
	b.call("POST", "/v1/subscribers/acme/held-keys/release", `{"resourceName":"Property","resourceRecordKey":"a","sequence":2}`).refused(422, "invalid", "/sequence")
	a := b.call("POST", "/v1/subscribers/acme/held-keys/skip", `{"resourceName":"Property","resourceRecordKey":"a","sequence":3}`)
	a.refused(409, "not-first", "/sequence")
	if !strings.Contains(string(a.body), `"sequence":2`) {
		t.Errorf("the first is not named: %s", a.body)
	}
	for path, place := range map[string]string{
		"/held-keys?after=x": "?after", "/held-keys?pageToken=MTp4": "?pageToken", "/held-keys?limit=0": "?limit",
		"/held-keys?pageToken=MTpbImFcdTAwMDAiLCJiIl0": "?pageToken", // ["a\u0000","b"]
		"/held-keys/events":                            "?resourceName", "/held-keys/events?resourceName=Property": "?resourceRecordKey",
		"/held-keys/events?resourceName=Property&resourceRecordKey=a&pageToken=MTp4": "?pageToken",
	} {
		b.call("GET", "/v1/subscribers/acme"+path, "").refused(400, "invalid-parameter", place)
	}
	b.call("GET", "/v1/subscribers/acme/held-keys/events?resourceName=Property&resourceRecordKey=none", "").refused(404, "key-not-held", "")
	b.call("GET", "/v1/subscribers/nobody/held-keys", "").refused(404, "not-found", "?id")
	if after := b.snapshot(); after != before {
		t.Errorf("something changed: %s", cmp.Diff(before, after))
	}
}

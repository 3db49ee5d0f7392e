package api_test

import (
	"strings"
	"testing"
)

// TestSystemFeed: it is read and followed like any feed, and is Postroad's own.
func TestSystemFeed(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.call("POST", "/v1/feeds", `{"name":"_system"}`).refused(409, "exists", "/name")
	b.call("POST", "/v1/feeds", `{"name":"_other"}`).refused(422, "invalid", "/name")
	b.call("DELETE", "/v1/feeds/_system", "").refused(409, "protected", "")
	for _, media := range []string{"application/json", "application/x-ndjson"} {
		a := b.call("POST", "/v1/feeds/_system/events", one("1"), "Content-Type", media)
		a.refused(405, "method-not-allowed", "")
		if a.header.Get("Allow") != "GET" {
			t.Errorf("Allow: %q", a.header.Get("Allow"))
		}
	}
	var page struct{ Head int64 }
	if b.call("GET", "/v1/feeds/_system/events", "").want(200, &page); page.Head != 0 {
		t.Errorf("head %d", page.Head)
	}
	var f struct {
		Retention struct{ Age, HardAge string }
	}
	got := b.call("GET", "/v1/feeds/_system", "").want(200, &f)
	if f.Retention.HardAge != "90d" {
		t.Errorf("retention: %+v", f.Retention)
	}
	b.call("PATCH", "/v1/feeds/_system", string(got.body)).want(200, nil)
	b.call("PATCH", "/v1/feeds/_system", `{"description":"d"}`).refused(422, "invalid", "/description")
	b.call("PATCH", "/v1/feeds/_system", `{"retention":{"hardAge":"1d"}}`).want(200, &f)
	if f.Retention.HardAge != "1d" {
		t.Errorf("retention: %+v", f.Retention)
	}
	b.create(sub("pager", `"feed":"_system"`)).want(201, nil)
	b.create(sub("other", `"feed":"_system"`, `"alert":{"lagSeconds":5}`)).refused(422, "invalid", "/alert")
}

// TestSubscriberAlert: it is stored, checked, changed and removed like any member.
func TestSubscriberAlert(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	for body, place := range map[string]string{`{"lagSeconds":0}`: "/alert/lagSeconds", `{}`: "/alert/lagSeconds", `{"lagSeconds":2592001}`: "/alert/lagSeconds"} {
		b.create(sub("bad", `"alert":`+body)).refused(422, "invalid", place)
	}
	shows := func(want string) {
		t.Helper()
		if body := string(b.call("GET", "/v1/subscribers/acme", "").want(200, nil).body); strings.Contains(body, `"alert"`) != (want != "") || !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	b.create(sub("acme", `"alert":{"lagSeconds":300}`)).want(201, nil)
	shows(`"alert":{"lagSeconds":300}`)
	b.call("PATCH", "/v1/subscribers/acme", `{"alert":{"lagSeconds":60}}`).want(200, nil)
	shows(`"alert":{"lagSeconds":60}`)
	b.call("PATCH", "/v1/subscribers/acme", `{"alert":null}`).want(200, nil)
	shows("")
}

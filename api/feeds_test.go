package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type feed struct {
	Name, Sequences, Description string
	Epoch                        int
	Head, FirstSequence, Version int64
}

func TestFeeds_lifeOfOne(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	var f feed
	a := b.call("POST", "/v1/feeds", `{"name":"mls","description":"d"}`).want(201, &f)
	want := feed{Name: "mls", Sequences: "assigned", Description: "d", Epoch: 1, FirstSequence: 1, Version: 1}
	if diff := cmp.Diff(want, f); diff != "" || a.header.Get("Location") != "/v1/feeds/mls" || a.header.Get("ETag") != `"1"` {
		t.Errorf("%s, %v", diff, a.header)
	}
	b.call("POST", "/v1/feeds", `{"name":"mls"}`).refused(409, "exists", "/name")
	b.call("PATCH", "/v1/feeds/mls", `{"description":"e"}`, "If-Match", `"1"`, "Content-Type", "application/merge-patch+json").want(200, &f)
	if f.Description != "e" || f.Version != 2 {
		t.Errorf("%+v", f)
	}
	b.call("PATCH", "/v1/feeds/mls", `{"description":"f"}`, "If-Match", `"1"`).refused(412, "version-mismatch", "")
	got := b.call("GET", "/v1/feeds/mls", "").want(200, nil)
	b.call("PATCH", "/v1/feeds/mls", string(got.body)).want(200, &f) // what was read may be sent back
	f = feed{}
	b.call("PATCH", "/v1/feeds/mls", `{"description":null}`).want(200, &f)
	if f.Description != "" || f.Version != 3 {
		t.Errorf("%+v", f)
	}
	b.call("POST", "/v1/feeds/mls/events", "["+one("1")+","+one("2")+"]").want(201, nil)
	b.create(sub("acme", `"feed":"mls"`)).want(201, nil)
	b.call("DELETE", "/v1/feeds/mls", "").refused(409, "in-use", "")
	b.call("DELETE", "/v1/subscribers/acme", "").want(204, nil)
	must(t, b.store.Purge(t.Context(), "acme"))
	b.call("DELETE", "/v1/feeds/mls", "").want(204, nil)
	b.call("GET", "/v1/feeds/mls", "").refused(404, "not-found", "?feed")
	b.call("DELETE", "/v1/feeds/mls", "").refused(404, "not-found", "?feed")
	f = feed{}
	b.call("POST", "/v1/feeds", `{"name":"mls"}`).want(201, &f)
	if f.Epoch != 2 || f.Head != 2 || f.FirstSequence != 3 {
		t.Errorf("%+v", f)
	}
}

func TestFeeds_badInput(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	before := b.snapshot()
	for body, places := range map[string]string{
		`{}`: "/name", `{"name":"A"}`: "/name", `{"name":"a.b"}`: "/name", `{"name":"` + strings.Repeat("a", 64) + `"}`: "/name",
		`{"name":"a","sequences":"mine"}`: "/sequences", `{"name":"a","colour":1}`: "/colour", `{"name":7}`: "/name",
		`{"name":"a","description":"` + strings.Repeat("é", 1001) + `"}`: "/description", `{"name":"a","description":"\u0000"}`: "/description",
	} {
		b.call("POST", "/v1/feeds", body).refused(422, "invalid", places)
	}
	b.call("DELETE", "/v1/feeds/default", "").refused(409, "protected", "")
	b.call("PATCH", "/v1/feeds/default", `{"sequences":"supplied"}`).refused(422, "invalid", "/sequences")
	b.call("PATCH", "/v1/feeds/default", `{"name":"x"}`).refused(422, "invalid", "/name")
	b.call("PATCH", "/v1/feeds/nowhere", `{}`).refused(404, "not-found", "?feed")
	if p := b.call("GET", "/v1/feeds/a.b", "").refused(404, "not-found", "?feed"); !strings.Contains(p.Detail, "a.b") {
		t.Error(p.Detail)
	}
	if after := b.snapshot(); after != before {
		t.Errorf("something changed: %s", cmp.Diff(before, after))
	}
}

func TestFeeds_pages(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	for i := range 4 {
		b.call("POST", "/v1/feeds", fmt.Sprintf(`{"name":"f%d"}`, i)).want(201, nil)
	}
	var names []string
	for token := ""; ; {
		var part struct {
			Feeds         []feed
			NextPageToken string
		}
		b.call("GET", "/v1/feeds?limit=2"+token, "").want(200, &part)
		for _, f := range part.Feeds {
			names = append(names, f.Name)
		}
		if part.NextPageToken == "" {
			break
		}
		token = "&pageToken=" + part.NextPageToken
	}
	if diff := cmp.Diff([]string{"_system", "default", "f0", "f1", "f2", "f3"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestFeeds_retention(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	type kept struct {
		Retention struct{ Age, HardAge string }
	}
	check := func(a answer, status int, age, hardAge string) {
		t.Helper()
		var got kept
		a.want(status, &got)
		if got.Retention.Age != age || got.Retention.HardAge != hardAge {
			t.Errorf("kept for %+v, want %q and %q", got, age, hardAge)
		}
	}
	check(b.call("POST", "/v1/feeds", `{"name":"mls","retention":{"age":"7d","hardAge":"720h"}}`), 201, "7d", "30d")
	got := b.call("GET", "/v1/feeds/mls", "").want(200, nil)
	check(b.call("PATCH", "/v1/feeds/mls", string(got.body)), 200, "7d", "30d")
	check(b.call("PATCH", "/v1/feeds/mls", `{"retention":{"age":"8d"}}`), 200, "8d", "30d")
	check(b.call("PATCH", "/v1/feeds/mls", `{"retention":{"hardAge":null}}`), 200, "8d", "")
	check(b.call("PATCH", "/v1/feeds/mls", `{"retention":{"age":null,"hardAge":"1m"}}`), 200, "", "1m")
	check(b.call("PATCH", "/v1/feeds/mls", `{"description":"d"}`), 200, "", "1m")
	check(b.call("PATCH", "/v1/feeds/mls", `{"retention":null}`), 200, "", "")
	check(b.call("PATCH", "/v1/feeds/mls", `{"retention":{"hardAge":"1h"}}`), 200, "", "1h")
	before := b.snapshot()
	for body, places := range map[string]string{
		`{"retention":{"age":"59s"}}`: "/retention/age", `{"retention":{"hardAge":"0s"}}`: "/retention/hardAge",
		`{"retention":{"age":"0s"}}`: "/retention/age", `{"retention":{"age":"soon"}}`: "/retention/age",
		`{"retention":{"age":"2h"}}`: "/retention/hardAge", `{"retention":{"age":"2h","hardAge":"1h"}}`: "/retention/hardAge",
		`{"retention":{"years":1}}`: "/retention/years", `{"retention":7}`: "/retention",
	} {
		b.call("PATCH", "/v1/feeds/mls", body).refused(422, "invalid", places)
	}
	b.call("POST", "/v1/feeds", `{"name":"other","retention":{"age":"1s"}}`).refused(422, "invalid", "/retention/age")
	if after := b.snapshot(); after != before {
		t.Errorf("something changed: %s", cmp.Diff(before, after))
	}
}

// TestErase: whatever characters the key has, its events and no others.
func TestErase(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	event := func(name, key string) string {
		text, err := json.Marshal(map[string]any{
			"resourceName": name, "resourceRecordKey": key, "data": "secret", "attributes": map[string]string{"a": "secret"},
		})
		must(t, err)
		return string(text)
	}
	keys := []string{"1", "a/b", "a+b c", "100%", "..", "é?#&", "%2F"}
	for _, key := range append(keys, "kept") {
		b.publish(event("Member", key)).want(201, nil)
	}
	b.publish(event("Office", "a/b")).want(201, nil)
	b.create(sub("acme", `"start":"beginning"`)).want(201, nil)
	b.exec(`INSERT INTO attempts (subscriber, started_at, first_sequence, last_sequence, event_count, attempt, class, status, duration_us, request_bytes, response)
		VALUES ('acme', now(), 1, 1, 1, 1, 'record', 422, 1, 1, 'secret'), ('acme', now(), 8, 8, 1, 1, 'record', 422, 1, 1, 'other')`)
	var erased struct{ Events, Excerpts int64 }
	for i, key := range keys {
		path := "/v1/feeds/default/records/Member/" + url.PathEscape(key) + "/data"
		if key == ".." {
			path = "/v1/feeds/default/records/Member/%2E%2E/data"
		}
		b.call("DELETE", path, "").want(200, &erased)
		if erased.Events != 1 || erased.Excerpts != int64(1-min(i, 1)) {
			t.Errorf("key %q: %+v", key, erased)
		}
		b.call("DELETE", path, "").want(200, &erased)
		if erased.Events != 0 || erased.Excerpts != 0 {
			t.Errorf("key %q again: %+v", key, erased)
		}
	}
	answer := b.call("GET", "/v1/feeds/default/events", "").want(200, nil)
	if n := strings.Count(string(answer.body), "secret"); n != 2*2 {
		t.Errorf("%d secrets are left, want those of two events: %s", n, answer.body)
	}
	if n := strings.Count(string(answer.body), `"erasedAt":"2`); n != len(keys) {
		t.Errorf("%d events say that they were erased", n)
	}
	b.call("DELETE", "/v1/feeds/nowhere/records/Member/1/data", "").refused(404, "not-found", "?feed")
	b.call("DELETE", "/v1/feeds/default/records/Member/%00/data", "").refused(404, "not-found", "?key")
	b.call("DELETE", "/v1/feeds/default/records/%ff/1/data", "").refused(404, "not-found", "?resource")
	b.call("DELETE", "/v1/feeds/default/records/Member/"+strings.Repeat("a", 256)+"/data", "").refused(404, "not-found", "?key")
	if !strings.Contains(b.logs.String(), "record erased") || strings.Contains(b.logs.String(), "a+b c") {
		t.Error("the log does not tell of the erasure, or tells the key")
	}
}

package api_test

import (
	"fmt"
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
	if diff := cmp.Diff([]string{"default", "f0", "f1", "f2", "f3"}, names); diff != "" {
		t.Error(diff)
	}
}

package api_test

import (
	"strings"
	"testing"

	"postroad/eventlog"
)

// TestFeeds_compaction: a feed is compacted where its document says so, and whoever
// reads it is told up to where.
func TestFeeds_compaction(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	type feed struct {
		Retention        struct{ Age, CompactAfter string }
		CompactedThrough int64
	}
	check := func(a answer, status int, age, compactAfter string, through int64) {
		t.Helper()
		var got feed
		a.want(status, &got)
		if got.Retention.Age != age || got.Retention.CompactAfter != compactAfter || got.CompactedThrough != through {
			t.Errorf("%+v, want %q, %q and %d", got, age, compactAfter, through)
		}
	}
	check(b.call("POST", "/v1/feeds", `{"name":"mls","retention":{"compactAfter":"24h"}}`), 201, "", "1d", 0)
	check(b.call("PATCH", "/v1/feeds/mls", `{"retention":{"age":"7d"}}`), 200, "7d", "1d", 0)
	check(b.call("PATCH", "/v1/feeds/mls", `{"retention":null}`), 200, "", "", 0)
	check(b.call("PATCH", "/v1/feeds/mls", `{"retention":{"compactAfter":"1m"}}`), 200, "", "1m", 0)
	for _, body := range []string{`{"retention":{"compactAfter":"59s"}}`, `{"retention":{"compactAfter":"0s"}}`} {
		b.call("PATCH", "/v1/feeds/mls", body).refused(422, "invalid", "/retention/compactAfter")
	}
	const a, c = `{"resourceName":"Property","resourceRecordKey":"a"}`, `{"resourceName":"Property","resourceRecordKey":"c"}`
	b.call("POST", "/v1/feeds/mls/events", `[`+strings.Join([]string{a, c, a, c}, ",")+`]`).want(201, nil)
	if p := string(b.call("GET", "/v1/feeds/mls/events", "").want(200, nil).body); strings.Contains(p, "compacted") {
		t.Errorf("nothing is compacted yet: %s", p)
	}
	b.exec(`UPDATE events SET recorded_at = recorded_at - interval '1 hour' WHERE sequence <= 3`)
	if removed, _, err := b.log.Compact(t.Context(), 100); err != nil || removed != 1 {
		t.Fatalf("removed %d, %v", removed, err)
	}
	var p struct {
		Events                          []struct{ Sequence int64 }
		FirstSequence, CompactedThrough int64
	}
	b.call("GET", "/v1/feeds/mls/events?after=0", "").want(200, &p)
	if len(p.Events) != 3 || p.Events[0].Sequence != 2 || p.FirstSequence != 1 || p.CompactedThrough != 3 {
		t.Errorf("%+v", p)
	}
	if p := b.call("GET", "/v1/feeds/mls/events/1", "").refused(404, "not-found", "?sequence"); !strings.Contains(p.Errors[0].Detail, "newest event of each record") {
		t.Errorf("%+v", p)
	}
	if p := b.call("GET", "/v1/feeds/mls/events/9", "").refused(404, "not-found", "?sequence"); strings.Contains(p.Errors[0].Detail, "newest") {
		t.Errorf("%+v", p)
	}
	// A document as it was read may be sent back.
	document := string(b.call("GET", "/v1/feeds/mls", "").want(200, nil).body)
	check(b.call("PATCH", "/v1/feeds/mls", document), 200, "", "1m", 3)
	if f, err := b.log.Feed(t.Context(), "mls"); err != nil || f.Version != 4 || f.Sequences != eventlog.SequencesAssigned {
		t.Errorf("%+v, %v", f, err)
	}
}

package odata_test

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"postroad/api/odata"
)

// seeds are filters of every form, legal and not.
func seeds() []string {
	r := rand.New(rand.NewPCG(5, 6))
	list := []string{
		"EntityEventSequence gt 100", "not(EntityEventSequence le -1)", "ResourceName in ('Property','Member')",
		"FeedTypes/any(f:f eq 'IDX')", "EntityEventTimestamp ge 2026-03-04T12:00:00.5+01:30", "ResourceRecordKey eq 'O''Neil'",
		"EntityEventSequence gt 1.25e2", "tolower(ResourceName) eq 'a'", "((true", "'", "$it", "@p", "-INF", "a'b'", "not not null",
	}
	for range 60 {
		list = append(list, randomFilter(r))
	}
	for range 20 {
		list = append(list, "("+randomFilter(r)+") in (null,true)")
	}
	return list
}

// plainColumns have no quote and no placeholder of their own.
var plainColumns = odata.Columns{
	odata.Sequence: "e.a", odata.ResourceName: "e.b", odata.ResourceRecordKey: "e.c", odata.ResourceRecordURL: "e.d",
	odata.EventType: "e.e", odata.FeedTypes: "e.f", odata.Timestamp: "e.g",
}

// FuzzFilter: whatever the text, reading ends with a filter or a refusal with a
// place. A filter's canonical form reads as itself, two evaluators agree on it, its
// bounds hold, and its SQL has an argument for each placeholder and nothing of its
// text.
func FuzzFilter(f *testing.F) {
	for _, text := range seeds() {
		f.Add(text)
	}
	list := events()[:12]
	m := newMasks(list)
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := odata.ParseFilter(entityEvent, text)
		if err != nil {
			checkRefusal(t, text, err)
			return
		}
		canonical := parsed.String()
		if len(canonical) > odata.FilterBytesMax {
			return // decimals and times may be longer than they were written
		}
		again := filter(t, canonical)
		if again.String() != canonical {
			t.Fatalf("%q prints as\n%q, and that as\n%q", text, canonical, again)
		}
		want := matched(list, parsed)
		if got := matched(list, again); !slices.Equal(got, want) {
			t.Fatalf("%q lets pass %v, printed and read again %v", text, want, got)
		}
		checkBounds(t, parsed, want)
		yes, _ := m.of(parsed.Root())
		for i := range list {
			if yes>>i&1 == 1 != slices.Contains(want, list[i].Sequence) {
				t.Fatalf("%q (%s): the evaluators disagree on event %d", text, parsed, list[i].Sequence)
			}
		}
		checkSQL(t, parsed)
	})
}

func checkRefusal(t *testing.T, text string, err error) {
	t.Helper()
	var refused *odata.Error
	if !errors.As(err, &refused) || refused.Detail == "" || refused.Position < 0 || refused.Position > utf8.RuneCountInString(text)+1 {
		t.Fatalf("%q: %#v", text, err)
	}
	if refused.Kind != odata.BadRequest && refused.Kind != odata.NotImplemented {
		t.Fatalf("%q: status %d", text, refused.Kind.Status())
	}
	if !utf8.ValidString(refused.Error()) {
		t.Fatalf("%q: %q", text, refused.Error())
	}
}

func checkSQL(t *testing.T, f *odata.Filter) {
	t.Helper()
	args := []any{"before"}
	sql, err := f.Where(plainColumns, &args)
	must(t, err)
	for n := range args {
		if n > 0 && !strings.Contains(sql, "$"+strconv.Itoa(n+1)+"::") {
			t.Fatalf("%s: no place for argument %d in %s", f, n+1, sql)
		}
	}
	if strings.Contains(sql, "$"+strconv.Itoa(len(args)+1)) || strings.Contains(sql, "'") {
		t.Fatalf("%s: %d arguments for %s", f, len(args), sql)
	}
	for _, c := range sql {
		if c < ' ' || c > '~' {
			t.Fatalf("%s: text in %s", f, sql)
		}
	}
}

// FuzzFilterSQL: PostgreSQL takes every filter's SQL and lets the same events pass
// as the evaluator.
func FuzzFilterSQL(f *testing.F) {
	for _, text := range seeds() {
		f.Add(text)
	}
	list := events()
	conn := logOf(f, list)
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := odata.ParseFilter(entityEvent, text)
		if err != nil {
			return
		}
		want, got := matched(list, parsed), selected(t, conn, parsed)
		if !slices.Equal(got, want) && len(got)+len(want) > 0 {
			t.Fatalf("%q: PostgreSQL lets pass %v, the evaluator %v", text, got, want)
		}
	})
}

// FuzzRequest: no path, query or header breaks the reading of a request, and what
// was read of a query leads to a next link that reads as the same query.
func FuzzRequest(f *testing.F) {
	for _, c := range urls {
		if path, query, _ := strings.Cut(c.url, "?"); len(c.url) < 1000 {
			f.Add(path, query, "application/json;odata.metadata=full;q=0.5, */*", "odata.maxpagesize=5")
		}
	}
	f.Fuzz(func(t *testing.T, path, query, accept, prefer string) {
		h := http.Header{"Accept": {accept}, "Prefer": {prefer}}
		r, err := odata.ParseRequest(entityEvent, path, query, h)
		if err != nil {
			if got := refusal(t, err); got.Detail == "" || !utf8.ValidString(got.Error()) {
				t.Fatalf("%q ? %q: %#v", path, query, got)
			}
			return
		}
		if r.PageSize < 0 {
			t.Fatalf("%q: page size %d", prefer, r.PageSize)
		}
		switch r.Resource.Kind {
		case odata.Record:
			again, err := odata.ParsePath(entityEvent, odata.RecordPath(r.Resource.Name, r.Resource.RecordKey))
			if err == nil && again != r.Resource {
				t.Fatalf("%q leads to %+v, its own path to %+v", path, r.Resource, again)
			}
		case odata.EntitySet:
			checkNextLink(t, query, r.Query)
		default:
		}
	})
}

func checkNextLink(t *testing.T, raw string, q *odata.Query) {
	t.Helper()
	last := make([]any, len(q.Order))
	for i, k := range q.Order {
		last[i] = odata.EventRow(&shownEvents[0], "")(k.Property)
	}
	page := odata.Page{Head: 9, Size: 3, Served: 3, Total: -1, Last: last}
	link := q.NextLink("", entityEvent, tokens.Make(q, "", page))
	_, next, _ := strings.Cut(link, "?")
	if len(next) > odata.QueryBytesMax {
		return
	}
	again, err := odata.ParseQuery(entityEvent, odata.EntitySet, next)
	if err != nil {
		t.Fatalf("%q leads to %q: %v", raw, next, err)
	}
	got, err := tokens.Page(again, "")
	if err != nil || got.Head != 9 || len(got.Last) != len(last) {
		t.Fatalf("%q leads to %q, page %+v, %v", raw, next, got, err)
	}
}

package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"postroad/internal/testkit"
)

func (e entityEvent) tuple() string {
	return fmt.Sprint(e.EntityEventSequence, " ", e.ResourceName, " ", e.ResourceRecordKey)
}

// walk reads pages from a URL below the root of the feed default on, by their
// links.
func (b *bundle) walk(next string, headers ...string) (tuples []string, pages int) {
	b.t.Helper()
	for next != "" {
		var p entityPage
		b.odata("GET", "default", next, headers...).want(200, &p)
		for _, e := range p.Value {
			tuples = append(tuples, e.tuple())
		}
		pages++
		if next = p.NextLink; next != "" {
			next = b.below("default", next)
		}
	}
	return tuples, pages
}

// stored are the tuples of all events, in order.
func (b *bundle) stored() []string {
	b.t.Helper()
	rows, _ := b.pool.Query(b.t.Context(), `SELECT e.sequence || ' ' || e.resource_name || ' ' || e.resource_key FROM events e ORDER BY e.sequence`)
	tuples, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(b.t, err)
	return tuples
}

// poll reads what is above the last event seen, as RESO's clients do, until it has
// that many.
func (b *bundle) poll(total, top int) []string {
	b.t.Helper()
	var tuples []string
	for last := int64(0); len(tuples) < total; {
		query := url.Values{"$filter": {fmt.Sprint("EntityEventSequence gt ", last)}, "$orderby": {"EntityEventSequence asc"}, "$top": {fmt.Sprint(top)}}
		var p entityPage
		b.odata("GET", "default", "EntityEvent?"+query.Encode()).want(200, &p)
		for _, e := range p.Value {
			if e.EntityEventSequence <= last {
				b.t.Fatalf("event %d came after %d", e.EntityEventSequence, last)
			}
			last = e.EntityEventSequence
			tuples = append(tuples, e.tuple())
		}
	}
	return tuples
}

// TestOData_replication: a real stream, written by sixteen publishers, is the same
// for whoever polls meanwhile, and for whoever reads it later by next links, with
// $top and $skip, or backwards.
func TestOData_replication(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	lines := testkit.Lines(t, "sdk-go")
	work := make(chan []byte, len(lines))
	for part := range slices.Chunk(lines, 5) {
		texts := make([]string, len(part))
		for i := range part {
			texts[i] = string(part[i])
		}
		work <- []byte("[" + strings.Join(texts, ",") + "]")
	}
	close(work)
	var publishers sync.WaitGroup
	for range 16 {
		publishers.Go(func() {
			for body := range work {
				if a, err := b.try("POST", "/v1/feeds/default/events", strings.NewReader(string(body))); err != nil || a.status != 201 {
					t.Errorf("publish: %d, %v", a.status, err)
				}
			}
		})
	}
	polled := b.poll(len(lines), 100)
	publishers.Wait()
	want := b.stored()
	if len(want) != len(lines) {
		t.Fatalf("%d events are stored of %d", len(want), len(lines))
	}
	same := func(way string, got []string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %d events, and not those of the log", way, len(got))
		}
	}
	same("gt while sixteen write", polled)
	linked, pages := b.walk("EntityEvent", "Prefer", "maxpagesize=500")
	same("next links", linked)
	if pages != 26 {
		t.Errorf("%d pages of 500", pages)
	}
	var skipped []string
	for len(skipped) < len(want) {
		page, _ := b.walk(fmt.Sprintf("EntityEvent?$top=1000&$skip=%d", len(skipped)))
		if len(page) == 0 {
			break
		}
		skipped = append(skipped, page...)
	}
	same("$top and $skip", skipped)
	backwards, _ := b.walk("EntityEvent?$orderby=EntityEventSequence%20desc", "Prefer", "maxpagesize=5000")
	slices.Reverse(backwards)
	same("backwards", backwards)
	byName, _ := b.walk("EntityEvent?$orderby=EventType,ResourceRecordKey%20desc", "Prefer", "maxpagesize=3000")
	if len(byName) != len(want) {
		t.Errorf("ordered by other properties: %d events", len(byName))
	}
	slices.SortFunc(byName, func(a, b string) int { return sequenceOf(a) - sequenceOf(b) })
	same("ordered by other properties", byName)
	checkClient(b, want)
}

func sequenceOf(tuple string) (n int) {
	_, _ = fmt.Sscan(tuple, &n)
	return n
}

// checkClient lets an OData client that others made read the log, page and filter.
func checkClient(b *bundle, want []string) {
	b.t.Helper()
	const script = "../examples/odata-client/check.mjs"
	node, err := exec.LookPath("node")
	installed, _ := filepath.Glob("../examples/odata-client/node_modules/@odata/client")
	if err != nil || len(installed) == 0 {
		b.t.Log("NOT RUN: node, or npm ci --prefix examples/odata-client, is missing here")
		return
	}
	out, err := exec.CommandContext(b.t.Context(), node, script, b.url+"/odata/default/", token).CombinedOutput()
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	var got struct {
		ByLinks, BySkip, ByPosition, OfRecord, Selected []string
		One, Refusal                                    string
		Count                                           int
	}
	must(b.t, json.Unmarshal(out, &got))
	for way, tuples := range map[string][]string{"links": got.ByLinks, "skip": got.BySkip, "position": got.ByPosition} {
		if !slices.Equal(tuples, want) {
			b.t.Errorf("@odata/client by %s: %d events, and not those of the log", way, len(tuples))
		}
	}
	_, record, _ := strings.Cut(want[0], " ")
	ofRecord := slices.DeleteFunc(slices.Clone(want), func(tuple string) bool { return !strings.HasSuffix(tuple, " "+record) })
	if !slices.Equal(got.OfRecord, ofRecord) || got.One != want[0] || got.Count != len(want) || !slices.Contains(got.Selected, "ResourceName") ||
		slices.Contains(got.Selected, "EventType") || !strings.Contains(got.Refusal, "Nothing") {
		b.t.Errorf("@odata/client: %d of the first record, one %s, count %d, selected %v, refusal %q", len(got.OfRecord), got.One, got.Count, got.Selected, got.Refusal)
	}
	b.t.Logf("@odata/client read %d events three ways", len(want))
}

package eventlog_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/testkit"
	"postroad/store"
)

// mixed makes n events of few records, names and types.
func mixed(n int, draw *rand.Rand) []event.Event {
	events := make([]event.Event, n)
	for i := range events {
		events[i] = event.Event{
			ResourceName:      []string{"Property", "Member", "Media"}[draw.IntN(3)],
			ResourceRecordKey: fmt.Sprint("k", draw.IntN(12)),
			EventType:         []string{"", "listing.new", "listing.price", "member"}[draw.IntN(4)],
			Data:              json.RawMessage(`"` + strings.Repeat("x", draw.IntN(300)) + `"`),
		}
	}
	return events
}

func drawSelection(draw *rand.Rand, head int64) eventlog.Selection {
	s := eventlog.Selection{After: draw.Int64N(head), Through: draw.Int64N(head + 1)}
	if s.Through < s.After && draw.IntN(10) > 0 {
		s.After, s.Through = s.Through, s.After
	}
	s.Filter.ResourceNames = [][]string{nil, nil, {"Property"}, {"Me*"}, {"Me*", "Member"}, {}}[draw.IntN(6)]
	s.Filter.EventTypes = [][]string{nil, nil, {"listing.*"}, {"*"}, {"member", "listing.new"}}[draw.IntN(5)]
	if draw.IntN(2) == 0 {
		s.Keys = []event.Key{}
		for range draw.IntN(8) {
			s.Keys = append(s.Keys, event.Key{
				ResourceName: []string{"Property", "Member", "Media", "None"}[draw.IntN(4)], ResourceRecordKey: fmt.Sprint("k", draw.IntN(14)),
			})
		}
	}
	return s
}

func wanted(s eventlog.Selection, e event.Event) bool {
	return e.Sequence > s.After && e.Sequence <= s.Through && s.Filter.Match(e.ResourceName, e.EventType) &&
		(s.Keys == nil || slices.Contains(s.Keys, e.Key()))
}

// TestSelect goes through selections of all kinds, in pages of all sizes, beside
// a list of what they have to give.
func TestSelect(t *testing.T) {
	t.Parallel()
	const seed = 5
	draw := rand.New(rand.NewPCG(seed, seed))
	b := setup(t, eventlog.Config{PageRows: 7, PageBytes: 2_000, ScanRows: 20})
	b.append(b.newFeed("other", ""), mixed(300, draw)...)
	feed := b.newFeed("f", "")
	b.append(feed, mixed(300, draw)...)
	all := b.readAll(feed)
	counter := eventlog.New(b.pool, eventlog.Config{ScanRows: 1}) // a hundred a query
	for range 300 {
		s := drawSelection(draw, int64(len(all)))
		want := []int64{}
		for _, e := range all {
			if wanted(s, e) {
				want = append(want, e.Sequence)
			}
		}
		got := b.selected(feed, s, 1+draw.IntN(9), 1+draw.IntN(3_000))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%+v: %s", s, diff)
		}
		total, first, last, err := counter.Count(t.Context(), feed.ID, s)
		must(t, err)
		counted := []int64{total, first, last}
		if len(want) > 0 && !slices.Equal(counted, []int64{int64(len(want)), want[0], want[len(want)-1]}) || len(want) == 0 && total != 0 {
			t.Fatalf("%+v: counted %v, want %d from %v", s, counted, len(want), want)
		}
	}
}

// selected goes through a selection to its end, and checks where it says it is.
func (b *bundle) selected(feed eventlog.Feed, s eventlog.Selection, maxEvents, maxBytes int) []int64 {
	b.t.Helper()
	selected := b.log.Select(feed.ID, s)
	defer selected.Close()
	got, position := []int64{}, s.After
	for range 2_000 {
		events, scanned, err := selected.Next(b.t.Context(), maxEvents, maxBytes)
		must(b.t, err)
		bytes := 0
		for _, e := range events {
			if e.Sequence <= position || e.Sequence > scanned {
				b.t.Fatalf("%+v: event %d is not in (%d, %d]", s, e.Sequence, position, scanned)
			}
			got = append(got, e.Sequence)
			bytes += e.Size()
		}
		if len(events) > maxEvents || len(events) > 1 && bytes > maxBytes {
			b.t.Fatalf("%d events of %d bytes, asked for %d of %d", len(events), bytes, maxEvents, maxBytes)
		}
		if scanned == s.Through {
			return got
		}
		if scanned < position {
			b.t.Fatalf("%+v: the position went from %d back to %d", s, position, scanned)
		}
		position = scanned
	}
	b.t.Fatalf("%+v: no end, at %d", s, position)
	return nil
}

func TestSelectBelowFloor(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{PageRows: 2})
	b.append(b.feed, records(9)...)
	keys := []event.Key{{ResourceName: "Property", ResourceRecordKey: "1"}, {ResourceName: "Property", ResourceRecordKey: "7"}}
	whole := b.log.Select(b.feed.ID, eventlog.Selection{Through: 9})
	defer whole.Close()
	if events, _, err := whole.Next(t.Context(), 1, 1); err != nil || len(events) != 1 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	b.exec(`UPDATE feeds SET floor_sequence = 5 WHERE id = $1`, b.feed.ID)
	var below *eventlog.BelowFloorError
	for name, s := range map[string]eventlog.Selection{
		"all": {After: 4, Through: 9}, "records": {After: 4, Through: 9, Keys: keys}, "no records": {After: 4, Through: 9, Keys: []event.Key{}},
	} {
		selected := b.log.Select(b.feed.ID, s)
		defer selected.Close()
		if _, scanned, err := selected.Next(t.Context(), 10, 1<<20); !errors.As(err, &below) || below.FirstSequence != 6 || scanned != 4 {
			t.Errorf("%s: at %d, %v", name, scanned, err)
		}
		if _, _, _, err := b.log.Count(t.Context(), b.feed.ID, s); !errors.As(err, &below) || below.FirstSequence != 6 {
			t.Errorf("%s: counted, %v", name, err)
		}
		s.After = 5
		if n, _, _, err := b.log.Count(t.Context(), b.feed.ID, s); err != nil || n != map[string]int64{"all": 4, "records": 1}[name] {
			t.Errorf("%s: counted %d, %v", name, n, err)
		}
	}
	_, err := b.log.LookAhead(t.Context(), b.feed.ID, 4, event.Filter{}, 10)
	if !errors.As(err, &below) {
		t.Errorf("looked ahead: %v", err)
	}
	events, err := b.log.Events(t.Context(), b.feed.ID, []int64{1, 5, 6, 9, 12})
	must(t, err)
	if len(events) != 2 || events[0].Sequence != 6 || events[1].Sequence != 9 {
		t.Errorf("%v", events)
	}
	for _, err := range []error{
		func() error { _, err := b.log.Events(t.Context(), 99, []int64{1}); return err }(),
		func() error { _, err := b.log.LookAhead(t.Context(), 99, 0, event.Filter{}, 10); return err }(),
		func() error {
			_, _, _, err := b.log.Count(t.Context(), 99, eventlog.Selection{Through: 9})
			return err
		}(),
	} {
		if !errors.Is(err, eventlog.ErrNotFound) {
			t.Errorf("a feed that is not there: %v", err)
		}
	}
}

// TestEvents: all that are asked for come, in however many pages.
func TestEvents(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{PageRows: 5, PageBytes: 1_000})
	b.append(b.feed, mixed(60, rand.New(rand.NewPCG(1, 1)))...)
	var want, got []int64
	for n := int64(1); n <= 60; n += 1 + n%3 {
		want = append(want, n)
	}
	events, err := b.log.Events(t.Context(), b.feed.ID, want)
	must(t, err)
	for _, e := range events {
		got = append(got, e.Sequence)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestSelectedErased: what was read before an erasure is not handed out after it.
func TestSelectedErased(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	carrying := func() event.Event {
		return event.Event{ResourceName: "Member", ResourceRecordKey: "k", Data: json.RawMessage(`"secret"`)}
	}
	b.append(b.feed, carrying(), carrying(), carrying(), carrying())
	key := event.Key{ResourceName: "Member", ResourceRecordKey: "k"}
	all := b.log.Select(b.feed.ID, eventlog.Selection{Through: 4})
	defer all.Close()
	record := b.log.Select(b.feed.ID, eventlog.Selection{Through: 4, Keys: []event.Key{key}})
	defer record.Close()
	testkit.Eventually(t, soon, func() bool { return b.log.Begun(b.feed.ID) }, "the feed is followed")
	numbered := b.log.Select(b.feed.ID, eventlog.Selection{Through: 4})
	defer numbered.Close()
	if events, err := numbered.Events(t.Context(), []int64{2}); err != nil || len(events) != 1 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	for i, s := range []*eventlog.Selected{all, record} {
		events, _, err := s.Next(t.Context(), 1, 1<<20)
		if err != nil || len(events) != 1 || events[0].Data == nil || s.Erased() {
			t.Fatalf("%d: %d events, %v, erased %t", i, len(events), err, s.Erased())
		}
	}
	_, err := b.log.Erase(t.Context(), b.feed.ID, key)
	must(t, err)
	testkit.Eventually(t, soon, numbered.Erased, "it hears of it")
	for i, s := range []*eventlog.Selected{all, record} {
		testkit.Eventually(t, soon, s.Erased, "it hears of it")
		events, scanned, err := s.Next(t.Context(), 10, 1<<20)
		must(t, err)
		if len(events) != 3 || scanned != 4 {
			t.Fatalf("%d: %d events through %d", i, len(events), scanned)
		}
		for _, e := range events {
			if e.Data != nil {
				t.Errorf("%d: still gets %s", i, e.Data)
			}
		}
	}
}

func TestLookAhead(t *testing.T) {
	t.Parallel()
	draw := rand.New(rand.NewPCG(3, 3))
	b := setup(t, eventlog.Config{ScanRows: 9})
	b.append(b.feed, mixed(120, draw)...)
	all := b.readAll(b.feed)
	for range 50 {
		s := drawSelection(draw, 120)
		most := 1 + draw.IntN(150)
		newest, err := b.log.LookAhead(t.Context(), b.feed.ID, s.After, s.Filter, most)
		must(t, err)
		s.Keys, s.Through = nil, min(s.After+int64(most), 120)
		if newest.Through != s.Through {
			t.Fatalf("it ends at %d, want %d", newest.Through, s.Through)
		}
		last, count := map[event.Key]int64{}, map[event.Key]int{}
		for _, e := range all {
			if wanted(s, e) {
				last[e.Key()] = e.Sequence
				count[e.Key()]++
			}
		}
		for _, e := range all {
			older, keep := newest.Keep(e.Sequence)
			wantOlder, wantKeep := 0, true
			if e.Sequence > s.After && e.Sequence <= s.Through {
				if wantKeep = last[e.Key()] == e.Sequence; wantKeep {
					wantOlder = count[e.Key()] - 1
				}
			}
			if older != wantOlder || keep != wantKeep {
				t.Fatalf("after %d, most %d, %+v: Keep(%d) = %d, %t, want %d, %t", s.After, most, s.Filter, e.Sequence, older, keep, wantOlder, wantKeep)
			}
		}
	}
}

// statements keeps the queries of a pool.
type statements struct{ made []pgx.TraceQueryStartData }

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if len(data.Args) > 0 {
		s.made = append(s.made, data)
	}
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// rowsRead is how many rows of tables and indexes a statement looks at.
func (b *bundle) rowsRead(sql string, args ...any) int {
	b.t.Helper()
	var plans []struct{ Plan planNode }
	must(b.t, b.pool.QueryRow(b.t.Context(), `EXPLAIN (ANALYZE, FORMAT JSON) `+sql, args...).Scan(&plans))
	return plans[0].Plan.read()
}

type planNode struct {
	Type    string     `json:"Node Type"`
	Rows    float64    `json:"Actual Rows"`
	Removed float64    `json:"Rows Removed by Filter"`
	Loops   float64    `json:"Actual Loops"`
	Plans   []planNode `json:"Plans"`
}

func (n planNode) read() int {
	read := 0
	if strings.HasSuffix(n.Type, " Scan") && n.Type != "CTE Scan" && n.Type != "Subquery Scan" && n.Type != "Function Scan" {
		read = int((n.Rows + n.Removed) * n.Loops)
	}
	for _, child := range n.Plans {
		read += child.read()
	}
	return read
}

// TestSelectReadsLittle: a few records of a large log cost what they have, and a
// stretch of it what is in it, whatever statistics say.
func TestSelectReadsLittle(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	b.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key, event_type)
		SELECT $1, n, clock_timestamp(), 'Property', 'k' || n % 2000, 'listing.new' FROM generate_series(1, 40000) n`, b.feed.ID)
	config, err := store.PoolConfig(b.url)
	must(t, err)
	var seen statements
	config.ConnConfig.Tracer, config.MaxConns = &seen, 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	defer pool.Close()
	log := eventlog.New(pool, eventlog.Config{})
	keys := []event.Key{}
	for i := range 10 {
		keys = append(keys, event.Key{ResourceName: "Property", ResourceRecordKey: fmt.Sprint("k", i)})
	}
	for _, statistics := range []string{"none", "fresh"} {
		if statistics == "fresh" {
			b.exec(`ANALYZE events`)
		}
		for name, test := range map[string]struct {
			selection eventlog.Selection
			events    int
		}{
			"records":          {eventlog.Selection{Through: 40000, Keys: keys}, 200},
			"records and type": {eventlog.Selection{Through: 40000, Keys: keys, Filter: event.Filter{EventTypes: []string{"listing.*"}}}, 200},
			"a stretch":        {eventlog.Selection{After: 30000, Through: 30050}, 50},
			"filtered":         {eventlog.Selection{After: 30000, Through: 30050, Filter: event.Filter{EventTypes: []string{"listing.*"}}}, 50},
		} {
			seen.made = nil
			total, _, _, err := log.Count(t.Context(), b.feed.ID, test.selection)
			must(t, err)
			selected := log.Select(b.feed.ID, test.selection)
			events, _, err := selected.Next(t.Context(), 1_000, 1<<20)
			must(t, err)
			selected.Close()
			if int(total) != test.events || len(events) != test.events {
				t.Fatalf("%s: counted %d, got %d events", name, total, len(events))
			}
			for _, made := range seen.made {
				most := 4 * test.events // by nodes of the plan that hand on what another read, too
				if n := b.rowsRead(made.SQL, made.Args...); n > most || n < test.events {
					t.Errorf("%s, statistics %s: %d rows were read, want %d at most:\n%s", name, statistics, n, most, made.SQL)
				}
			}
			if len(seen.made) < 2 {
				t.Fatalf("%s: %d statements were seen", name, len(seen.made))
			}
		}
	}
}

package odata_test

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/api/odata"
	"postroad/event"
	"postroad/internal/testkit"
	"postroad/store"
)

// columns are the properties as they lie in the log.
var columns = odata.Columns{
	odata.Sequence:          "e.sequence",
	odata.ResourceName:      "e.resource_name",
	odata.ResourceRecordKey: "e.resource_key",
	odata.ResourceRecordURL: "e.resource_url",
	odata.EventType:         "e.event_type",
	odata.FeedTypes:         "(ARRAY(SELECT jsonb_array_elements_text(e.extras::jsonb -> 'feedTypes')))",
	odata.Timestamp:         "e.recorded_at",
}

var (
	// texts differ in what collations, patterns and quoting make of them.
	texts = []string{"Property", "property", "Prop", "Member", "O'Neil", "%", "_", `a\b`, "Ünï", "房", "a b", "Z", "é", ""}
	types = []string{"IDX", "VOW", "BBO", "idx"}
	noon  = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
)

// events are those that filters are tried on.
func events() []event.Event {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(list []string) string { return list[r.IntN(len(list))] }
	sequences := []int64{1, 2, 3, 4, 5, 9007199254740993, math.MaxInt64 - 1, math.MaxInt64}
	for i := range int64(60) {
		sequences = append(sequences, 10+3*i)
	}
	var list []event.Event
	for _, n := range sequences {
		e := event.Event{
			Sequence: n, ResourceName: pick(texts[:13]), ResourceRecordKey: pick(texts[:13]),
			RecordedAt: noon.Add(time.Duration(r.IntN(4)) * time.Microsecond),
		}
		if r.IntN(2) == 0 {
			e.ResourceRecordURL = pick(texts[:13])
		}
		if r.IntN(2) == 0 {
			e.EventType = pick(texts[:13])
		}
		for _, f := range types {
			if r.IntN(3) == 0 {
				e.FeedTypes = append(e.FeedTypes, f)
			}
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b event.Event) int { return int(min(1, max(-1, a.Sequence-b.Sequence))) })
	return list
}

// logOf is a connection to a database whose log holds the events in feed 1.
func logOf(t testing.TB, list []event.Event) *pgx.Conn {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, testkit.Database(t, store.Migrate))
	must(t, err)
	t.Cleanup(func() { conn.Close(ctx) })
	var rows [][]any
	for i := range list {
		e := &list[i]
		extras, err := json.Marshal(map[string]any{"feedTypes": e.FeedTypes})
		must(t, err)
		if e.FeedTypes == nil {
			extras = []byte(`{}`)
		}
		orNull := func(text string) any {
			if text == "" {
				return nil
			}
			return text
		}
		rows = append(rows, []any{
			int64(1), e.Sequence, e.RecordedAt, e.ResourceName, e.ResourceRecordKey,
			orNull(e.ResourceRecordURL), orNull(e.EventType), string(extras),
		})
	}
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"events"}, []string{
		"feed_id", "sequence", "recorded_at", "resource_name", "resource_key", "resource_url", "event_type", "extras",
	}, pgx.CopyFromRows(rows))
	must(t, err)
	return conn
}

// selected are the sequences that the filter's SQL lets pass.
func selected(t testing.TB, conn *pgx.Conn, f *odata.Filter) []int64 {
	t.Helper()
	args := []any{int64(1)}
	where, err := f.Where(columns, &args)
	must(t, err)
	rows, _ := conn.Query(context.Background(), "SELECT e.sequence FROM events e WHERE e.feed_id = $1 AND "+where+" ORDER BY 1", args...)
	sequences, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		t.Fatalf("%s\n%s\n%v\n%v", f, where, args, err)
	}
	return sequences
}

// matched are the sequences of the events that the filter lets pass in memory.
func matched(list []event.Event, f *odata.Filter) []int64 {
	sequences := []int64{}
	for i := range list {
		if f.Matches(odata.EventRow(&list[i], "")) {
			sequences = append(sequences, list[i].Sequence)
		}
	}
	return sequences
}

// TestWhere: PostgreSQL and the evaluator agree on filters of every form.
func TestWhere(t *testing.T) {
	t.Parallel()
	list := events()
	conn := logOf(t, list)
	r := rand.New(rand.NewPCG(3, 4))
	const filters = 6000
	hits := 0
	for i := range filters {
		text := randomFilter(r)
		f := filter(t, text)
		want, got := matched(list, f), selected(t, conn, f)
		if !slices.Equal(want, got) {
			t.Fatalf("filter %d: %s\n%s\nPostgreSQL %v\n evaluator %v", i, text, f, got, want)
		}
		checkBounds(t, f, want)
		if len(want) > 0 && len(want) < len(list) {
			hits++
		}
	}
	if hits < filters/5 {
		t.Errorf("only %d of %d filters pick some of the events", hits, filters)
	}
}

// checkBounds: what passes lies within the filter's bounds.
func checkBounds(t testing.TB, f *odata.Filter, passed []int64) {
	t.Helper()
	b := f.Bounds(odata.Sequence)
	for _, n := range passed {
		if n < b.First || n > b.Last {
			t.Fatalf("%s lets %d pass, outside its bounds %v", f, n, b)
		}
	}
}

// TestWhereNulls: what null means, by OData-URL 5.1.1.1, in SQL and in memory.
func TestWhereNulls(t *testing.T) {
	t.Parallel()
	list := []event.Event{
		{Sequence: 1, ResourceName: "A", ResourceRecordKey: "1", RecordedAt: noon},
		{Sequence: 2, ResourceName: "A", ResourceRecordKey: "1", RecordedAt: noon, EventType: "x", ResourceRecordURL: "y"},
	}
	conn := logOf(t, list)
	for text, want := range map[string][]int64{
		"EventType eq null":                                {1},
		"EventType ne null":                                {2},
		"null eq EventType":                                {1},
		"EventType ne 'x'":                                 {1},
		"not (EventType eq 'x')":                           {1},
		"EventType gt 'a'":                                 {2},
		"not (EventType gt 'a')":                           {1},
		"EventType ge null":                                {1},
		"EventType le null":                                {1},
		"EventType gt null":                                {},
		"not (EventType lt null)":                          {1, 2},
		"EventType eq ResourceRecordUrl":                   {1},
		"EventType ne ResourceRecordUrl":                   {2},
		"EventType le ResourceRecordUrl":                   {1, 2},
		"EventType lt ResourceRecordUrl":                   {2},
		"not (EventType lt ResourceRecordUrl)":             {1},
		"EventType in ('x',null)":                          {1, 2},
		"EventType in (null)":                              {1},
		"not (EventType in ('x'))":                         {1},
		"EventType in ()":                                  {},
		"ResourceName in (null)":                           {},
		"contains(EventType,'x')":                          {2},
		"not contains(EventType,'x')":                      {},
		"contains(EventType,'x') eq null":                  {1},
		"contains(EventType,'x') ne true":                  {1},
		"contains(EventType,'x') eq false":                 {},
		"contains(EventType,'x') or true":                  {1, 2},
		"not (contains(EventType,'z') and false)":          {1, 2},
		"not (contains(EventType,'z') and true)":           {2},
		"null":                                             {},
		"not null":                                         {},
		"null eq null":                                     {1, 2},
		"null ge null":                                     {1, 2},
		"null gt null":                                     {},
		"ResourceName eq null":                             {},
		"ResourceName ne null":                             {1, 2},
		"contains(ResourceName,null) eq null":              {1, 2},
		"FeedTypes/all(f:contains(f,null))":                {1, 2},
		"FeedTypes/any(f:f ne null)":                       {},
		"EventType in FeedTypes":                           {},
		"not (EventType in FeedTypes)":                     {1, 2},
		"null in FeedTypes":                                {},
		"contains(EventType,'x') in (null,false)":          {1},
		"EventType lt 'z' or EventType ge 'z'":             {2},
		"not (EventType eq 'x') in ()":                     {1, 2},
		"EventType in ('x') eq false":                      {1},
		"contains(EventType,'x') ge contains(null,'x')":    {1},
		"(EventType eq 'x') gt (ResourceRecordUrl eq 'z')": {2},
	} {
		f := filter(t, text)
		if got := matched(list, f); !slices.Equal(got, want) {
			t.Errorf("%s: in memory %v, want %v", text, got, want)
		}
		if got := selected(t, conn, f); !slices.Equal(got, want) && len(got)+len(want) > 0 {
			t.Errorf("%s: in SQL %v, want %v", text, got, want)
		}
	}
}

// TestWhereArguments: no text of a filter gets into the SQL, and an index can
// serve the plain forms.
func TestWhereArguments(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"EntityEventSequence gt 7":         "(e.sequence > $1::bigint)",
		"7 lt EntityEventSequence":         "(e.sequence > $1::bigint)",
		"EntityEventSequence gt 7.5":       "(e.sequence > $1::bigint)",
		"EntityEventSequence lt 7.5":       "(e.sequence <= $1::bigint)",
		"EntityEventSequence lt 1e30":      "TRUE",
		"EntityEventSequence eq 7.5":       "FALSE",
		"ResourceName eq 'a''b'":           "(e.resource_name = $1::text)",
		"ResourceName gt 'a'":              `(e.resource_name COLLATE "C" > $1::text)`,
		"ResourceName in ('a','b')":        "(e.resource_name = ANY ($1::text[]))",
		"EventType eq 'a'":                 "(e.event_type = $1::text AND e.event_type IS NOT NULL)",
		"startswith(ResourceName,'50%')":   "(e.resource_name ^@ $1::text)",
		"endswith(ResourceName,'é''')":     "(right(e.resource_name, 2) = $1::text)",
		"contains(ResourceName,'_')":       "(strpos(e.resource_name, $1::text) > 0)",
		"ResourceName eq 'a' and not true": "((e.resource_name = $1::text) AND (NOT TRUE))",
	} {
		var args []any
		got, err := filter(t, text).Where(columns, &args)
		must(t, err)
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", text, got, want)
		}
	}
	if _, err := filter(t, "ResourceName eq 'a'").Where(odata.Columns{}, new([]any)); err == nil {
		t.Error("a property without a column is no error")
	}
}

// TestBounds: what a filter says of the sequence.
func TestBounds(t *testing.T) {
	t.Parallel()
	const low, high = math.MinInt64, math.MaxInt64
	for text, want := range map[string]odata.Bounds{
		"EntityEventSequence gt 100":                                                          {First: 101, Last: high},
		"EntityEventSequence ge '100'":                                                        {First: 100, Last: high},
		"100 lt EntityEventSequence and ResourceName eq 'A'":                                  {First: 101, Last: high},
		"EntityEventSequence gt 100 and EntityEventSequence le 200":                           {First: 101, Last: 200},
		"EntityEventSequence eq 5 or EntityEventSequence eq 9":                                {First: 5, Last: 9},
		"EntityEventSequence eq 5 or ResourceName eq 'A'":                                     {First: low, Last: high},
		"EntityEventSequence in (9,3,5)":                                                      {First: 3, Last: 9},
		"not(EntityEventSequence le -1)":                                                      {First: 0, Last: high},
		"not (EntityEventSequence le 3 or contains(ResourceName,'A'))":                        {First: 4, Last: high},
		"EntityEventSequence gt 3.5":                                                          {First: 4, Last: high},
		"EntityEventSequence lt 3.5":                                                          {First: low, Last: 3},
		"(EntityEventSequence gt 3) eq true":                                                  {First: 4, Last: high},
		"false eq (EntityEventSequence gt 3)":                                                 {First: low, Last: 3},
		"EntityEventSequence ne 3":                                                            {First: low, Last: high},
		"not (EntityEventSequence ne 3)":                                                      {First: 3, Last: 3},
		"FeedTypes/any(f:EntityEventSequence gt 3)":                                           {First: low, Last: high},
		"EntityEventSequence lt 1e30":                                                         {First: low, Last: high},
		"(EntityEventSequence gt 1 and EntityEventSequence lt 3) or EntityEventSequence eq 9": {First: 2, Last: 9},
	} {
		if got := filter(t, text).Bounds(odata.Sequence); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	for _, text := range []string{
		"EntityEventSequence gt 9223372036854775807", "EntityEventSequence gt 1e30", "false", "null", "not true", "not null",
		"EntityEventSequence gt 5 and EntityEventSequence lt 5", "EntityEventSequence eq 1.5", "EntityEventSequence in ()",
	} {
		if b := filter(t, text).Bounds(odata.Sequence); !b.Empty() {
			t.Errorf("%s: %v, want none", text, b)
		}
	}
}

// randomFilter makes a filter that is legal, with values that events have.
func randomFilter(r *rand.Rand) string { return (&generator{r: r}).condition(3) }

type generator struct {
	r        *rand.Rand
	variable string
}

func (g *generator) pick(list ...string) string { return list[g.r.IntN(len(list))] }

func (g *generator) condition(depth int) string {
	n := g.r.IntN(17)
	if depth == 0 {
		n = g.r.IntN(10)
	}
	switch {
	case n < 3:
		return g.number() + " " + g.comparison() + " " + g.number()
	case n < 5:
		return g.text() + " " + g.comparison() + " " + g.text()
	case n < 6:
		return g.time() + " " + g.comparison() + " " + g.time()
	case n < 8:
		return g.pick("contains", "startswith", "endswith") + "(" + g.text() + "," + g.text() + ")"
	case n < 9:
		return g.membership()
	case n < 10:
		if g.variable != "" {
			return g.pick("true", "false", "null")
		}
		return g.pick("true", "false", "null", "FeedTypes/any()", g.text()+" in FeedTypes")
	case n < 12:
		return "(" + g.condition(depth-1) + ") and (" + g.condition(depth-1) + ")"
	case n < 14:
		return "(" + g.condition(depth-1) + ") or (" + g.condition(depth-1) + ")"
	case n < 15:
		return "not (" + g.condition(depth-1) + ")"
	case n < 16:
		return "(" + g.condition(depth-1) + ") " + g.comparison() + " (" + g.condition(depth-1) + ")"
	}
	if g.variable != "" {
		return g.condition(depth - 1)
	}
	g.variable = "x"
	predicate := g.condition(depth - 1)
	g.variable = ""
	return "FeedTypes/" + g.pick("any", "all") + "(x:" + predicate + ")"
}

func (g *generator) comparison() string { return g.pick("eq", "ne", "gt", "ge", "lt", "le") }

func (g *generator) number() string {
	if g.r.IntN(2) == 0 {
		return odata.Sequence
	}
	return g.pick("3", "25", "100", "100.5", "-1", "9007199254740993", "9007199254740992.5", "9223372036854775807", "1e30", "-1e30", "null", odata.Sequence)
}

func (g *generator) literal(list []string) string {
	return "'" + strings.ReplaceAll(g.pick(list...), "'", "''") + "'"
}

func (g *generator) text() string {
	switch g.r.IntN(12) {
	case 0:
		return "null"
	case 1, 2, 3, 4:
		if g.variable != "" {
			return g.pick(g.variable, g.literal(types))
		}
		return g.literal(texts)
	case 5:
		return g.literal([]string{"P", "op", "ty", "ï", "'", "b", "I", "X"})
	}
	return g.pick(odata.ResourceName, odata.ResourceRecordKey, odata.ResourceRecordURL, odata.EventType)
}

func (g *generator) time() string {
	return g.pick(odata.Timestamp, odata.Timestamp, "2026-03-04T12:00:00Z", "2026-03-04T13:00:00.000001+01:00",
		"2026-03-04T12:00:00.0000015Z", "2026-03-04T12:00:00.000002000001Z", "null")
}

func (g *generator) membership() string {
	left, member := odata.Sequence, g.number
	switch g.r.IntN(4) {
	case 3:
		left, member = "("+g.condition(0)+")", func() string { return g.pick("true", "false", "null") }
	case 0:
		left, member = g.text(), func() string { return g.pick(g.literal(texts), "null") }
	case 1:
		left, member = odata.Timestamp, g.time
	}
	var list []string
	for range g.r.IntN(4) {
		if m := member(); !strings.HasPrefix(m, "EntityEvent") {
			list = append(list, m)
		}
	}
	return left + " in (" + strings.Join(list, ",") + ")"
}

// TestWhereGreatest: what the bounds of a filter allow, PostgreSQL takes.
func TestWhereGreatest(t *testing.T) {
	t.Parallel()
	list := events()
	conn := logOf(t, list)
	// Some four hundred operators, each within the next.
	nested := func(operator string) string {
		text := "(EntityEventSequence gt 3)"
		for i := range odata.FilterDepthMax - 2 {
			text = "(" + text + strings.Repeat(operator, min(9, i+1)) + ")"
		}
		return text
	}
	values := "'x'" + strings.Repeat(",'x'", odata.FilterListMax-1)
	for name, text := range map[string]string{
		"eq":     nested(" eq true"),
		"ne":     nested(" ne false"),
		"gt":     nested(" gt false"),
		"ge":     nested(" ge true"),
		"le":     nested(" le true"),
		"in":     nested(" in (true,true,true)"),
		"nots":   strings.Repeat("not ", odata.FilterDepthMax-2) + "(EntityEventSequence gt 3)",
		"terms":  "EntityEventSequence gt 3" + strings.Repeat(" and contains(ResourceName,'')", 249),
		"lists":  "EntityEventSequence gt 3 and not ResourceName in (" + values + ") and not EventType in (" + values + ")",
		"lambda": "EntityEventSequence gt 3" + strings.Repeat(" and FeedTypes/all(f:f ne 'x')", 199),
	} {
		f := filter(t, text)
		if got, want := selected(t, conn, f), matched(list, f); !slices.Equal(got, want) {
			t.Errorf("%s: PostgreSQL %v, evaluator %v", name, got, want)
		}
	}
}

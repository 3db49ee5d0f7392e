package odata_test

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/api/odata"
	"postroad/event"
)

var tokens = odata.NewTokens([]byte("a key of the service"))

func query(t testing.TB, raw string) *odata.Query {
	t.Helper()
	q, err := odata.ParseQuery(entityEvent, odata.EntitySet, raw)
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return q
}

// TestPages: following the next links shows each event once, in order, whatever
// the order and the page size, and no more than $top.
func TestPages(t *testing.T) {
	t.Parallel()
	list := events()
	conn := logOf(t, list)
	for _, order := range []string{
		"EntityEventSequence", "EntityEventSequence desc", "ResourceName", "ResourceName desc,ResourceRecordKey",
		"EventType", "EventType desc", "EventType,ResourceRecordUrl desc", "ResourceRecordUrl desc,EventType desc,EntityEventSequence desc",
		"EntityEventTimestamp desc,ResourceName", "EntityEventTimestamp,EntityEventSequence desc",
	} {
		for _, rest := range []string{
			"", "&$top=17", "&$top=1", "&$top=0", "&$skip=13", "&$skip=1000", "&$top=20&$skip=50",
			"&$filter=ResourceName%20ne%20'Property'&$top=100000",
		} {
			raw := "$orderby=" + url.QueryEscape(order) + rest
			want := sorted(list, query(t, raw))
			for _, size := range []int64{1, 7, 1000} {
				got := walk(t, conn, raw, size)
				if !slices.Equal(got, want) {
					t.Errorf("%s in pages of %d:\n got %v\nwant %v", raw, size, got, want)
				}
			}
		}
	}
}

// sorted is what a query shows of events, by an order made in memory.
func sorted(list []event.Event, q *odata.Query) []int64 {
	list = slices.DeleteFunc(slices.Clone(list), func(e event.Event) bool {
		return q.Filter != nil && !q.Filter.Matches(odata.EventRow(&e, ""))
	})
	slices.SortFunc(list, func(a, b event.Event) int {
		for _, k := range q.Order {
			order := compare(odata.EventRow(&a, "")(k.Property), odata.EventRow(&b, "")(k.Property))
			if k.Descending {
				order = -order
			}
			if order != 0 {
				return order
			}
		}
		return 0
	})
	list = list[min(q.Skip, int64(len(list))):]
	list = list[:min(q.Top, int64(len(list)))]
	sequences := []int64{}
	for _, e := range list {
		sequences = append(sequences, e.Sequence)
	}
	return sequences
}

// compare orders values of one type, null first.
func compare(a, b any) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	switch a := a.(type) {
	case int64:
		return cmp.Compare(a, b.(int64))
	case string:
		return cmp.Compare(a, b.(string))
	default:
		return a.(time.Time).Compare(b.(time.Time))
	}
}

// walk follows the next links of a query as a client would, from the query alone.
func walk(t testing.TB, conn *pgx.Conn, raw string, size int64) []int64 {
	t.Helper()
	shown := []int64{}
	for range 1000 {
		q := query(t, raw)
		page := odata.FirstPage(math.MaxInt64, size, 100, 1000)
		if q.Token != "" {
			var err error
			page, err = tokens.Page(q, "default/1")
			must(t, err)
		}
		rows := read(t, conn, q, page)
		more := int64(len(rows)) > page.Limit(q)
		rows = rows[:min(int64(len(rows)), page.Limit(q))]
		if int64(len(rows)) > size {
			t.Fatalf("%s shows %d events on a page", raw, len(rows))
		}
		for _, e := range rows {
			shown = append(shown, e.Sequence)
		}
		if !more || len(rows) == 0 {
			return shown
		}
		next, ok := page.Next(q, len(rows), q.Order.Values(odata.EventRow(rows[len(rows)-1], "")))
		if !ok {
			return shown
		}
		link := q.NextLink("http://host/odata/default/", entityEvent, tokens.Make(q, "default/1", next))
		u, err := url.Parse(link)
		must(t, err)
		if u.Path != "/odata/default/EntityEvent" {
			t.Fatal(link)
		}
		raw = u.RawQuery
	}
	t.Fatalf("%s does not end", raw)
	return nil
}

// read is how a page is read from the log.
func read(t testing.TB, conn *pgx.Conn, q *odata.Query, page odata.Page) []*event.Event {
	t.Helper()
	args := []any{int64(1), page.Head}
	sql := `SELECT e.sequence, e.resource_name, e.resource_key, coalesce(e.resource_url, ''), coalesce(e.event_type, ''), e.recorded_at
		FROM events e WHERE e.feed_id = $1 AND e.sequence <= $2`
	if q.Filter != nil {
		where, err := q.Filter.Where(columns, &args)
		must(t, err)
		sql += " AND " + where
	}
	if page.Last != nil {
		after, err := q.Order.After(columns, page.Last, &args)
		must(t, err)
		sql += " AND " + after
	}
	order, err := q.Order.SQL(columns)
	must(t, err)
	sql += fmt.Sprintf(" ORDER BY %s LIMIT %d", order, page.Limit(q)+1)
	if page.Last == nil {
		sql += fmt.Sprintf(" OFFSET %d", q.Skip)
	}
	rows, _ := conn.Query(context.Background(), sql, args...)
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*event.Event, error) {
		e := &event.Event{}
		return e, row.Scan(&e.Sequence, &e.ResourceName, &e.ResourceRecordKey, &e.ResourceRecordURL, &e.EventType, &e.RecordedAt)
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return list
}

// TestTokens: a token brings its page back, for the query it was made for only.
func TestTokens(t *testing.T) {
	t.Parallel()
	const raw = "$filter=EntityEventSequence+gt+5&$orderby=EventType,ResourceName,EntityEventTimestamp&$top=50&$count=true"
	page := odata.Page{Head: 77, Size: 10, Served: 20, Total: 31, Last: []any{nil, "O'Neil", noon.Add(time.Microsecond), int64(math.MaxInt64)}}
	token := tokens.Make(query(t, raw), "default/1", page)

	got, err := tokens.Page(query(t, raw+"&$skiptoken="+token), "default/1")
	must(t, err)
	if !reflect.DeepEqual(got, page) {
		t.Errorf("got %+v, want %+v", got, page)
	}
	for name, same := range map[string]string{
		"other spelling":       "filter=EntityEventSequence%20gt%205&%24orderby=EventType,ResourceName,EntityEventTimestamp&$TOP=50&$count=true",
		"options in any order": "$top=50&$count=true&$orderby=EventType,ResourceName,EntityEventTimestamp&$filter=EntityEventSequence gt 5",
		"custom option":        raw + "&_=17",
		"format":               raw + "&$format=json",
	} {
		if _, err := tokens.Page(query(t, same+"&$skiptoken="+token), "default/1"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	other := strings.Replace(raw, "gt+5", "gt+6", 1)
	made, err := base64.RawURLEncoding.DecodeString(token)
	must(t, err)
	changed := func(at int) string {
		raw := slices.Clone(made)
		raw[at] ^= 1
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	for name, c := range map[string]struct {
		tokens            *odata.Tokens
		raw, token, scope string
	}{
		"other filter":   {tokens, other, token, "default/1"},
		"less options":   {tokens, strings.TrimSuffix(raw, "&$count=true"), token, "default/1"},
		"other feed":     {tokens, raw, token, "other/1"},
		"other epoch":    {tokens, raw, token, "default/2"},
		"other key":      {odata.NewTokens([]byte("another key")), raw, token, "default/1"},
		"other version":  {tokens, raw, changed(0), "default/1"},
		"other head":     {tokens, raw, changed(1), "default/1"},
		"other sequence": {tokens, raw, changed(len(made) - 17), "default/1"},
		"other MAC":      {tokens, raw, changed(len(made) - 1), "default/1"},
		"cut":            {tokens, raw, token[:len(token)-4], "default/1"},
		"longer":         {tokens, raw, token + "AAAA", "default/1"},
		"short":          {tokens, raw, "AQ", "default/1"},
		"padded":         {tokens, raw, token + "=", "default/1"},
		"a number":       {tokens, raw, "100", "default/1"},
		"huge":           {tokens, raw, strings.Repeat("A", 60<<10), "default/1"},
	} {
		_, err := c.tokens.Page(query(t, c.raw+"&$skiptoken="+c.token), c.scope)
		if err == nil {
			t.Errorf("%s: the token is taken", name)
		} else if got := refusal(t, err); got.Kind != odata.BadRequest || got.Target != "$skiptoken" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTokensMalformed: a token that is authentic and yet does not fit the query's
// order is refused, not trusted.
func TestTokensMalformed(t *testing.T) {
	t.Parallel()
	q := query(t, "$orderby=ResourceName")
	for name, page := range map[string]odata.Page{
		"too few values":     {Size: 1, Last: []any{"a"}},
		"too many values":    {Size: 1, Last: []any{"a", int64(1), int64(2)}},
		"null":               {Size: 1, Last: []any{nil, int64(1)}},
		"number for a text":  {Size: 1, Last: []any{int64(1), int64(1)}},
		"time for a number":  {Size: 1, Last: []any{"a", noon}},
		"no size":            {Size: 0, Last: []any{"a", int64(1)}},
		"served less than 0": {Size: 1, Served: -1, Last: []any{"a", int64(1)}},
		"head below 0":       {Size: 1, Head: -1, Last: []any{"a", int64(1)}},
	} {
		q.Token = tokens.Make(q, "", page)
		if _, err := tokens.Page(q, ""); err == nil {
			t.Errorf("%s: the token is taken", name)
		}
	}
}

// TestNextLink: the options stay as they came, in characters that a URL may have.
func TestNextLink(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"":            "http://h/EntityEvent?$skiptoken=new",
		"$top=5&&_=1": "http://h/EntityEvent?$top=5&_=1&$skiptoken=new",
		"$filter=ResourceName%20eq%20'a%26b'&$skiptoken=old": "http://h/EntityEvent?$filter=ResourceName%20eq%20'a%26b'&$skiptoken=new",
		"%24skipToken=old&$filter=ResourceName eq '房<\"'":    "http://h/EntityEvent?$filter=ResourceName%20eq%20'%E6%88%BF%3C%22'&$skiptoken=new",
	} {
		if got := query(t, raw).NextLink("http://h/", entityEvent, "new"); got != want {
			t.Errorf("%s\n got %s\nwant %s", raw, got, want)
		}
	}
}

// TestOrderSQL: strings order by their bytes and null comes first, whatever the
// database's own collation and order are.
func TestOrderSQL(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string][2]string{
		"":                         {"e.sequence", "(e.sequence > $1::bigint)"},
		"EntityEventSequence desc": {"e.sequence DESC", "(e.sequence < $1::bigint)"},
		"ResourceName": {
			`e.resource_name COLLATE "C", e.sequence`,
			`(e.resource_name COLLATE "C" > $1::text OR e.resource_name = $1::text AND e.sequence > $2::bigint)`,
		},
		"EventType desc,EntityEventSequence": {
			`e.event_type COLLATE "C" DESC NULLS LAST, e.sequence`,
			`((e.event_type COLLATE "C" < $1::text OR e.event_type IS NULL) OR e.event_type = $1::text AND e.sequence > $2::bigint)`,
		},
	} {
		order, err := odata.ParseOrderBy(entityEvent, raw)
		must(t, err)
		sql, err := order.SQL(columns)
		must(t, err)
		var last []any
		for _, k := range order {
			last = append(last, odata.EventRow(&shownEvents[0], "")(k.Property))
		}
		after, err := order.After(columns, last, new([]any))
		must(t, err)
		if sql != want[0] || after != want[1] {
			t.Errorf("%s\n got %s and %s\nwant %s and %s", raw, sql, after, want[0], want[1])
		}
	}
}

// TestAfter: a keyset without the values it needs is an error, not another page.
func TestAfter(t *testing.T) {
	t.Parallel()
	order := query(t, "$orderby=ResourceName").Order
	if _, err := order.After(columns, []any{"a"}, new([]any)); err == nil {
		t.Error("too few values are no error")
	}
	if _, err := order.After(odata.Columns{}, []any{"a", int64(1)}, new([]any)); err == nil {
		t.Error("a missing column is no error")
	}
	if _, err := order.SQL(odata.Columns{}); err == nil {
		t.Error("a missing column is no error")
	}
}

// TestNext: a page without entities leads on, one that reaches $top does not.
func TestNext(t *testing.T) {
	t.Parallel()
	q := query(t, "$top=10")
	page, ok := odata.FirstPage(9, 4, 100, 1000).Next(q, 0, []any{int64(7)})
	if !ok || page.Served != 0 || page.Limit(q) != 4 || page.Last[0] != int64(7) {
		t.Errorf("%+v, %t", page, ok)
	}
	if page, ok = page.Next(q, 8, []any{int64(15)}); !ok || page.Limit(q) != 2 {
		t.Errorf("%+v, %t", page, ok)
	}
	if page, ok = page.Next(q, 2, []any{int64(17)}); ok || page.Limit(q) != 0 {
		t.Errorf("%+v, %t", page, ok)
	}
}

// TestFirstPage: the client's size within the service's.
func TestFirstPage(t *testing.T) {
	t.Parallel()
	for preferred, want := range map[int64]int64{0: 100, 40: 40, 1000: 1000, 1001: 1000, math.MaxInt64: 1000} {
		if got := odata.FirstPage(9, preferred, 100, 1000); got.Size != want || got.Head != 9 || got.Total != -1 {
			t.Errorf("preferred %d: %+v", preferred, got)
		}
	}
}

package odata_test

import (
	"fmt"
	"math"
	"net/http"

	"postroad/api/odata"
	"postroad/event"
)

// How a request for a page is answered: what it asks for, the SQL that reads it,
// and the page.
func Example() {
	entity, service := odata.EntityEvent(), "https://host/odata/default/"
	keys, scope := odata.NewTokens([]byte("key")), "default/1" // the feed and its epoch
	r, err := odata.ParseRequest(entity, "EntityEvent", "$filter=EntityEventSequence%20gt%207&$select=ResourceName&$top=9", http.Header{})
	if err != nil {
		fmt.Printf("%s\n", odata.ErrorBody(err, "", "")) // with the status of its Kind
		return
	}
	page := odata.FirstPage(1000, r.PageSize, 100, 1000) // the feed's head is 1000
	if r.Query.Token != "" {
		if page, err = keys.Page(r.Query, scope); err != nil {
			return
		}
	}

	// One more than the page shows is read, to know whether a page follows.
	columns := odata.Columns{odata.Sequence: "e.sequence", odata.ResourceName: "e.resource_name"}
	bounds := odata.Bounds{First: math.MinInt64, Last: math.MaxInt64}
	args := []any{"feed", page.Head}
	where := "e.feed_id = $1 AND e.sequence <= $2"
	if f := r.Query.Filter; f != nil {
		condition, _ := f.Where(columns, &args)
		where += " AND " + condition
		bounds = f.Bounds(odata.Sequence)
	}
	if page.Last != nil {
		after, _ := r.Query.Order.After(columns, page.Last, &args)
		where += " AND " + after
	}
	order, _ := r.Query.Order.SQL(columns)
	fmt.Println("WHERE", where, "ORDER BY", order, "LIMIT", page.Limit(r.Query)+1)
	fmt.Println("from", bounds.First)

	rows := []*event.Event{{Sequence: 8, ResourceName: "Property"}}
	render := odata.Renderer{Type: entity, Root: service, Format: r.Format, Select: r.Query.Select}
	answer := render.AppendHead(nil, page.Total)
	for i, e := range rows {
		answer = render.AppendRow(answer, odata.EventRow(e, service+odata.RecordPath(e.ResourceName, e.ResourceRecordKey)), i == 0)
	}
	link := ""
	more := int64(len(rows)) > page.Limit(r.Query)
	if next, ok := page.Next(r.Query, len(rows), r.Query.Order.Values(odata.EventRow(rows[len(rows)-1], ""))); more && ok {
		link = r.Query.NextLink(service, entity, keys.Make(r.Query, scope, next))
	}
	fmt.Printf("%s\n", render.AppendTail(answer, link))
	// Output:
	// WHERE e.feed_id = $1 AND e.sequence <= $2 AND (e.sequence > $3::bigint) ORDER BY e.sequence LIMIT 10
	// from 8
	// {"@odata.context":"https://host/odata/default/$metadata#EntityEvent(ResourceName)","value":[{"@odata.id":"EntityEvent(8)","ResourceName":"Property"}]}
}

package odata_test

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"

	"postroad/api/odata"
)

// meaning is what a request asks for, in a form that a table can hold: its
// resource, then what differs from a request without options.
func meaning(r *odata.Request) string {
	var parts []string
	switch r.Resource.Kind {
	case odata.Entity:
		parts = append(parts, fmt.Sprintf("entity %d", r.Resource.Key))
	case odata.Record:
		parts = append(parts, fmt.Sprintf("record %s %s", r.Resource.Name, r.Resource.RecordKey))
	default:
		parts = append(parts, map[odata.ResourceKind]string{
			odata.ServiceRoot: "root", odata.Metadata: "metadata", odata.EntitySet: "set", odata.EntityCount: "number",
		}[r.Resource.Kind])
	}
	q := r.Query
	if q.Filter != nil {
		parts = append(parts, "filter "+q.Filter.String())
	}
	if order := q.Order.String(); order != "EntityEventSequence asc" {
		parts = append(parts, "order "+order)
	}
	if q.Select != nil {
		var names []string
		for _, p := range q.Select {
			names = append(names, p.Name)
		}
		parts = append(parts, "select "+strings.Join(names, ","))
	}
	if q.Top != math.MaxInt64 {
		parts = append(parts, fmt.Sprintf("top %d", q.Top))
	}
	if q.Skip != 0 {
		parts = append(parts, fmt.Sprintf("skip %d", q.Skip))
	}
	if q.Count {
		parts = append(parts, "count")
	}
	if q.Token != "" {
		parts = append(parts, "token "+q.Token)
	}
	f := r.Format
	if f.Metadata != "" && f.Metadata != odata.MinimalMetadata {
		parts = append(parts, string(f.Metadata))
	}
	if f.IEEE754Compatible {
		parts = append(parts, "strings")
	}
	return strings.Join(parts, "; ")
}

// urls are URLs below the service root and what they mean: the meaning with
// status 200, else a part of the refusal.
var urls = []struct {
	url    string
	status int
	want   string
}{
	// The service document and $metadata.
	{"", 200, "root"},
	{"/", 200, "root"},
	{"?$format=json", 200, "root"},
	{"/?$format=application/json;odata.metadata=none", 200, "root; none"},
	{"/?$format=xml", 406, "$format"},
	{"/?$top=1", 400, "$top does not apply"},
	{"/?$count=true", 400, "$count does not apply"},
	{"$metadata", 200, "metadata"},
	{"/$metadata", 200, "metadata"},
	{"/$metadata/", 200, "metadata"},
	{"/%24metadata", 200, "metadata"},
	{"/$metadata?$format=application/xml", 200, "metadata"},
	{"/$metadata?$format=application%2Fxml", 200, "metadata"},
	{"/$metadata?%24format=xml", 200, "metadata"},
	{"/$metadata?format=XML", 200, "metadata"},
	{"/$metadata?$format=json", 406, "$format"},
	{"/$metadata?$format=application/json", 406, "$format"},
	{"/$metadata?$filter=true", 400, "does not apply"},
	{"/$Metadata", 404, "no resource"},
	{"/$metadata/EntityEvent", 404, "no resource"},
	{"/$batch", 501, "$batch"},
	{"/$all", 501, "$all"},
	{"/$crossjoin(EntityEvent,EntityEvent)", 501, "$crossjoin"},
	{"/$entity?$id=EntityEvent(3)", 501, "$entity"},
	{"/$frob", 404, "no resource"},

	// Resources.
	{"/EntityEvent", 200, "set"},
	{"EntityEvent", 200, "set"},
	{"/EntityEvent/", 200, "set"},
	{"/EntityEvent?", 200, "set"},
	{"/EntityEvent?&&", 200, "set"},
	{"/%45ntityEvent", 200, "set"},
	{"/entityevent", 404, "no entity set"},
	{"/Entity Event", 404, "no entity set"},
	{"/Property", 404, "no entity set"},
	{"//EntityEvent", 404, "no resource"},
	{"/EntityEvent//", 404, "no resource"},
	{"/EntityEvent/$count", 200, "number"},
	{"/EntityEvent/%24count", 200, "number"},
	{"/EntityEvent/$count?$filter=EntityEventSequence gt 5", 200, "number; filter EntityEventSequence gt 5"},
	{"/EntityEvent/$count?$top=5", 200, "number; top 5"},
	{"/EntityEvent/$count?$select=ResourceName", 400, "$select does not apply"},
	{"/EntityEvent/$count?$format=json", 400, "$format does not apply"},
	{"/EntityEvent/$count?$search=x", 501, "$search"},
	{"/EntityEvent/$Count", 404, "no resource"},
	{"/EntityEvent/$count/x", 404, "no resource"},
	{"/EntityEvent/$filter(true)", 501, "$filter of an entity set"},
	{"/EntityEvent/$query", 501, "$query"},
	{"/EntityEvent/$ref", 501, "$ref"},

	// Entities by key.
	{"/EntityEvent(3)", 200, "entity 3"},
	{"/EntityEvent('3')", 200, "entity 3"},
	{"/EntityEvent(%273%27)", 200, "entity 3"},
	{"/EntityEvent%283%29", 200, "entity 3"},
	{"/EntityEvent( 3 )", 200, "entity 3"},
	{"/EntityEvent(EntityEventSequence=3)", 200, "entity 3"},
	{"/EntityEvent(EntityEventSequence='3')", 200, "entity 3"},
	{"/EntityEvent/3", 200, "entity 3"},
	{"/EntityEvent/3/", 200, "entity 3"},
	{"/EntityEvent(-3)", 200, "entity -3"},
	{"/EntityEvent(9223372036854775807)", 200, "entity 9223372036854775807"},
	{"/EntityEvent(9223372036854775808)", 404, "no EntityEvent"},
	{"/EntityEvent(3)?$select=ResourceName", 200, "entity 3; select ResourceName"},
	{"/EntityEvent(3)?$format=json", 200, "entity 3"},
	{"/EntityEvent(3)?$top=1", 400, "$top does not apply"},
	{"/EntityEvent(3)?$filter=true", 400, "$filter does not apply"},
	{"/EntityEvent(3)?$expand=*", 501, "$expand"},
	{"/EntityEvent()", 400, "ends where"},
	{"/EntityEvent(3", 400, "closing parenthesis"},
	{"/EntityEvent(3)x", 400, "closing parenthesis"},
	{"/EntityEvent(abc)", 400, "a literal"},
	{"/EntityEvent('abc')", 400, "whole number"},
	{"/EntityEvent(3.5)", 400, "whole number"},
	{"/EntityEvent(null)", 400, "whole number"},
	{"/EntityEvent('3)", 400, "closing quote"},
	{"/EntityEvent(3,4)", 400, "the end"},
	{"/EntityEvent(ResourceName=3)", 400, "not the key"},
	{"/EntityEvent(@p)?@p=3", 501, "aliases"},
	{"/EntityEvent/abc", 404, "no resource"},
	{"/EntityEvent/ResourceName", 404, "no resource"},
	{"/EntityEvent(3)/ResourceName", 501, "ResourceName of an entity"},
	{"/EntityEvent/3/ResourceName", 501, "ResourceName of an entity"},
	{"/EntityEvent(3)/$value", 501, "$value"},
	{"/EntityEvent(3)/Foo", 404, "no resource"},

	// Records.
	{"/Property('235021')", 200, "record Property 235021"},
	{"/Property(%27235021%27)", 200, "record Property 235021"},
	{"/Property(235021)", 200, "record Property 235021"},
	{"/Property/235021", 200, "record Property 235021"},
	{"/Property(ListingKey='235021')", 200, "record Property 235021"},
	{"/Member('O''Neil')", 200, "record Member O'Neil"},
	{"/Member(%27O%27%27Neil%27)", 200, "record Member O'Neil"},
	{"/Member(%27O''Neil%27)", 200, "record Member O'Neil"},
	{"/Member/O'Neil", 200, "record Member O'Neil"},
	{"/Member/O'Neil/Media", 404, "no resource"},
	{"/Media('a%2Fb')", 200, "record Media a/b"},
	{"/Media('a%2fb%2f')", 200, "record Media a/b/"},
	{"/Media('a/b')", 200, "record Media a/b"},
	{"/Media('a+b%2Bc')", 200, "record Media a+b+c"},
	{"/Media('a%20b')", 200, "record Media a b"},
	{"/Media('(x)')", 200, "record Media (x)"},
	{"/Media('a%3Fb%23c%25')", 200, "record Media a?b#c%"},
	{"/Open%20House('1')", 200, "record Open House 1"},
	{"/X%2FY('1')", 200, "record X/Y 1"},
	{"/%E6%88%BF('%E6%88%BF')", 200, "record 房 房"},
	{"/Property('')", 400, "not empty"},
	{"/Property(1.5)", 400, "must be a string"},
	{"/Property('a'b')", 400, "the end"},
	{"/Property('%zz')", 400, "percent-encoding"},
	{"/Property('%ff')", 400, "percent-encoding"},
	{"/Property('%00')", 400, "percent-encoding"},
	{"/Property('1')?$top=1", 400, "does not apply"},
	{"/Property('1')/$value", 501, "$value"},
	{"/Property('1')/Media", 404, "no resource"},
	{"/" + strings.Repeat("x", 9000) + "('1')", 400, "longer"},

	// $filter and its encodings.
	{"/EntityEvent?$filter=EntityEventSequence gt 100", 200, "set; filter EntityEventSequence gt 100"},
	{"/EntityEvent?$filter=EntityEventSequence%20gt%20100", 200, "set; filter EntityEventSequence gt 100"},
	{"/EntityEvent?$filter=EntityEventSequence+gt+100", 200, "set; filter EntityEventSequence gt 100"},
	{"/EntityEvent?$filter=EntityEventSequence%09gt%09100", 200, "set; filter EntityEventSequence gt 100"},
	{"/EntityEvent?%24filter=EntityEventSequence%20ge%200", 200, "set; filter EntityEventSequence ge 0"},
	{"/EntityEvent?filter=EntityEventSequence gt 100", 200, "set; filter EntityEventSequence gt 100"},
	{"/EntityEvent?$FILTER=EntityEventSequence GT 100", 200, "set; filter EntityEventSequence gt 100"},
	{"/EntityEvent?%24%66ilter=true", 200, "set; filter true"},
	{"/EntityEvent?$filter=ResourceName%20eq%20'Property'", 200, "set; filter ResourceName eq 'Property'"},
	{"/EntityEvent?$filter=ResourceName%20eq%20%27Property%27", 200, "set; filter ResourceName eq 'Property'"},
	{"/EntityEvent?$filter=ResourceRecordKey eq 'O''Neil'", 200, "set; filter ResourceRecordKey eq 'O''Neil'"},
	{"/EntityEvent?$filter=ResourceRecordKey eq 'O%27%27Neil'", 200, "set; filter ResourceRecordKey eq 'O''Neil'"},
	{"/EntityEvent?$filter=ResourceRecordKey eq 'a%26b%3Dc'", 200, "set; filter ResourceRecordKey eq 'a&b=c'"},
	{"/EntityEvent?$filter=ResourceRecordKey eq 'a=b'", 200, "set; filter ResourceRecordKey eq 'a=b'"},
	{"/EntityEvent?$filter=ResourceRecordKey eq 'a;b'", 200, "set; filter ResourceRecordKey eq 'a;b'"},
	{"/EntityEvent?$filter=ResourceRecordKey eq 'a+b'", 200, "set; filter ResourceRecordKey eq 'a b'"},
	{"/EntityEvent?$filter=ResourceRecordKey eq 'a%2Bb'", 200, "set; filter ResourceRecordKey eq 'a+b'"},
	{"/EntityEvent?$filter=ResourceRecordKey eq 'a&b'", 400, "closing quote"},
	{"/EntityEvent?$filter=ResourceRecordKey eq '%E6%88%BF'", 200, "set; filter ResourceRecordKey eq '房'"},
	{"/EntityEvent?$filter=ResourceRecordKey eq '房'", 200, "set; filter ResourceRecordKey eq '房'"},
	{"/EntityEvent?$filter=ResourceRecordKey eq '%25'", 200, "set; filter ResourceRecordKey eq '%'"},
	{"/EntityEvent?$filter=ResourceRecordKey eq '%'", 400, "percent-encoding"},
	{"/EntityEvent?$filter=ResourceRecordKey eq '%FF'", 400, "percent-encoding"},
	{"/EntityEvent?$filter=ResourceRecordKey eq '%00'", 400, "percent-encoding"},
	{"/EntityEvent?$filter=not(EntityEventSequence le -1)", 200, "set; filter not (EntityEventSequence le -1)"},
	{"/EntityEvent?$filter=not%28EntityEventSequence%20le%20-1%29", 200, "set; filter not (EntityEventSequence le -1)"},
	{"/EntityEvent?$filter=EntityEventSequence le 2147483647", 200, "set; filter EntityEventSequence le 2147483647"},
	{"/EntityEvent?$filter=ResourceName in ('Property','Member')", 200, "set; filter ResourceName in ('Property','Member')"},
	{"/EntityEvent?$filter=ResourceName%20in%20(%27Property%27%2C%27Member%27)", 200, "set; filter ResourceName in ('Property','Member')"},
	{"/EntityEvent?$filter=startswith(ResourceRecordKey,'23') eq true", 200, "set; filter startswith(ResourceRecordKey,'23') eq true"},
	{"/EntityEvent?$filter=FeedTypes/any(f:f eq 'IDX')", 200, "set; filter FeedTypes/any(f:f eq 'IDX')"},
	{"/EntityEvent?$filter=FeedTypes%2Fany(f%3Af%20eq%20'IDX')", 200, "set; filter FeedTypes/any(f:f eq 'IDX')"},
	{"/EntityEvent?$filter=EntityEventTimestamp ge 2026-01-01T00:00:00%2B01:00", 200, "set; filter EntityEventTimestamp ge 2025-12-31T23:00:00.000000000Z"},
	{"/EntityEvent?$filter=EntityEventTimestamp ge 2026-01-01T00:00:00+01:00", 200, "set; filter EntityEventTimestamp ge 2025-12-31T23:00:00.000000000Z"},
	{"/EntityEvent?$filter=EventType ne null", 200, "set; filter EventType ne null"},
	{"/EntityEvent?$filter=", 400, "ends where"},
	{"/EntityEvent?$filter", 400, "ends where"},
	{"/EntityEvent?$filter=Foo eq 1", 400, "no property"},
	{"/EntityEvent?$filter=resourceName eq 'A'", 400, "no property"},
	{"/EntityEvent?$filter=\"ResourceName\" eq 'A'", 400, "a value"},
	{"/EntityEvent?$filter=tolower(ResourceName) eq 'a'", 501, "tolower"},
	{"/EntityEvent?$filter=EntityEventSequence add 1 gt 3", 501, "add"},
	{"/EntityEvent?$filter=EntityEventSequence gt @p&@p=3", 501, "aliases"},
	{"/EntityEvent?$filter=true&$filter=true", 400, "twice"},
	{"/EntityEvent?$filter=true&filter=true", 400, "twice"},
	{"/EntityEvent?$filter=true&$Filter=false", 400, "twice"},

	// $select.
	{"/EntityEvent?$select=ResourceName", 200, "set; select ResourceName"},
	{"/EntityEvent?$select=ResourceRecordKey,ResourceName", 200, "set; select ResourceName,ResourceRecordKey"},
	{"/EntityEvent?$select=ResourceName,ResourceName", 200, "set; select ResourceName"},
	{"/EntityEvent?$select=ResourceName,%20ResourceRecordKey", 200, "set; select ResourceName,ResourceRecordKey"},
	{"/EntityEvent?$select=ResourceName%2CEventType", 200, "set; select ResourceName,EventType"},
	{"/EntityEvent?$select=*", 200, "set"},
	{"/EntityEvent?$select=ResourceName,*", 200, "set"},
	{"/EntityEvent?select=FeedTypes", 200, "set; select FeedTypes"},
	{"/EntityEvent?$select=Foo", 400, "no property"},
	{"/EntityEvent?$select=resourcename", 400, "no property"},
	{"/EntityEvent?$select=", 400, "empty name"},
	{"/EntityEvent?$select=ResourceName,", 400, "empty name"},
	{"/EntityEvent?$select=FeedTypes($top=1)", 501, "options of FeedTypes"},
	{"/EntityEvent?$select=ResourceName/Foo", 400, "no property"},
	{"/EntityEvent?$select=ResourceName&$select=EventType", 400, "twice"},

	// $orderby.
	{"/EntityEvent?$orderby=EntityEventSequence", 200, "set"},
	{"/EntityEvent?$orderby=EntityEventSequence asc", 200, "set"},
	{"/EntityEvent?$orderby=EntityEventSequence%20desc", 200, "set; order EntityEventSequence desc"},
	{"/EntityEvent?$orderby=EntityEventSequence+DESC", 200, "set; order EntityEventSequence desc"},
	{"/EntityEvent?$orderby=ResourceName", 200, "set; order ResourceName asc,EntityEventSequence asc"},
	{"/EntityEvent?$orderby=ResourceName desc,EventType", 200, "set; order ResourceName desc,EventType asc,EntityEventSequence asc"},
	{"/EntityEvent?$orderby=ResourceName , EntityEventSequence desc", 200, "set; order ResourceName asc,EntityEventSequence desc"},
	{"/EntityEvent?$orderby=EntityEventSequence desc,ResourceName", 200, "set; order EntityEventSequence desc"},
	{"/EntityEvent?$orderby=ResourceName,ResourceName desc", 200, "set; order ResourceName asc,EntityEventSequence asc"},
	{"/EntityEvent?orderBy=EntityEventTimestamp desc", 200, "set; order EntityEventTimestamp desc,EntityEventSequence asc"},
	{"/EntityEvent?$orderby=Foo", 400, "no property"},
	{"/EntityEvent?$orderby=", 400, "empty"},
	{"/EntityEvent?$orderby=ResourceName,", 400, "ends where"},
	{"/EntityEvent?$orderby=ResourceName up", 400, ", is expected"},
	{"/EntityEvent?$orderby=ResourceName asc desc", 400, ", is expected"},
	{"/EntityEvent?$orderby=FeedTypes", 400, "collection"},
	{"/EntityEvent?$orderby=length(ResourceName)", 501, "length"},
	{"/EntityEvent?$orderby=contains(ResourceName,'a') desc", 501, "only properties"},
	{"/EntityEvent?$orderby=null", 501, "only properties"},

	// $top, $skip, $count.
	{"/EntityEvent?$top=1000&$orderby=EntityEventSequence asc", 200, "set; top 1000"},
	{"/EntityEvent?$top=0", 200, "set; top 0"},
	{"/EntityEvent?$top=01", 200, "set; top 1"},
	{"/EntityEvent?$top=99999999999999999999", 200, "set"},
	{"/EntityEvent?$top=-1", 400, "not negative"},
	{"/EntityEvent?$top=%2B1", 400, "not negative"},
	{"/EntityEvent?$top=+1", 400, "not negative"},
	{"/EntityEvent?$top=1.5", 400, "whole number"},
	{"/EntityEvent?$top=", 400, "whole number"},
	{"/EntityEvent?$top=ten", 400, "whole number"},
	{"/EntityEvent?$top=1&$top=2", 400, "twice"},
	{"/EntityEvent?$skip=20&$top=10", 200, "set; top 10; skip 20"},
	{"/EntityEvent?SKIP=20", 200, "set; skip 20"},
	{"/EntityEvent?$skip=-1", 400, "$skip"},
	{"/EntityEvent?$count=true", 200, "set; count"},
	{"/EntityEvent?$count=TRUE", 200, "set; count"},
	{"/EntityEvent?$count=false", 200, "set"},
	{"/EntityEvent?count=true&top=0", 200, "set; top 0; count"},
	{"/EntityEvent?$count=1", 400, "true or false"},
	{"/EntityEvent?$count=", 400, "true or false"},
	{"/EntityEvent?$inlinecount=allpages", 400, "no system query option"},

	// $format, other options.
	{"/EntityEvent?$format=json", 200, "set"},
	{"/EntityEvent?$format=application/json;odata.metadata=full", 200, "set; full"},
	{"/EntityEvent?$format=application/json%3Bodata.metadata%3Dnone%3BIEEE754Compatible%3Dtrue", 200, "set; none; strings"},
	{"/EntityEvent?$format=application/json;metadata=minimal;IEEE754Compatible=true", 200, "set; strings"},
	{"/EntityEvent?$format=xml", 406, "$format"},
	{"/EntityEvent?$format=atom", 406, "$format"},
	{"/EntityEvent?$format=application/json;odata.metadata=some", 406, "$format"},
	{"/EntityEvent?$format=", 400, "empty"},
	{"/EntityEvent?$skiptoken=abc", 200, "set; token abc"},
	{"/EntityEvent?$skiptoken=", 400, "empty"},
	{"/EntityEvent?$expand=Media", 501, "$expand"},
	{"/EntityEvent?expand=Media", 501, "$expand"},
	{"/EntityEvent?$search=blue", 501, "$search"},
	{"/EntityEvent?$apply=aggregate($count as C)", 501, "$apply"},
	{"/EntityEvent?$compute=1 as X", 501, "$compute"},
	{"/EntityEvent?$deltatoken=1", 501, "$deltatoken"},
	{"/EntityEvent?$index=1", 501, "$index"},
	{"/EntityEvent?$schemaversion=*", 501, "$schemaversion"},
	{"/EntityEvent?$frob=1", 400, "$frob is no system query option"},
	{"/EntityEvent?$=1", 400, "no system query option"},
	{"/EntityEvent?@p=1", 501, "aliases"},
	{"/EntityEvent?frob=1&_=17&access_token=x", 200, "set"},
	{"/EntityEvent?frob=1&frob=2", 200, "set"},
	{"/EntityEvent?frob=%zz", 400, "percent-encoding"},
	{"/EntityEvent?%zz=1", 400, "percent-encoding"},
	{"/EntityEvent?" + strings.Repeat("x", 65<<10), 400, "longer"},
	{"/EntityEvent?$filter=EntityEventSequence gt 5&$orderby=EntityEventSequence asc&$top=100", 200, "set; filter EntityEventSequence gt 5; top 100"},
}

// TestURLs: what a URL means, legal, illegal and oddly encoded.
func TestURLs(t *testing.T) {
	t.Parallel()
	if len(urls) < 150 {
		t.Fatalf("only %d URLs", len(urls))
	}
	for _, c := range urls {
		path, query, _ := strings.Cut(c.url, "?")
		r, err := odata.ParseRequest(entityEvent, path, query, http.Header{})
		if r.Version != odata.V401 {
			t.Errorf("%s: version %q", c.url, r.Version)
		}
		if err != nil {
			got := refusal(t, err)
			if got.Kind.Status() != c.status || !strings.Contains(got.Error(), c.want) {
				t.Errorf("%.200s\n got %d %s\nwant %d %s", c.url, got.Kind.Status(), got, c.status, c.want)
			}
			continue
		}
		if got := meaning(r); c.status != 200 || got != c.want {
			t.Errorf("%.200s\n got 200 %s\nwant %d %s", c.url, got, c.status, c.want)
		}
	}
}

package api_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"postroad/api"
)

// TestOData_record: the newest data of a record, byte for byte.
func TestOData_record(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	event := func(key string, more ...string) { b.publish(one(key, more...)).want(201, nil) }
	event("1", `"data":{"a":1}`)
	event("1", `"data":{ "a" : 2.0 }`)
	for key, kind := range map[string]string{"d1": "record.deleted", "d2": "ListingRemoved", "d3": "OPEN_HOUSE_DELETE", "d4": "remove"} {
		event(key, `"data":{}`)
		event(key, `"data":{}`, `"eventType":"`+kind+`"`)
	}
	for key, kind := range map[string]string{"k1": "record.undeleted", "k2": "deleted.restored", "k3": "DeletedAgain2Updated"} {
		event(key, `"data":{}`, `"eventType":"`+kind+`"`)
	}
	event("n1", `"data":{}`)
	event("n1")
	event("n2", `"data":null`)
	event("back", `"eventType":"record.deleted"`)
	event("back", `"data":true`)
	for key, want := range map[string]string{
		"1": `{ "a" : 2.0 }`, "d1": "", "d2": "", "d3": "", "d4": "", "k1": "{}", "k2": "{}", "k3": "{}", "n1": "", "n2": "", "back": "true", "none": "",
	} {
		a := b.odata("GET", "default", "Property('"+key+"')")
		if want == "" {
			a.odataRefused(404, "NotFound", "")
		} else if a.status != 200 || string(a.body) != want || !strings.HasPrefix(a.header.Get("Content-Type"), "application/json") {
			t.Errorf("%s: %d %s", key, a.status, a.body)
		}
	}
	// The URL that an event without one shows leads to its record.
	var p struct {
		Value []struct{ ResourceRecordURL string }
	}
	b.odata("GET", "default", "EntityEvent?$top=1").want(200, &p)
	b.odata("GET", "default", b.below("default", p.Value[0].ResourceRecordURL)).want(200, nil)
	b.call("DELETE", "/v1/feeds/default/records/Property/1/data", "").want(200, nil)
	b.odata("GET", "default", "Property('1')").odataRefused(404, "NotFound", "")
}

// TestOData_byRecord: events of a record are found by the index of records.
func TestOData_byRecord(t *testing.T) {
	t.Parallel()
	b := setup(t, options{api: func(c *api.Config) { c.EntityQueryMax = time.Second }})
	b.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key)
		SELECT f.id, n, now(), CASE WHEN n % 2 = 0 THEN 'Property' ELSE 'Member' END, (n % 20000)::text
		FROM feeds f, generate_series(1, 60000) AS n WHERE f.name = 'default'`)
	for filter, want := range map[string]string{
		"ResourceRecordKey eq '7'":                                    "[7 20007 40007]",
		"ResourceName eq 'Member' and '7' eq ResourceRecordKey":       "[7 20007 40007]",
		"ResourceName eq 'Property' and ResourceRecordKey eq '7'":     "[]",
		"ResourceRecordKey eq '7' and EntityEventSequence gt 7":       "[20007 40007]",
		"ResourceRecordKey eq '7' and ResourceRecordKey eq '8'":       "[]",
		"ResourceRecordKey eq '7' and not (EntityEventSequence eq 7)": "[20007 40007]",
		"ResourceRecordKey eq '7' or EntityEventSequence eq 8":        "[7 8 20007 40007]",
	} {
		var p entityPage
		b.odata("GET", "default", "EntityEvent?$count=true&$filter="+url.QueryEscape(filter)).want(200, &p)
		got := []int64{}
		for _, e := range p.Value {
			got = append(got, e.EntityEventSequence)
		}
		if fmt.Sprint(got) != want || *p.Count != int64(len(got)) {
			t.Errorf("%s: %v, count %d; want %s", filter, got, *p.Count, want)
		}
	}
}

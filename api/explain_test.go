package api_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// delivery is what the tests read of one.
type delivery struct {
	Subscriber, State, Reason, FilteredBy string
	Sequence                              int64
	Attempts                              int
	Event                                 *struct{ ResourceName, ResourceRecordKey string }
	Delivered                             *struct{ Status, Times int }
}

type deliveries struct {
	Event         struct{ Sequence int64 }
	Deliveries    []delivery
	FilteredBy    string
	NextPageToken string
}

// states are what became of events, for short.
func (d deliveries) states() string {
	var list []string
	for _, one := range d.Deliveries {
		list = append(list, fmt.Sprint(one.Subscriber, " ", one.Sequence, " ", one.State))
	}
	return strings.Join(list, ", ")
}

// explainWorld is a feed with the events 1-4 of Property/a, 5 of Member/b and 6 of
// Property/a of another type; acme was sent 1-4, beta takes Property of type New.
func explainWorld(t *testing.T) (b *bundle, acme, beta string) {
	b = setup(t, options{})
	for _, body := range []string{
		`{"id":"acme","endpoint":{"url":"http://127.0.0.1:1/"},"start":"beginning"}`,
		`{"id":"beta","endpoint":{"url":"http://127.0.0.1:1/"},"start":"beginning","filter":{"resourceNames":["Property"],"eventTypes":["New"]}}`,
	} {
		b.call("POST", "/v1/subscribers", body).want(201, nil)
	}
	const a = `{"resourceName":"Property","resourceRecordKey":"a","eventType":"New"}`
	b.publish(`[`+strings.Repeat(a+`,`, 4)+`{"resourceName":"Member","resourceRecordKey":"b/ü","eventType":"New"},
		{"resourceName":"Property","resourceRecordKey":"a","eventType":"Price","data":{"price":1}}]`).want(201, nil)
	b.exec(`UPDATE runs SET cursor = 4 WHERE id = 'acme'`)
	b.exec(`INSERT INTO attempts (subscriber, started_at, first_sequence, last_sequence, event_count, attempt, class, status, duration_us, request_bytes, sequences)
		VALUES ('acme', clock_timestamp(), 1, 4, 3, 1, 'success', 200, 1000, 100, '{1,2,4}')`)
	tokens := map[string]string{}
	for _, id := range []string{"acme", "beta"} {
		var made struct{ Token string }
		b.call("POST", "/v1/tokens", `{"role":"subscriber","subscriber":"`+id+`"}`).want(201, &made)
		tokens[id] = "Bearer " + made.Token
	}
	return b, tokens["acme"], tokens["beta"]
}

func TestEventDeliveries(t *testing.T) {
	t.Parallel()
	b, _, _ := explainWorld(t)
	var d deliveries
	b.call("GET", "/v1/feeds/default/events/4/deliveries", "").want(200, &d)
	if d.states() != "acme 4 delivered, beta 4 waiting" || d.Event.Sequence != 4 || d.Deliveries[0].Delivered.Status != 200 || d.NextPageToken != "" {
		t.Errorf("%s: %+v", d.states(), d)
	}
	d = deliveries{}
	b.call("GET", "/v1/feeds/default/events/3/deliveries?limit=1", "").want(200, &d)
	if d.states() != "acme 3 settled" || d.NextPageToken == "" {
		t.Errorf("the first page is %+v", d)
	}
	next := d.NextPageToken
	d = deliveries{}
	b.call("GET", "/v1/feeds/default/events/3/deliveries?limit=1&pageToken="+next, "").want(200, &d)
	if d.states() != "beta 3 waiting" || d.NextPageToken != "" {
		t.Errorf("the second page is %+v", d)
	}
	d = deliveries{}
	b.call("GET", "/v1/feeds/default/events/6/deliveries?subscriber=beta", "").want(200, &d)
	if d.states() != "beta 6 filtered" || d.Deliveries[0].FilteredBy != "eventTypes" {
		t.Errorf("of one subscriber: %+v", d)
	}
	b.exec(`UPDATE feeds SET floor_sequence = 4 WHERE name = 'default'`)
	d = deliveries{}
	b.call("GET", "/v1/feeds/default/events/2/deliveries", "").want(200, &d)
	if d.states() != "acme 2 delivered, beta 2 removed" {
		t.Errorf("below the floor: %+v", d)
	}
	for path, place := range map[string]string{
		"/v1/feeds/default/events/7/deliveries":                   "sequence",
		"/v1/feeds/default/events/0/deliveries":                   "sequence",
		"/v1/feeds/default/events/x/deliveries":                   "sequence",
		"/v1/feeds/nowhere/events/1/deliveries":                   "feed",
		"/v1/feeds/default/events/5/deliveries?subscriber=nobody": "subscriber",
	} {
		b.call("GET", path, "").refused(404, "not-found", "?"+place)
	}
	b.call("GET", "/v1/feeds/default/events/5/deliveries?subscriber=", "").refused(400, "invalid-parameter", "?subscriber")
}

func TestRecordEvents(t *testing.T) {
	t.Parallel()
	b, _, _ := explainWorld(t)
	var sequences []int64
	path := "/v1/feeds/default/records/Property/a/events?limit=2"
	for query, pages := "", 0; ; pages++ {
		var page struct {
			Events []struct {
				Sequence          int64
				ResourceRecordKey string
				Data              *struct{ Price int }
			}
			NextPageToken string
		}
		b.call("GET", path+query, "").want(200, &page)
		for _, e := range page.Events {
			if sequences = append(sequences, e.Sequence); (e.Data != nil) != (e.Sequence == 6) || e.ResourceRecordKey != "a" {
				t.Errorf("%+v", e)
			}
		}
		if page.NextPageToken == "" || pages > 5 {
			break
		}
		query = "&pageToken=" + page.NextPageToken
	}
	if fmt.Sprint(sequences) != "[6 4 3 2 1]" {
		t.Errorf("got %v", sequences)
	}
	var other struct{ Events []struct{ Sequence int64 } }
	b.call("GET", "/v1/feeds/default/records/Member/"+url.PathEscape("b/ü")+"/events", "").want(200, &other)
	if len(other.Events) != 1 || other.Events[0].Sequence != 5 {
		t.Errorf("got %+v", other)
	}
	b.call("GET", "/v1/feeds/nowhere/records/Property/a/events", "").refused(404, "not-found", "?feed")
	b.call("GET", "/v1/feeds/default/records/Property/a/events?pageToken=MTp4", "").refused(400, "invalid-parameter", "?pageToken")
}

func TestDeliveries(t *testing.T) {
	t.Parallel()
	b, acme, beta := explainWorld(t)
	ask := func(id, query, authorization string) (d deliveries, text string) {
		t.Helper()
		a := b.call("GET", "/v1/subscribers/"+id+"/deliveries?"+query, "", "Authorization", authorization)
		a.want(200, &d)
		return d, string(a.body)
	}
	const record = "resourceName=Property&resourceRecordKey=a"
	if d, _ := ask("acme", record, acme); d.states() != "acme 6 waiting, acme 4 delivered, acme 3 settled, acme 2 delivered, acme 1 delivered" || d.NextPageToken != "" {
		t.Errorf("of a record: %+v", d)
	} else if d.Deliveries[1].Event.ResourceRecordKey != "a" {
		t.Errorf("%+v", d.Deliveries[1])
	}
	d, _ := ask("acme", record+"&limit=3", acme)
	if d.states() != "acme 6 waiting, acme 4 delivered, acme 3 settled" {
		t.Errorf("the first page: %+v", d)
	}
	if d, _ = ask("acme", record+"&limit=3&pageToken="+d.NextPageToken, acme); d.states() != "acme 2 delivered, acme 1 delivered" {
		t.Errorf("the second page: %+v", d)
	}
	if d, _ := ask("acme", "sequence=5", acme); d.states() != "acme 5 waiting" || d.Deliveries[0].Event.ResourceName != "Member" {
		t.Errorf("of an event: %+v", d)
	}
	// What its filter excludes is not for it to read.
	if d, text := ask("beta", "sequence=6", beta); text != `{"deliveries":[{"subscriber":"beta","sequence":6,"state":"filtered"}]}`+"\n" {
		t.Errorf("%+v %s", d, text)
	}
	if d, text := ask("beta", record, beta); !strings.HasPrefix(d.states(), "beta 6 filtered, beta 4 waiting") || strings.Contains(text, "Price") {
		t.Errorf("%s %s", d.states(), text)
	}
	for _, key := range []string{"b%2F%C3%BC", "nothing"} {
		if _, text := ask("beta", "resourceName=Member&resourceRecordKey="+key, beta); text != `{"deliveries":[],"filteredBy":"resourceNames"}`+"\n" {
			t.Errorf("%s: %s", key, text)
		}
	}
	// An operator reads all of it.
	if d, _ := ask("beta", "resourceName=Member&resourceRecordKey=b%2F%C3%BC", "Bearer "+token); d.states() != "beta 5 filtered" || d.Deliveries[0].FilteredBy != "resourceNames" || d.FilteredBy != "" {
		t.Errorf("%+v", d)
	}
	for query, place := range map[string]string{
		"": "sequence", "sequence=0": "sequence", "sequence=x": "sequence", "sequence=1&" + record: "sequence",
		"resourceName=Property": "resourceRecordKey", "resourceRecordKey=a": "resourceName", "sequence=1&pageToken=MTp4": "pageToken",
		"resourceName=" + strings.Repeat("x", 256) + "&resourceRecordKey=a": "resourceName",
	} {
		b.call("GET", "/v1/subscribers/acme/deliveries?"+query, "").refused(400, "invalid-parameter", "?"+place)
	}
	b.call("GET", "/v1/subscribers/acme/deliveries?sequence=9", "").refused(404, "not-found", "?sequence")
	b.call("GET", "/v1/subscribers/nobody/deliveries?sequence=1", "").refused(404, "not-found", "?id")
}

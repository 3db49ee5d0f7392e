package api_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postroad/api"
	"postroad/internal/testkit"
)

var update = flag.Bool("update", false, "write the answers into testdata")

// odata asks for a path below the service root of a feed.
func (b *bundle) odata(method, feed, below string, headers ...string) answer {
	b.t.Helper()
	return b.raw(method, "/odata/"+feed+"/"+below, headers...)
}

// raw asks for a URL that is sent as it is.
func (b *bundle) raw(method, path string, headers ...string) answer {
	b.t.Helper()
	host := strings.TrimPrefix(b.url, "http://")
	path, query, _ := strings.Cut(path, "?")
	// A header Host may be set by headers.
	r := &http.Request{
		Method: method, Host: host, Header: http.Header{"Authorization": {"Bearer " + token}},
		URL: &url.URL{Scheme: "http", Host: host, Opaque: path, RawQuery: query},
	}
	for i := 0; i+1 < len(headers); i += 2 {
		switch {
		case headers[i] == "Host":
			r.Host = headers[i+1]
		case headers[i+1] == "":
			r.Header.Del(headers[i])
		default:
			r.Header.Add(headers[i], headers[i+1])
		}
	}
	response, err := http.DefaultTransport.RoundTrip(r.WithContext(b.t.Context()))
	must(b.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(b.t, err)
	if response.StatusCode == http.StatusInternalServerError {
		b.t.Errorf("%s %s: %s", method, path, b.logs)
	}
	return answer{t: b.t, status: response.StatusCode, header: response.Header, body: text}
}

// odataRefused checks an error of the service.
func (a answer) odataRefused(status int, code, target string) {
	a.t.Helper()
	var body struct {
		Error struct{ Code, Message, Target string }
	}
	a.want(status, &body)
	if body.Error.Code != code || body.Error.Message == "" || body.Error.Target != target {
		a.t.Errorf("got %s, want code %s and target %q", a.body, code, target)
	}
	if media := a.header.Get("Content-Type"); media != "application/json" || a.header.Get("OData-Version") == "" ||
		!strings.Contains(a.header.Get("Vary"), "Prefer") || a.header.Get("Cache-Control") != "no-store" || a.header.Get("X-Request-Id") == "" {
		a.t.Errorf("headers %v", a.header)
	}
}

// entityPage is a page of EntityEvent.
type entityPage struct {
	Count    *int64 `json:"@odata.count"`
	NextLink string `json:"@odata.nextLink"`
	Value    []entityEvent
}

type entityEvent struct {
	EntityEventSequence                                int64
	ResourceName, ResourceRecordKey, ResourceRecordURL string
}

// below is the part of a link below the service root of a feed.
func (b *bundle) below(feed, link string) string {
	b.t.Helper()
	below, ok := strings.CutPrefix(link, b.url+"/odata/"+feed+"/")
	if !ok {
		b.t.Fatalf("link %s is not below %s", link, b.url)
	}
	return below
}

// fewEvents are in the feed of TestODataURLs.
const fewEvents = `
{"resourceName":"Property","resourceRecordKey":"235021","eventType":"record.created","data":{"ListingKey":"235021","ListPrice":1}}
{"resourceName":"Member","resourceRecordKey":"O'Neil","resourceRecordUrl":"https://mls.example/Member('1')?a=1&b=2","eventType":"record.created","feedTypes":["IDX","VOW"],"attributes":{"a":"b"},"data":{"MemberKey":"O'Neil"}}
{"resourceName":"Property","resourceRecordKey":"235021","eventType":"record.updated","feedTypes":["BBO"],"data": {"ListingKey" : "235021", "ListPrice": 20000000000000000001 }}
{"resourceName":"Media","resourceRecordKey":"a/b","eventType":"record.created","data":{"MediaKey":"a/b"}}
{"resourceName":"房","resourceRecordKey":"房","data":["房"]}
{"resourceName":"Media","resourceRecordKey":"a b","eventType":"record.created","data":{"MediaKey":"a b"}}
{"resourceName":"Media","resourceRecordKey":"a b","eventType":"record.deleted","data":{"MediaKey":"a b"}}
{"resourceName":"Media","resourceRecordKey":"(x)"}
`

// urlsFile has a URL below the service root on every other line, and below it the
// status and the body of the answer.
const urlsFile = "testdata/odata_urls.txt"

// TestODataURLs: URLs, legal, illegal and oddly encoded, with status and body. With
// -update the answers are written; what changed is to be read then.
func TestODataURLs(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.publishLines(strings.TrimPrefix(fewEvents, "\n")).want(201, nil)
	b.exec(`UPDATE events SET recorded_at = '2026-03-04T12:00:00Z'::timestamptz + sequence * interval '1.000001 s'`)
	text, err := os.ReadFile(urlsFile)
	must(t, err)
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) < 2*150 || len(lines)%2 != 0 {
		t.Fatalf("%s has %d lines", urlsFile, len(lines))
	}
	var out bytes.Buffer
	for i := 0; i < len(lines); i += 2 {
		// What no HTTP client may send as it is.
		below := strings.ReplaceAll(strings.TrimPrefix(lines[i], "/"), " ", "%20")
		a := b.odata("GET", "default", below)
		body := strings.ReplaceAll(string(a.body), b.url, "http://host")
		got := fmt.Sprintf("%d %s", a.status, strings.ReplaceAll(strings.TrimSuffix(body, "\n"), "\n", "\\n"))
		fmt.Fprintf(&out, "%s\n%s\n", lines[i], got)
		if got != lines[i+1] && !*update {
			t.Errorf("%s\n got %s\nwant %s", lines[i], got, lines[i+1])
		}
		if version := a.header.Get("OData-Version"); version != "4.01" {
			t.Errorf("%s: OData-Version %q", lines[i], version)
		}
		head := b.odata("HEAD", "default", below)
		if head.status != a.status || len(head.body) > 0 || head.header.Get("Content-Length") != strconv.Itoa(len(a.body)) ||
			head.header.Get("Content-Type") != a.header.Get("Content-Type") || head.header.Get("OData-Version") != "4.01" {
			t.Errorf("%s: HEAD answers %d %v", lines[i], head.status, head.header)
		}
	}
	if *update {
		must(t, os.WriteFile(urlsFile, out.Bytes(), 0o600))
	}
}

// TestOData_described: answers are as the API's description says.
func TestOData_described(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.publishLines(strings.TrimPrefix(fewEvents, "\n")).want(201, nil)
	for below, status := range map[string]int{
		"": 200, "$metadata": 200, "EntityEvent?$count=true&$top=3": 200, "EntityEvent/$count": 200, "EntityEvent(3)": 200, "EntityEvent(99)": 404,
		"Property('235021')": 200, "Property('1')": 404, "$batch": 501, "EntityEvent?$filter=x": 400, "EntityEvent?$format=xml": 406,
	} {
		b.call("GET", "/odata/default/"+below, "").want(status, nil)
	}
}

// TestOData_headers: what headers ask for and what answers carry.
func TestOData_headers(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.publishLines(lines(1, 30)).want(201, nil)
	for name, c := range map[string]struct {
		below   string
		headers []string
		status  int
		answer  map[string]string
	}{
		"a client of 4.0":          {"EntityEvent", []string{"OData-MaxVersion", "4.0"}, 200, map[string]string{"OData-Version": "4.0"}},
		"an older client":          {"EntityEvent", []string{"OData-MaxVersion", "3.0"}, 400, map[string]string{"OData-Version": "4.01"}},
		"refused in its version":   {"EntityEvent?$filter=x", []string{"OData-MaxVersion", "4.0"}, 400, map[string]string{"OData-Version": "4.0"}},
		"a newer request":          {"EntityEvent", []string{"OData-Version", "5.0"}, 400, nil},
		"minimal":                  {"EntityEvent", nil, 200, map[string]string{"Content-Type": "application/json;odata.metadata=minimal;charset=utf-8", "Vary": "Accept, OData-MaxVersion, OData-Version, Prefer", "Cache-Control": "no-store"}},
		"numbers as strings":       {"EntityEvent", []string{"Accept", "application/json;IEEE754Compatible=true"}, 200, map[string]string{"Content-Type": "application/json;odata.metadata=minimal;IEEE754Compatible=true;charset=utf-8"}},
		"XML of events":            {"EntityEvent", []string{"Accept", "application/atom+xml"}, 406, nil},
		"XML of metadata":          {"$metadata", []string{"Accept", "application/json"}, 200, map[string]string{"Content-Type": "application/xml"}},
		"a page size of 4.0":       {"EntityEvent?$count=true", []string{"Prefer", "odata.maxpagesize=7", "OData-MaxVersion", "4.0"}, 200, map[string]string{"Preference-Applied": "odata.maxpagesize=7"}},
		"a page size":              {"EntityEvent", []string{"Prefer", "foo, maxpagesize=7"}, 200, map[string]string{"Preference-Applied": "maxpagesize=7"}},
		"too large a page":         {"EntityEvent", []string{"Prefer", "maxpagesize=1000000"}, 200, map[string]string{"Preference-Applied": ""}},
		"a preference not known":   {"EntityEvent", []string{"Prefer", "respond-async, wait=10"}, 200, map[string]string{"Preference-Applied": ""}},
		"a feed that is not there": {"../nowhere/EntityEvent", nil, 404, map[string]string{"OData-Version": "4.01"}},
	} {
		feed, below := "default", c.below
		if rest, ok := strings.CutPrefix(below, "../"); ok {
			feed, below, _ = strings.Cut(rest, "/")
		}
		a := b.odata("GET", feed, below, c.headers...)
		if a.status != c.status || a.header.Get("OData-Version") == "" {
			t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
		}
		for header, want := range c.answer {
			if got := a.header.Get(header); got != want {
				t.Errorf("%s: %s %q, want %q", name, header, got, want)
			}
		}
	}
}

// TestOData_refusals: every refusal below the service root is OData's.
func TestOData_refusals(t *testing.T) {
	t.Parallel()
	w := newRoleWorld(t)
	w.odata("GET", "mine", "EntityEvent", "Authorization", "").odataRefused(401, "Unauthorized", "")
	if challenge := w.odata("GET", "mine", "EntityEvent", "Authorization", "").header.Get("WWW-Authenticate"); !strings.HasPrefix(challenge, "Bearer") {
		t.Errorf("challenge %q", challenge)
	}
	refused := func(authorization, feed string, status int, code string) {
		t.Helper()
		w.odata("GET", feed, "EntityEvent", "Authorization", "", "Authorization", authorization).odataRefused(status, code, "")
	}
	refused(w.tokens["reader"], "theirs", 403, "Forbidden")
	refused(w.tokens["publisher"], "mine", 403, "Forbidden")
	refused(w.tokens["subscriber"], "mine", 403, "Forbidden")
	refused("Bearer "+token, "nowhere", 404, "NotFound")
	refused("Bearer "+token, "NoName", 404, "NotFound")
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "MERGE", "OPTIONS"} {
		for _, below := range []string{"", "EntityEvent", "EntityEvent(1)", "$metadata", "Property('1')"} {
			a := w.odata(method, "mine", below)
			a.odataRefused(405, "MethodNotAllowed", "")
			if allow := a.header.Get("Allow"); allow != "GET, HEAD" {
				t.Errorf("%s %s: Allow %q", method, below, allow)
			}
		}
	}
	w.odata("GET", "mine", "EntityEvent?$expand=Media").odataRefused(501, "NotImplemented", "$expand")
	w.odata("GET", "mine", "EntityEvent?$filter=Foo%20eq%201").odataRefused(400, "BadRequest", "$filter")
	w.odata("GET", "mine", "EntityEvent?$format=xml").odataRefused(406, "NotAcceptable", "$format")
	// The root without its slash is the same service.
	w.raw("GET", "/odata/mine").want(200, nil)
	// Below /odata/ there are feeds only.
	w.raw("GET", "/odata/").odataRefused(404, "NotFound", "")
}

// TestOData_links: links are below the root as the client called it.
func TestOData_links(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.publishLines(lines(1, 3)).want(201, nil)
	for root, headers := range map[string][]string{
		"http://mls.example":       {"Host", "mls.example"},
		"http://mls.example:8080":  {"Host", "mls.example:8080", "X-Forwarded-Proto", "http"},
		"https://mls.example":      {"Host", "mls.example", "X-Forwarded-Proto", "https"},
		"http://second.example:81": {"Host", "second.example:81", "X-Forwarded-Proto", "javascript"},
	} {
		var p struct {
			Context  string `json:"@odata.context"`
			NextLink string `json:"@odata.nextLink"`
			Value    []struct{ ResourceRecordURL string }
		}
		b.odata("GET", "default", "EntityEvent", append(headers, "Prefer", "maxpagesize=2")...).want(200, &p)
		root += "/odata/default/"
		if p.Context != root+"$metadata#EntityEvent" || !strings.HasPrefix(p.NextLink, root+"EntityEvent?$skiptoken=") ||
			len(p.Value) != 2 || p.Value[0].ResourceRecordURL != root+"Property('1')" {
			t.Errorf("below %s: %+v", root, p)
		}
	}
}

// TestOData_tokens: a link to a next page is good for its query and feed alone, in
// every process, and shows the feed as it was at the first page.
func TestOData_tokens(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.publishLines(lines(1, 10)).want(201, nil)
	first := func(query string) (link string) {
		t.Helper()
		var p entityPage
		b.odata("GET", "default", "EntityEvent"+query, "Prefer", "maxpagesize=4").want(200, &p)
		return b.below("default", p.NextLink)
	}
	link := first("?$count=true")
	b.publishLines(lines(11, 10)).want(201, nil)
	other := setup(t, options{dbURL: b.dbURL})
	var sequences []int64
	for next := link; next != ""; {
		var p entityPage
		other.odata("GET", "default", next).want(200, &p)
		for _, e := range p.Value {
			sequences = append(sequences, e.EntityEventSequence)
		}
		if p.Count == nil || *p.Count != 10 {
			t.Errorf("the count of the next page is %v", p.Count)
		}
		if next = p.NextLink; next != "" {
			next = other.below("default", next)
		}
	}
	if fmt.Sprint(sequences) != "[5 6 7 8 9 10]" {
		t.Errorf("the next pages have %v", sequences)
	}
	for name, wrong := range map[string]string{
		"another query":   strings.Replace(link, "$count=true", "$count=false", 1),
		"a filter more":   link + "&$filter=true",
		"cut":             link[:len(link)-1],
		"made up":         "EntityEvent?$count=true&$skiptoken=AAAA",
		"of another feed": first("?$skip=1"),
	} {
		feed := "default"
		if name == "of another feed" {
			b.call("POST", "/v1/feeds", `{"name":"another"}`).want(201, nil)
			feed = "another"
		}
		a := b.odata("GET", feed, wrong)
		if a.status != 400 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
			continue
		}
		a.odataRefused(400, "BadRequest", "$skiptoken")
	}
}

// TestOData_topOne: one event wanted, none announced; and what $top leaves out is
// not announced either.
func TestOData_topOne(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.publishLines(lines(1, 10)).want(201, nil)
	for query, want := range map[string]string{
		"$top=1": "1 false", "$top=1&$skip=9": "1 false", "$top=4": "4 false", "$top=5": "4 true", "$top=0": "0 false", "$skip=6": "4 false",
		"$skip=5": "4 true", "$skip=10": "0 false", "$filter=EntityEventSequence gt 6": "4 false", "$filter=EntityEventSequence gt 10": "0 false",
	} {
		var p entityPage
		b.odata("GET", "default", "EntityEvent?"+strings.ReplaceAll(query, " ", "%20"), "Prefer", "maxpagesize=4").want(200, &p)
		if got := fmt.Sprint(len(p.Value), p.NextLink != ""); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

// TestOData_floor: events that were removed are not there, and a client whose
// position is among them gets what there is.
func TestOData_floor(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.publishLines(lines(1, 10)).want(201, nil)
	b.exec(`UPDATE feeds SET floor_sequence = 6 WHERE name = 'default'`)
	var p entityPage
	b.odata("GET", "default", "EntityEvent?$filter=EntityEventSequence%20gt%202&$count=true").want(200, &p)
	if len(p.Value) != 4 || p.Value[0].EntityEventSequence != 7 || *p.Count != 4 {
		t.Errorf("got %+v", p)
	}
	b.odata("GET", "default", "EntityEvent(6)").odataRefused(404, "NotFound", "")
	b.odata("GET", "default", "EntityEvent(7)").want(200, nil)
	b.odata("GET", "default", "Property('6')").odataRefused(404, "NotFound", "")
	b.odata("GET", "default", "Property('7')").odataRefused(404, "NotFound", "") // no data
}

// TestOData_tooExpensive: a query has an end, and the answer says which.
func TestOData_tooExpensive(t *testing.T) {
	t.Parallel()
	b := setup(t, options{api: func(c *api.Config) { c.EntityQueryMax = 50 * time.Millisecond; c.DatabaseMax = 30 * time.Second }})
	b.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key)
		SELECT f.id, n, now(), 'Property', n::text FROM feeds f, generate_series(1, 50000) AS n WHERE f.name = 'default'`)
	for _, query := range []string{"EntityEvent?$filter=", "EntityEvent/$count?$filter=", "EntityEvent?$top=0&$count=true&$filter="} {
		b.odata("GET", "default", query+"endswith(ResourceRecordUrl,'no')").odataRefused(400, "TooExpensive", "")
	}
	// Its connection is as good as new.
	var p entityPage
	b.odata("GET", "default", "EntityEvent?$filter=EntityEventSequence%20gt%2049990").want(200, &p)
	if len(p.Value) != 10 {
		t.Errorf("got %+v", p)
	}
}

// TestOData_busy: more queries than may run at once are turned away, and those that
// ran end too.
func TestOData_busy(t *testing.T) {
	t.Parallel()
	b := setup(t, options{api: func(c *api.Config) { c.EntityQueryMax = 3 * time.Second; c.DatabaseMax = 3500 * time.Millisecond }})
	b.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key)
		SELECT f.id, n, now(), 'Property', n::text FROM feeds f, generate_series(1, 300000) AS n WHERE f.name = 'default'`)
	var slow sync.WaitGroup
	for range 8 {
		slow.Go(func() {
			b.odata("GET", "default", "EntityEvent?$filter=endswith(ResourceRecordUrl,'no')").odataRefused(400, "TooExpensive", "")
		})
	}
	testkit.Eventually(t, soon, func() bool {
		var running int
		must(t, b.pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND state = 'active' AND query LIKE '%string_agg%' AND pid <> pg_backend_pid()`).Scan(&running))
		return running == 8
	}, "eight queries that run")
	ninth := b.odata("GET", "default", "EntityEvent(1)")
	ninth.odataRefused(503, "Busy", "")
	if after := ninth.header.Get("Retry-After"); after != "1" {
		t.Errorf("Retry-After %q", after)
	}
	slow.Wait()
	b.odata("GET", "default", "EntityEvent(1)").want(200, nil)
}

// TestOData_pageBytes: a page of large events is cut, and the next ones have the
// rest.
func TestOData_pageBytes(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	long := `"resourceRecordUrl":"http://h/` + strings.Repeat("x", 7900) + `"`
	for first := 0; first < 1000; first += 250 {
		var list []json.RawMessage
		for i := range 250 {
			list = append(list, json.RawMessage(one(strconv.Itoa(first+i), long)))
		}
		text, err := json.Marshal(list)
		must(t, err)
		b.publish(string(text)).want(201, nil)
	}
	pages, events := 0, 0
	for next := "EntityEvent"; next != ""; pages++ {
		a := b.odata("GET", "default", next)
		if len(a.body) > 5<<20 {
			t.Fatalf("a page has %d bytes", len(a.body))
		}
		var p entityPage
		a.want(200, &p)
		for _, e := range p.Value {
			if events++; e.EntityEventSequence != int64(events) {
				t.Fatalf("event %d is %d", events, e.EntityEventSequence)
			}
		}
		if next = p.NextLink; next != "" {
			next = b.below("default", next)
		}
	}
	if events != 1000 || pages < 2 {
		t.Errorf("%d events on %d pages", events, pages)
	}
}

// TestOData_host: a name of the host that is no text is answered all the same.
func TestOData_host(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	must(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "GET http://a\xff/odata/default/EntityEvent HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n", token)
	must(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("status %d", response.StatusCode)
	}
}

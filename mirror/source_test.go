package mirror_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"postroad/event"
	"postroad/internal/streams"
)

// source is a RESO server. Its fields are what is odd about it.
type source struct {
	*httptest.Server
	t testing.TB

	mu     sync.Mutex
	events []event.Event // in the order of sequences
	asked  []string      // the queries that came

	// pageMax is the most events in an answer, whatever $top says; 0: none.
	pageMax int
	// links gives nextLinks: "" none, else how the address of the next page is
	// made of the request's.
	links func(r *http.Request, after int64) string
	// asStrings gives sequences as strings, overlap repeats so many events of the
	// page before.
	asStrings bool
	overlap   int
	// refuse are query options that it answers 501 to.
	refuse []string
	// ge takes gt for ge.
	ge bool
	// answer, where it returns true, answers itself. n counts requests from 0.
	answer func(n int, w http.ResponseWriter, r *http.Request) bool
}

func newSource(t testing.TB, events []event.Event) *source {
	t.Helper()
	s := &source{t: t, events: events}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *source) root() string { return s.URL + "/reso/odata" }

// commit lets an event become visible.
func (s *source) commit(events ...event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, events...)
	slices.SortFunc(s.events, func(a, b event.Event) int { return int(a.Sequence - b.Sequence) })
}

func (s *source) queries() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

var gt = regexp.MustCompile(`^EntityEventSequence gt (\d+)$`)

func (s *source) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.asked)
	query, _ := url.QueryUnescape(r.URL.RawQuery)
	s.asked = append(s.asked, query)
	if s.answer != nil && s.answer(n, w, r) {
		return
	}
	q := r.URL.Query()
	if r.URL.Path != "/reso/odata/EntityEvent" {
		http.Error(w, `{"error":{"code":"404","message":"no such resource"}}`, http.StatusNotFound)
		return
	}
	for _, option := range s.refuse {
		if strings.Contains(query, option) {
			http.Error(w, `{"error":{"code":"501","message":"`+option+` is not offered"}}`, http.StatusNotImplemented)
			return
		}
	}
	events, top := s.events, len(s.events)
	if s.pageMax > 0 {
		top = s.pageMax
	}
	if value := q.Get("$top"); value != "" {
		n, err := strconv.Atoi(value)
		if err != nil {
			http.Error(w, "top", http.StatusBadRequest)
			return
		}
		top = min(top, n)
	}
	if q.Get("$orderby") == "EntityEventSequence desc" {
		events = slices.Clone(events)
		slices.Reverse(events)
		s.write(w, r, events[:min(top, len(events))], false)
		return
	}
	match := gt.FindStringSubmatch(q.Get("$filter"))
	if match == nil {
		http.Error(w, "filter "+q.Get("$filter"), http.StatusBadRequest)
		return
	}
	after, _ := strconv.ParseInt(match[1], 10, 64)
	if s.ge {
		after--
	}
	at, _ := slices.BinarySearchFunc(events, after+1, func(e event.Event, n int64) int { return int(e.Sequence - n) })
	if skip, err := strconv.Atoi(q.Get("$skip")); err == nil {
		at = min(at+skip, len(events))
	}
	if q.Has("link") {
		at = max(at-s.overlap, 0)
	}
	end := min(at+top, len(events))
	s.write(w, r, events[at:end], end < len(events))
}

func (s *source) write(w http.ResponseWriter, r *http.Request, events []event.Event, more bool) {
	values := []map[string]any{}
	for _, e := range events {
		value := map[string]any{
			"EntityEventSequence": e.Sequence, "ResourceName": e.ResourceName, "ResourceRecordKey": e.ResourceRecordKey,
			"ModificationTimestamp": "2026-01-01T00:00:00Z", "OriginatingSystemName": nil,
		}
		if s.asStrings {
			value["EntityEventSequence"] = strconv.FormatInt(e.Sequence, 10)
		}
		if e.ResourceRecordURL != "" {
			value["ResourceRecordUrl"] = e.ResourceRecordURL
		}
		if e.EventType != "" {
			value["EventType"] = e.EventType
		}
		if e.FeedTypes != nil {
			value["FeedTypes"] = e.FeedTypes
		}
		values = append(values, value)
	}
	document := map[string]any{"@odata.context": s.URL + "/reso/odata/$metadata#EntityEvent", "value": values}
	if more && s.links != nil {
		if link := s.links(r, events[len(events)-1].Sequence); link != "" {
			document["@odata.nextLink"] = link
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("OData-Version", "4.0")
	_ = json.NewEncoder(w).Encode(document)
}

// absolute are the nextLinks of a good server.
func (s *source) absolute(_ *http.Request, after int64) string {
	return s.root() + "/EntityEvent?link=1&$filter=EntityEventSequence%20gt%20" + strconv.FormatInt(after, 10)
}

// relative are the nextLinks that a service may give too.
func (s *source) relative(_ *http.Request, after int64) string {
	return "EntityEvent?link=1&$filter=EntityEventSequence%20gt%20" + strconv.FormatInt(after, 10)
}

// skipping are nextLinks that count rows.
func (s *source) skipping(_ *http.Request, after int64) string {
	rows := slices.IndexFunc(s.events, func(e event.Event) bool { return e.Sequence == after }) + 1
	return s.root() + "/EntityEvent?$filter=EntityEventSequence%20gt%200&$skip=" + strconv.Itoa(rows)
}

// numbered returns events with these sequences.
func numbered(sequences ...int64) []event.Event {
	var events []event.Event
	for _, n := range sequences {
		events = append(events, event.Event{Sequence: n, ResourceName: "Property", ResourceRecordKey: fmt.Sprint("key-", n)})
	}
	return events
}

func upTo(n int64) []int64 {
	var list []int64
	for i := int64(1); i <= n; i++ {
		list = append(list, i)
	}
	return list
}

// stream is a real stream of 12,525 changes, with the gaps that rolled back
// transactions leave: the number of event i is given by it.
func stream(t testing.TB, number func(i int) int64) []event.Event {
	t.Helper()
	lines, err := streams.Lines("sdk-go")
	must(t, err)
	events := make([]event.Event, len(lines))
	for i, line := range lines {
		must(t, json.Unmarshal(line, &events[i]))
		events[i] = event.Event{
			Sequence: number(i), ResourceName: events[i].ResourceName, ResourceRecordKey: events[i].ResourceRecordKey,
			ResourceRecordURL: "https://example.org/File('" + strconv.Itoa(i) + "')", EventType: events[i].EventType,
		}
		if i%7 == 0 {
			events[i].FeedTypes = []string{"IDX", "VOW"}
		}
	}
	return events
}

package event_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"postroad/event"
)

// full is an event with every member set.
func full() event.Event {
	return event.Event{
		Sequence:          1101,
		ResourceName:      "Property",
		ResourceRecordKey: "235021",
		ResourceRecordURL: "https://example.com/Property('235021')",
		EventType:         "StatusChanged",
		FeedTypes:         []string{"IDX", "VOW"},
		Attributes:        map[string]string{"office": "12", "region": "north"},
		Related:           []string{"https://example.com/Media('1')", "https://example.com/Media('2')"},
		Bulk:              true,
		OccurredAt:        "2026-02-03T04:05:06.000+01:00",
		RecordedAt:        time.Date(2026, 2, 3, 3, 5, 7, 123456000, time.UTC),
		Data:              json.RawMessage(`{"a": [1,  2]}`),
		IdempotencyKey:    "publisher/1",
	}
}

// TestContentHash changes one member at a time: each must make the content
// another one, and the two that are not content must not.
func TestContentHash(t *testing.T) {
	t.Parallel()
	base := full()
	seen := map[[32]byte]string{base.ContentHash(): "the unchanged event"}
	for member, change := range map[string]func(*event.Event){
		"sequence":                     func(e *event.Event) { e.Sequence++ },
		"resourceName":                 func(e *event.Event) { e.ResourceName = "property" },
		"resourceRecordKey":            func(e *event.Event) { e.ResourceRecordKey += " " },
		"resourceRecordUrl":            func(e *event.Event) { e.ResourceRecordURL += "/" },
		"resourceRecordUrl left out":   func(e *event.Event) { e.ResourceRecordURL = "" },
		"eventType":                    func(e *event.Event) { e.EventType = "Sold" },
		"eventType left out":           func(e *event.Event) { e.EventType = "" },
		"name moves to key":            func(e *event.Event) { e.ResourceName, e.ResourceRecordKey = "Propert", "y235021" },
		"type moves to url":            func(e *event.Event) { e.ResourceRecordURL, e.EventType = e.ResourceRecordURL+e.EventType, "" },
		"feedTypes in another order":   func(e *event.Event) { e.FeedTypes = []string{"VOW", "IDX"} },
		"feedTypes joined":             func(e *event.Event) { e.FeedTypes = []string{"IDXVOW"} },
		"feedTypes one fewer":          func(e *event.Event) { e.FeedTypes = e.FeedTypes[:1] },
		"feedTypes left out":           func(e *event.Event) { e.FeedTypes = nil },
		"attributes another value":     func(e *event.Event) { e.Attributes = map[string]string{"office": "12", "region": "south"} },
		"attributes another name":      func(e *event.Event) { e.Attributes = map[string]string{"office": "12", "area": "north"} },
		"attributes values swapped":    func(e *event.Event) { e.Attributes = map[string]string{"office": "north", "region": "12"} },
		"attributes one more":          func(e *event.Event) { e.Attributes = map[string]string{"office": "12", "region": "north", "z": ""} },
		"attributes left out":          func(e *event.Event) { e.Attributes = nil },
		"related in another order":     func(e *event.Event) { e.Related = []string{e.Related[1], e.Related[0]} },
		"related moves to feedTypes":   func(e *event.Event) { e.FeedTypes, e.Related = append(e.FeedTypes, e.Related[0]), e.Related[1:] },
		"bulk":                         func(e *event.Event) { e.Bulk = false },
		"occurredAt, the same instant": func(e *event.Event) { e.OccurredAt = "2026-02-03T03:05:06.000Z" },
		"data, other spaces":           func(e *event.Event) { e.Data = json.RawMessage(`{"a":[1,2]}`) },
		"data null":                    func(e *event.Event) { e.Data = json.RawMessage(`null`) },
		"data left out":                func(e *event.Event) { e.Data = nil },
		"data empty":                   func(e *event.Event) { e.Data = json.RawMessage{} },
	} {
		e := full()
		change(&e)
		hash := e.ContentHash()
		if other, taken := seen[hash]; taken {
			t.Errorf("%s: the hash is that of %s", member, other)
		}
		seen[hash] = member
	}
	for member, change := range map[string]func(*event.Event){
		"idempotencyKey":           func(e *event.Event) { e.IdempotencyKey = "publisher/2" },
		"recordedAt":               func(e *event.Event) { e.RecordedAt = e.RecordedAt.Add(time.Hour) },
		"erasedAt":                 func(e *event.Event) { e.ErasedAt = e.RecordedAt },
		"attributes made anew":     func(e *event.Event) { e.Attributes = map[string]string{"region": "north", "office": "12"} },
		"lists made anew":          func(e *event.Event) { e.Related, e.FeedTypes = slices.Clone(e.Related), slices.Clone(e.FeedTypes) },
		"the same data elsewhere":  func(e *event.Event) { e.Data = bytes.Clone(e.Data) },
		"the trace":                func(e *event.Event) { e.Trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" },
		"nothing, asked once more": func(*event.Event) {},
	} {
		e := full()
		change(&e)
		if e.ContentHash() != base.ContentHash() {
			t.Errorf("%s is not content, but changes the hash", member)
		}
	}
}

// TestContentHashPinned holds the hash to what databases have stored: another
// value would turn every repeat of a publisher into a conflict. The constant
// was computed by another program from the rule: 64-bit big-endian lengths.
func TestContentHashPinned(t *testing.T) {
	t.Parallel()
	e := full()
	got := e.ContentHash()
	const want = "dc60a0b44e8282f0112993ccb4ba2bd5896be20af18cfb1ac08610a0f7b6378a"
	if hex.EncodeToString(got[:]) != want {
		t.Errorf("content hash is %x, want %s", got, want)
	}
}

func TestAppendJSON(t *testing.T) {
	t.Parallel()
	e := full()
	const want = `{"sequence":1101,"resourceName":"Property","resourceRecordKey":"235021",` +
		`"resourceRecordUrl":"https://example.com/Property('235021')","eventType":"StatusChanged","feedTypes":["IDX","VOW"],` +
		`"attributes":{"office":"12","region":"north"},"related":["https://example.com/Media('1')","https://example.com/Media('2')"],` +
		`"bulk":true,"occurredAt":"2026-02-03T04:05:06.000+01:00","recordedAt":"2026-02-03T03:05:07.123456Z","data":{"a": [1,  2]},"erasedAt":"2026-02-04T03:05:07Z"}`
	e.ErasedAt = time.Date(2026, 2, 4, 3, 5, 7, 0, time.UTC)
	if diff := cmp.Diff(want, string(e.AppendJSON(nil))); diff != "" {
		t.Errorf("an event with every member (-want +got):\n%s", diff)
	}
	least := event.Event{Sequence: 1, ResourceName: "A", ResourceRecordKey: "b", RecordedAt: e.RecordedAt.In(time.FixedZone("", 3600))}
	const wantLeast = `x{"sequence":1,"resourceName":"A","resourceRecordKey":"b","recordedAt":"2026-02-03T03:05:07.123456Z"}`
	if diff := cmp.Diff(wantLeast, string(least.AppendJSON([]byte("x")))); diff != "" {
		t.Errorf("an event with the least (-want +got):\n%s", diff)
	}
}

// FuzzAppendJSON holds the hand-written encoder to the standard library's
// decoder: what is read back is what went in, data byte for byte.
func FuzzAppendJSON(f *testing.F) {
	f.Add(int64(1), "Property", "235021", "", "", "", `{"a": "\u00e9"}`, true)
	f.Add(int64(1<<62), "\"\\\n\r\t\x00\x1f\x7f", "\u2028\ufffd\U0001F600", "a\xffb", "\xed\xa0\x80", "é", "null", false)
	f.Add(int64(-1), "</script>", "&", "%", "'", "\\u0041", "[1.0e5, \"\xff\"]", false)
	f.Fuzz(func(t *testing.T, sequence int64, name, key, url, kind, label, data string, bulk bool) {
		e := event.Event{
			Sequence: sequence, ResourceName: name, ResourceRecordKey: key, ResourceRecordURL: url, EventType: kind,
			FeedTypes: []string{label, name}, Attributes: map[string]string{label: kind, label + "2": url}, Related: []string{url},
			Bulk: bulk, OccurredAt: label, RecordedAt: time.UnixMicro(sequence % (1 << 55)).UTC(),
		}
		if json.Valid([]byte(data)) {
			e.Data = json.RawMessage(strings.Trim(data, " \t\r\n"))
		}
		text := e.AppendJSON(nil)
		if !utf8.Valid(withoutData(text, e.Data)) {
			t.Fatalf("%q is not UTF-8", text)
		}
		var got event.Event
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%s is not what encoding/json reads: %v", text, err)
		}
		want := e
		valid := func(s string) string { return string([]rune(s)) } // each bad byte is one U+FFFD
		want.ResourceName, want.ResourceRecordKey = valid(name), valid(key)
		want.ResourceRecordURL, want.EventType, want.OccurredAt = valid(url), valid(kind), valid(label)
		want.FeedTypes, want.Related = []string{valid(label), valid(name)}, []string{valid(url)}
		want.Attributes = map[string]string{valid(label): valid(kind), valid(label) + "2": valid(url)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s reads as something else (-want +got):\n%s", text, diff)
		}
	})
}

// withoutData cuts off data, which stands last and is the producer's bytes.
func withoutData(text, data []byte) []byte { return text[:len(text)-len(data)-1] }

// TestSize: queues and rings count on an event being no larger than its Size.
func TestSize(t *testing.T) {
	t.Parallel()
	e := full()
	before := e.Size()
	if least := len(e.AppendJSON(nil)); before < least {
		t.Errorf("Size is %d, but its text alone has %d bytes", before, least)
	}
	for member, change := range map[string]func(*event.Event, string){
		"resourceName":      func(e *event.Event, s string) { e.ResourceName += s },
		"resourceRecordKey": func(e *event.Event, s string) { e.ResourceRecordKey += s },
		"resourceRecordUrl": func(e *event.Event, s string) { e.ResourceRecordURL += s },
		"eventType":         func(e *event.Event, s string) { e.EventType += s },
		"feedTypes":         func(e *event.Event, s string) { e.FeedTypes = append(e.FeedTypes, s) },
		"attribute names":   func(e *event.Event, s string) { e.Attributes[s] = "" },
		"attribute values":  func(e *event.Event, s string) { e.Attributes["office"] += s },
		"related":           func(e *event.Event, s string) { e.Related = append(e.Related, s) },
		"occurredAt":        func(e *event.Event, s string) { e.OccurredAt += s },
		"data":              func(e *event.Event, s string) { e.Data = append(e.Data, s...) },
		"idempotencyKey":    func(e *event.Event, s string) { e.IdempotencyKey += s },
	} {
		e := full()
		if change(&e, strings.Repeat("x", 1000)); e.Size() < before+1000 {
			t.Errorf("1,000 bytes more in %s add %d to Size", member, e.Size()-before)
		}
	}
}

func TestKey(t *testing.T) {
	t.Parallel()
	e := full()
	if got, want := e.Key(), (event.Key{ResourceName: "Property", ResourceRecordKey: "235021"}); got != want {
		t.Errorf("Key is %+v, want %+v", got, want)
	}
}

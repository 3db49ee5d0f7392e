package delivery

import (
	"encoding/json"
	"maps"
	"strconv"
	"strings"
	"testing"

	"postroad/event"
)

func TestAppendBody(t *testing.T) {
	t.Parallel()
	one := &event.Event{
		Sequence: 1101, ResourceName: "Showing", ResourceRecordKey: "235021", EventType: "Created", Bulk: true,
		Attributes: map[string]string{"a": "b"}, OccurredAt: "2026-01-01T00:00:00Z", Data: json.RawMessage(`{ "a" : 1 }`),
	}
	two := &event.Event{Sequence: 1<<63 - 1, ResourceName: "A\"\\\n\x01é", ResourceRecordKey: "7", ResourceRecordURL: "https://r.example/P('7')?a=1&b=<2>"}
	const context = `"@reso.context":"urn:reso:metadata:2.0:resource:entityevent"`
	const memberOne = `"EntityEventSequence":1101,"ResourceName":"Showing","ResourceRecordKey":"235021"`
	const memberTwo = `"EntityEventSequence":9223372036854775807,"ResourceName":"A\"\\\n\u0001é","ResourceRecordKey":"7","ResourceRecordUrl":"https://r.example/P('7')?a=1&b=<2>"`
	tests := []struct {
		name, format string
		batched      bool
		events       []*event.Event
		want         string
	}{
		{"reso single", event.FormatRESO, false, []*event.Event{one}, `{` + context + `,` + memberOne + `}`},
		{"reso single with URL", event.FormatRESO, false, []*event.Event{two}, `{` + context + `,` + memberTwo + `}`},
		{"reso batch of one", event.FormatRESO, true, []*event.Event{one}, `{` + context + `,"value":[{` + memberOne + `}]}`},
		{"reso batch", event.FormatRESO, true, []*event.Event{one, two}, `{` + context + `,"value":[{` + memberOne + `},{` + memberTwo + `}]}`},
		{"reso test", event.FormatRESO, true, nil, `{` + context + `,"value":[]}`},
		{"raw single", event.FormatRaw, false, []*event.Event{one}, `{ "a" : 1 }`},
		{"raw single without data", event.FormatRaw, false, []*event.Event{two}, `null`},
		{"raw batch of one", event.FormatRaw, true, []*event.Event{one}, `[{ "a" : 1 }]`},
		{"raw batch", event.FormatRaw, true, []*event.Event{one, two, one}, `[{ "a" : 1 },null,{ "a" : 1 }]`},
		{"raw test", event.FormatRaw, true, nil, `[]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := string(AppendBody([]byte("before"), tt.format, tt.batched, tt.events))
			if got != "before"+tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if !json.Valid([]byte(tt.want)) {
				t.Error("the body is not valid JSON")
			}
		})
	}
}

// A strict consumer refuses members that the metadata does not advertise, a
// sequence that is a string and a key that is a number.
func FuzzAppendBody(f *testing.F) {
	f.Add("Property", "1", "", "", int64(1))
	f.Add("\x00\x1f\"\\\u2028", "\xff\xc0\x80", "https://x", `{"a":[1]}`, int64(1<<62))
	f.Fuzz(func(t *testing.T, name, key, url, data string, sequence int64) {
		e := &event.Event{Sequence: max(sequence, 1), ResourceName: name, ResourceRecordKey: key, ResourceRecordURL: url}
		if json.Valid([]byte(data)) {
			e.Data = json.RawMessage(data)
		}
		for _, format := range []string{event.FormatRESO, event.FormatRaw} {
			events := []*event.Event{e, benchEvent(), e}
			size := EnvelopeBytes(format)
			for n := 1; n <= len(events); n++ {
				size += Size(format, events[n-1])
				body := AppendBody(nil, format, true, events[:n])
				if len(body) != size || !json.Valid(body) {
					t.Fatalf("%s of %d: %d bytes, sized %d: %s", format, n, len(body), size, body)
				}
			}
		}
		var got map[string]any
		decoder := json.NewDecoder(strings.NewReader(string(AppendBody(nil, event.FormatRESO, false, []*event.Event{e}))))
		decoder.UseNumber()
		if err := decoder.Decode(&got); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"@reso.context":       "urn:reso:metadata:2.0:resource:entityevent",
			"EntityEventSequence": json.Number(strconv.FormatInt(e.Sequence, 10)),
			"ResourceName":        validText(name), "ResourceRecordKey": validText(key),
		}
		if url != "" {
			want["ResourceRecordUrl"] = validText(url)
		}
		if !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// validText replaces each invalid byte on its own, as JSON encoders do.
func validText(s string) string { return string([]rune(s)) }

func TestTargetFit(t *testing.T) {
	t.Parallel()
	small := &event.Event{Sequence: 1, ResourceName: "A", ResourceRecordKey: "1"}
	large := &event.Event{Sequence: 2, ResourceName: strings.Repeat("B", 200), ResourceRecordKey: "1"}
	size := func(events ...*event.Event) int { return len(AppendBody(nil, event.FormatRESO, true, events)) }
	tests := []struct {
		name         string
		size, bytes  int
		limit        int
		events, want int
	}{
		{"not batched", 1, 1 << 20, 100, 4, 1},
		{"nothing", 10, 1 << 20, 100, 0, 0},
		{"all", 10, 1 << 20, 100, 4, 4},
		{"batchSize", 3, 1 << 20, 100, 4, 3},
		{"limit", 10, 1 << 20, 2, 4, 2},
		{"a probe of one", 10, 1 << 20, 1, 4, 1},
		{"bytes to the byte", 10, size(large, small, large), 100, 4, 3},
		{"a byte too few", 10, size(large, small, large) - 1, 100, 4, 2},
		{"one event always fits", 10, 1, 100, 4, 1},
	}
	c := NewClient(Config{})
	defer c.Close()
	for _, tt := range tests {
		sub := event.Subscriber{ID: "a", Endpoint: event.Endpoint{URL: "https://c.example"}, BatchSize: event.Count(tt.size), BatchBytes: tt.bytes}
		sub.Signing.Scheme = event.SigningNone
		target, err := c.NewTarget(TargetConfig{Subscriber: sub})
		if err != nil {
			t.Fatal(err)
		}
		if got := target.Fit([]*event.Event{large, small, large, small}[:tt.events], tt.limit); got != tt.want {
			t.Errorf("%s: Fit = %d, want %d", tt.name, got, tt.want)
		}
	}
}

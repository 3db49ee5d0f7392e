package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"postroad/event"
)

func decodeOne(text string, supplied bool) ([]event.Event, error) {
	var d eventDecoder
	return d.decodeBody([]byte(text), supplied)
}

func TestDecodeBody(t *testing.T) {
	t.Parallel()
	full := `{"resourceName":"Property","resourceRecordKey":"k/1","resourceRecordUrl":"https://x.test/1","eventType":"t",` +
		`"feedTypes":["A","B"],"attributes":{"b":"2","a":"\u00e9"},"related":["u"],"bulk":true,` +
		`"occurredAt":"2021-08-09T00:44:43.120-07:00","recordedAt":"ignored","erasedAt":"ignored","data": { "n" : 1.00e+2 , "x":"\ud83d\ude00" } ,"idempotencyKey":"i"}`
	want := event.Event{
		ResourceName: "Property", ResourceRecordKey: "k/1", ResourceRecordURL: "https://x.test/1", EventType: "t",
		FeedTypes: []string{"A", "B"}, Attributes: map[string]string{"a": "é", "b": "2"}, Related: []string{"u"}, Bulk: true,
		OccurredAt: "2021-08-09T00:44:43.120-07:00", Data: json.RawMessage(`{ "n" : 1.00e+2 , "x":"\ud83d\ude00" }`), IdempotencyKey: "i",
	}
	small := event.Event{ResourceName: "A", ResourceRecordKey: "1"}
	withData := func(data string) []event.Event {
		ev := small
		ev.Data = json.RawMessage(data)
		return []event.Event{ev}
	}
	for name, tc := range map[string]struct {
		text string
		want []event.Event
	}{
		"every member":              {full, []event.Event{want}},
		"an array":                  {" [" + full + " , \n" + full + "] ", []event.Event{want, want}},
		"null is absent":            {`{"resourceName":"A","resourceRecordKey":"1","eventType":null,"feedTypes":null,"attributes":null,"related":null,"bulk":null,"occurredAt":null,"sequence":null,"idempotencyKey":null,"recordedAt":null}`, []event.Event{small}},
		"data null stays":           {`{"resourceName":"A","resourceRecordKey":"1","data":null}`, withData("null")},
		"names repeated in data":    {`{"resourceName":"A","resourceRecordKey":"1","data":{"a":1,"a":2}}`, withData(`{"a":1,"a":2}`)},
		"a huge number in data":     {`{"resourceName":"A","resourceRecordKey":"1","data":-0.10E-400}`, withData("-0.10E-400")},
		"an escaped member name":    {`{"resource\u004eame":"A","resourceRecordKey":"1"}`, []event.Event{small}},
		"backslash before u0000":    {`{"resourceName":"A","resourceRecordKey":"1","data":"\\u0000"}`, withData(`"\\u0000"`)},
		"255 characters, not bytes": {`{"resourceName":"A","resourceRecordKey":"1","eventType":"` + strings.Repeat("é", 255) + `"}`, []event.Event{{ResourceName: "A", ResourceRecordKey: "1", EventType: strings.Repeat("é", 255)}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := decodeOne(tc.text, false)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDecodeBody_faultsNameTheMember(t *testing.T) {
	t.Parallel()
	ok := `"resourceName":"A","resourceRecordKey":"1"`
	long := strings.Repeat("x", 256)
	for text, pointers := range map[string]string{
		`{}`:                                  "/resourceName /resourceRecordKey",
		`[{` + ok + `},{}]`:                   "/1/resourceName /1/resourceRecordKey",
		`[]`:                                  "",
		`[1]`:                                 "/0",
		`{"ResourceName":"A",` + ok + `}`:     "/ResourceName",
		`{"a/b~c":1,` + ok + `}`:              "/a~1b~0c",
		`{` + ok + `,"resourceName":"B"}`:     "/resourceName",
		`{"resourceName":7,` + ok[19:] + `}`:  "/resourceName",
		`{"resourceName":"",` + ok[19:] + `}`: "/resourceName",
		`{` + ok + `,"eventType":"` + long + `"}`:                              "/eventType",
		`{"resourceName":"` + long + `","resourceRecordKey":"` + long + `"}`:   "/resourceName /resourceRecordKey",
		`{` + ok + `,"resourceRecordUrl":"` + strings.Repeat("x", 8001) + `"}`: "/resourceRecordUrl",
		`{` + ok + `,"sequence":5}`:                                            "/sequence",
		`{` + ok + `,"bulk":"yes"}`:                                            "/bulk",
		`{` + ok + `,"feedTypes":"x"}`:                                         "/feedTypes",
		`{` + ok + `,"feedTypes":["a",1,null]}`:                                "/feedTypes/1 /feedTypes/2",
		`{` + ok + `,"related":["` + strings.Repeat("x", 8001) + `"]}`:         "/related/0",
		`{` + ok + `,"attributes":{"a":1}}`:                                    "/attributes/a",
		`{` + ok + `,"attributes":{"a":"1","a":"2"}}`:                          "/attributes/a",
		`{` + ok + `,"attributes":{"a\u0000":"1"}}`:                            "/attributes",
		`{` + ok + `,"occurredAt":"yesterday"}`:                                "/occurredAt",
		`{` + ok + `,"idempotencyKey":""}`:                                     "/idempotencyKey",
		`{` + ok + `,"idempotencyKey":"` + strings.Repeat("é", 128) + `"}`:     "/idempotencyKey",
		`{` + ok + `,"eventType":"a\u0000b"}`:                                  "/eventType",
		`{` + ok + `,"data":{"a":["x\\\u0000"]}}`:                              "/data",
		`{` + ok + `,"data":{"\u0000":1}}`:                                     "/data",
		`{` + ok + `,"data":{"a":["\ud800"]}}`:                                 "/data/a/0",
		`{` + ok + `,"data":"\udc00x"}`:                                        "/data",
		`{` + ok + `,"data":"` + "\xff" + `"}`:                                 "/data",
		`{` + ok + `,"eventType":"\ud800"}`:                                    "/eventType",
	} {
		_, err := decodeOne(text, false)
		var faults event.FieldErrors
		if !errors.As(err, &faults) {
			t.Errorf("%.80s: got %v, want faults at %s", text, err, pointers)
			continue
		}
		got := make([]string, len(faults))
		for i, f := range faults {
			got[i] = f.Pointer
		}
		if strings.Join(got, " ") != pointers {
			t.Errorf("%.80s: faults %v, want at %s", text, faults, pointers)
		}
	}
}

func TestDecodeBody_malformed(t *testing.T) {
	t.Parallel()
	ok := `"resourceName":"A","resourceRecordKey":"1"`
	for _, text := range []string{
		``, ` `, `{`, `[`, `{` + ok, `{` + ok + `,}`, `[{` + ok + `},]`, `{` + ok + `}}`, `{` + ok + `} {` + ok + `}`, `null`, `"x"`, `7`, `nul`,
		`{` + ok + `,"data":01}`, `{` + ok + `,"data":NaN}`, `{` + ok + ",\"data\":\"a\nb\"}", `{` + ok + ",\"data\":\"a\x00b\"}", `{` + ok + `,"data":"\x"}`,
		`{'resourceName':"A"}`, "\ufeff{" + ok + "}",
	} {
		_, err := decodeOne(text, false)
		var malformed *malformedError
		if !errors.As(err, &malformed) {
			t.Errorf("%q: got %v, want a malformed body", text, err)
		}
	}
}

func TestDecodeBody_bounds(t *testing.T) {
	t.Parallel()
	small := `{"resourceName":"A","resourceRecordKey":"1"}`
	array := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat(small+",", n), ",") + "]" }
	if got, err := decodeOne(array(eventsMax), false); err != nil || len(got) != eventsMax {
		t.Errorf("%d events: %d, %v", eventsMax, len(got), err)
	}
	if _, err := decodeOne(array(eventsMax+1), false); !errors.Is(err, errTooManyEvents) {
		t.Errorf("%d events: %v", eventsMax+1, err)
	}
	frame := `{"resourceName":"A","resourceRecordKey":"1","data":""}`
	fits := strings.Replace(frame, `""`, `"`+strings.Repeat("x", event.EventBytesMax-len(frame))+`"`, 1)
	if _, err := decodeOne(fits, false); err != nil {
		t.Errorf("an event of %d bytes: %v", len(fits), err)
	}
	tooLarge := strings.Replace(fits, "xx", "xxx", 1)
	var large *eventTooLargeError
	if _, err := decodeOne("["+small+","+tooLarge+"]", false); !errors.As(err, &large) || large.pointer != "/1" {
		t.Errorf("an event of %d bytes: %v", len(tooLarge), err)
	}
}

func TestDecodeBody_suppliedSequences(t *testing.T) {
	t.Parallel()
	at := func(sequence string) string {
		return `{"resourceName":"A","resourceRecordKey":"1","sequence":` + sequence + `}`
	}
	got, err := decodeOne("["+at("3")+","+at("9223372036854775807")+"]", true)
	if err != nil || got[0].Sequence != 3 || got[1].Sequence != 1<<63-1 {
		t.Fatalf("%v, %v", got, err)
	}
	for text, pointer := range map[string]string{
		at("0"): "/sequence", at("-1"): "/sequence", at("1.0"): "/sequence", at("1e3"): "/sequence", at(`"1"`): "/sequence", at("null"): "/sequence",
		at("9223372036854775808"): "/sequence", `{"resourceName":"A","resourceRecordKey":"1"}`: "/sequence",
		"[" + at("3") + "," + at("3") + "]": "/1/sequence",
	} {
		_, err := decodeOne(text, true)
		var faults event.FieldErrors
		if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Pointer != pointer {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestDecodeBody_reuseKeepsNothing(t *testing.T) {
	t.Parallel()
	var d eventDecoder
	if _, err := d.decodeBody([]byte(`{"resourceName":"A","bad":1`), false); err == nil {
		t.Fatal("cut text accepted")
	}
	first, err := d.decodeBody([]byte(`{"resourceName":"A","resourceRecordKey":"1","data":{"a":1}}`), false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.decodeBody([]byte(`{"resourceName":"BBBB","resourceRecordKey":"2","data":{"b":22222}}`), false); err != nil {
		t.Fatal(err)
	}
	if string(first[0].Data) != `{"a":1}` || first[0].ResourceName != "A" {
		t.Errorf("the first event changed: %+v", first[0])
	}
}

func TestValidRFC3339(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"2021-08-09T00:44:43-07:00": true, "2024-02-29t23:59:60z": true, "2021-08-09T00:44:43.123456789012Z": true,
		"2021-02-29T00:00:00Z": false, "2021-13-01T00:00:00Z": false, "2021-08-09 00:44:43Z": false, "2021-08-09T24:00:00Z": false,
		"2021-08-09T00:44:43": false, "2021-08-09T00:44:43.Z": false, "2021-08-09T00:44:43,5Z": false, "2021-08-09T00:44:43+0700": false,
		"2021-08-09T00:44:43+24:00": false, "2021-08-09T00:44:43.5": false, "2021-08-00T00:44:43Z": false, "": false, "20 1-08-09T00:44:43Z": false,
	} {
		if got := validRFC3339(s); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
		if _, err := time.Parse(time.RFC3339, s); err == nil && !want && !strings.ContainsAny(s, ",+") {
			t.Errorf("%q: refused, but time.Parse takes it", s)
		}
	}
}

// FuzzDecodeEvent holds the decoder against encoding/json: what it accepts
// must be what that package reads, and what that package reads without
// complaint must be accepted unless a rule of ours forbids it.
func FuzzDecodeEvent(f *testing.F) {
	for _, seed := range []string{
		`{"resourceName":"A","resourceRecordKey":"1","data":{"a":[1,2.50,"\u00e9"]},"occurredAt":"2021-08-09T00:44:43-07:00"}`,
		`{"resourceName":"A","resourceRecordKey":"1","attributes":{"a":"b"},"feedTypes":["x"],"bulk":true,"idempotencyKey":"k"}`,
		`{"resourceName":"A","resourceRecordKey":"\ud83d\ude00","data":"\\u0000"}`, `{"resourceName":"A","resourceRecordKey":"\u0000"}`,
		`{"resourceName":"A","resourceRecordKey":"1","data":"\ud800"}`, `[{"resourceName":"A"}]`, "{\"resourceName\":\"\xff\"}", `{`,
		`{"resourceName":"A","resourceName":"B","resourceRecordKey":"1"}`, `{"resourcename":"A"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var d eventDecoder
		var ev event.Event
		err := d.decodeLine(slices.Clone(text), false, &ev)
		var members map[string]json.RawMessage
		oracleErr := json.Unmarshal(text, &members)
		if err != nil {
			if why := mustAccept(text, members); oracleErr == nil && why {
				t.Fatalf("refused %q: %v", text, err)
			}
			return
		}
		if oracleErr != nil || !utf8.Valid(text) {
			t.Fatalf("accepted %q, which encoding/json refuses: %v", text, oracleErr)
		}
		var plain struct {
			event.Event
			IdempotencyKey string `json:"idempotencyKey"`
			RecordedAt     any    `json:"recordedAt"`
			ErasedAt       any    `json:"erasedAt"`
		}
		if err := json.Unmarshal(text, &plain); err != nil {
			t.Fatalf("accepted %q: %v", text, err)
		}
		plain.Event.IdempotencyKey, ev.RecordedAt = plain.IdempotencyKey, time.Time{}
		if data, ok := members["data"]; ok && !bytes.Equal(data, ev.Data) {
			t.Fatalf("data %q became %q", data, ev.Data)
		}
		plain.Event.Data = ev.Data
		if diff := cmp.Diff(normal(plain.Event), normal(ev)); diff != "" {
			t.Fatalf("%q: %s", text, diff)
		}
		if s := fmt.Sprint(ev.ResourceName, ev.ResourceRecordKey, ev.EventType, ev.FeedTypes, ev.Attributes, ev.Related, ev.IdempotencyKey); strings.Contains(s, "\x00") {
			t.Fatalf("NUL in %q", s)
		}
		again := ev
		again.Sequence = 0
		written := bytes.Replace(again.AppendJSON(nil), []byte(`"sequence":0,`), nil, 1)
		var back event.Event
		if err := d.decodeLine(written, false, &back); err != nil {
			t.Fatalf("what we write we refuse: %q: %v", written, err)
		}
		back.IdempotencyKey = ev.IdempotencyKey
		if diff := cmp.Diff(normal(ev), normal(back)); diff != "" {
			t.Fatalf("%q written as %q: %s", text, written, diff)
		}
	})
}

// mustAccept reports that a text is so plain that no rule can forbid it.
func mustAccept(text []byte, members map[string]json.RawMessage) bool {
	if members == nil || bytes.Contains(text, []byte(`\u`)) || !utf8.Valid(text) || len(text) > 1000 {
		return false
	}
	for name, value := range members {
		var s string
		switch name {
		case "resourceName", "resourceRecordKey", "eventType":
			if json.Unmarshal(value, &s) != nil || s == "" || len(s) > event.NameCharactersMax {
				return false
			}
		case "data", "recordedAt":
		default:
			return false
		}
		if bytes.Count(text, []byte(`"`+name+`"`)) > 1 {
			return false
		}
	}
	return members["resourceName"] != nil && members["resourceRecordKey"] != nil
}

func normal(ev event.Event) event.Event {
	if len(ev.FeedTypes) == 0 {
		ev.FeedTypes = nil
	}
	if len(ev.Related) == 0 {
		ev.Related = nil
	}
	if len(ev.Attributes) == 0 {
		ev.Attributes = nil
	}
	ev.RecordedAt = time.Time{}
	return ev
}

func BenchmarkDecodeBody(b *testing.B) {
	one := `{"resourceName":"File","resourceRecordKey":"README.md","eventType":"record.updated","occurredAt":"2021-08-09T00:54:19-07:00","data":{"commit":"6de7873cf7734de3794e3f8c4f7b9bd0c2778f41","blob":"ec36720829382f5c16ea7f4573e03993b50315fa","path":"README.md"}}`
	text := []byte("[" + strings.TrimSuffix(strings.Repeat(one+",", 1000), ",") + "]")
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	var d eventDecoder
	for b.Loop() {
		if _, err := d.decodeBody(text, false); err != nil {
			b.Fatal(err)
		}
	}
}

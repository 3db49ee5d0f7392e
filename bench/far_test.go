package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestScenarios(t *testing.T) {
	t.Parallel()
	all, err := choose(nil)
	if err != nil || len(all) < 4 {
		t.Fatalf("%d scenarios, %v", len(all), err)
	}
	for _, s := range all {
		if s.Name == "" || s.What == "" || s.Floor == "" || s.QuickEvents < 1 || s.Events < s.QuickEvents {
			t.Errorf("scenario %+v", s)
		}
		for _, g := range s.Goals {
			if g.Figure == "" || g.AtLeast <= 0 || g.Aim <= 0 || g.Aim != g.AtLeast && (g.Aim < g.AtLeast) != g.Lower {
				t.Errorf("%s has goal %+v", s.Name, g)
			}
		}
	}
	some, err := choose([]string{"batch100", "ordered"})
	if err != nil || len(some) != 2 || some[0].Name != "ordered" || some[1].Name != "batch100" {
		t.Errorf("chose %v, %v", some, err)
	}
	if _, err := choose([]string{"ordered", "another"}); err == nil || !strings.Contains(err.Error(), `"another"`) || !strings.Contains(err.Error(), "lanes16") {
		t.Errorf("a scenario that does not exist: %v", err)
	}
}

// TestSources: the records that the sources name are those of their lines.
func TestSources(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		source      func() (source, error)
		events, min int // at least so many records
	}{
		"sdk-go": {sdkSource, 13_000, 1071},
		"many":   {manySource, 32_000, 10_000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := c.source()
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(&stream{n: c.events, line: s.line})
			if err != nil {
				t.Fatal(err)
			}
			decoder := json.NewDecoder(bytes.NewReader(text))
			names := map[recordName]bool{}
			for i := range c.events {
				var e struct {
					ResourceName, ResourceRecordKey, EventType string
				}
				if err := decoder.Decode(&e); err != nil {
					t.Fatal(err)
				}
				got := recordName{e.ResourceName, e.ResourceRecordKey}
				if got != s.name(i) || got.key == "" || e.EventType == "" {
					t.Fatalf("event %d: %+v, named %+v", i, e, s.name(i))
				}
				names[got] = true
			}
			if len(names) < c.min {
				t.Errorf("%d records, want %d", len(names), c.min)
			}
		})
	}
}

// TestKeyBook brings requests that must be noticed, each answered before the next
// but where it says otherwise.
func TestKeyBook(t *testing.T) {
	t.Parallel()
	one := func(sequence int, key string) string {
		return fmt.Sprintf(`{"EntityEventSequence":%d,"ResourceName":"P","ResourceRecordKey":%q}`, sequence, key)
	}
	for name, c := range map[string]struct {
		bodies string // in lines; one that begins with + stays in flight
		want   KeyReport
	}{
		"in order":         {one(1, "a") + "\n" + one(2, "a"), KeyReport{Requests: 2, Events: 2, Keys: 1, MostInFlight: 1}},
		"others overtake":  {"+" + one(2, "b") + "\n" + one(1, "a"), KeyReport{Requests: 2, Events: 2, Keys: 2, MostInFlight: 2}},
		"a batch":          {`{"value":[` + one(1, "a") + "," + one(2, "b") + "," + one(3, "a") + "]}", KeyReport{Requests: 1, Events: 3, Keys: 2, MostInFlight: 1}},
		"overtaken":        {one(2, "a") + "\n" + one(1, "a"), KeyReport{Requests: 2, Events: 2, Keys: 1, MostInFlight: 1, Disorders: 1}},
		"a repeat":         {one(1, "a") + "\n" + one(1, "a"), KeyReport{Requests: 2, Events: 1, Keys: 1, MostInFlight: 1, Repeats: 1}},
		"two at once":      {"+" + one(1, "a") + "\n" + one(2, "a"), KeyReport{Requests: 2, Events: 2, Keys: 1, MostInFlight: 2, Overlaps: 1}},
		"no sequence":      {one(0, "a"), KeyReport{Requests: 1, MostInFlight: 1, Malformed: 1}},
		"no key in a list": {`{"value":[` + one(1, "a") + `,{"EntityEventSequence":2}]}`, KeyReport{Requests: 1, MostInFlight: 1, Malformed: 1}},
		"an empty list":    {`{"value":[]}`, KeyReport{Requests: 1, MostInFlight: 1, Malformed: 1}},
		"no JSON":          {`{`, KeyReport{Requests: 1, MostInFlight: 1, Malformed: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newKeyBook()
			for body := range strings.SplitSeq(c.bodies, "\n") {
				body, stays := strings.CutPrefix(body, "+")
				if records := b.arrived([]byte(body)); !stays {
					b.answered(records)
				}
			}
			recorder := httptest.NewRecorder()
			b.serve(recorder, httptest.NewRequest(http.MethodGet, "/keys/x", nil))
			var got KeyReport
			if err := json.Unmarshal(recorder.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if got.FirstAt == 0 || got.LastAt < got.FirstAt || got.BodyBytes == 0 || (got.Digest == 0) != (got.Events == 0) {
				t.Errorf("book %+v", got)
			}
			got.FirstAt, got.LastAt, got.BodyBytes, got.Digest = 0, 0, 0, 0
			if got != c.want {
				t.Errorf("book %+v, want %+v", got, c.want)
			}
		})
	}
}

// TestKeyBookTakesItsTime: the answer comes after the delay, and what a shape
// sends is understood.
func TestKeyBookTakesItsTime(t *testing.T) {
	t.Parallel()
	events, err := manySource()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		receiver := NewReceiver()
		var want uint64
		for i, shape := range []farShape{{lanes: 16, batch: 1}, {lanes: 1, batch: 100}} {
			body, err := shape.body(events, 100*i)
			if err != nil {
				t.Fatal(err)
			}
			for n := range shape.batch {
				want += digest(int64(100*i+n+1), events.name(100*i+n))
			}
			started, recorder := time.Now(), httptest.NewRecorder()
			receiver.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/keys/x?delay=40ms", bytes.NewReader(body)))
			if took := time.Since(started); took != 40*time.Millisecond || recorder.Code != http.StatusNoContent {
				t.Errorf("answered %d after %s", recorder.Code, took)
			}
		}
		if got := receiver.book("x").report; got.Events != 101 || got.Malformed != 0 || got.Digest != want || got.Seconds() != 0.08 {
			t.Errorf("book %+v, digest %d", got, want)
		}
	})
	recorder := httptest.NewRecorder()
	NewReceiver().ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/keys/x?delay=soon", strings.NewReader("{}")))
	if recorder.Code != http.StatusBadRequest {
		t.Errorf("a delay that is none: %d", recorder.Code)
	}
}

// TestJudgeKeys: each fault that a book by record can show is one of the result's.
func TestJudgeKeys(t *testing.T) {
	t.Parallel()
	good := KeyReport{Requests: 10, Events: 10, Keys: 3, Digest: 7, MostInFlight: 4}
	for name, c := range map[string]struct {
		change func(*KeyReport)
		want   string
	}{
		"good":       {func(*KeyReport) {}, ""},
		"lost":       {func(r *KeyReport) { r.Events-- }, "9 of 10"},
		"changed":    {func(r *KeyReport) { r.Digest++ }, "not those of the events"},
		"repeated":   {func(r *KeyReport) { r.Repeats++ }, "came again"},
		"disordered": {func(r *KeyReport) { r.Disorders++ }, "later one of their record"},
		"overlapped": {func(r *KeyReport) { r.Overlaps++ }, "in flight at once"},
		"malformed":  {func(r *KeyReport) { r.Malformed++ }, "not understood"},
		"too many":   {func(r *KeyReport) { r.MostInFlight++ }, "5 requests were in flight at once, 4 may be"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := good
			c.change(&got)
			var r Result
			r.judgeKeys(got, 10, 4, 7)
			wantFault(t, r, c.want)
		})
	}
}

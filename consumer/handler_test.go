package consumer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// books is what a consumer keeps: its position, and here the events too.
type books struct {
	mu       sync.Mutex
	at       Position
	applied  []int64
	batches  []Batch
	err      error // what Handle returns
	storeErr error
	overlap  chan struct{} // buffered: full while one call of handle runs
}

func (b *books) LastSequence(context.Context) (Position, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at, b.storeErr
}

func (b *books) handle(_ context.Context, batch Batch) error {
	select {
	case b.overlap <- struct{}{}:
		defer func() { <-b.overlap }()
	default:
		return errors.New("two batches are handled at once")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.batches = append(b.batches, batch)
	if b.err != nil {
		return b.err
	}
	for _, e := range batch.Events {
		b.applied = append(b.applied, e.Sequence)
	}
	b.at = batch.Position()
	return nil
}

var now = time.Unix(vectorTimestamp, 0)

func setup(t *testing.T, change ...func(*Config)) (*Handler, *books) {
	t.Helper()
	b := &books{overlap: make(chan struct{}, 1)}
	cfg := Config{
		Secrets: []string{secret}, Store: b, Handle: b.handle, Now: func() time.Time { return now },
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h, b
}

// request makes a signed delivery; pairs are more headers.
func request(body string, pairs ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/hook", strings.NewReader(body))
	r.Header.Set("Webhook-Id", "acme_1")
	r.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	r.Header.Set("Webhook-Signature", sign(secret, "acme_1", now.Unix(), body))
	r.Header.Set("Postroad-Subscriber", "acme")
	r.Header.Set("Postroad-Feed", "listings;epoch=2")
	r.Header.Set("Postroad-Attempt", "3")
	for i := 0; i < len(pairs); i += 2 {
		r.Header.Set(pairs[i], pairs[i+1])
	}
	return r
}

// answer is what a handler answered.
type answer struct {
	StatusCode int
	Header     http.Header
	Body       io.Reader
}

func serve(h http.Handler, r *http.Request) answer {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body}
}

func single(sequence int64) string {
	return fmt.Sprintf(`{"@reso.context":"urn:reso:metadata:2.0:resource:entityevent","EntityEventSequence":%d,"ResourceName":"Property","ResourceRecordKey":"k%d"}`, sequence, sequence)
}

func batch(sequences ...int64) string {
	var b strings.Builder
	for i, sequence := range sequences {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(single(sequence))
	}
	return `{"@reso.context":"urn:reso:metadata:2.0:resource:entityevent:more","value":[` + b.String() + `]}`
}

func TestHandlerReads(t *testing.T) {
	t.Parallel()
	event := func(n int64) Event {
		return Event{Sequence: n, ResourceName: "Property", ResourceRecordKey: fmt.Sprintf("k%d", n), highest: n}
	}
	typed := event(7)
	typed.EventType, typed.ResourceRecordURL = "Status Changed\n", "https://r.example/1"
	tests := []struct {
		name   string
		raw    bool
		r      *http.Request
		events []Event
		last   int64
	}{
		{"single", false, request(single(7)), []Event{event(7)}, 7},
		{
			"single with type, URL and unknown members", false,
			request(`{"New":1,"ResourceRecordUrl":"https://r.example/1",`+single(7)[1:], "Postroad-Event-Type", "Status Changed%0A"),
			[]Event{typed},
			7,
		},
		{"batch", false, request(batch(7, 9, 10), "Postroad-Event-Type", "ignored"), []Event{event(7), event(9), event(10)}, 10},
		{"batch of one", false, request(batch(7)), []Event{event(7)}, 7},
		{"raw", true, request(`{"a": 1}`, "Postroad-Sequence", "7"), []Event{{Sequence: 7, Data: []byte(`{"a": 1}`), highest: 7}}, 7},
		{"raw that is null", true, request(`null`, "Postroad-Sequence", "7"), []Event{{Sequence: 7, Data: []byte(`null`), highest: 7}}, 7},
		{
			"raw batch", true, request(`[1,"b"]`, "Postroad-Sequence", "7", "Postroad-Last-Sequence", "8", "Postroad-Count", "2"),
			[]Event{{Sequence: 7, Data: []byte(`1`), highest: 7}, {Sequence: 8, Data: []byte(`"b"`), highest: 8}},
			8,
		},
		{
			"raw batch with sequences left out", true,
			request(`[1,2,3]`, "Postroad-Sequence", "7", "Postroad-Last-Sequence", "20", "Postroad-Count", "3"),
			[]Event{{Sequence: 7, Data: []byte(`1`), highest: 7}, {Data: []byte(`2`), highest: 19}, {Sequence: 20, Data: []byte(`3`), highest: 20}},
			20,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h, books := setup(t, func(cfg *Config) { cfg.Raw = tt.raw })
			if resp := serve(h, tt.r); resp.StatusCode != 200 || len(books.batches) != 1 {
				t.Fatalf("status %d, %d batches", resp.StatusCode, len(books.batches))
			}
			got := books.batches[0]
			same := func(a, b Event) bool {
				da, db := a.Data, b.Data
				a.Data, b.Data = nil, nil
				return fmt.Sprint(a) == fmt.Sprint(b) && bytes.Equal(da, db)
			}
			if !slices.EqualFunc(got.Events, tt.events, same) || got.Position() != (Position{2, tt.last}) {
				t.Errorf("got %+v at %v, want %+v", got.Events, got.Position(), tt.events)
			}
			if got.ID != "acme_1" || got.Subscriber != "acme" || got.Feed != "listings" || got.Attempt != 3 || got.Gap != nil {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestHandlerRefuses(t *testing.T) {
	t.Parallel()
	changed := func(r *http.Request, f func(*http.Request)) *http.Request { f(r); return r }
	tests := []struct {
		name   string
		raw    bool
		r      *http.Request
		status int
	}{
		{"GET", false, httptest.NewRequest(http.MethodGet, "/", nil), 405},
		{"unsigned", false, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(single(1))), 401},
		{"badly signed", false, request(single(1), "Webhook-Signature", sign(otherSecret, "acme_1", now.Unix(), single(1))), 401},
		{"late", false, changed(request(single(1)), func(r *http.Request) {
			r.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix()-301, 10))
			r.Header.Set("Webhook-Signature", sign(secret, "acme_1", now.Unix()-301, single(1)))
		}), 401},
		{"unsigned test", false, changed(request(`{"value":[]}`, "Postroad-Test", "true"), func(r *http.Request) { r.Header.Del("Webhook-Signature") }), 401},
		{"too large", false, request(strings.Repeat(" ", 1001) + single(1)), 413},
		{"broken off", false, changed(request(single(1)), func(r *http.Request) { r.Body = io.NopCloser(io.MultiReader(strings.NewReader("{"), broken{})) }), 400},
		{"not JSON", false, request(`hello`), 400},
		{"no events", false, request(`{"value":[]}`), 400},
		{"no sequence", false, request(`{"ResourceName":"P","ResourceRecordKey":"1"}`), 400},
		{"sequence is text", false, request(`{"EntityEventSequence":"1","ResourceName":"P","ResourceRecordKey":"1"}`), 400},
		{"key is a number", false, request(`{"EntityEventSequence":1,"ResourceName":"P","ResourceRecordKey":1}`), 400},
		{"sequences fall", false, request(batch(2, 1)), 400},
		{"sequences repeat", false, request(batch(2, 2)), 400},
		{"bad attempt", false, request(single(1), "Postroad-Attempt", "x"), 400},
		{"bad previous", false, request(single(1), "Postroad-Previous-Sequence", "-1"), 400},
		{"bad epoch", false, request(single(1), "Postroad-Feed", "f;epoch=x"), 400},
		{"bad event type", false, request(single(1), "Postroad-Event-Type", "%zz"), 400},
		{"raw without sequence", true, request(`1`), 400},
		{"raw with a bad sequence", true, request(`1`, "Postroad-Sequence", "x"), 400},
		{"raw that is not JSON", true, request(`{`, "Postroad-Sequence", "1"), 400},
		{"raw batch that is none", true, request(`{}`, "Postroad-Sequence", "1", "Postroad-Last-Sequence", "1", "Postroad-Count", "1"), 400},
		{"raw batch with another count", true, request(`[1,2]`, "Postroad-Sequence", "1", "Postroad-Last-Sequence", "9", "Postroad-Count", "3"), 400},
		{"raw batch in too small a range", true, request(`[1,2,3]`, "Postroad-Sequence", "1", "Postroad-Last-Sequence", "2", "Postroad-Count", "3"), 400},
		{"raw batch of one in a range", true, request(`[1]`, "Postroad-Sequence", "1", "Postroad-Last-Sequence", "2", "Postroad-Count", "1"), 400},
		{"raw batch without end", true, request(`[1]`, "Postroad-Sequence", "1", "Postroad-Count", "1"), 400},
		{"empty raw batch", true, request(`[]`, "Postroad-Sequence", "1", "Postroad-Last-Sequence", "1", "Postroad-Count", "0"), 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h, books := setup(t, func(cfg *Config) { cfg.Raw, cfg.BodyBytesMax = tt.raw, 1000 })
			resp := serve(h, tt.r)
			if resp.StatusCode != tt.status || len(books.batches) != 0 {
				t.Errorf("status %d, want %d; %d batches were handled", resp.StatusCode, tt.status, len(books.batches))
			}
			if allow := resp.Header.Get("Allow"); (allow == "POST") != (tt.status == 405) {
				t.Errorf("Allow: %s", allow)
			}
		})
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestHandlerTest(t *testing.T) {
	t.Parallel()
	for _, body := range []string{`{"value":[]}`, `[]`} {
		h, books := setup(t)
		if resp := serve(h, request(body, "Postroad-Test", "true")); resp.StatusCode != 200 || len(books.batches) != 0 {
			t.Errorf("status %d, %d batches were handled", resp.StatusCode, len(books.batches))
		}
	}
}

// Requests come again, in other sizes too; each event is applied once, in
// order, and what is missing is noticed.
func TestHandlerRepeats(t *testing.T) {
	t.Parallel()
	const previous = "Postroad-Previous-Sequence"
	h, books := setup(t)
	steps := []struct {
		name    string
		r       *http.Request
		applied []int64 // so far
		gap     *Gap
	}{
		{"first", request(single(3), previous, "0"), []int64{3}, nil},
		{"again", request(single(3), previous, "0"), []int64{3}, nil},
		{"next", request(batch(5, 6), previous, "3"), []int64{3, 5, 6}, nil},
		{"again alone", request(single(5), previous, "3"), []int64{3, 5, 6}, nil},
		{"again with more", request(batch(5, 6, 8), previous, "3"), []int64{3, 5, 6, 8}, nil},
		{"10 is missing", request(single(12), previous, "10"), []int64{3, 5, 6, 8, 12}, &Gap{After: 8, Through: 10}},
		{"after the gap", request(single(13), previous, "12"), []int64{3, 5, 6, 8, 12, 13}, nil},
		{"the feed was made anew", request(single(1), previous, "0", "Postroad-Feed", "listings;epoch=3"), []int64{3, 5, 6, 8, 12, 13, 1}, nil},
		{"and goes on", request(single(2), previous, "1", "Postroad-Feed", "listings;epoch=3"), []int64{3, 5, 6, 8, 12, 13, 1, 2}, nil},
	}
	handled := 0
	for _, step := range steps {
		if resp := serve(h, step.r); resp.StatusCode != 200 {
			t.Fatalf("%s: status %d", step.name, resp.StatusCode)
		}
		if !slices.Equal(books.applied, step.applied) {
			t.Fatalf("%s: applied %v, want %v", step.name, books.applied, step.applied)
		}
		if len(books.batches) > handled {
			handled++
			if got := books.batches[handled-1].Gap; fmt.Sprint(got) != fmt.Sprint(step.gap) {
				t.Errorf("%s: gap %+v, want %+v", step.name, got, step.gap)
			}
		}
	}
	if resp := serve(h, request(single(99))); resp.StatusCode != http.StatusConflict || len(books.batches) != handled {
		t.Errorf("an epoch that went back: status %d", resp.StatusCode)
	}
}

// What cannot be known to be applied is handed over: at least once.
func TestBatchAfterRaw(t *testing.T) {
	t.Parallel()
	h, books := setup(t, func(cfg *Config) { cfg.Raw = true })
	tests := []struct {
		at   int64
		want int
	}{{0, 4}, {6, 4}, {7, 3}, {17, 3}, {18, 2}, {19, 1}, {20, 0}, {21, 0}}
	for _, tt := range tests {
		books.at, books.batches = Position{2, tt.at}, nil
		serve(h, request(`[1,2,3,4]`, "Postroad-Sequence", "7", "Postroad-Last-Sequence", "20", "Postroad-Count", "4"))
		got := 0
		if len(books.batches) > 0 {
			got = len(books.batches[0].Events)
		}
		if got != tt.want {
			t.Errorf("at %d: %d events, want %d", tt.at, got, tt.want)
		}
	}
}

// A request that was stuck while its repeat and others were applied finds all
// of it done, and its position is not one to go back to.
func TestBatchAfterOthers(t *testing.T) {
	t.Parallel()
	b := Batch{Epoch: 2, Previous: 4, Last: 6, Events: []Event{{Sequence: 5, highest: 5}, {Sequence: 6, highest: 6}}}
	tests := []struct {
		name   string
		at     Position
		events int
		gap    bool
		then   Position
	}{
		{"next", Position{2, 4}, 2, false, Position{2, 6}},
		{"partly applied", Position{2, 5}, 1, false, Position{2, 6}},
		{"applied", Position{2, 6}, 0, false, Position{2, 6}},
		{"overtaken", Position{2, 9}, 0, false, Position{2, 9}},
		{"overtaken by the feed's next life", Position{3, 1}, 0, false, Position{3, 1}},
		{"after the feed's last life", Position{1, 900}, 2, true, Position{2, 6}},
		{"gap", Position{2, 3}, 2, true, Position{2, 6}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := b.After(tt.at)
			if len(got.Events) != tt.events || (got.Gap != nil) != tt.gap || got.Position() != tt.then {
				t.Errorf("%d events, gap %v, then at %v; want %d, %v, %v", len(got.Events), got.Gap, got.Position(), tt.events, tt.gap, tt.then)
			}
		})
	}
}

func TestHandlerAnswers(t *testing.T) {
	t.Parallel()
	cause := errors.New("top secret")
	tests := []struct {
		name              string
		err, storeErr     error
		status            int
		retry, acceptedTo string
	}{
		{name: "fine", status: 200},
		{name: "error", err: cause, status: 500},
		{name: "store fails", storeErr: cause, status: 500},
		{name: "later", err: RetryAfter(60*time.Second, cause), status: 429, retry: "60"},
		{name: "later, rounded up", err: RetryAfter(1001*time.Millisecond, cause), status: 429, retry: "2"},
		{name: "later, wrapped", err: fmt.Errorf("apply: %w", RetryAfter(0, cause)), status: 429, retry: "0"},
		{name: "poison", err: Poison(cause), status: 422},
		{name: "a part", err: AcceptedThrough(6, cause), status: 500, acceptedTo: "6"},
		{name: "a part, then poison", err: AcceptedThrough(6, Poison(cause)), status: 422, acceptedTo: "6"},
		{name: "a part, then later", err: AcceptedThrough(6, RetryAfter(time.Second, cause)), status: 429, retry: "1", acceptedTo: "6"},
		{name: "the store is busy", storeErr: RetryAfter(5*time.Second, cause), status: 429, retry: "5"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			h, books := setup(t, func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			books.err, books.storeErr = tt.err, tt.storeErr
			resp := serve(h, request(batch(5, 6, 7)))
			if resp.StatusCode != tt.status || resp.Header.Get("Retry-After") != tt.retry || resp.Header.Get("Postroad-Accepted-Through") != tt.acceptedTo {
				t.Errorf("got %d %v, want %d", resp.StatusCode, resp.Header, tt.status)
			}
			body, _ := io.ReadAll(resp.Body)
			failed := tt.status != 200
			if strings.Contains(string(body), "secret") || strings.Contains(log.String(), "top secret") != failed || strings.Contains(log.String(), "acme_1") != failed {
				t.Errorf("answered %q, logged %q", body, log.String())
			}
			if failed && !errors.Is(errors.Join(tt.err, tt.storeErr), cause) {
				t.Error("the cause is lost")
			}
		})
	}
}

// A request that Postroad gave up may still be running when it comes again.
func TestHandlerOneAtATime(t *testing.T) {
	t.Parallel()
	h, books := setup(t)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for sequence := int64(1); sequence <= 20; sequence++ {
				if resp := serve(h, request(single(sequence))); resp.StatusCode != 200 {
					t.Errorf("status %d", resp.StatusCode)
				}
			}
		})
	}
	group.Wait()
	if len(books.applied) != 20 || !slices.IsSorted(books.applied) {
		t.Errorf("applied %v, want 1 to 20 once each", books.applied)
	}

	// One that waits its turn leaves when Postroad does.
	h.turn <- struct{}{}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if resp := serve(h, request(single(21)).WithContext(ctx)); resp.StatusCode != 500 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	b := &books{}
	for name, cfg := range map[string]Config{
		"no handler": {Secrets: []string{secret}, Store: b},
		"no secret":  {Store: b, Handle: b.handle},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParseBatch(f *testing.F) {
	f.Add(single(7), "7", "7", "1", "listings;epoch=1")
	f.Add(batch(1, 2, 3), "1", "3", "3", "")
	f.Add(`[1,2,3]`, "5", "9223372036854775807", "3", ";epoch=")
	f.Fuzz(func(t *testing.T, body, first, last, count, feed string) {
		header := http.Header{"Postroad-Sequence": {first}, "Postroad-Last-Sequence": {last}, "Postroad-Count": {count}, "Postroad-Feed": {feed}}
		for _, raw := range []bool{false, true} {
			b, err := parseBatch(header, []byte(body), raw)
			if err != nil {
				continue
			}
			if len(b.Events) == 0 || b.Last < 1 || b.Events[len(b.Events)-1].Sequence != b.Last || b.Epoch < 0 {
				t.Fatalf("%q gives %+v", body, b)
			}
			low := int64(0)
			for _, e := range b.Events {
				if e.highest <= low || e.highest > b.Last || e.Sequence != 0 && e.Sequence != e.highest {
					t.Fatalf("%q gives %+v", body, b)
				}
				low = e.highest
			}
			if left := b.After(b.Position()); len(left.Events) != 0 {
				t.Fatalf("%q: events are left after their own position: %+v", body, left)
			}
		}
	})
}

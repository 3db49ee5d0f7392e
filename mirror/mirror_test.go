package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postroad/event"
	"postroad/internal/testkit"
	"postroad/mirror"
)

// same fails the test unless the feed has exactly these events in this order.
func same(t *testing.T, feed *logFeed, want []event.Event) {
	t.Helper()
	if diff := cmp.Diff(want, feed.all(t), cmpopts.IgnoreFields(event.Event{}, "RecordedAt")); diff != "" {
		t.Fatalf("the feed differs from the source (-source +feed):\n%.3000s", diff)
	}
}

// once mirrors to the source's end.
func once(t *testing.T, s *source, feed *logFeed, config mirror.Config) error {
	t.Helper()
	config.Root, config.Once, config.StopOnFault = s.root(), true, true
	if config.HTTP == nil {
		config.HTTP = s.Client()
	}
	m, err := mirror.New(quick(config), feed)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	return m.Run(ctx)
}

// TestMirrorWhole: a source of 12,525 events, however it pages, ends up in the
// feed with exactly its tuples, in order.
func TestMirrorWhole(t *testing.T) {
	t.Parallel()
	gapless := func(i int) int64 { return int64(i) + 1 }
	gaps := func(i int) int64 { return int64(i)*3 + int64(i%2) + 101 }
	for name, c := range map[string]struct {
		number func(i int) int64
		odd    func(s *source)
	}{
		"top alone":                {gapless, func(*source) {}},
		"nextLinks":                {gaps, func(s *source) { s.pageMax, s.links = 400, s.absolute }},
		"relative nextLinks":       {gaps, func(s *source) { s.pageMax, s.links = 400, s.relative }},
		"pages that overlap":       {gaps, func(s *source) { s.pageMax, s.links, s.overlap = 400, s.absolute, 30 }},
		"small pages, no nextLink": {gapless, func(s *source) { s.pageMax = 250 }},
		"no top":                   {gaps, func(s *source) { s.refuse = []string{"$top"} }},
		"no orderby":               {gapless, func(s *source) { s.refuse = []string{"$orderby"} }},
		"neither":                  {gapless, func(s *source) { s.refuse = []string{"$orderby", "$top"} }},
		"strings for numbers":      {gaps, func(s *source) { s.asStrings = true }},
		"gt taken for ge":          {gaps, func(s *source) { s.ge = true }},
		"nextLinks to elsewhere": {gaps, func(s *source) {
			s.pageMax, s.links = 400, func(*http.Request, int64) string { return "https://127.0.0.1:1/EntityEvent" }
		}},
		"nextLinks that count rows": {gaps, func(s *source) { s.pageMax, s.links = 400, s.skipping }},
		"nextLinks that expire": {gaps, func(s *source) {
			s.pageMax, s.links = 400, func(*http.Request, int64) string { return s.root() + "/gone" }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, feed := newSource(t, stream(t, c.number)), newFeed(t)
			c.odd(s)
			must(t, once(t, s, feed, mirror.Config{}))
			same(t, feed, s.events)
		})
	}
}

// TestMirrorWaitsOnce: a long first reading with gaps everywhere waits for one
// horizon, not for one a page.
func TestMirrorWaitsOnce(t *testing.T) {
	t.Parallel()
	for name, odd := range map[string]func(*source){
		"nextLinks": func(s *source) { s.pageMax, s.links = 100, s.absolute },
		"none":      func(s *source) { s.pageMax = 100 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, feed := newSource(t, stream(t, func(i int) int64 { return int64(i)*3 + 5 })), newFeed(t)
			odd(s)
			must(t, once(t, s, feed, mirror.Config{Horizon: 200 * time.Millisecond}))
			same(t, feed, s.events)
			const pages = 126
			if n := len(s.queries()); n > 2*pages {
				t.Errorf("%d requests for %d pages", n, pages)
			}
		})
	}
}

// TestMirrorHighestUntold: a source that cannot sort all it has the other way, or
// asks for patience when told to, is read all the same.
func TestMirrorHighestUntold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		retryAfter string
		faults     int
	}{"it fails": {"", 0}, "it asks for patience": {"1", 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, feed := newSource(t, numbered(2, 4, 6, 9)), newFeed(t)
			s.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Query().Get("$orderby"), " desc") {
					return false
				}
				if c.retryAfter != "" {
					w.Header().Set("Retry-After", c.retryAfter)
				}
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			}
			faults := 0
			must(t, once(t, s, feed, mirror.Config{FaultsMax: 3, Horizon: 200 * time.Millisecond, Observer: mirror.Observer{
				Fault: func(error, time.Duration) { faults++ },
			}}))
			same(t, feed, s.events)
			if faults != c.faults {
				t.Errorf("%d faults, want %d", faults, c.faults)
			}
		})
	}
}

// TestMirrorSetBack: a source that begins its numbers anew is told from one that
// removed its latest events, or all.
func TestMirrorSetBack(t *testing.T) {
	t.Parallel()
	s, feed := newSource(t, numbered(upTo(20)...)), newFeed(t)
	must(t, once(t, s, feed, mirror.Config{}))
	for name, c := range map[string]struct {
		left int64
		told bool
	}{"all removed": {0, false}, "the latest removed": {15, false}, "numbered anew": {3, true}} {
		err := once(t, newSource(t, numbered(upTo(c.left)...)), feed, mirror.Config{RecheckSequences: 5})
		if told := err != nil && strings.Contains(err.Error(), "the highest sequence is 3 and was 20"); told != c.told || !told && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	same(t, feed, s.events)
}

// TestMirrorRowsRemoved: an event that the source removes between two pages takes
// no other one with it, though its nextLinks count rows.
func TestMirrorRowsRemoved(t *testing.T) {
	t.Parallel()
	var even []int64 // so that each has a gap before it, and a missing one is no gap more
	for _, n := range upTo(1000) {
		even = append(even, 2*n)
	}
	s, feed := newSource(t, numbered(even...)), newFeed(t)
	s.pageMax, s.links = 100, s.skipping
	feed.appended = func([]event.Event) error {
		feed.appended = nil
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = s.events[1:] // superseded; the first page has been read
		return nil
	}
	must(t, once(t, s, feed, mirror.Config{}))
	same(t, feed, numbered(even...))
}

// TestMirrorRoughSource: a source that asks for patience, breaks off and fails
// costs time only.
func TestMirrorRoughSource(t *testing.T) {
	t.Parallel()
	s, feed := newSource(t, stream(t, func(i int) int64 { return int64(i)*2 + 1 })), newFeed(t)
	s.pageMax, s.links, s.asStrings = 500, s.absolute, true
	var askedAt, heldAt time.Time
	s.answer = func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if !askedAt.IsZero() && heldAt.IsZero() {
			heldAt = time.Now()
		}
		switch n {
		case 5:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			askedAt = time.Now()
		case 9:
			w.Header().Set("Content-Length", "100000") // and breaks off
			_, _ = io.WriteString(w, `{"value":[{"EntityEventSequence":`)
		case 12:
			_, _ = io.WriteString(w, `{"value":[{"EntityEventSequence":1,"Resou`) // ends too early
		case 16, 17:
			http.Error(w, "<html>", http.StatusBadGateway)
		default:
			return false
		}
		return true
	}
	var faults []string
	must(t, once(t, s, feed, mirror.Config{Observer: mirror.Observer{
		Fault: func(err error, _ time.Duration) { faults = append(faults, err.Error()) },
	}}))
	same(t, feed, s.events)
	if waited := heldAt.Sub(askedAt); waited < time.Second {
		t.Errorf("the next request came %s after a Retry-After of 1 s", waited)
	}
	if len(faults) != 5 {
		t.Fatalf("%d faults were told, want 5: %q", len(faults), faults)
	}
	for i, text := range []string{"429", "cut", "no OData document", "502", "502"} {
		if !strings.Contains(faults[i], text) || !strings.Contains(faults[i], s.root()+"/EntityEvent?") {
			t.Errorf("fault %d is %q, want the URL and %q", i, faults[i], text)
		}
	}
}

// TestMirrorLateCommits: a sequence that is committed after a higher one was
// seen, but within the horizon, is taken in its place; one that comes later
// still is reported, once.
func TestMirrorLateCommits(t *testing.T) {
	t.Parallel()
	s, feed := newSource(t, numbered(1, 2, 3, 5)), newFeed(t)
	const horizon = 400 * time.Millisecond
	var mu sync.Mutex
	var late []string
	head := func() int64 {
		position, err := feed.Position(t.Context())
		must(t, err)
		return position.Head
	}
	ctx, stop := context.WithCancel(t.Context())
	m, err := mirror.New(quick(mirror.Config{
		Root: s.root(), HTTP: s.Client(), Horizon: horizon, Recheck: 20 * time.Millisecond,
		Observer: mirror.Observer{Late: func(l mirror.Late) {
			mu.Lock()
			defer mu.Unlock()
			late = append(late, l.String())
		}},
	}), feed)
	must(t, err)
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	reach := func(n int64) {
		t.Helper()
		testkit.Eventually(t, 10*time.Second, func() bool { return head() >= n }, fmt.Sprint("the feed reaches ", n))
	}

	reach(3)
	seen := time.Now()
	s.commit(numbered(4)...) // within the horizon of 5
	reach(5)
	if took := time.Since(seen); took >= horizon {
		t.Errorf("5 was held back for %s though no gap was left before it", took)
	}

	s.commit(numbered(8)...) // 6 and 7 are rolled back, or still to come
	committed := time.Now()
	reach(8)
	if took := time.Since(committed); took < horizon {
		t.Errorf("8 was taken after %s, with a gap before it and a horizon of %s", took, horizon)
	}
	s.commit(numbered(7)...) // too late
	testkit.Eventually(t, 10*time.Second, func() bool { mu.Lock(); defer mu.Unlock(); return len(late) > 0 }, "7 is reported")
	s.commit(numbered(9)...)
	reach(9)
	s.mu.Lock()
	s.events[1].ResourceRecordKey = "another" // 2
	s.mu.Unlock()
	testkit.Eventually(t, 10*time.Second, func() bool { mu.Lock(); defer mu.Unlock(); return len(late) > 1 }, "2 is reported")
	s.commit(numbered(10)...)
	reach(10)
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run ended with %v", err)
	}
	want := []string{
		"sequence 7 (Property key-7) came late: it was not there when higher ones were taken",
		"sequence 2 was Property key-2 and is now Property another",
	}
	if diff := cmp.Diff(want, late); diff != "" {
		t.Errorf("reported (-want +got):\n%s", diff)
	}
	same(t, feed, numbered(1, 2, 3, 4, 5, 8, 9, 10))
}

// TestMirrorConcurrentWriters: writers that draw a number first and commit in
// any order lose nothing, as long as they commit within the horizon.
func TestMirrorConcurrentWriters(t *testing.T) {
	t.Parallel()
	s, feed := newSource(t, nil), newFeed(t)
	m, err := mirror.New(quick(mirror.Config{Root: s.root(), HTTP: s.Client(), Horizon: time.Second}), feed)
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() { _ = m.Run(ctx) }()

	const writers, each = 16, 60
	var mu sync.Mutex
	drawn := int64(0)
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				mu.Lock()
				drawn++
				mine := drawn
				mu.Unlock()
				<-time.After(time.Duration((w*7+i*13)%40) * time.Millisecond)
				if (w+i)%11 != 0 { // the others roll back
					s.commit(numbered(mine)...)
				}
			}
		})
	}
	writing.Wait()
	s.mu.Lock()
	last := s.events[len(s.events)-1].Sequence
	s.mu.Unlock()
	testkit.Eventually(t, 20*time.Second, func() bool {
		position, err := feed.Position(t.Context())
		return err == nil && position.Head == last
	}, "the feed reaches the source's end")
	same(t, feed, s.events)
}

// TestMirrorCutAnywhere: a mirror that ends before or after any append, and one
// that starts anew from the feed alone, lose and repeat nothing.
func TestMirrorCutAnywhere(t *testing.T) {
	t.Parallel()
	s, feed := newSource(t, stream(t, func(i int) int64 { return int64(i)*2 + 1 })), newFeed(t)
	killed := errors.New("killed")
	appends := 0
	feed.appended = func(events []event.Event) error {
		if appends++; appends%3 == 1 {
			return killed // before
		}
		if appends%3 == 2 {
			cut := *feed
			cut.appended = nil
			must(t, cut.Append(t.Context(), events)) // after, unanswered
			return killed
		}
		return nil
	}
	runs := 0
	for err := killed; errors.Is(err, killed); runs++ {
		err = once(t, s, feed, mirror.Config{PageSize: 700, Horizon: time.Millisecond})
		if err != nil && !errors.Is(err, killed) {
			t.Fatal(err)
		}
	}
	if runs < 10 {
		t.Errorf("it ended after %d runs, so it was hardly cut", runs)
	}
	same(t, feed, s.events)
}

// TestMirrorRemembersReported: what was reported before is not reported again.
func TestMirrorRemembersReported(t *testing.T) {
	t.Parallel()
	s, feed := newSource(t, numbered(1, 3)), newFeed(t)
	must(t, once(t, s, feed, mirror.Config{}))
	s.commit(numbered(2)...)
	for name, c := range map[string]struct {
		config mirror.Config
		want   int
	}{
		"at first":           {mirror.Config{}, 1},
		"reported":           {mirror.Config{Reported: []int64{2}}, 0},
		"beyond what is new": {mirror.Config{RecheckSequences: 1}, 0},
	} {
		late := 0
		c.config.Observer.Late = func(mirror.Late) { late++ }
		must(t, once(t, s, feed, c.config))
		if late != c.want {
			t.Errorf("%s: %d were reported, want %d", name, late, c.want)
		}
	}
}

// TestMirrorFaults: what no further try mends ends the mirror with the address
// and the record at fault, and nothing of that page is taken.
func TestMirrorFaults(t *testing.T) {
	t.Parallel()
	record := func(members string) string {
		return `{"value":[{"EntityEventSequence":1,"ResourceName":"A","ResourceRecordKey":"1"},{` + members + `}]}`
	}
	for name, c := range map[string]struct {
		status int
		body   string
		texts  []string
	}{
		"no such resource":      {404, `{"error":{"code":"404","message":"nothing here"}}`, []string{"HTTP 404", `"nothing here"`}},
		"not allowed":           {403, ``, []string{"HTTP 403"}},
		"a redirect":            {302, ``, []string{"HTTP 302", "redirects are not followed"}},
		"another document":      {200, `{"records":[]}`, []string{"no value array"}},
		"no sequence":           {200, record(`"ResourceName":"A","ResourceRecordKey":"2"`), []string{"value[1]", "EntityEventSequence is missing"}},
		"a broken sequence":     {200, record(`"EntityEventSequence":1.5,"ResourceName":"A","ResourceRecordKey":"2"`), []string{"value[1]", "1.5", "whole number"}},
		"a huge sequence":       {200, record(`"EntityEventSequence":"9223372036854775808","ResourceName":"A","ResourceRecordKey":"2"`), []string{"value[1]", "9223372036854775807"}},
		"no key":                {200, record(`"EntityEventSequence":2,"ResourceName":"A","ResourceRecordKey":null`), []string{"value[1] (EntityEventSequence 2)", "ResourceRecordKey is missing"}},
		"a key that is none":    {200, record(`"EntityEventSequence":2,"ResourceName":"A","ResourceRecordKey":{}`), []string{"EntityEventSequence 2", "no string"}},
		"a NUL":                 {200, record(`"EntityEventSequence":2,"ResourceName":"A\u0000","ResourceRecordKey":"2"`), []string{"ResourceName", "U+0000"}},
		"a long name":           {200, record(`"EntityEventSequence":2,"ResourceName":"` + strings.Repeat("n", 256) + `","ResourceRecordKey":"2"`), []string{"ResourceName", "255"}},
		"no record":             {200, `{"value":[7]}`, []string{"value[0]", "not an object"}},
		"out of order":          {200, `{"value":[{"EntityEventSequence":5,"ResourceName":"A","ResourceRecordKey":"1"},{"EntityEventSequence":4,"ResourceName":"A","ResourceRecordKey":"1"}]}`, []string{"EntityEventSequence 4", "does not order"}},
		"one number, two keys":  {200, record(`"EntityEventSequence":1,"ResourceName":"A","ResourceRecordKey":"2"`), []string{"EntityEventSequence 1", "stays with its record"}},
		"more than one may say": {200, `{"value":[],"pad":"` + strings.Repeat("x", 4096) + `"}`, []string{"more than 4096 bytes"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, feed := newSource(t, nil), newFeed(t)
			s.answer = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
				if c.status == 302 {
					w.Header().Set("Location", "https://example.org/")
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
				return true
			}
			client := *s.Client()
			client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			err := once(t, s, feed, mirror.Config{PageBytes: 4096, HTTP: &client})
			if err == nil {
				t.Fatal("no fault")
			}
			for _, text := range append(c.texts, s.root()+"/EntityEvent?$filter=EntityEventSequence%20gt%200") {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("the fault is %q, want %q in it", err, text)
				}
			}
			same(t, feed, nil)
		})
	}
}

// TestMirrorFilterIgnored: a server that answers with its beginning for ever is
// told from one that has nothing new.
func TestMirrorFilterIgnored(t *testing.T) {
	t.Parallel()
	s, feed := newSource(t, nil), newFeed(t)
	s.answer = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		s.write(w, r, numbered(1, 2, 3), false)
		return true
	}
	if err := once(t, s, feed, mirror.Config{}); err == nil || !strings.Contains(err.Error(), "$filter") {
		t.Errorf("it ended with %v", err)
	}
	same(t, feed, numbered(1, 2, 3))
}

// TestMirrorForeignWriter: somebody else in the feed ends the mirror, another
// mirror of the same source does not.
func TestMirrorForeignWriter(t *testing.T) {
	t.Parallel()
	s, feed := newSource(t, numbered(upTo(50)...)), newFeed(t)
	other := *feed
	feed.appended = func(events []event.Event) error {
		feed.appended = nil
		return other.Append(t.Context(), numbered(2, 4)) // by one to whom 1 and 3 came late
	}
	must(t, once(t, s, feed, mirror.Config{}))
	same(t, feed, append(numbered(2, 4), numbered(upTo(50)[4:]...)...))

	s, feed = newSource(t, numbered(upTo(9)...)), newFeed(t)
	feed.appended = func([]event.Event) error { return mirror.ErrConflict }
	if err := once(t, s, feed, mirror.Config{}); !errors.Is(err, mirror.ErrConflict) {
		t.Errorf("it ended with %v", err)
	}
}

// TestMirrorGivesUp: FaultsMax bounds the tries.
func TestMirrorGivesUp(t *testing.T) {
	t.Parallel()
	s, feed := newSource(t, nil), newFeed(t)
	s.answer = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	err := once(t, s, feed, mirror.Config{FaultsMax: 4})
	if err == nil || !strings.Contains(err.Error(), "after 4 faults") || len(s.queries()) != 4 {
		t.Errorf("it ended with %v after %d requests", err, len(s.queries()))
	}
}

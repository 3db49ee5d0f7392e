package worker_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postroad/event"
	"postroad/eventlog"
	"postroad/store"
	"postroad/worker"
)

// resoServer serves the sequences it is given as EntityEvents, to whoever knows
// the token, and remembers who asked.
type resoServer struct {
	*httptest.Server
	mu        sync.Mutex
	sequences []int64
	broken    bool
	askers    []string
}

func newRESOServer(t *testing.T, sequences ...int64) *resoServer {
	s := &resoServer{sequences: sequences}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *resoServer) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	slices.Sort(s.sequences)
}

// asked returns who asked since the last call.
func (s *resoServer) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	askers := s.askers
	s.askers = nil
	return askers
}

func (s *resoServer) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.askers = append(s.askers, r.UserAgent())
	if s.broken || r.Header.Get("Authorization") != "Bearer hush" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	var after int64
	filter, _ := url.QueryUnescape(r.URL.Query().Get("$filter"))
	_, _ = fmt.Sscanf(filter, "EntityEventSequence gt %d", &after)
	var values []string
	for _, n := range s.sequences {
		if n > after {
			values = append(values, fmt.Sprintf(`{"EntityEventSequence":%d,"ResourceName":"Property","ResourceRecordKey":"%d"}`, n, n))
		}
	}
	fmt.Fprintf(w, `{"value":[%s]}`, strings.Join(values, ","))
}

// follow makes a feed that follows the server.
func (b *bundle) follow(name string, s *resoServer, token string) eventlog.Feed {
	b.t.Helper()
	sealed, err := b.store.SealSource(name, event.SourceSecrets{Token: token})
	b.check(err)
	horizon := event.Duration(50 * time.Millisecond)
	feed, err := b.log.CreateFeed(b.t.Context(), eventlog.FeedSpec{Name: name, Sequences: eventlog.SequencesSupplied, Source: &eventlog.SourceChange{
		Config: &event.Source{URL: s.URL, Auth: event.SourceAuth{Type: event.AuthBearer, TokenSet: true}, Horizon: &horizon, Poll: event.Duration(10 * time.Millisecond)},
		Sealed: sealed,
	}})
	b.check(err)
	return feed
}

func (b *bundle) read(name string) eventlog.Feed {
	b.t.Helper()
	feed, err := b.log.Feed(b.t.Context(), name)
	b.check(err)
	return feed
}

func sources(agent string) func(*worker.WakerConfig) {
	return func(c *worker.WakerConfig) {
		c.Sources = worker.SourcesConfig{
			HTTP: http.DefaultClient, UserAgent: agent, Look: 10 * time.Millisecond, Note: time.Millisecond,
			Recheck: 50 * time.Millisecond, RetryDelay: time.Millisecond, RetryDelayMax: 10 * time.Millisecond,
		}
	}
}

// TestSources: one process follows the source of a feed, another goes on when it
// is gone; what became of it stands with the feed; a change counts at once.
func TestSources(t *testing.T) {
	t.Parallel()
	b := setup(t)
	sealer, err := store.NewSealer([store.KeyBytes]byte{7})
	b.check(err)
	b.store = store.New(b.pool, sealer)
	s := newRESOServer(t, 1, 2, 5)
	b.follow("mls", s, "hush")

	first, stopFirst := b.wake(quick(sources("first")))
	second, _ := b.start(quick(sources("second")))
	b.eventually(func() bool { return b.read("mls").Head == 5 }, "the feed is where the source is")
	s.change(func() { s.sequences = append(s.sequences, 9) })
	b.eventually(func() bool { return b.read("mls").Head == 9 }, "what is new is taken")
	s.change(func() { s.sequences = append(s.sequences, 8) })
	b.eventually(func() bool { return b.read("mls").Source.State.Late == 1 }, "what came late is counted")
	if state := b.read("mls").Source.State; !slices.Equal(state.LateSequences, []int64{8}) || state.SourceHead != 9 || state.ReadAt.IsZero() || state.Error != "" {
		t.Errorf("the state is %+v", state)
	}
	if c := first.Counters(); c.Sources.Load() != 1 || c.SourceEvents.Load() != 4 || c.SourceLate.Load() != 1 {
		t.Errorf("%d sources are followed, %d events taken, %d late", c.Sources.Load(), c.SourceEvents.Load(), c.SourceLate.Load())
	}
	if askers := s.asked(); slices.Contains(askers, "second") {
		t.Error("two processes read the source")
	}

	stopFirst()
	s.asked()
	s.change(func() { s.sequences = append(s.sequences, 10) })
	b.eventually(func() bool { return b.read("mls").Head == 10 }, "the other process goes on")
	if askers := s.asked(); slices.Contains(askers, "first") || first.Counters().Sources.Load() != 0 {
		t.Error("the first one still reads the source")
	}

	s.change(func() { s.broken = true })
	b.eventually(func() bool { return strings.Contains(b.read("mls").Source.State.Error, "HTTP 403") }, "a fault stands with the feed")
	if state := b.read("mls").Source.State; state.FailingSince.IsZero() || state.RetryAt.IsZero() || second.Counters().SourcesFailing.Load() != 1 {
		t.Errorf("the state is %+v, %d fail", state, second.Counters().SourcesFailing.Load())
	}
	s.change(func() { s.broken, s.sequences = false, append(s.sequences, 11) })
	b.eventually(func() bool { f := b.read("mls"); return f.Head == 11 && f.Source.State.Error == "" }, "it is over")
	if late := b.read("mls").Source.State.Late; late != 1 {
		t.Errorf("%d events are late: the one was found again", late)
	}

	// Another server from now on.
	other := newRESOServer(t, 11, 12)
	sealed, err := b.store.SealSource("mls", event.SourceSecrets{Token: "hush"})
	b.check(err)
	config := b.read("mls").Source.Config
	config.URL = other.URL
	_, err = b.log.UpdateFeed(t.Context(), "mls", eventlog.FeedPatch{Source: &eventlog.SourceChange{Config: &config, Sealed: sealed}})
	b.check(err)
	b.eventually(func() bool { return b.read("mls").Head == 12 }, "the other server is followed")
	_, err = b.log.UpdateFeed(t.Context(), "mls", eventlog.FeedPatch{Source: &eventlog.SourceChange{}})
	b.check(err)
	b.eventually(func() bool {
		return second.Counters().Sources.Load() == 0 && second.Counters().SourcesFailing.Load() == 0
	}, "a source that was removed is not followed")
	page, err := b.log.Read(t.Context(), b.read("mls").ID, 0, 100)
	b.check(err)
	var got []int64
	for i := range page.Events {
		got = append(got, page.Events[i].Sequence)
	}
	if !slices.Equal(got, []int64{1, 2, 5, 9, 10, 11, 12}) {
		t.Errorf("the feed has %v", got)
	}
}

// TestSourcesApart: a source that cannot be read, and one whose secret cannot be
// opened, keep no other one waiting.
func TestSourcesApart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	sealer, err := store.NewSealer([store.KeyBytes]byte{7})
	b.check(err)
	b.store = store.New(b.pool, sealer)
	s := newRESOServer(t, 1, 2, 3)
	b.follow("refused", s, "wrong")
	b.follow("good", s, "hush")
	b.follow("sealed", s, "hush")
	if _, err := b.pool.Exec(context.Background(), `UPDATE feed_sources SET secrets = 'x' WHERE feed_id = (SELECT id FROM feeds WHERE name = 'sealed')`); err != nil {
		t.Fatal(err)
	}
	w, _ := b.wake(quick(sources("one")))
	b.eventually(func() bool { return b.read("good").Head == 3 }, "the good one is followed")
	b.eventually(func() bool { return strings.Contains(b.read("refused").Source.State.Error, "403") }, "the refused one tells")
	b.eventually(func() bool { return strings.Contains(b.read("sealed").Source.State.Error, "secrets") }, "the sealed one tells")
	if got := w.Counters().SourceFaults.Load(); got < 2 {
		t.Errorf("%d faults are counted", got)
	}
}

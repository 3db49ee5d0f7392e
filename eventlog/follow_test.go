package eventlog_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/testkit"
)

// hourly is a poll interval that leaves all waking to notifications.
const hourly = time.Hour

var (
	someNames   = []string{"Property", "Member", "Office", "PropertyUnit"}
	someTypes   = []string{"", "created", "created.bulk", "deleted"}
	someFilters = []event.Filter{
		{},
		{ResourceNames: []string{"Property"}},
		{ResourceNames: []string{"Prop*", "Property", "Office"}},
		{EventTypes: []string{"created*"}},
		{EventTypes: []string{"*"}},
		{ResourceNames: []string{"Property*"}, EventTypes: []string{"deleted"}},
		{ResourceNames: []string{"None"}},
	}
)

// TestFollowersSeeTheFilteredLog checks, for any order of appends and reads with
// any bounds, that what followers hand out is the log through their filters,
// whether it comes from the ring or from pages.
func TestFollowersSeeTheFilteredLog(t *testing.T) {
	t.Parallel()
	// So small that followers fall out of the ring and pages are cut.
	b := setup(t, eventlog.Config{RingEvents: 8, RingBytes: 6000, RingBytesTotal: 9000, PageRows: 5, PageBytes: 3000, ScanRows: 7})
	feeds := 0
	rapid.Check(t, func(rt *rapid.T) {
		feeds++
		sequences := rapid.SampledFrom([]string{eventlog.SequencesAssigned, eventlog.SequencesSupplied}).Draw(rt, "sequences")
		m := &followModel{rt: rt, b: b, feed: b.newFeed(fmt.Sprint("f", feeds), sequences)}
		defer m.close()
		rt.Repeat(map[string]func(*rapid.T){
			"append": m.append,
			"follow": m.follow,
			"next":   m.next,
			"wait":   m.wait,
		})
		m.drain()
	})
	if n := b.log.FollowedFeeds(); n != 0 {
		t.Errorf("%d feeds are still followed", n)
	}
	if n := b.log.RingBytes(); n != 0 {
		t.Errorf("rings still hold %d bytes", n)
	}
}

type followModel struct {
	rt        *rapid.T
	b         *bundle
	feed      eventlog.Feed
	log       []event.Event
	followers []*modelFollower
}

type modelFollower struct {
	*eventlog.Follower
	filter  event.Filter
	scanned int64
}

func (m *followModel) append(rt *rapid.T) {
	events := make([]event.Event, rapid.IntRange(1, 12).Draw(rt, "events"))
	for i := range events {
		events[i] = event.Event{
			ResourceName:      rapid.SampledFrom(someNames).Draw(rt, "name"),
			EventType:         rapid.SampledFrom(someTypes).Draw(rt, "type"),
			ResourceRecordKey: "r",
			Data:              json.RawMessage(`"` + strings.Repeat("x", rapid.SampledFrom([]int{0, 900, 4000}).Draw(rt, "size")) + `"`),
		}
		if m.feed.Sequences == eventlog.SequencesSupplied {
			events[i].Sequence = m.head() + rapid.Int64Range(1, 5).Draw(rt, "gap")
		} else {
			events[i].Sequence = m.head() + 1
		}
		m.log = append(m.log, events[i])
		if m.feed.Sequences == eventlog.SequencesAssigned {
			events[i].Sequence = 0
		}
	}
	if result := m.b.append(m.feed, events...); result.Last != m.head() {
		rt.Fatalf("stored up to %d, want %d", result.Last, m.head())
	}
}

func (m *followModel) head() int64 {
	if len(m.log) == 0 {
		return 0
	}
	return m.log[len(m.log)-1].Sequence
}

func (m *followModel) follow(rt *rapid.T) {
	if len(m.followers) == 6 {
		rt.Skip("enough followers")
	}
	filter := rapid.SampledFrom(someFilters).Draw(rt, "filter")
	after := rapid.Int64Range(0, m.head()).Draw(rt, "after")
	m.followers = append(m.followers, &modelFollower{m.b.log.Follow(m.feed.ID, after, filter), filter, after})
}

func (m *followModel) pick(rt *rapid.T) *modelFollower {
	if len(m.followers) == 0 {
		rt.Skip("no follower")
	}
	return rapid.SampledFrom(m.followers).Draw(rt, "follower")
}

func (m *followModel) next(rt *rapid.T) {
	m.step(rt, m.pick(rt), rapid.IntRange(1, 20).Draw(rt, "events"), rapid.SampledFrom([]int{1, 2000, 1 << 20}).Draw(rt, "bytes"))
}

// step calls Next once and compares.
func (m *followModel) step(rt *rapid.T, f *modelFollower, eventsMax, bytesMax int) {
	events, scanned, err := f.Next(m.b.t.Context(), eventsMax, bytesMax)
	if err != nil {
		rt.Fatalf("next: %v", err)
	}
	if scanned < f.scanned || scanned > m.head() {
		rt.Fatalf("scanned went from %d to %d with the head at %d", f.scanned, scanned, m.head())
	}
	var want, got []int64
	for _, e := range m.log {
		if e.Sequence > f.scanned && e.Sequence <= scanned && f.filter.Match(e.ResourceName, e.EventType) {
			want = append(want, e.Sequence)
		}
	}
	bytes := 0
	for _, e := range events {
		got = append(got, e.Sequence)
		bytes += e.Size()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		rt.Fatalf("(%d, %d] through %v (-want +got):\n%s", f.scanned, scanned, f.filter, diff)
	}
	if len(events) > eventsMax || len(events) > 1 && bytes > bytesMax {
		rt.Fatalf("%d events of %d bytes exceed %d and %d", len(events), bytes, eventsMax, bytesMax)
	}
	f.scanned = scanned
}

// wait waits where there is something to come, or gives up at once.
func (m *followModel) wait(rt *rapid.T) {
	f := m.pick(rt)
	timeout := time.Duration(0)
	if m.matchesAbove(f) {
		timeout = soon
	}
	ctx, cancel := context.WithTimeout(m.b.t.Context(), timeout)
	defer cancel()
	if err := f.Wait(ctx); err != nil && timeout != 0 {
		rt.Fatalf("events above %d are not announced: %v", f.scanned, err)
	}
}

func (m *followModel) matchesAbove(f *modelFollower) bool {
	return slices.ContainsFunc(m.log, func(e event.Event) bool {
		return e.Sequence > f.scanned && f.filter.Match(e.ResourceName, e.EventType)
	})
}

// drain takes every follower to the head.
func (m *followModel) drain() {
	for _, f := range m.followers {
		for m.matchesAbove(f) {
			m.wait(m.rt)
			m.step(m.rt, f, 100, 1<<20)
		}
		testkit.Eventually(m.b.t, soon, func() bool {
			for before := int64(-1); before < f.scanned; {
				before = f.scanned
				m.step(m.rt, f, 100, 1<<20)
			}
			return f.scanned == m.head()
		}, "the position reaches the head")
	}
}

func (m *followModel) close() {
	for _, f := range m.followers {
		f.Close()
	}
}

func TestFollowerOfAnIdleFeed(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{PollInterval: hourly})
	f := b.log.Follow(b.feed.ID, 0, event.Filter{ResourceNames: []string{"Member"}})
	defer f.Close()
	for range 2 {
		events, scanned, err := f.Next(t.Context(), 10, 1000)
		if len(events) != 0 || scanned != 0 || err != nil {
			t.Fatalf("an empty feed hands out %d events up to %d, %v", len(events), scanned, err)
		}
	}
	waited := make(chan error, 1)
	go func() { waited <- f.Wait(t.Context()) }()
	other := b.log.Follow(b.feed.ID, 0, event.Filter{})
	defer other.Close()
	b.append(b.feed, records(3)...) // not for it
	must(t, other.Wait(t.Context()))
	select {
	case err := <-waited:
		// Events that came before it waited may wake it once, as it must look.
		must(t, err)
		_, scanned, err := f.Next(t.Context(), 10, 1000)
		must(t, err)
		if scanned != 3 {
			t.Errorf("scanned %d, want 3", scanned)
		}
		go func() { waited <- f.Wait(t.Context()) }()
	default:
	}
	b.append(b.feed, event.Event{ResourceName: "Member", ResourceRecordKey: "m"})
	must(t, <-waited)
	events, scanned, err := f.Next(t.Context(), 10, 1000)
	if err != nil || len(events) != 1 || events[0].Sequence != 4 || scanned != 4 {
		t.Errorf("got %d events up to %d, %v; want event 4", len(events), scanned, err)
	}
}

func TestPositionMovesWhileWaiting(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	f := b.log.Follow(b.feed.ID, 0, event.Filter{ResourceNames: []string{"None"}})
	defer f.Close()
	b.append(b.feed, records(5)...)
	// The events go by while it waits; the wait itself goes on.
	testkit.Eventually(t, soon, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		_ = f.Wait(ctx)
		events, scanned, err := f.Next(t.Context(), 10, 1000)
		if len(events) != 0 || err != nil {
			t.Fatalf("got %d events, %v", len(events), err)
		}
		return scanned == 5
	}, "the position passes what the filter keeps out")
}

func TestWait(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{PollInterval: hourly})
	t.Run("returns at once where there is something", func(t *testing.T) {
		b.append(b.feed, records(2)...)
		must(t, b.log.Wait(t.Context(), b.feed.ID, 1))
	})
	t.Run("returns when something comes, told by another process", func(t *testing.T) {
		other := setupAt(t, b.url, eventlog.Config{})
		waited := make(chan error, 1)
		go func() { waited <- b.log.Wait(t.Context(), b.feed.ID, 3) }()
		other.append(b.feed, records(1)...) // number 3: not above it
		other.append(b.feed, records(1)...)
		must(t, <-waited)
	})
	t.Run("ends with its context", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := b.log.Wait(ctx, b.feed.ID, 4); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
	})
	t.Run("a feed that is not there", func(t *testing.T) {
		if err := b.log.Wait(t.Context(), 999, 0); !errors.Is(err, eventlog.ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
	})
	t.Run("ends when the log closes", func(t *testing.T) {
		waited := make(chan error, 1)
		go func() { waited <- b.log.Wait(t.Context(), b.feed.ID, 4) }()
		testkit.Eventually(t, soon, func() bool { return b.log.FollowedFeeds() == 1 }, "it waits")
		b.log.Close()
		if err := <-waited; !errors.Is(err, eventlog.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
		if _, err := b.log.Append(t.Context(), b.feed, records(1)); !errors.Is(err, eventlog.ErrClosed) {
			t.Errorf("append: got %v, want ErrClosed", err)
		}
	})
}

func TestRingsAreBounded(t *testing.T) {
	t.Parallel()
	const total = 20_000
	b := setup(t, eventlog.Config{RingBytes: 8_000, RingBytesTotal: total})
	var followers []*eventlog.Follower
	for i := range 10 {
		feed := b.newFeed(fmt.Sprint("f", i), "")
		f := b.log.Follow(feed.ID, 0, event.Filter{})
		defer f.Close()
		followers = append(followers, f)
		b.append(feed, records(1)...)
		must(t, f.Wait(t.Context()))   // from here on the tail reads on
		b.append(feed, records(29)...) // about 8,000 bytes
	}
	for i, f := range followers {
		must(t, f.Wait(t.Context()))
		got := 0
		for got < 30 {
			events, _, err := f.Next(t.Context(), 100, 1<<20)
			must(t, err)
			got += len(events)
		}
		if n := b.log.RingBytes(); n > total {
			t.Errorf("rings hold %d bytes after feed %d, more than %d", n, i, total)
		}
	}
	testkit.Eventually(t, soon, func() bool { return b.log.RingBytes() > total/2 }, "the rings hold what they may")
}

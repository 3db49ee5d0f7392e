package planner

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"postroad/event"
	"postroad/store"
)

// TestHeldAhead has a replay bring many events that come before what waits behind
// a held key: few of them are kept, and each is sent once, in order. The one that
// was in flight meanwhile is not sent again.
func TestHeldAhead(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	cfg := testConfig(2, 1, event.OnExhaustedHold)
	cfg.Replay = 7
	p := New(cfg, State{Held: []store.HeldKey{{Key: key("k"), Events: 2}}, HeldEvents: 2}, now)
	wanted := func() {
		t.Helper()
		if k, ok := p.HeldWanted(now); !ok || k != key("k") {
			t.Fatalf("%v %v is wanted", k, ok)
		}
	}
	wanted()
	waiting := slices.Concat(eventsFrom(1000, "k"), eventsFrom(2000, "k"))
	p.OfferHeld(key("k"), waiting, []int64{0, 0}, true)
	first := p.Next(now)
	older := eventsFrom(1, slices.Repeat([]string{"k"}, 300)...)
	p.Offer(older, nil, 300)
	if n := len(p.held[key("k")].queue); n > heldAhead {
		t.Errorf("%d events are kept", n)
	}
	p.Answered(first, accepted(), now)
	if s := p.Snapshot(now); !slices.Equal(s.Aside.Unhold, []int64{1000}) || len(s.Aside.Hold) != 300 {
		t.Fatalf("%+v", s.Aside)
	}
	// The rows, as of now: 2000 is there already, the others come with a commit.
	p.Committed(p.Snapshot(now).Mark)
	rows := append(older, waiting[1])
	var got []int64
	for range rows {
		r := p.Next(now)
		if r == nil {
			p.Committed(p.Snapshot(now).Mark)
			wanted()
			page := rows[len(got):min(len(rows), len(got)+20)]
			p.OfferHeld(key("k"), page, make([]int64, len(page)), len(page) < 20)
			r = p.Next(now)
		}
		got = append(got, r.Events[0].Sequence)
		p.Answered(r, accepted(), now)
	}
	if !slices.Equal(got, sequencesOf(rows)) || p.heldBytes != 0 || len(p.held) != 0 {
		t.Errorf("sent %v; %d bytes and %d keys are kept", got, p.heldBytes, len(p.held))
	}
}

// TestHeldBytes has the events of many held keys be read: no more than can be sent
// are kept, and what is refused makes room.
func TestHeldBytes(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	const keys, page = 200, 20
	var state State
	for i := range keys {
		state.Held = append(state.Held, store.HeldKey{Key: key(fmt.Sprint(i)), Events: page + 1})
	}
	state.HeldEvents = keys * (page + 1)
	p := New(testConfig(4, 1, event.OnExhaustedHold), state, now)
	p.heldBytesMax = 2 * page * 1000
	for range keys {
		most := 0
		for {
			k, ok := p.HeldWanted(now)
			if !ok {
				break
			}
			events := eventsFrom(1, slices.Repeat([]string{k.ResourceRecordKey}, page)...)
			for _, e := range events {
				e.Data = make([]byte, 1000)
			}
			p.OfferHeld(k, events, make([]int64, page), false)
			if most++; most > 1 {
				t.Fatal("more is wanted than is sent")
			}
		}
		p.Answered(p.Next(now), refused(), now)
	}
	if most := p.heldBytesMax + 2*page*1100; p.heldBytes > most {
		t.Errorf("%d bytes are kept, more than %d", p.heldBytes, most)
	}
}

package planner

import (
	"maps"
	"slices"
	"time"

	"postroad/delivery"
	"postroad/event"
	"postroad/store"
)

// busy are the keys of which something is in flight.
func (w *world) busy() map[event.Key]bool {
	busy := map[event.Key]bool{}
	for _, r := range w.flying {
		for _, e := range r.Events {
			busy[e.Key()] = true
		}
	}
	return busy
}

// idleFails counts the lanes that failing events keep while they wait.
func (w *world) idleFails() (n int) {
	for _, f := range w.m.fails {
		if !f.inFlight {
			n++
		}
	}
	return n
}

func (w *world) idleGroups() (n int) {
	for _, g := range w.p.groups {
		if !g.inFlight {
			n++
		}
	}
	return n
}

// wantProper judges a request that is about to be sent.
func (w *world) wantProper(r *Request) {
	m := w.m
	first := r.Events[0]
	if w.probing() && (len(r.Events) > 1 || len(w.flying) > 0) {
		w.fail("the first request after a wait has %d events, %d more are in flight", len(r.Events), len(w.flying))
	}
	if len(r.Events) > w.p.batch() && w.cfg.BatchSize > 0 {
		w.fail("%d events in a request of at most %d", len(r.Events), w.p.batch())
	}
	if m.oneLane && len(w.flying) > 0 {
		w.fail("two requests in one lane")
	}
	busy := w.busy()
	for i, e := range r.Events {
		if busy[e.Key()] {
			w.fail("event %d: its key is in flight", e.Sequence)
		}
		if i > 0 && e.Sequence <= r.Events[i-1].Sequence {
			w.fail("event %d after %d", e.Sequence, r.Events[i-1].Sequence)
		}
		w.wantInOrder(r, e)
		if f := m.fails[e.Sequence]; f != nil {
			if len(r.Events) > 1 {
				w.fail("event %d was refused and is not alone", e.Sequence)
			}
			if w.now.Before(f.due) {
				w.fail("event %d is sent %v before it is due", e.Sequence, f.due.Sub(w.now))
			}
		}
	}
	switch r.kind {
	case kindHeld:
		if k := m.keys[first.Key()]; k == nil || w.now.Before(k.due) || len(r.Events) > 1 {
			w.fail("held event %d is sent before it is due, or not alone: %+v", first.Sequence, k)
		}
	case kindTrial:
		w.wantTrial(first)
	case kindNew:
		w.wantLowest(first, busy)
	default:
	}
	after := 1
	if f := m.fails[first.Sequence]; f != nil || r.kind == kindGroup || r.kind == kindTrial {
		after = 0 // it has its lane already
		if r.kind == kindGroup {
			after = 0
		}
	}
	if inUse := len(w.flying) + w.idleFails() + w.idleGroups() + after; inUse > w.p.lanes && r.kind != kindTrial && w.cfg.Lanes > 0 {
		w.fail("%d lanes of %d are in use", inUse, w.p.lanes)
	}
	w.wantHeaders(r)
}

func (w *world) probing() bool { return w.m.probe }

// wantInOrder holds an event to the order of its key, and to being sent once.
func (w *world) wantInOrder(r *Request, e *event.Event) {
	m := w.m
	if m.settled[e.Sequence] || m.dead[e.Sequence] {
		w.fail("event %d is dealt with and sent again", e.Sequence)
	}
	queue := m.queue(e.Key())
	if (m.keys[e.Key()] != nil) != (r.kind == kindHeld) || r.kind == kindHeld && queue[0] != e.Sequence {
		w.fail("event %d is sent, %v are held of its key", e.Sequence, queue)
	}
	for _, o := range w.log {
		if o.Key() != e.Key() {
			continue
		}
		if o.Sequence > e.Sequence && m.settled[o.Sequence] {
			w.fail("event %d is sent after %d was settled", e.Sequence, o.Sequence)
		}
		if o.Sequence < e.Sequence && !m.settled[o.Sequence] && !m.dead[o.Sequence] && !m.out[o.Sequence] && !slices.Contains(r.Events, o) {
			w.fail("event %d is sent before %d of the same key", e.Sequence, o.Sequence)
		}
	}
}

// eligible says whether an event of the window may be sent in a free lane.
func (w *world) eligible(e *event.Event, busy map[event.Key]bool) bool {
	if w.m.dealt(e.Sequence) || w.m.out[e.Sequence] || busy[e.Key()] || w.m.keys[e.Key()] != nil {
		return false
	}
	for _, f := range w.m.fails {
		if f.key == e.Key() {
			return false
		}
	}
	return true
}

func (w *world) wantLowest(first *event.Event, busy map[event.Key]bool) {
	if len(w.p.groups) > 0 {
		return
	}
	for _, e := range w.m.offered {
		if e.Sequence < first.Sequence && w.eligible(e, busy) {
			w.fail("event %d is sent before %d", first.Sequence, e.Sequence)
		}
		if w.cfg.Lanes == 1 && e.Sequence < first.Sequence && !w.m.dealt(e.Sequence) {
			w.fail("event %d overtakes %d in one lane", first.Sequence, e.Sequence)
		}
	}
}

// wantTrial judges a trial: nothing else can be done, and somebody is accused.
func (w *world) wantTrial(first *event.Event) {
	accused := 0
	for _, f := range w.m.fails {
		if f.attempts >= w.m.retry.EventAttempts && !f.proven {
			accused++
		}
	}
	if accused == 0 || len(w.flying) > 0 || len(w.m.fails) < w.p.lanes || w.m.policy == event.OnExhaustedHalt {
		w.fail("a trial of %d, %d are accused, %d in flight, %d fail", first.Sequence, accused, len(w.flying), len(w.m.fails))
	}
	on := 0
	for _, e := range w.m.offered {
		if !w.m.dealt(e.Sequence) {
			on++
		}
		if e.Sequence < first.Sequence && w.eligible(e, nil) || e == first && (!w.eligible(e, nil) || on > w.p.trialWindow) {
			w.fail("%d is tried, not %d, which is %d on", first.Sequence, e.Sequence, on)
		}
	}
}

// wantHeaders checks what the consumer is told beside the events.
func (w *world) wantHeaders(r *Request) {
	first, last := r.Events[0].Sequence, r.Events[len(r.Events)-1].Sequence
	compacted := 0
	for _, e := range r.Events {
		if r.kind != kindHeld {
			compacted += w.older[e.Sequence]
		}
	}
	if r.Compacted != compacted || r.Attempt < 1 || r.Replay != 0 {
		w.fail("compacted %d, want %d; attempt %d, replay %d", r.Compacted, compacted, r.Attempt, r.Replay)
	}
	if w.compact {
		return
	}
	previous, between := int64(0), 0
	for _, e := range w.log {
		if e.Sequence < first {
			previous = e.Sequence
		}
		if e.Sequence >= first && e.Sequence <= last {
			between++
		}
	}
	if r.Contiguous && between != len(r.Events) {
		w.fail("%d events of %d from %d to %d are contiguous", len(r.Events), between, first, last)
	}
	if !r.NoPrevious && r.Previous != previous {
		w.fail("before %d came %d, not %d", first, previous, r.Previous)
	}
	if r.NoPrevious && r.kind != kindHeld && (len(r.Events) == 1 || w.cfg.Lanes == 1) {
		w.fail("what came before %d is not told", first)
	}
}

// wantNoneToSend judges that nothing was sent.
func (w *world) wantNoneToSend() {
	if w.p.Stopped() || w.probing() && len(w.flying) > 0 || w.cfg.Lanes == 1 && len(w.flying) > 0 {
		return
	}
	if len(w.flying) == 1 && w.flying[0].kind == kindTrial {
		return
	}
	if w.idleGroups() > 0 {
		w.fail("a batch is not bisected further")
	}
	offered := func(n int64) bool { return w.m.isOffered(n) }
	for sequence, f := range w.m.fails {
		if !f.inFlight && offered(sequence) && !w.now.Before(f.due) {
			w.fail("event %d is due and not sent", sequence)
		}
	}
	if len(w.flying)+w.idleFails() >= w.p.lanes {
		return
	}
	busy := w.busy()
	for _, g := range w.p.groups {
		for _, e := range g.entries {
			busy[e.event.Key()] = true
		}
	}
	for _, e := range w.m.offered {
		if w.cfg.Lanes == 1 && !w.m.dealt(e.Sequence) && !w.eligible(e, busy) {
			return
		}
		if w.eligible(e, busy) {
			w.fail("event %d is not sent, and %d of %d lanes are free", e.Sequence, w.p.lanes-len(w.flying)-w.idleFails(), w.p.lanes)
		}
	}
}

// wantWait holds the wait to what an answer may do to it.
func (w *world) wantWait(a *delivery.Answer, late bool, before *Wait) {
	after := w.p.Wait()
	if a.Class == delivery.ClassAsked && (after == nil || after.Class != store.WaitAsked || after.Until.Before(w.now.Add(max(a.RetryAfter, time.Second)))) {
		w.fail("asked to wait %v: %+v", a.RetryAfter, after)
	}
	if before != nil && (after == nil || after.Until.Before(before.Until) || before.Class == store.WaitAsked && after.Class != store.WaitAsked) {
		w.fail("%+v became %+v by an answer of class %v", before, after, a.Class)
	}
	if a.Class == delivery.ClassEndpoint && !late {
		step := w.m.retry.Schedule[min(w.m.failures-1, len(w.m.retry.Schedule)-1)].Std()
		if after == nil || after.Until.Before(w.now.Add(step)) {
			w.fail("failure %d in a row: %+v", w.m.failures, after)
		}
	}
}

// look compares the plan with the model.
func (w *world) look() {
	m := w.m
	s := w.p.Snapshot(w.now)
	w.p.aside.mark-- // it was only a look: the next change is not above it
	if at := m.crowded(); s.Halted != "" && !m.halted && at > 0 && len(w.flying) == 0 {
		m.halt(at) // the plan may say when, but not before it has nothing else to do
		w.totals["halted full"]++
	}
	if m.crowded() > 0 {
		w.totals["crowded"]++
	}
	if s.Failures != m.failures || s.Asked != m.asked || (s.Halted != "") != m.halted || s.HaltedEvent != m.haltedEvent {
		w.fail("failures %d, asked %d, halted %q at %d; want %d, %d, %v at %d",
			s.Failures, s.Asked, s.Halted, s.HaltedEvent, m.failures, m.asked, m.halted, m.haltedEvent)
	}
	for _, e := range w.log {
		if m.out[e.Sequence] {
			continue // dealt with or not: what is newer counts
		}
		if within(&s.Stream, e.Sequence) != m.dealt(e.Sequence) {
			w.fail("event %d is dealt with: %v; cursor %d, settled %v", e.Sequence, m.dealt(e.Sequence), s.Cursor, s.Settled)
		}
	}
	for i := 0; i < len(s.Settled); i++ {
		if s.Settled[i] <= s.Cursor || i > 0 && s.Settled[i] < s.Settled[i-1] || i%2 == 0 && i > 0 && s.Settled[i] == s.Settled[i-1] {
			w.fail("ranges %v above %d", s.Settled, s.Cursor)
		}
	}
	fails := 0
	for _, f := range s.Failing {
		if !m.isOffered(f.Sequence) {
			continue
		}
		fails++
		want := m.fails[f.Sequence]
		if want == nil || want.attempts != f.Attempts || want.proven != f.Proven {
			w.fail("event %d fails as %+v, want %+v", f.Sequence, f, want)
		}
	}
	for n := range m.fails {
		if m.isOffered(n) && n != s.HaltedEvent {
			fails--
		}
	}
	if fails != 0 || w.cfg.Lanes > 0 && len(s.Failing) > w.p.lanes {
		w.fail("failing %+v in %d lanes, want %v", s.Failing, w.p.lanes, m.fails)
	}
	if w.p.window.live > max(w.p.windowMin, w.p.trialWindow, 2*w.p.lanes*w.p.batch()) && w.cfg.Lanes > 0 && w.cfg.BatchSize > 0 {
		w.fail("%d events in the window", w.p.window.live)
	}
	kept := 0
	for _, h := range w.p.held {
		for _, item := range h.queue {
			kept += item.event.Size()
		}
	}
	if kept != w.p.heldBytes {
		w.fail("%d bytes of held events are kept, not %d", kept, w.p.heldBytes)
	}
	requests, events := w.p.InFlight()
	for _, r := range w.flying {
		events -= len(r.Events)
	}
	if requests != len(w.flying) || events != 0 {
		w.fail("in flight: %d, want %d; %d events too many", requests, len(w.flying), events)
	}
}

// within says whether a stream has a sequence as dealt with.
func within(s *Stream, sequence int64) bool {
	for i := 0; i < len(s.Settled); i += 2 {
		if sequence >= s.Settled[i] && sequence <= s.Settled[i+1] {
			return true
		}
	}
	return sequence <= s.Cursor
}

// wantWritten compares what is set aside in the database with the model of the
// same moment.
func (w *world) wantWritten() {
	m := w.db.model
	held, dead := map[int64]event.Key{}, map[int64]bool{}
	for n, e := range w.db.held {
		held[n] = e.Key
	}
	for n := range w.db.dead {
		dead[n] = true
	}
	if !maps.Equal(held, m.held) || !maps.Equal(dead, m.dead) {
		w.fail("held %v, dead %v; want %v, %v", held, dead, m.held, m.dead)
	}
	for key, k := range m.keys {
		row, there := w.db.keys[key]
		if !there || row.Attempts != k.attempts {
			w.fail("key %v: %+v, want %+v", key, row, k)
		}
	}
	if len(w.db.keys) != len(m.keys) {
		w.fail("held keys %v, want %v", w.db.keys, m.keys)
	}
}

// drain has the consumer accept everything: then everything arrives.
func (w *world) drain() {
	w.well, w.poisoned = true, nil
	for range 4000 {
		for _, r := range w.flying {
			w.judge(r, w.consumer(r))
		}
		w.flying = nil
		if w.p.Stopped() {
			if w.p.Halted() != "" {
				w.now = w.now.Add(4 * time.Second) // until somebody looks
			}
			w.rebegin()
			continue
		}
		w.submit()
		w.write(len(w.pending) - 1)
		w.offer()
		w.readHeld()
		w.send()
		w.look()
		if !w.p.Idle() || len(w.flying) > 0 {
			continue
		}
		if w.next == len(w.log) {
			w.p.NothingMore(w.now)
		}
		if w.done() {
			return
		}
		if due, ok := w.p.Due(w.now); ok && due.After(w.now) {
			w.now = due
		}
	}
	w.fail("not everything arrived: settled %v, held %v, dead %v of %d events", w.m.settled, w.m.held, w.m.dead, len(w.log))
}

func (w *world) done() bool {
	for _, e := range w.log {
		n := e.Sequence
		if !w.m.settled[n] && !w.m.dead[n] && (!w.m.out[n] || !w.newerBy(e, w.head)) {
			return false
		}
	}
	return len(w.p.held) == 0
}

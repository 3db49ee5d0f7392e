package planner

import (
	"maps"
	"slices"
	"time"

	"postroad/delivery"
	"postroad/event"
	"postroad/store"
)

// model is what a plan is held to: one map a rule, no window, no ranges. It says
// what becomes of each event; when a request is made is the plan's to choose, and
// judged by the world.
type model struct {
	policy  string
	retry   event.Retry
	oneLane bool
	keysMax int
	most    int // held events

	offered []*event.Event // in this run, in order
	settled map[int64]bool
	dead    map[int64]bool
	out     map[int64]bool // left out by compaction
	held    map[int64]event.Key
	keys    map[event.Key]*modelKey
	fails   map[int64]*modelFail

	failures, asked int
	eventAttempt    int // as the run found it
	probe           bool
	halted          bool
	haltedEvent     int64
}

type modelKey struct {
	attempts int
	due      time.Time
}

type modelFail struct {
	key      event.Key
	attempts int
	proven   bool
	fresh    bool // its attempts were used up since the last wait
	inFlight bool
	due      time.Time
}

func newModel() *model {
	return &model{
		settled: map[int64]bool{}, dead: map[int64]bool{}, out: map[int64]bool{}, held: map[int64]event.Key{},
		keys: map[event.Key]*modelKey{}, fails: map[int64]*modelFail{},
	}
}

func (m *model) clone() *model {
	c := *m
	c.offered = slices.Clone(m.offered)
	c.settled, c.dead, c.out, c.held = maps.Clone(m.settled), maps.Clone(m.dead), maps.Clone(m.out), maps.Clone(m.held)
	c.keys, c.fails = map[event.Key]*modelKey{}, map[int64]*modelFail{}
	for k, v := range m.keys {
		copied := *v
		c.keys[k] = &copied
	}
	for k, v := range m.fails {
		copied := *v
		c.fails[k] = &copied
	}
	return &c
}

func (m *model) dealt(sequence int64) bool {
	return m.settled[sequence] || m.dead[sequence] || m.held[sequence] != event.Key{}
}

// queue are the events that wait behind a key, in order.
func (m *model) queue(key event.Key) []int64 {
	var list []int64
	for sequence, k := range m.held {
		if k == key {
			list = append(list, sequence)
		}
	}
	slices.Sort(list)
	return list
}

func (m *model) offer(e *event.Event) {
	if m.dealt(e.Sequence) {
		return
	}
	delete(m.out, e.Sequence)
	if len(m.offered) == 0 {
		if m.oneLane {
			maps.DeleteFunc(m.fails, func(n int64, _ *modelFail) bool { return n != e.Sequence })
		}
		if m.eventAttempt == 0 {
			delete(m.fails, e.Sequence)
		}
	}
	if m.keys[e.Key()] != nil {
		delete(m.fails, e.Sequence)
		if len(m.held) < m.most {
			m.held[e.Sequence] = e.Key()
		}
	}
	m.offered = append(m.offered, e)
}

func (m *model) halt(at int64) {
	if !m.halted {
		m.halted, m.haltedEvent, m.probe = true, at, true
	}
}

// setAside is the rule of onExhausted.
func (m *model) setAside(sequence int64) {
	f := m.fails[sequence]
	if m.policy == event.OnExhaustedSkip {
		m.dead[sequence] = true
		delete(m.fails, sequence)
		return
	}
	var waiting []int64
	for _, e := range m.offered {
		if e.Key() == f.key && !m.dealt(e.Sequence) {
			waiting = append(waiting, e.Sequence)
		}
	}
	if len(m.keys) >= m.keysMax || len(m.held)+len(waiting) > m.most {
		m.halt(sequence)
		return
	}
	m.keys[f.key] = &modelKey{attempts: f.attempts, due: f.due}
	for _, n := range waiting {
		m.held[n] = f.key
	}
	delete(m.fails, sequence)
}

func (m *model) step(attempts int) time.Duration {
	return m.retry.Schedule[min(attempts-1, len(m.retry.Schedule)-1)].Std()
}

// answered takes in an answer. late: the plan had stopped before it came.
func (m *model) answered(r *Request, a *delivery.Answer, late bool, now time.Time) {
	n := accepts(r.Events, a)
	for _, e := range r.Events[:n] {
		m.accept(e)
	}
	if f := m.fails[r.Events[0].Sequence]; f != nil {
		f.inFlight = false
	}
	for _, sequence := range slices.Sorted(maps.Keys(m.fails)) {
		f := m.fails[sequence]
		other := slices.ContainsFunc(r.Events[:n], func(e *event.Event) bool { return e.Key() != f.key })
		if other && !f.proven && m.isOffered(sequence) {
			m.proves(sequence, f, now)
		}
	}
	if !late {
		m.count(r, n, a)
	}
	switch {
	case a.Class != delivery.ClassRecord || n == len(r.Events):
	case r.kind == kindTrial:
		for _, f := range m.fails {
			f.fresh = false
		}
	case len(r.Events)-n == 1:
		m.refused(r.Events[n], retryAfter(a), now)
	}
	if a.Class == delivery.ClassAsked && !late || a.Class == delivery.ClassGone {
		m.probe = true
	}
}

// accepts is how many of the events, from the first on, the consumer took.
func accepts(events []*event.Event, a *delivery.Answer) (n int) {
	for _, e := range events {
		if a.Class == delivery.ClassSuccess || e.Sequence <= a.AcceptedThrough {
			n++
		}
	}
	return n
}

// proves: an event of another key was accepted.
func (m *model) proves(sequence int64, f *modelFail, now time.Time) {
	fresh := f.fresh
	f.proven, f.fresh = true, false
	switch {
	case f.inFlight || f.attempts < m.retry.EventAttempts || m.policy == event.OnExhaustedHalt:
	case fresh:
		m.setAside(sequence)
	default:
		f.due = now
	}
}

func (m *model) isOffered(sequence int64) bool {
	return slices.ContainsFunc(m.offered, func(e *event.Event) bool { return e.Sequence == sequence })
}

func (m *model) accept(e *event.Event) {
	key, held := m.held[e.Sequence]
	m.settled[e.Sequence] = true
	delete(m.fails, e.Sequence)
	if !held {
		return
	}
	delete(m.held, e.Sequence)
	m.keys[key].attempts, m.keys[key].due = 0, time.Time{}
	if len(m.queue(key)) == 0 {
		delete(m.keys, key)
	}
	for _, e := range m.offered { // those that were too many
		if m.keys[e.Key()] != nil && !m.dealt(e.Sequence) && len(m.held) < m.most {
			m.held[e.Sequence] = e.Key()
		}
	}
}

// crowded is the first event that has to wait behind a held key and may not.
func (m *model) crowded() int64 {
	for _, e := range m.offered {
		if m.keys[e.Key()] != nil && !m.dealt(e.Sequence) {
			return e.Sequence
		}
	}
	return 0
}

// count is what answers do to the counters of the endpoint.
func (m *model) count(r *Request, n int, a *delivery.Answer) {
	if n > 0 || a.Class == delivery.ClassRecord {
		m.failures = 0
	}
	switch a.Class {
	case delivery.ClassSuccess:
		m.asked, m.probe = 0, false
	case delivery.ClassRecord:
		if n == len(r.Events) {
			m.asked, m.probe = 0, false
		}
	case delivery.ClassAsked:
		m.asked++
	case delivery.ClassEndpoint:
		m.failures++
		m.probe = true
	default:
	}
}

func (m *model) refused(e *event.Event, retryAfter time.Duration, now time.Time) {
	if key, held := m.held[e.Sequence]; held {
		k := m.keys[key]
		k.attempts++
		k.due = now.Add(max(m.step(k.attempts), retryAfter))
		return
	}
	f := m.fails[e.Sequence]
	if f == nil {
		f = &modelFail{key: e.Key()}
		m.fails[e.Sequence] = f
	}
	f.attempts++
	f.due = now.Add(max(m.step(f.attempts), retryAfter))
	switch {
	case f.attempts < m.retry.EventAttempts:
	case m.policy == event.OnExhaustedHalt:
		m.halt(e.Sequence)
	case f.proven:
		m.setAside(e.Sequence)
	default:
		f.fresh = true
	}
}

// restart is what a new run knows: what failed, as far as there are lanes for it.
func (m *model) restart(lanes int, state *State) {
	delete(m.fails, m.haltedEvent) // whoever resumes begins it anew
	m.offered, m.halted, m.haltedEvent = nil, false, 0
	m.failures, m.asked, m.eventAttempt, m.probe = state.Failures, state.Asked, state.EventAttempt, state.Probe
	for i, sequence := range slices.Sorted(maps.Keys(m.fails)) {
		m.fails[sequence].inFlight = false
		if i >= lanes {
			delete(m.fails, sequence)
		}
	}
	for _, f := range state.Stream.Failing {
		if fail := m.fails[f.Sequence]; fail != nil {
			fail.fresh = !state.Probe && !f.Proven && f.Wait > 0 && f.Attempts >= m.retry.EventAttempts && m.policy != event.OnExhaustedHalt
		}
	}
}

// database is what the row store would hold: checkpoints applied one by one.
type database struct {
	snapshot Snapshot
	held     map[int64]store.HeldEvent
	keys     map[event.Key]store.HeldKey
	written  map[event.Key]time.Time // when a key's wait was
	dead     map[int64]store.DeadLetter
	model    *model
}

func (d *database) write(s Snapshot, m *model, now time.Time) {
	d.snapshot, d.model = s, m
	if s.Aside == nil {
		return
	}
	for _, e := range s.Aside.Hold {
		if _, there := d.held[e.Sequence]; !there {
			d.held[e.Sequence] = e
		}
	}
	for _, n := range s.Aside.Unhold {
		delete(d.held, n)
	}
	for _, k := range s.Aside.Keys {
		k.Wait -= now.Sub(s.Taken)
		d.keys[k.Key], d.written[k.Key] = k, now
	}
	for _, k := range s.Aside.Release {
		delete(d.keys, k)
	}
	for _, l := range s.Aside.Dead {
		d.dead[l.Sequence] = l
	}
	for _, n := range s.Aside.Redelivered {
		delete(d.dead, n)
	}
}

// state is the row as a new run loads it.
func (d *database) state(now time.Time) State {
	s := &d.snapshot
	state := State{
		Stream: s.Stream, Failures: s.Failures, Asked: s.Asked, Failing: !s.FailingSince.IsZero(), FailingFor: now.Sub(s.FailingSince),
		Probe: s.Probe, BatchLimit: s.BatchLimit, RangeFirst: s.RangeFirst, RangeLast: s.RangeLast, RangeAttempt: s.RangeAttempt,
		LastError: s.LastError, HeldEvents: len(d.held), LearnedBatch: s.LearnedBatch, LearnedLanes: s.LearnedLanes,
	}
	state.Stream.Failing = slices.Clone(s.Stream.Failing)
	for i := range state.Stream.Failing {
		f := &state.Stream.Failing[i]
		f.Wait = max(0, f.Wait-now.Sub(s.Taken))
	}
	for key, k := range d.keys {
		k.Wait = max(0, k.Wait-now.Sub(d.written[key]))
		k.Events = 0
		for _, e := range d.held {
			if e.Key == key {
				k.Events++
			}
		}
		state.Held = append(state.Held, k)
	}
	return state
}

// read is what the row store tells of a held key.
func (d *database) read(key event.Key, limit int) (list []store.HeldEvent, complete bool) {
	for _, n := range slices.Sorted(maps.Keys(d.held)) {
		if d.held[n].Key == key {
			list = append(list, d.held[n])
		}
	}
	return list[:min(limit, len(list))], len(list) <= limit
}

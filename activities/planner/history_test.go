package planner

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postroad/delivery"
	"postroad/event"
	"postroad/store"
)

// histories is how many random histories the model test goes through.
const histories = 10_000

// TestPlanAgainstModel goes through random histories: events of few keys, any
// lanes and batch sizes, a consumer that refuses, fails, asks to wait and hangs,
// checkpoints that are written late or never, crashes and resumes. A plain model
// says what becomes of each event.
func TestPlanAgainstModel(t *testing.T) {
	was := flag.Lookup("rapid.checks").Value.String()
	if err := flag.Set("rapid.checks", fmt.Sprint(histories)); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = flag.Set("rapid.checks", was) }()
	totals := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, totals)
		w.run()
		w.drain()
		totals["histories"]++
	})
	t.Log(totals)
	for _, thing := range []string{"histories", "crash", "late", "trial", "held", "held delivered", "dead", "halted", "grouped", "through", "compacted", "wait", "read", "repeated"} {
		if totals[thing] == 0 {
			t.Errorf("no history had: %s", thing)
		}
	}
}

// world is a subscriber: the log, the row, a consumer, and one run after another.
type world struct {
	t      *rapid.T
	totals map[string]int
	now    time.Time
	log    []*event.Event // all that match; other sequences do not
	head   int64
	cfg    Config
	p      *Plan
	m      *model
	db     database

	next     int // of log, to be offered
	looked   int64
	from     Stream // where the run began
	older    map[int64]int
	compact  bool
	flying   []*Request
	pending  []submitted
	reading  *heldRead
	poisoned map[event.Key]bool
	early    bool // a new run with fewer lanes may retry one event sooner
	lanesWas int
	ever     map[int64]bool // accepted in any run
	well     bool
}

type submitted struct {
	snapshot Snapshot
	model    *model
}

type heldRead struct {
	key      event.Key
	list     []store.HeldEvent
	complete bool
}

func (w *world) draw(low, high int, what string) int {
	return rapid.IntRange(low, high).Draw(w.t, what)
}

// chance is true once in n times.
func (w *world) chance(n int, what string) bool { return w.draw(0, n-1, what) == n-1 }

func newWorld(t *rapid.T, totals map[string]int) *world {
	w := &world{
		t: t, totals: totals, now: time.Unix(1_000_000, 0), poisoned: map[event.Key]bool{}, ever: map[int64]bool{},
		db: database{held: map[int64]store.HeldEvent{}, keys: map[event.Key]store.HeldKey{}, written: map[event.Key]time.Time{}, dead: map[int64]store.DeadLetter{}},
		m:  newModel(),
	}
	keys := w.draw(1, 5, "keys")
	for n := w.draw(1, 40, "events"); n > 0; n-- {
		w.head += int64(w.draw(1, 3, "gap") / 2 * 1)
		w.head++
		key := fmt.Sprint(w.draw(1, keys, "key"))
		w.log = append(w.log, &event.Event{Sequence: w.head, ResourceName: "Property", ResourceRecordKey: key})
	}
	w.head += 2
	for k := 1; k <= keys; k++ {
		if w.chance(3, "poisoned") {
			w.poisoned[event.Key{ResourceName: "Property", ResourceRecordKey: fmt.Sprint(k)}] = true
		}
	}
	w.m.retry = testRetry()
	w.m.retry.GiveUpAfter = 1000 * event.Day
	w.m.policy = rapid.SampledFrom([]string{event.OnExhaustedHalt, event.OnExhaustedHold, event.OnExhaustedHold, event.OnExhaustedSkip}).Draw(t, "onExhausted")
	w.m.keysMax, w.m.most = w.draw(1, 4, "held keys"), w.draw(4, 40, "held events")
	w.compact = w.chance(5, "compact")
	w.db.model = w.m.clone()
	w.begin(false)
	return w
}

// begin starts a run from what was written last.
func (w *world) begin(resume bool) {
	state := w.db.state(w.now)
	if resume {
		state.EventAttempt, state.Failures, state.Failing, state.Probe = 0, 0, false, true
	}
	if w.cfg.Lanes == 0 || w.chance(3, "reconfigured") {
		w.cfg.Lanes = event.Count(rapid.SampledFrom([]int{1, 1, 2, 3, 8, int(event.Auto)}).Draw(w.t, "lanes"))
		w.cfg.BatchSize = event.Count(rapid.SampledFrom([]int{1, 1, 2, 5, 16, int(event.Auto)}).Draw(w.t, "batch"))
	}
	w.cfg.Retry, w.cfg.OnExhausted = w.m.retry, w.m.policy
	w.cfg.HeldKeysMax, w.cfg.HeldEventsMax = w.m.keysMax, w.m.most
	w.cfg.Jitter = func() float64 { return 0 }
	w.p = New(w.cfg, state, w.now)
	w.t.Logf("begin: lanes %v batch %v, %+v", w.cfg.Lanes, w.cfg.BatchSize, state)
	w.p.windowMin, w.p.trialWindow, w.p.heldAhead = w.draw(2, 12, "window"), w.draw(2, 20, "trial window"), w.draw(1, 4, "ahead")
	w.from = state.Stream
	w.early = state.Probe && len(state.Stream.Failing) >= w.p.lanes
	w.m = w.db.model.clone()
	w.m.oneLane = w.cfg.Lanes == 1
	w.m.restart(w.p.lanes, &state)
	w.flying, w.pending, w.reading, w.older = nil, nil, nil, map[int64]int{}
	w.next, w.looked = 0, w.p.SkipTo(state.Cursor)
	for w.next < len(w.log) && w.log[w.next].Sequence <= w.looked {
		w.next++
	}
}

func (w *world) run() {
	for n := w.draw(5, 120, "steps"); n > 0; n-- {
		switch w.draw(0, 15, "action") {
		case 0, 1, 2:
			w.offer()
		case 3, 4, 5, 6:
			w.send()
		case 7, 8, 9, 10:
			w.answer()
		case 11:
			w.now = w.now.Add(time.Duration(w.draw(1, 3000, "ms")) * time.Millisecond)
		case 12:
			w.submit()
		case 13:
			w.write(w.draw(0, len(w.pending), "which") - 1)
		case 14:
			w.readHeld()
		case 15:
			w.rare()
		}
		w.look()
	}
}

// rare is what happens now and then.
func (w *world) rare() {
	switch w.draw(0, 3, "rare") {
	case 0:
		w.totals["crash"]++
		w.write(w.draw(0, len(w.pending), "which") - 1)
		resume := w.db.snapshot.Halted != "" || w.db.snapshot.Disabled
		w.untilRunnable()
		w.begin(resume)
	case 1:
		if len(w.flying) == 0 && w.p.Stopped() {
			w.rebegin()
		}
	case 2:
		if w.next == len(w.log) {
			w.p.NothingMore(w.now)
		}
	case 3:
		w.poisoned = map[event.Key]bool{}
	}
}

// rebegin ends a run that stopped, in order, and begins the next.
func (w *world) rebegin() {
	if w.p.Wait() != nil {
		w.totals["wait"]++
	}
	w.submit()
	w.write(len(w.pending) - 1)
	resume := w.db.snapshot.Halted != "" || w.db.snapshot.Disabled
	w.untilRunnable()
	w.begin(resume)
}

// untilRunnable lets the wait pass that the row has.
func (w *world) untilRunnable() {
	if wait := w.db.snapshot.Wait; wait != nil && wait.Until.After(w.now) {
		w.now = wait.Until
	}
}

func (w *world) offer() {
	room := w.p.Room()
	if w.next == len(w.log) || room == 0 {
		return
	}
	n := w.draw(1, min(room, len(w.log)-w.next), "page")
	page := w.log[w.next : w.next+n]
	w.next += n
	var older []int
	var events []*event.Event
	through := page[n-1].Sequence
	if w.next == len(w.log) {
		through = w.head
	}
	ahead := w.log[min(len(w.log), w.next+3)-1].Sequence
	left := 0
	for _, e := range page {
		if w.compact && w.newerBy(e, ahead) {
			left++
			if !w.m.dealt(e.Sequence) {
				w.m.out[e.Sequence] = true
				w.totals["compacted"]++
			}
			continue
		}
		events = append(events, e)
		older = append(older, left)
		w.older[e.Sequence] = left
		left = 0
	}
	if !w.compact {
		older = nil
	}
	w.t.Logf("offer %v through %d", sequencesOf(events), through)
	w.p.Offer(events, older, through)
	w.looked = through
	for _, e := range events {
		if !w.m.out[e.Sequence] || !within(&w.from, e.Sequence) { // else it was left out for good
			w.m.offer(e)
		}
	}
	for n := range w.m.fails {
		if n <= through && !w.m.isOffered(n) {
			delete(w.m.fails, n) // it was left out this time
		}
	}
	if w.chance(3, "skip") {
		w.looked = w.p.SkipTo(w.looked)
		for w.next < len(w.log) && w.log[w.next].Sequence <= w.looked {
			w.next++
		}
	}
}

// newerBy says whether a later event of the key stands before the end of the
// stretch that is looked at.
func (w *world) newerBy(e *event.Event, through int64) bool {
	return slices.ContainsFunc(w.log, func(o *event.Event) bool {
		return o.Sequence > e.Sequence && o.Sequence <= through && o.Key() == e.Key()
	})
}

func (w *world) send() {
	r := w.p.Next(w.now)
	if r == nil {
		w.wantNoneToSend()
		return
	}
	w.t.Logf("send kind %d: %v, failing %d, groups %d", r.kind, sequencesOf(r.Events), len(w.p.failing), len(w.p.groups))
	w.wantProper(r)
	w.flying = append(w.flying, r)
	if f := w.m.fails[r.Events[0].Sequence]; f != nil {
		f.inFlight = true
	}
	if w.chance(15, "returned") {
		w.flying = w.flying[:len(w.flying)-1]
		if f := w.m.fails[r.Events[0].Sequence]; f != nil {
			f.inFlight = false
		}
		w.p.Return(r)
	}
}

func (w *world) answer() {
	if len(w.flying) == 0 {
		return
	}
	at := w.draw(0, len(w.flying)-1, "which")
	r := w.flying[at]
	w.flying = slices.Delete(w.flying, at, at+1)
	a := w.consumer(r)
	w.judge(r, a)
}

func (w *world) judge(r *Request, a *delivery.Answer) {
	late, before := w.p.Stopped(), w.p.Wait()
	w.t.Logf("answer to %v: %v %d through %d, late %v", sequencesOf(r.Events), a.Class, a.Status, a.AcceptedThrough, late)
	if late {
		w.totals["late"]++
	}
	if r.kind == kindTrial {
		w.totals["trial"]++
	}
	for _, e := range r.Events[:acceptedCount(r.Events, a)] {
		if w.ever[e.Sequence] {
			w.totals["repeated"]++
		}
		w.ever[e.Sequence] = true
		if r.kind == kindHeld {
			w.totals["held delivered"]++
		}
	}
	held, dead := len(w.m.held), len(w.m.dead)
	w.m.answered(r, a, late, w.now)
	w.totals["held"] += max(0, len(w.m.held)-held)
	w.totals["dead"] += len(w.m.dead) - dead
	if w.m.halted {
		w.totals["halted"]++
	}
	w.p.Answered(r, a, w.now)
	w.totals["grouped"] += len(w.p.groups)
	w.wantWait(a, late, before)
}

// consumer answers a request.
func (w *world) consumer(r *Request) *delivery.Answer {
	ok := &delivery.Answer{Class: delivery.ClassSuccess, Status: 200, Duration: time.Duration(w.draw(1, 50, "took")) * time.Millisecond}
	if w.well {
		return ok
	}
	a := ok
	refused := slices.IndexFunc(r.Events, func(e *event.Event) bool { return w.poisoned[e.Key()] })
	switch w.draw(0, 24, "mood") {
	case 0, 1:
		a = &delivery.Answer{Class: delivery.ClassRecord, Status: 500}
	case 2:
		a = &delivery.Answer{Class: delivery.ClassEndpoint, Status: 502}
	case 3:
		a = askedFor(time.Duration(w.draw(0, 5, "seconds")) * time.Second)
	case 4:
		a = &delivery.Answer{Class: delivery.ClassEndpoint, Fault: delivery.Fault{Code: delivery.CodeTimeout, Text: "no answer"}}
	case 5:
		return &delivery.Answer{Class: delivery.ClassCanceled}
	case 6:
		if w.chance(4, "gone") {
			return &delivery.Answer{Class: delivery.ClassGone, Status: 410}
		}
	default:
		if refused < 0 {
			return ok
		}
		a = &delivery.Answer{Class: delivery.ClassRecord, Status: 422}
		if w.chance(5, "too large") {
			a.Status = 413
		}
		if w.chance(3, "accepts some") && refused > 0 {
			a.AcceptedThrough = r.Events[refused-1].Sequence
			w.totals["through"]++
		}
		return a
	}
	if a.Class != delivery.ClassSuccess && w.chance(4, "accepts some") {
		a.AcceptedThrough = r.Events[w.draw(0, len(r.Events)-1, "through")].Sequence
		w.totals["through"]++
	}
	if a.Class == delivery.ClassEndpoint && w.chance(4, "retry after") {
		a.RetryAfter, a.RetryAfterValid = 30*time.Second, true
	}
	return a
}

func (w *world) submit() {
	w.pending = append(w.pending, submitted{w.p.Snapshot(w.now), w.m.clone()})
}

// write has one of the checkpoints that wait written; those before it never are.
func (w *world) write(at int) {
	if at < 0 {
		return
	}
	s := w.pending[at]
	w.pending = w.pending[at+1:]
	w.db.write(s.snapshot, s.model, w.now)
	w.p.Committed(s.snapshot.Mark)
	w.wantWritten()
}

func (w *world) readHeld() {
	if w.reading != nil && !w.chance(4, "not read") {
		var events []*event.Event
		var replays []int64
		for _, h := range w.reading.list {
			at, _ := slices.BinarySearchFunc(w.log, h.Sequence, func(e *event.Event, n int64) int { return int(e.Sequence - n) })
			events, replays = append(events, w.log[at]), append(replays, h.Replay)
		}
		w.p.OfferHeld(w.reading.key, events, replays, w.reading.complete)
		w.reading = nil
		return
	}
	if key, ok := w.p.HeldWanted(w.now); ok {
		w.totals["read"]++
		list, complete := w.db.read(key, w.draw(1, 3, "limit"))
		w.reading = &heldRead{key, list, complete}
	}
}

func sequencesOf(events []*event.Event) []int64 {
	list := make([]int64, len(events))
	for i, e := range events {
		list[i] = e.Sequence
	}
	return list
}

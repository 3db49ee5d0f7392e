package planner

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"postroad/delivery"
	"postroad/event"
	"postroad/store"
)

// histories is how many random histories the model test goes through.
const histories = 12_000

// oneHistory goes through the one with that number again, and tells of each step.
var oneHistory = flag.Uint64("history", 0, "go through this random history only, and tell of it")

// TestPlanAgainstModel goes through random histories: events of few keys, any
// lanes and batch sizes, a consumer that refuses, fails, asks to wait and hangs,
// checkpoints that are written late or never, crashes and resumes. A plain model
// says what becomes of each event.
func TestPlanAgainstModel(t *testing.T) {
	t.Parallel()
	totals := map[string]int{}
	if *oneHistory != 0 {
		newWorld(t, *oneHistory, totals, t.Logf).live()
		return
	}
	base := rand.Uint64() / histories * histories
	for n := range uint64(histories) {
		newWorld(t, base+n, totals, nil).live()
	}
	t.Log(totals)
	for _, thing := range []string{
		"crash", "late", "trial", "held", "held delivered", "dead", "halted", "bisected", "accepted through", "compacted", "wait",
		"held read", "repeated", "proven", "reconfigured", "window full", "probe", "retry", "crowded",
	} {
		if totals[thing] < histories/200 {
			t.Errorf("too few histories had this: %s, %d times", thing, totals[thing])
		}
	}
}

// world is a subscriber: the log, the row, a consumer, and one run after another.
type world struct {
	t      *testing.T
	seed   uint64
	rand   *rand.Rand
	trace  func(string, ...any) // nil: nobody wants to know
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
	ever     map[int64]bool // accepted in any run
	well     bool
	steps    int
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

func (w *world) draw(low, high int) int { return low + w.rand.IntN(high-low+1) }

// chance is true once in n times.
func (w *world) chance(n int) bool { return w.rand.IntN(n) == 0 }

func pick[T any](w *world, list ...T) T { return list[w.rand.IntN(len(list))] }

func (w *world) tell(format string, values ...any) {
	if w.trace != nil {
		w.trace(format, values...)
	}
}

// fail ends the test; -history tells the way there.
func (w *world) fail(format string, values ...any) {
	w.t.Helper()
	w.t.Fatalf("-history=%d: "+format, append([]any{w.seed}, values...)...)
}

// newWorld makes the world of that number. Later ones are larger.
func newWorld(t *testing.T, seed uint64, totals map[string]int, trace func(string, ...any)) *world {
	w := &world{
		t: t, seed: seed, rand: rand.New(rand.NewPCG(seed, 0)), trace: trace, totals: totals, now: time.Unix(1_000_000, 0),
		poisoned: map[event.Key]bool{}, ever: map[int64]bool{}, m: newModel(),
		db: database{
			held: map[int64]store.HeldEvent{}, keys: map[event.Key]store.HeldKey{}, written: map[event.Key]time.Time{},
			dead: map[int64]store.DeadLetter{},
		},
	}
	size := int(seed % histories * 40 / histories)
	keys := w.draw(1, 6)
	for n := w.draw(1, 4+size); n > 0; n-- {
		w.head += int64(w.draw(1, 4) / 4)
		w.head++
		key := fmt.Sprint(min(w.draw(1, keys), w.draw(1, keys)))
		w.log = append(w.log, &event.Event{Sequence: w.head, ResourceName: "Property", ResourceRecordKey: key})
	}
	w.head += 2
	rough := w.chance(2)
	for k := 1; k <= keys; k++ {
		if w.chance(3) || rough && w.chance(3) {
			w.poisoned[event.Key{ResourceName: "Property", ResourceRecordKey: fmt.Sprint(k)}] = true
		}
	}
	w.steps = w.draw(10, 20+5*size)
	w.m.retry = testRetry()
	w.m.retry.GiveUpAfter = 1000 * event.Day
	w.m.retry.EventAttempts = w.draw(1, 3)
	w.m.policy = pick(w, event.OnExhaustedHalt, event.OnExhaustedHold, event.OnExhaustedHold, event.OnExhaustedSkip)
	w.m.keysMax, w.m.most = w.draw(1, 5), 100
	if rough {
		w.m.retry.EventAttempts, w.m.most = w.draw(1, 2), pick(w, w.draw(1, 5), 100)
	}
	w.compact = w.chance(4)
	w.db.model = w.m.clone()
	w.begin(false)
	return w
}

func (w *world) live() {
	w.run()
	w.drain()
	w.totals["histories"]++
}

// begin starts a run from what was written last.
func (w *world) begin(resume bool) {
	state := w.db.state(w.now)
	if resume {
		state.EventAttempt, state.Failures, state.Failing, state.Probe = 0, 0, false, true
	}
	if w.cfg.Lanes == 0 || w.chance(3) {
		w.totals["reconfigured"]++
		w.cfg.Lanes = event.Count(pick(w, 1, 1, 2, 3, 8, int(event.Auto)))
		w.cfg.BatchSize = event.Count(pick(w, 1, 1, 2, 5, 16, int(event.Auto)))
	}
	w.cfg.Retry, w.cfg.OnExhausted = w.m.retry, w.m.policy
	w.cfg.HeldKeysMax, w.cfg.HeldEventsMax = w.m.keysMax, w.m.most
	w.cfg.Jitter = func() float64 { return 0 }
	w.p = New(w.cfg, state, w.now)
	w.tell("begin: lanes %v batch %v, %+v", w.cfg.Lanes, w.cfg.BatchSize, state)
	w.p.windowMin, w.p.trialWindow, w.p.heldAhead = w.draw(2, 12), w.draw(2, 20), w.draw(1, 4)
	w.p.heldBytesMax = pick(w, 0, 600, heldBytesMax)
	w.from = state.Stream
	early := state.Probe && len(state.Stream.Failing) >= w.p.lanes
	w.m = w.db.model.clone()
	w.m.oneLane = w.cfg.Lanes == 1
	w.m.restart(w.p.lanes, &state)
	if early {
		var first *modelFail
		for _, n := range slices.Sorted(maps.Keys(w.m.fails)) {
			if f := w.m.fails[n]; first == nil || f.due.Before(first.due) {
				first = f
			}
		}
		first.due = w.now
	}
	w.flying, w.pending, w.reading, w.older = nil, nil, nil, map[int64]int{}
	w.next, w.looked = 0, w.p.SkipTo(state.Cursor)
	for w.next < len(w.log) && w.log[w.next].Sequence <= w.looked {
		w.next++
	}
}

func (w *world) run() {
	for range w.steps {
		switch w.draw(0, 15) {
		case 0, 1, 2:
			w.offer()
		case 3, 4, 5, 6:
			w.send()
		case 7, 8, 9, 10:
			w.answer()
		case 11:
			w.now = w.now.Add(time.Duration(w.draw(1, 3000)) * time.Millisecond)
		case 12:
			w.submit()
		case 13:
			w.write(w.draw(0, len(w.pending)) - 1)
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
	switch w.draw(0, 3) {
	case 0:
		if w.chance(2) {
			return
		}
		w.totals["crash"]++
		w.write(w.draw(0, len(w.pending)) - 1)
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
	if room == 0 {
		w.totals["window full"]++
	}
	if w.next == len(w.log) || room == 0 {
		return
	}
	n := w.draw(1, min(room, len(w.log)-w.next))
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
	w.tell("offer %v through %d", sequencesOf(events), through)
	w.p.Offer(events, older, through)
	w.looked = through
	for _, e := range events {
		if !w.m.out[e.Sequence] || !within(&w.from, e.Sequence) { // else it was left out for good
			w.m.offer(e)
		}
	}
	for n := range w.m.fails {
		if (n <= through || w.p.window.live >= w.p.windowMax()) && !w.m.isOffered(n) {
			delete(w.m.fails, n) // it was left out this time, or is out of reach
		}
	}
	if w.chance(3) {
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
	w.tell("send kind %d: %v, failing %d, groups %d", r.kind, sequencesOf(r.Events), len(w.p.failing), len(w.p.groups))
	w.wantProper(r)
	w.flying = append(w.flying, r)
	if f := w.m.fails[r.Events[0].Sequence]; f != nil {
		f.inFlight = true
	}
	if w.chance(15) {
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
	at := w.draw(0, len(w.flying)-1)
	r := w.flying[at]
	w.flying = slices.Delete(w.flying, at, at+1)
	a := w.consumer(r)
	w.judge(r, a)
}

func (w *world) judge(r *Request, a *delivery.Answer) {
	late, before := w.p.Stopped(), w.p.Wait()
	w.tell("answer to %v: %v %d through %d, late %v", sequencesOf(r.Events), a.Class, a.Status, a.AcceptedThrough, late)
	if late {
		w.totals["late"]++
	}
	if w.m.probe {
		w.totals["probe"]++
	}
	switch r.kind {
	case kindTrial:
		w.totals["trial"]++
	case kindRetry:
		w.totals["retry"]++
	default:
	}
	for _, e := range r.Events[:accepts(r.Events, a)] {
		if w.ever[e.Sequence] {
			w.totals["repeated"]++
		}
		w.ever[e.Sequence] = true
		if r.kind == kindHeld {
			w.totals["held delivered"]++
		}
	}
	held, dead, proven := len(w.m.held), len(w.m.dead), w.proven()
	w.m.answered(r, a, late, w.now)
	w.totals["held"] += max(0, len(w.m.held)-held)
	w.totals["dead"] += len(w.m.dead) - dead
	w.totals["proven"] += max(0, w.proven()-proven)
	if w.m.halted && !late {
		w.totals["halted"]++
	}
	w.p.Answered(r, a, w.now)
	w.totals["bisected"] += len(w.p.groups)
	w.wantWait(a, late, before)
}

// consumer answers a request.
func (w *world) consumer(r *Request) *delivery.Answer {
	ok := &delivery.Answer{Class: delivery.ClassSuccess, Status: 200, Duration: time.Duration(w.draw(1, 50)) * time.Millisecond}
	if w.well {
		return ok
	}
	a := ok
	refused := slices.IndexFunc(r.Events, func(e *event.Event) bool { return w.poisoned[e.Key()] })
	switch w.draw(0, 24) {
	case 0, 1:
		a = &delivery.Answer{Class: delivery.ClassRecord, Status: 500}
	case 2:
		a = &delivery.Answer{Class: delivery.ClassEndpoint, Status: 502}
	case 3:
		a = askedFor(time.Duration(w.draw(0, 5)) * time.Second)
	case 4:
		a = &delivery.Answer{Class: delivery.ClassEndpoint, Fault: delivery.Fault{Code: delivery.CodeTimeout, Text: "no answer"}}
	case 5:
		return &delivery.Answer{Class: delivery.ClassCanceled}
	case 6:
		if w.chance(4) {
			return &delivery.Answer{Class: delivery.ClassGone, Status: 410}
		}
	default:
		if refused < 0 {
			return ok
		}
		a = &delivery.Answer{Class: delivery.ClassRecord, Status: 422}
		if w.chance(5) {
			a.Status = 413
		}
		if w.chance(3) && refused > 0 {
			a.AcceptedThrough = r.Events[refused-1].Sequence
			w.totals["accepted through"]++
		}
		return a
	}
	if a.Class != delivery.ClassSuccess && w.chance(4) {
		a.AcceptedThrough = r.Events[w.draw(0, len(r.Events)-1)].Sequence
		w.totals["accepted through"]++
	}
	if a.Class == delivery.ClassEndpoint && w.chance(4) {
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
	if w.reading != nil && !w.chance(4) {
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
		w.totals["held read"]++
		list, complete := w.db.read(key, w.draw(1, 3))
		w.reading = &heldRead{key, list, complete}
	}
}

func (w *world) proven() (n int) {
	for _, f := range w.m.fails {
		if f.proven {
			n++
		}
	}
	return n
}

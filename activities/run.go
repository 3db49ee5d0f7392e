package activities

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"postroad/activities/planner"
	"postroad/delivery"
	"postroad/event"
	"postroad/eventlog"
	"postroad/store"
)

const (
	pageRetry = 250 * time.Millisecond
	// queueBytesMax is where a run takes no further page: as much as the largest
	// request may hold.
	queueBytesMax = 8 << 20
	// heldPage is how many events that wait behind a held key are read at once.
	heldPage = 20
)

// run is one hold of a subscriber's lease. One goroutine (deliver) reads, sends
// and judges; controls, drains and finished checkpoints come from others and
// only change what mu guards, then kick it.
type run struct {
	a       *Activities
	id      string
	lease   uuid.UUID
	feedID  int64
	filter  event.Filter
	target  *delivery.Target
	replay  *store.Replay // what is sent; nil: the log itself
	source  source
	held    *eventlog.Selected // reads events that wait behind held keys
	oneLane bool
	log     *slog.Logger
	loaded  *store.Loaded
	began   time.Time // the Deliver that this run is part of: its budget counts from here

	looking atomic.Bool // the reader may bring more without waiting

	ctx    context.Context // of requests and statements: ends when the run does, or a drain is over
	cancel context.CancelFunc
	kick   chan struct{}

	// Of the delivering goroutine alone.
	left       *page     // what there is no room for yet; nil: nothing
	refill     int       // how much room there must be before more is taken
	scanned    int64     // the source is looked through up to here
	expected   int64     // an event that the database has and the reader still has to bring
	heldAfter  time.Time // when a held key may be looked up again
	generation int64     // of the last parking
	abandoned  bool      // the last checkpoint could not be written in time

	mu         sync.Mutex
	plan       *planner.Plan
	again      []*sending // to be sent once more, at once
	underWay   int        // requests that were not judged
	delivered  int64
	idleSince  time.Time
	desired    int64 // the controls under which the lease was taken
	applied    int64 // controls seen since, for which the gate was closed
	closed     bool  // the gate: start nothing any more
	draining   bool
	fenced     bool
	broken     error
	lost       bool      // no word from PostgreSQL for LeaseLost
	fallen     bool      // what comes next is no longer as it was read: look at the row again
	parking    bool      // the parking checkpoint is the last word
	over       bool      // the run has ended
	confirmed  time.Time // when a statement that matched the lease was sent
	touched    time.Time // when a checkpoint was last submitted
	dirty      bool      // the position moved since
	unsaved    unsaved
	flush      *time.Timer
	drainTimer *time.Timer
	pulse      *time.Timer
}

// sending is a request on its way.
type sending struct {
	*planner.Request
	resent bool // for the second time, over a new connection
}

func (a *Activities) newRun(base context.Context, lease uuid.UUID, row *store.Run, loaded *store.Loaded, sentAt, began time.Time) (*run, error) {
	target, err := a.cfg.Client.NewTarget(delivery.TargetConfig{
		Subscriber: loaded.Subscriber, Secrets: loaded.Secrets, FeedEpoch: loaded.FeedEpoch, Now: loaded.Now,
	})
	if err != nil {
		return nil, err
	}
	now := time.Now()
	fell := skipRemoved(row, loaded)
	r := &run{
		a: a, id: row.ID, lease: lease, feedID: row.FeedID, filter: loaded.Subscriber.Filter, target: target, replay: loaded.Replay,
		log:    a.cfg.Logger.With("subscriber", row.ID, "feed", loaded.FeedName),
		loaded: loaded, began: began, kick: make(chan struct{}, 1), idleSince: now, desired: row.DesiredVersion,
		confirmed: sentAt, touched: now, dirty: fell,
	}
	if fell {
		r.log.Warn("going on above events that were removed", "after", row.Cursor, "lost_events", row.LostEvents, "lost_through", row.PreviousSequence)
	}
	r.ctx, r.cancel = context.WithCancel(base)
	if err := r.takeUp(row, now); err != nil {
		r.cancel()
		return nil, err
	}
	return r, nil
}

// takeUp goes on where the row, or the row of the replay, stands.
func (r *run) takeUp(row *store.Run, now time.Time) error {
	state := stateOf(row, r.loaded)
	if r.replay != nil {
		err := bounded(r.ctx, func(ctx context.Context) (err error) {
			state.Dead, err = r.a.cfg.Store.DeadSequences(ctx, r.id, r.replay.Cursor, r.replay.Through, deadMax)
			return err
		})
		if err != nil {
			return err
		}
	}
	sub := &r.loaded.Subscriber
	config := planner.Config{
		Retry: sub.Retry, BatchSize: sub.BatchSize, Lanes: sub.Lanes, OnExhausted: sub.OnExhausted, Fit: r.target.Fit,
	}
	if r.replay != nil {
		config.Replay = r.replay.ID
	}
	r.plan = planner.New(config, state, now)
	r.oneLane = sub.Lanes == 1
	window := r.plan.Room()
	r.refill = max(1, window/2)
	r.scanned = state.Cursor
	r.source = r.sourceOf(window)
	r.held = r.a.cfg.Log.Select(r.feedID, eventlog.Selection{})
	return nil
}

// sourceOf is what the run reads. A replay comes before new events.
func (r *run) sourceOf(window int) source {
	log := r.a.cfg.Log
	switch {
	case r.replay == nil:
		s := newLogSource(log, r.feedID, r.scanned, r.filter, r.skipTo)
		if r.loaded.Subscriber.Compact == event.CompactCatchUp {
			s.compact = &compaction{
				log: log, feed: r.feedID, filter: r.filter, most: r.a.cfg.LookAhead,
				behind: int64(window), head: r.loaded.FeedHead, asked: r.scanned,
			}
		}
		return s
	case r.replay.Selection.Missed:
		return newMissedSource(log, r.a.cfg.Store, r.feedID, r.id, r.replay)
	}
	return newReplaySource(log, r.feedID, r.replay, r.filter)
}

func (r *run) skipTo(position int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.plan.SkipTo(position)
}

// skipRemoved moves a row's position above events that are no longer kept, and
// reports whether there were any. What was lost of them is on the row already,
// since the transaction that raised the floor. The last one that matched becomes
// the event before the next, so that a consumer that compares sees the gap.
func skipRemoved(row *store.Run, loaded *store.Loaded) bool {
	row.PreviousSequence = max(row.PreviousSequence, loaded.LostThrough)
	if loaded.FeedFloor <= row.Cursor {
		return false
	}
	row.Cursor = loaded.FeedFloor
	row.EventAttempt = 0 // the event it was charged to is gone
	return true
}

// deliver sends until something ends the run, and leaves the row in order: the
// lease is given back, unless another run has it or the row is parked.
func (r *run) deliver(ctx context.Context) ending {
	r.a.enter(r)
	defer r.a.runs.remove(r)
	stopWatching := context.AfterFunc(ctx, r.drain)
	defer stopWatching()
	if r.a.stopping(ctx) {
		r.drain() // it began before this run was known
	}
	pages, readerDone := r.read()
	r.startPulse()
	end := r.loop(pages)
	if (end == endStopped || end == endControl) && r.reconsider() {
		end = endControl
	}
	if end != endParked && end != endFenced && end != endBroken && !r.abandoned {
		end = r.release(end)
	}
	r.cancel()
	<-readerDone
	r.source.Close()
	r.held.Close()
	r.stopTimers()
	return end
}

// loop starts requests as the plan says, until something ends the run and every
// request that was started is judged. With one lane it makes them itself, one
// after the other; with more each has a goroutine.
func (r *run) loop(pages <-chan page) ending {
	for {
		if end := r.ended(); end != endNone {
			r.finish()
			return end
		}
		r.fill(pages, false)
		r.bringHeld() // what is new must not keep it waiting
		next := r.next()
		if next == nil && (r.fill(pages, true) || r.nothingMore(pages)) {
			next = r.next()
		}
		switch {
		case next == nil:
			if end := r.idle(pages); end != endNone {
				return end
			}
		case !r.gate(len(next.Events)):
			r.giveBack(next)
		case r.oneLane:
			r.send(next)
		default:
			go r.send(next)
		}
	}
}

// ended says whether the run must end, and why.
func (r *run) ended() ending {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.fenced:
		return endFenced
	case r.broken != nil:
		return endBroken
	case r.plan.Stopped():
		return endStopped
	case r.draining, r.lost:
		return endDrained
	case r.closed, r.fallen, r.erased():
		return endControl // what it holds is not to be sent: take the row up anew
	case time.Now().After(r.a.deadline(r.began)):
		return endBudget
	}
	return endNone
}

// erased reports that some of the events that the run holds may have been erased.
func (r *run) erased() bool { return r.source.Erased() || r.held.Erased() }

// finish waits until everything that was started is judged.
func (r *run) finish() {
	for {
		r.mu.Lock()
		for _, s := range r.again {
			r.plan.Return(s.Request)
		}
		r.again = nil
		left := r.underWay
		r.mu.Unlock()
		if left == 0 {
			return
		}
		<-r.kick
	}
}

// next returns what may be sent next, in flight from now on; nil: nothing may.
func (r *run) next() *sending {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.again) > 0 {
		s := r.again[0]
		r.again = r.again[1:]
		return s
	}
	if request := r.plan.Next(time.Now()); request != nil {
		return &sending{Request: request}
	}
	return nil
}

// giveBack takes back what the gate did not let through.
func (r *run) giveBack(s *sending) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plan.Return(s.Request)
}

// send makes one request, judges the answer and has the position written. An
// answer that asks for a wait ends the run, and so is committed before anything
// else is sent.
func (r *run) send(s *sending) {
	request := delivery.Request{
		Events: s.Events, Attempt: s.Attempt, Previous: s.Previous, NoPrevious: s.NoPrevious, Replay: s.Replay, Compacted: s.Compacted,
	}
	var span trace.Span
	span, request.Traceparent = r.begin(s.Events, s.Attempt)
	r.a.counters.InFlight.Add(1)
	answer := r.a.cfg.Client.Do(r.ctx, r.target, request)
	r.a.counters.InFlight.Add(-1)
	finish(span, &answer)
	r.record(s.Request, &answer)
	r.judge(s, &answer)
}

// judge settles what the answer settled. A request that Postroad itself ended
// has no answer: it will be sent again.
func (r *run) judge(s *sending, answer *delivery.Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.oneLane {
		defer r.wake()
	}
	r.underWay--
	switch {
	case answer.Resend && !s.resent:
		r.again = append(r.again, &sending{Request: s.Request, resent: true})
		return
	case answer.Class == delivery.ClassCanceled || r.fenced:
		r.plan.Return(s.Request)
		return
	}
	now := time.Now()
	settled := r.plan.Answered(s.Request, answer, now)
	r.dirty = true
	if settled > 0 {
		r.delivered += int64(settled)
		r.a.counters.Settled.Add(int64(settled))
		r.unsaved.settled(settled, now)
		r.idleSince = now
	}
	switch {
	case r.plan.Stopped() && r.underWay > 0, r.plan.Unsaved() > 0:
		// A wait is in the row before the last answer is here, and what waits behind
		// a held key is read from the rows once they say what was accepted of it.
		r.saveLocked(nil, nil)
	case !r.plan.Stopped():
		r.scheduleSaveLocked()
	}
}

// record notes what happened to a request.
func (r *run) record(request *planner.Request, answer *delivery.Answer) {
	batch := request.Events
	a := store.Attempt{
		Subscriber: r.id, StartedAt: answer.StartedAt,
		FirstSequence: batch[0].Sequence, LastSequence: batch[len(batch)-1].Sequence, EventCount: len(batch),
		Attempt: request.Attempt, Class: answer.Class.String(), Duration: answer.Duration, RequestBytes: answer.RequestBytes,
		Replay: request.Replay, Compacted: request.Compacted,
	}
	if !request.Contiguous {
		a.Sequences = make([]int64, len(batch))
		for i, e := range batch {
			a.Sequences[i] = e.Sequence
		}
	}
	if answer.Status != 0 {
		status := answer.Status
		a.Status = &status
	}
	if answer.RetryAfterValid {
		a.RetryAfter = strconv.FormatFloat(answer.RetryAfter.Seconds(), 'f', -1, 64)
	}
	if answer.Class != delivery.ClassSuccess {
		if !r.erased() { // else the answer may quote what was erased
			a.Response = string(answer.Response)
		}
		a.Error = planner.AnswerText(answer)
	}
	r.logAttempt(&a, answer)
	r.a.counters.answered(answer)
	r.a.attempts.add(&a)
}

package activities

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"postroad/delivery"
	"postroad/event"
	"postroad/eventlog"
	"postroad/store"
)

// A page that the reader hands to the run, at most.
const (
	pageEventsMax = 500
	pageBytesMax  = 1 << 20
	pageRetry     = 250 * time.Millisecond
	// queueBytesMax is where the queue takes no further page: as much as the
	// largest request may hold.
	queueBytesMax = 8 << 20
)

// run is one hold of a subscriber's lease. One goroutine (deliver) reads, sends
// and judges; controls, drains and finished checkpoints come from others and
// only change what mu guards, then kick it.
type run struct {
	a        *Activities
	id       string
	lease    uuid.UUID
	feedID   int64
	filter   event.Filter
	target   *delivery.Target
	follower *eventlog.Follower
	log      *slog.Logger
	loaded   *store.Loaded
	began    time.Time // the Deliver that this run is part of: its budget counts from here

	looking atomic.Bool // the reader may bring more without waiting

	ctx    context.Context // of requests and statements: ends when the run does, or a drain is over
	cancel context.CancelFunc
	kick   chan struct{}

	// Of the delivering goroutine alone.
	queue      []*event.Event // matching, not settled
	queueBytes int
	scanned    int64 // the log is looked through up to here
	expected   int64 // an event that the database has and the reader still has to bring
	idleSince  time.Time
	generation int64 // of the last parking
	delivered  int64
	abandoned  bool // the last checkpoint could not be written in time

	mu         sync.Mutex
	pos        *position
	desired    int64 // the controls under which the lease was taken
	applied    int64 // controls seen since, for which the gate was closed
	closed     bool  // the gate: start nothing any more
	draining   bool
	fenced     bool
	broken     error
	lost       bool      // no word from PostgreSQL for LeaseLost
	fallen     bool      // what comes next in the log is no longer kept
	parking    bool      // the parking checkpoint is the last word
	over       bool      // the run has ended
	confirmed  time.Time // when a statement that matched the lease was sent
	inFlight   int
	touched    time.Time // when a checkpoint was last submitted
	dirty      bool      // the position moved since
	unsaved    unsaved
	flush      *time.Timer
	drainTimer *time.Timer
	pulse      *time.Timer
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
		a: a, id: row.ID, lease: lease, feedID: row.FeedID, filter: loaded.Subscriber.Filter, target: target,
		log:    a.cfg.Logger.With("subscriber", row.ID, "feed", loaded.FeedName),
		loaded: loaded, began: began, kick: make(chan struct{}, 1), scanned: row.Cursor, idleSince: now,
		pos: newPosition(row, &loaded.Subscriber, now), desired: row.DesiredVersion,
		confirmed: sentAt, touched: now, dirty: fell,
	}
	if fell {
		r.log.Warn("going on above events that were removed", "after", row.Cursor, "lost_events", row.LostEvents, "lost_through", row.PreviousSequence)
	}
	r.ctx, r.cancel = context.WithCancel(base)
	r.follower = a.cfg.Log.Follow(row.FeedID, row.Cursor, r.filter)
	return r, nil
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
	r.follower.Close()
	r.stopTimers()
	return end
}

// loop is the one lane: a request is not sent before the one before it is
// settled.
func (r *run) loop(pages <-chan page) ending {
	for {
		if end := r.ended(); end != endNone {
			return end
		}
		r.fill(pages)
		if len(r.queue) == 0 {
			if end := r.idle(pages); end != endNone {
				return end
			}
			continue
		}
		batch := r.queue[:r.target.Fit(r.queue, r.limit())]
		if r.gate(len(batch)) {
			r.send(batch)
		}
	}
}

func (r *run) limit() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pos.limit()
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
	case r.pos.stopped():
		return endStopped
	case r.draining, r.lost:
		return endDrained
	case r.closed, r.fallen, r.follower.Erased():
		return endControl // what it holds is not to be sent: take the row up anew
	case time.Now().After(r.a.deadline(r.began)):
		return endBudget
	}
	return endNone
}

// page is what the reader found: matching events, and how far it looked.
type page struct {
	events  []*event.Event
	scanned int64
}

// read reads ahead of the sending, one page at a time, until the run ends.
func (r *run) read() (<-chan page, <-chan struct{}) {
	pages, done := make(chan page, 1), make(chan struct{})
	r.looking.Store(true)
	go func() {
		defer close(done)
		position := r.scanned
		for r.ctx.Err() == nil {
			events, scanned, err := r.follower.Next(r.ctx, pageEventsMax, pageBytesMax)
			if err == nil && scanned > position {
				position = scanned
				select {
				case pages <- page{events, scanned}:
				case <-r.ctx.Done():
				}
				continue
			}
			r.looking.Store(false)
			r.wake()
			if err == nil {
				err = r.follower.Wait(r.ctx)
			}
			var below *eventlog.BelowFloorError
			if errors.As(err, &below) {
				r.fall()
				return
			}
			if err != nil && r.ctx.Err() == nil {
				r.log.Warn("read delayed", "after", position, "error", err)
				select {
				case <-r.ctx.Done():
				case <-time.After(pageRetry):
				}
			}
			r.looking.Store(true)
		}
	}()
	return pages, done
}

// fall ends a run whose next events were removed: the row says which it lost.
func (r *run) fall() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fallen = true
	r.wake()
}

// fill takes what the reader has, as long as the queue does not fill a request.
func (r *run) fill(pages <-chan page) {
	for len(r.queue) < r.limit() && r.queueBytes < queueBytesMax {
		select {
		case p := <-pages:
			r.took(p)
		default:
			return
		}
	}
}

func (r *run) took(p page) {
	if len(r.queue) == 0 {
		r.queue = p.events
	} else {
		r.queue = append(r.queue[:len(r.queue):len(r.queue)], p.events...)
	}
	for _, e := range p.events {
		r.queueBytes += e.Size()
	}
	r.scanned = p.scanned
	r.idleSince = time.Now() // looking through a log that holds little is no idling
	r.passScanned()
}

// passScanned moves the cursor over events that do not match, once nothing
// before them is left to settle.
func (r *run) passScanned() {
	if len(r.queue) > 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pos.scanned(r.scanned) {
		r.dirty = true
	}
}

// idle waits for something to send. A run that lingered long enough parks, but
// not before it has looked through what there is.
func (r *run) idle(pages <-chan page) ending {
	looking := r.looking.Load() // asked first: what it brought before is taken below
	linger := r.a.cfg.Linger
	if r.a.pressed() {
		linger = 0
	}
	left := time.Until(r.idleSince.Add(linger))
	if left <= 0 && !looking && r.scanned >= r.expected {
		select {
		case p := <-pages:
			r.took(p)
			return endNone
		default:
			return r.park()
		}
	}
	if left <= 0 {
		left = pageRetry // the reader is about to bring what it looks at, or what the last look found
	}
	r.touch()
	timer := time.NewTimer(min(left, r.untilTouch(), max(0, time.Until(r.a.deadline(r.began)))))
	defer timer.Stop()
	select {
	case p := <-pages:
		r.took(p)
	case <-r.kick:
	case <-timer.C:
	}
	return endNone
}

// send makes one request, judges the answer and has the position written. An
// answer that asks for a wait ends the run, and so is committed before anything
// else is sent.
func (r *run) send(batch []*event.Event) {
	for resend := true; ; resend = false {
		request, attempt := r.starting(batch)
		var span trace.Span
		span, request.Traceparent = r.begin(batch, attempt)
		r.a.counters.InFlight.Add(1)
		answer := r.a.cfg.Client.Do(r.ctx, r.target, request)
		r.a.counters.InFlight.Add(-1)
		finish(span, &answer)
		r.record(batch, attempt, &answer)
		if answer.Resend && resend {
			r.landed()
			if !r.gate(len(batch)) {
				return
			}
			continue
		}
		r.judge(batch, &answer)
		return
	}
}

func (r *run) starting(batch []*event.Event) (delivery.Request, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	attempt := r.pos.starting(batch[0].Sequence, batch[len(batch)-1].Sequence)
	return delivery.Request{Events: batch, Attempt: attempt, Previous: r.pos.previous}, attempt
}

func (r *run) landed() {
	r.mu.Lock()
	r.inFlight = 0
	r.mu.Unlock()
}

// judge settles what the answer settled. A request that Postroad itself ended
// has no answer: it will be sent again.
func (r *run) judge(batch []*event.Event, answer *delivery.Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight = 0
	if answer.Class == delivery.ClassCanceled || r.fenced {
		return
	}
	now := time.Now()
	settled := r.pos.answered(batch, answer, now)
	r.dirty = true
	if settled > 0 {
		r.delivered += int64(settled)
		r.a.counters.Settled.Add(int64(settled))
		for _, e := range batch[:settled] {
			r.queueBytes -= e.Size()
		}
		r.queue = r.queue[settled:]
		if len(r.queue) == 0 {
			r.queue = nil // lets go of the page
			r.pos.scanned(r.scanned)
		}
		r.unsaved.settled(settled, now)
		r.idleSince = now
		r.scheduleSaveLocked()
	}
}

// record notes what happened to a request.
func (r *run) record(batch []*event.Event, attempt int, answer *delivery.Answer) {
	a := store.Attempt{
		Subscriber: r.id, StartedAt: answer.StartedAt,
		FirstSequence: batch[0].Sequence, LastSequence: batch[len(batch)-1].Sequence, EventCount: len(batch),
		Attempt: attempt, Class: answer.Class.String(), Duration: answer.Duration, RequestBytes: answer.RequestBytes,
	}
	if answer.Status != 0 {
		status := answer.Status
		a.Status = &status
	}
	if answer.RetryAfterValid {
		a.RetryAfter = strconv.FormatFloat(answer.RetryAfter.Seconds(), 'f', -1, 64)
	}
	if answer.Class != delivery.ClassSuccess {
		if !r.follower.Erased() { // else the answer may quote what was erased
			a.Response = string(answer.Response)
		}
		a.Error = answerText(answer)
	}
	r.logAttempt(&a, answer)
	r.a.counters.answered(answer)
	r.a.attempts.add(a)
}

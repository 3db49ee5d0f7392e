package planner

import (
	"math/rand/v2"
	"slices"
	"time"

	"postroad/event"
	"postroad/store"
)

// Config is what does not change while a Plan lives.
type Config struct {
	// Retry says how failures are met.
	Retry event.Retry
	// BatchSize is the most events in one request, Lanes the most requests in
	// flight; event.Auto: found by how the consumer answers.
	BatchSize, Lanes event.Count
	// OnExhausted is event.OnExhaustedHalt, OnExhaustedHold or OnExhaustedSkip.
	OnExhausted string
	// Fit returns how many of the events, from the first on, go into one request
	// of at most limit events; at least one. nil: limit alone counts.
	Fit func(events []*event.Event, limit int) int
	// HeldKeysMax and HeldEventsMax bound what is set aside by holding; 0: the
	// defaults HeldKeysMax and HeldEventsMax.
	HeldKeysMax, HeldEventsMax int
	// Jitter returns a number in [-1, 1) that spreads the steps of the schedule;
	// nil: a random one.
	Jitter func() float64
	// Replay is the replay whose events are sent; 0: those of the log.
	Replay int64
}

// Bounds of what one subscriber may have set aside by holding.
const (
	HeldKeysMax   = 1000
	HeldEventsMax = 100_000
)

// Stream is the position in what is being sent: the log, or a replay.
type Stream struct {
	// Cursor is the sequence up to which everything is dealt with: settled, set
	// aside, or not matching. Above it Settled holds ranges of what is dealt with
	// (from, to, from, to), each of which ends with an event that matched. The
	// events were looked at up to Scanned.
	Cursor, Scanned int64
	Settled         []int64
	// Previous is the last matching event before the next one; 0: there is none.
	Previous int64
	// EventAttempt counts the requests charged to the first event that is not
	// dealt with; Failing are all that were charged any.
	EventAttempt int
	Failing      []store.FailingEvent
}

// State is what a run takes up from the row.
type State struct {
	Stream
	// Failures are endpoint failures in a row, Asked waits asked for in a row.
	Failures, Asked int
	// Failing says that the endpoint fails, FailingFor since how long; the events
	// that fail are Stream.Failing.
	Failing    bool
	FailingFor time.Duration
	// Probe makes the first request carry one event and be alone.
	Probe bool
	// BatchLimit is what halving left of the batch size; 0: all of it.
	BatchLimit int
	// RangeFirst and RangeLast are the range last sent, RangeAttempt how many
	// requests it got.
	RangeFirst, RangeLast int64
	RangeAttempt          int
	// LastError is the last answer that was no 2xx.
	LastError string
	// Held are the held keys, with how many events wait behind each and how long
	// the first of them still waits (Wait); HeldEvents is the sum.
	Held       []store.HeldKey
	HeldEvents int
	// Dead are the dead letters within a replay's bounds, in order: those that it
	// delivers are dead letters no longer.
	Dead []int64
	// LearnedBatch and LearnedLanes are what event.Auto found; 0: nothing yet.
	LearnedBatch, LearnedLanes int
}

// Wait is a time during which nothing may be sent.
type Wait struct {
	// Until is its end, by the clock of the times that were given.
	Until time.Time
	// Class is store.WaitAsked, WaitEndpoint or WaitRecord.
	Class string
	// Reason is for people, without the time.
	Reason string
}

// Snapshot is everything that a checkpoint carries of a Plan. Waits in it are as
// of Taken: whoever writes it later subtracts what has passed.
type Snapshot struct {
	Stream
	// Mark names the snapshot for Committed.
	Mark int64
	// Taken is the time that the snapshot was asked for.
	Taken time.Time

	// Wait is the wait in force; nil: none.
	Wait *Wait
	// FailingSince is when the endpoint began to fail; zero: it does not.
	FailingSince          time.Time
	Failures, Asked       int
	RangeFirst, RangeLast int64
	RangeAttempt          int
	Probe                 bool
	BatchLimit            int
	LastError             string

	// Disabled and Halted are the plan's holds. HaltedEvent is the event at which
	// it halted; 0: at none.
	Disabled    bool
	Halted      string
	HaltedEvent int64

	// Aside are all changes of what is set aside that no committed checkpoint
	// carries, as final states; nil: there are none.
	Aside *store.AsideChanges

	// LearnedBatch and LearnedLanes are what event.Auto found; 0: it is not asked.
	LearnedBatch, LearnedLanes int
}

// Request is one request that is in flight.
type Request struct {
	// Events are what it carries, in order of their sequences, at least one.
	Events []*event.Event
	// Attempt counts the requests for just these events, from 1.
	Attempt int
	// Previous is the event that the subscriber matched before the first one;
	// 0: there is none. NoPrevious: it is not known, or means nothing here.
	Previous   int64
	NoPrevious bool
	// Compacted is how many older events of the same keys were left out.
	Compacted int
	// Replay is the replay that the events are sent for; 0: none.
	Replay int64
	// Contiguous says that the request holds all that matched from its first
	// event to its last.
	Contiguous bool

	kind    kind
	epoch   int // of the plan, when it was sent
	changes int // of what event.Auto found, by then
	entries []*entry
	group   *group
	held    *heldKey
	// sentLast and sentTimes are what Return restores.
	sentLast  int64
	sentTimes int
	one       [1]*event.Event
	oneEntry  [1]*entry
}

// kind says where the events of a request came from.
type kind uint8

const (
	kindNew   kind = iota // the window
	kindGroup             // a refused batch that is being bisected
	kindRetry             // a failing event
	kindTrial             // the window, to learn who is at fault
	kindHeld              // the queue of a held key
)

// Plan is the state of one run of a subscriber.
type Plan struct {
	cfg   Config
	keyed bool // keys are told apart: more than one lane may be used
	lanes int  // the most requests in flight just now

	window   window
	keys     map[event.Key]*keyState
	failing  []*failing // in order of sequence
	groups   []*group
	requests int  // in flight
	events   int  // in them
	lent     int  // of the requests, those in the lane of a failing event or of a group
	trial    bool // the request in flight is a trial
	noMore   bool // nothing is left to be offered for now
	idle     bool // Next found nothing, and nothing happened since
	epoch    int  // rises with each wait and each hold
	dealt    int  // events settled or set aside so far
	unheld   int  // of them, events that had waited behind a held key

	// What an earlier run knew of its first event.
	begun         bool // the first event was offered
	firstAttempts int
	olderRow      bool     // it did not say which events fail
	sent          [3]int64 // range_first, range_last, range_attempt

	// The constants of these names, for tests.
	windowMin, trialWindow, heldAhead, heldBytesMax int

	held       map[event.Key]*heldKey
	heldEvents int
	heldBytes  int // of those that are kept here
	crowded    int // events of the window that have to wait, and may not
	aside      aside
	dead       []int64

	wait         *Wait
	failures     int
	failingSince time.Time // zero: the endpoint does not fail
	asked        int
	probe        bool
	batchLimit   int // 0: the batch size; else what halving left
	suspects     int // one lane: next events among which one is known to be refused
	auto         auto

	lastError   string
	disabled    bool
	halted      string // why; empty: it is not
	haltedEvent int64
}

// New takes up where the state stands.
func New(cfg Config, state State, now time.Time) *Plan {
	if cfg.Jitter == nil {
		cfg.Jitter = func() float64 { return 2*rand.Float64() - 1 }
	}
	if cfg.HeldKeysMax == 0 {
		cfg.HeldKeysMax = HeldKeysMax
	}
	if cfg.HeldEventsMax == 0 {
		cfg.HeldEventsMax = HeldEventsMax
	}
	p := &Plan{
		cfg: cfg, keyed: cfg.Lanes.Or(autoLanesMax) > 1, keys: map[event.Key]*keyState{},
		window: window{
			scanned: state.Cursor, behind: state.Cursor, top: state.Cursor, matched: state.Previous,
			ranges: slices.Clone(state.Settled),
		},
		firstAttempts: state.EventAttempt, olderRow: len(state.Stream.Failing) == 0, sent: [3]int64{state.RangeFirst, state.RangeLast, int64(state.RangeAttempt)},
		failures: state.Failures, asked: state.Asked, probe: state.Probe, batchLimit: state.BatchLimit,
		lastError: state.LastError, heldEvents: state.HeldEvents, dead: state.Dead,
		windowMin: windowMin, trialWindow: trialWindow, heldAhead: heldAhead, heldBytesMax: heldBytesMax,
	}
	p.auto = newAuto(cfg, state)
	p.lanes = p.auto.lanes
	if p.window.pass(state.Cursor + 1); p.window.scanned > state.Cursor {
		p.firstAttempts = 0 // what it was charged to is dealt with
	}
	if state.Failing {
		p.failingSince = now.Add(-state.FailingFor)
	}
	if p.batchLimit >= p.batch() {
		p.batchLimit = 0
	}
	p.takeUpHeld(state.Held, now)
	p.takeUpFailing(state.Stream.Failing, now)
	return p
}

package planner

import (
	"time"

	"postroad/delivery"
	"postroad/event"
)

type (
	entry    struct{}
	group    struct{}
	heldKey  struct{}
	keyState struct{}
	failing  struct{}
	window   struct{}
	aside    struct{}
	auto     struct{}
)

// New takes up where the state stands.
func New(cfg Config, state State, now time.Time) *Plan { return &Plan{cfg: cfg} }

// Room is how many events Offer may bring; 0: the window is full.
func (p *Plan) Room() int { return 0 }

// Offer brings the next matching events, in order, and how far the caller has
// looked: scanned is at least the last event's sequence. older says for each
// event how many older ones of its key were left out for it; nil: none. Events
// that are dealt with are passed over, those of held keys wait behind them.
func (p *Plan) Offer(events []*event.Event, older []int, scanned int64) {}

// NothingMore says that the caller has looked through all there is: what Offer
// did not bring is not there. An Offer ends it. Without it a plan that looks for
// an event to try, as it does not know who is at fault, goes on looking.
func (p *Plan) NothingMore(now time.Time) {}

// SkipTo returns the end of the settled range that position, or what follows it,
// lies in, else position: a reader need not read that far.
func (p *Plan) SkipTo(position int64) int64 { return 0 }

// HeldWanted returns a held key that is due and whose events are not here. The
// caller reads the first ones from the row store, by sequence, and calls
// OfferHeld.
func (p *Plan) HeldWanted(now time.Time) (key event.Key, ok bool) { return event.Key{}, false }

// OfferHeld brings the first events that wait behind a key, as the row store has
// them, with the replays they were sent for; complete: there are no more.
func (p *Plan) OfferHeld(key event.Key, events []*event.Event, replays []int64, complete bool) {}

// Next returns the next request, which is in flight from now on; nil: none may
// start now. The plan may have stopped by finding that out: see Stopped.
func (p *Plan) Next(now time.Time) *Request { return nil }

// Return takes back a request that was not sent, as if Next had not been called.
func (p *Plan) Return(r *Request) {}

// Answered judges the answer to a request and returns how many events are dealt
// with by it: settled or set aside. A request that was ended without an answer
// (delivery.ClassCanceled) teaches nothing.
func (p *Plan) Answered(r *Request, a *delivery.Answer, now time.Time) (settled int) { return 0 }

// InFlight returns how many requests are in flight, and the events in them.
func (p *Plan) InFlight() (requests, events int) { return p.requests, p.events }

// Stopped reports that no request may be sent now: a wait or a hold.
func (p *Plan) Stopped() bool { return p.wait != nil || p.disabled || p.halted != "" }

// Wait returns the wait in force; nil: none.
func (p *Plan) Wait() *Wait { return p.wait }

// Halted returns why the subscriber halted; empty: it did not.
func (p *Plan) Halted() string { return p.halted }

// Disabled reports that the consumer wants nothing more.
func (p *Plan) Disabled() bool { return p.disabled }

// Owes reports that failures cost a wait, or will make the next one longer. A
// wait that the consumer asked for is not among these costs.
func (p *Plan) Owes() bool { return false }

// Forgive forgets what failures cost: they were another endpoint's.
func (p *Plan) Forgive() {}

// Due returns when a failing event or a held key is due next, for a plan that is
// Idle; it may lie in the past. false: there is none.
func (p *Plan) Due(now time.Time) (time.Time, bool) { return time.Time{}, false }

// Idle reports that nothing is in flight and nothing could be started now.
func (p *Plan) Idle() bool { return true }

// Unsaved is how many changes of what is set aside no committed checkpoint
// carries. Room counts them: a caller that offers events has to save.
func (p *Plan) Unsaved() int { return 0 }

// Snapshot returns everything a checkpoint carries.
func (p *Plan) Snapshot(now time.Time) Snapshot { return Snapshot{} }

// Committed says that the checkpoint of that snapshot is in the database.
func (p *Plan) Committed(mark int64) {}

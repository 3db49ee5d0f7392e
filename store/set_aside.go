package store

import (
	"time"

	"postroad/event"
)

// Why an event became a dead letter: the values of reason.
const (
	DeadExhausted = "exhausted" // its attempts are used up, and onExhausted is skip
	DeadSkipped   = "skipped"   // a person skipped it
	DeadReleased  = "released"  // a person released its key
)

// FailingEvent is a refused event that waits for its next attempt.
type FailingEvent struct {
	Sequence int64
	// Attempts are the requests charged to it.
	Attempts int
	// Wait is how long it still has to wait; 0: it is due.
	Wait time.Duration
	// Proven says that an event of another key was accepted since it failed
	// first: the endpoint is not at fault.
	Proven bool
}

// HeldKey is a key whose events wait because the consumer refuses the first of
// them.
type HeldKey struct {
	Key event.Key
	// Since is when the key was set aside.
	Since time.Time
	// Events is how many wait, FirstSequence the first of them.
	Events        int
	FirstSequence int64
	// Attempts are the requests charged to the first event.
	Attempts int
	// Wait is how long the first event still has to wait, NotBefore until when;
	// 0 and nil: it is due.
	Wait      time.Duration
	NotBefore *time.Time
	// LastStatus and LastError are the last answer; 0: there was none.
	LastStatus int
	LastError  string
}

// HeldEvent is an event that waits behind a held key.
type HeldEvent struct {
	Sequence int64
	Key      event.Key
	// Replay is the replay that the event was sent for; 0: none.
	Replay int64
}

// DeadLetter is an event that was given up.
type DeadLetter struct {
	Sequence int64
	Key      event.Key
	At       time.Time
	// Reason is DeadExhausted, DeadSkipped or DeadReleased; Source who asked,
	// where somebody did.
	Reason, Source string
	// Attempts are the requests charged to it; LastStatus and LastError are the
	// last answer, 0: there was none.
	Attempts, LastStatus int
	LastError            string
	// Replay is the replay of missed events that has taken it up; 0: none.
	Replay int64
}

// AsideChanges are what a checkpoint changes of what is set aside. They are
// final states: written twice, or with what a newer checkpoint says, they do no
// harm. No event and no key stands in two of the lists that contradict each other.
type AsideChanges struct {
	// Hold are events that wait from now on, Unhold those that were accepted.
	Hold   []HeldEvent
	Unhold []int64
	// Keys are keys that are held, with their Attempts, Wait, LastStatus and
	// LastError; Release those that are held no longer.
	Keys    []HeldKey
	Release []event.Key
	// Dead are events that were given up; At and Replay are not written.
	// Redelivered are dead letters that were accepted after all.
	Dead        []DeadLetter
	Redelivered []int64
}

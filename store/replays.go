package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postroad/event"
)

// States of a replay. The first three are open.
const (
	ReplayQueued    = "queued"    // waits for those before it, or for the subscriber's run
	ReplayRunning   = "running"   // is being sent, or has been in part
	ReplayPaused    = "paused"    // by a person; those after it go on
	ReplayDone      = "done"      // every event was settled or set aside
	ReplayCancelled = "cancelled" // by a person
)

// Kinds of control that are about replays.
const (
	ControlReplay       = "replay" // makes one
	ControlReplayPause  = "replay-pause"
	ControlReplayResume = "replay-resume"
	ControlReplayCancel = "replay-cancel"
)

// Bounds of replays.
const (
	// ReplaysOpenMax is the most replays of a subscriber that are not finished.
	ReplaysOpenMax = 100
	// ReplaysFinishedMax is how many finished ones are kept; the next one made
	// removes those before the newest.
	ReplaysFinishedMax = 100
	// ReplayKeysMax is the most records that a replay can name.
	ReplayKeysMax = 1_000
)

// ReplaySelection says which events in a replay's bounds are sent, of those that
// the subscriber's filter lets pass.
type ReplaySelection struct {
	// ResourceNames are as in a filter; nil: all.
	ResourceNames []string `json:"resourceNames,omitempty"`
	// Keys are the records whose events are sent; nil: those of all.
	Keys []event.Key `json:"keys,omitempty"`
	// Missed: the dead letters there were when the replay was made, and nothing
	// else; MissedSequences lists them.
	Missed bool `json:"missed,omitempty"`
}

// Replay sends events of the past once more.
type Replay struct {
	// ID numbers the subscriber's replays from 1.
	ID int64
	// State is ReplayQueued, ReplayRunning, ReplayPaused, ReplayDone or
	// ReplayCancelled.
	State     string
	Selection ReplaySelection
	// After and Through: the events in (After, Through] are looked at.
	After, Through int64
	// Total is how many events were to be sent when the replay was made, Done how
	// many of them are dealt with.
	Total, Done int64
	// First and Last are the lowest and the highest event to be sent, in the
	// answer of CreateReplay alone.
	First, Last int64
	// Source says who asked: api, token:<id> or signal.
	Source     string
	CreatedAt  time.Time
	StartedAt  *time.Time
	FinishedAt *time.Time

	// The position, as in Run.
	Cursor           int64
	Settled          []int64
	PreviousSequence int64
	EventAttempt     int
	FailingEvents    []FailingEvent

	// Rate is events a second since the start, with all waits and pauses; 0: not
	// known.
	Rate float64
	// ETASeconds is how long a running replay still takes at that rate; nil: not
	// known.
	ETASeconds *float64
}

// ReplayStretch is what a ReplayCounter counts: the events of a feed in
// (After, Through] that the filter lets pass, and of these records only, where
// Keys is not nil.
type ReplayStretch struct {
	FeedID         int64
	After, Through int64
	Filter         event.Filter
	Keys           []event.Key
}

// ReplayCounter counts a stretch of the log: how many events, the lowest and the
// highest. It is eventlog's Log.Count, which this package may not import.
type ReplayCounter func(ctx context.Context, s ReplayStretch) (total, first, last int64, err error)

// ReplayRequest asks for a replay.
type ReplayRequest struct {
	Subscriber string
	// FromSequence and ToSequence are the bounds, inclusive; nil: from the first
	// event kept, to the head.
	FromSequence, ToSequence *int64
	// FromTime and ToTime bound by the time of recording, inclusive. Where both
	// kinds of bound are given, both hold.
	FromTime, ToTime *time.Time
	// ResourceNames, Keys and Missed are the ReplaySelection. Missed goes with
	// nothing else.
	ResourceNames []string
	Keys          []event.Key
	Missed        bool
	// DryRun counts, and makes nothing.
	DryRun bool
	// Source says who asked: api, token:<id> or signal.
	Source string
	// RequestID makes a repeat harmless: it gives the same replay again. Empty:
	// every call is a request of its own.
	RequestID string
	// Count counts what will be sent; it is not called where Missed is set.
	Count ReplayCounter
}

// Reasons to refuse a replay.
const (
	ReplayEmpty       = "empty"         // no event matches, or none is missed
	ReplayAboveHead   = "above-head"    // it would begin above the head
	ReplayToAboveHead = "to-above-head" // it would end above the head
	ReplayReversed    = "reversed"      // it would end before it begins
	ReplayBelowFloor  = "below-floor"   // it would begin below the first event kept
	ReplayTooManyOpen = "too-many"      // ReplaysOpenMax are open
	ReplayTooManyKeys = "too-many-keys" // above ReplayKeysMax
	ReplayMissedMixed = "missed-mixed"  // Missed with bounds or another selection
)

// ReplayRefusedError says why a replay was not made. Its text is safe to show.
type ReplayRefusedError struct {
	// Reason is ReplayEmpty or another of those beside it.
	Reason string
	// From and To are the bounds as they were understood, inclusive; Head is the
	// feed's, FirstSequence the first event it keeps. 0 where they say nothing.
	From, To, Head, FirstSequence int64
}

// Error implements error.
func (e *ReplayRefusedError) Error() string {
	switch e.Reason {
	case ReplayEmpty:
		return "there is nothing to replay: no event matches"
	case ReplayAboveHead:
		return fmt.Sprintf("there is nothing to replay: it would begin at %d, and the head of the feed is %d", e.From, e.Head)
	case ReplayToAboveHead:
		return fmt.Sprintf("the replay would end at %d, and the head of the feed is %d", e.To, e.Head)
	case ReplayReversed:
		return fmt.Sprintf("the replay would end before it begins: %d is below %d", e.To, e.From)
	case ReplayBelowFloor:
		return fmt.Sprintf("events below %d are no longer kept", e.FirstSequence)
	case ReplayTooManyOpen:
		return fmt.Sprintf("the subscriber has %d open replays, more are not taken", ReplaysOpenMax)
	case ReplayTooManyKeys:
		return fmt.Sprintf("a replay can name %d records at most", ReplayKeysMax)
	case ReplayMissedMixed:
		return "a replay of what was missed takes no bounds, resource names or keys"
	}
	return "the replay was refused: " + e.Reason
}

// ErrReplayNotFound says that the subscriber has no such replay, or that it is no
// longer kept.
var ErrReplayNotFound = errors.New("no such replay")

// ReplayFinishedError says that a replay can no longer be changed.
type ReplayFinishedError struct {
	ID int64
	// State is ReplayDone or ReplayCancelled.
	State string
}

// Error implements error.
func (e *ReplayFinishedError) Error() string {
	return fmt.Sprintf("replay %d is %s", e.ID, e.State)
}

package store

import (
	"fmt"
	"strings"
	"time"
)

// States of a subscriber; of those that hold, the first in this order is the
// one that is shown.
const (
	StateDisabled = "disabled" // the consumer answered 410
	StateHalted   = "halted"   // an event's attempts, or the endpoint's time, are used up
	StatePaused   = "paused"   // by a person
	StateWaiting  = "waiting"  // the consumer asked for it
	StateRetrying = "retrying" // the consumer fails
	StateActive   = "active"   // sending
	StateIdle     = "idle"     // caught up
)

// Describe returns the state of a subscriber and the reason for it in one exact
// sentence for people. A parked row is idle, any other that nothing holds back
// is active: the row alone does not say how far the feed is.
//
// The sentence holds no more of the endpoint than the row's own reasons do.
func Describe(r *Run) (state, reason string) {
	lag := int64(1)
	if r.Parked {
		lag = 0
	}
	return describe(r, lag, false)
}

// describe is Describe for a caller that knows how many events of the feed the
// subscriber has not scanned yet; exact says that lag may be told.
func describe(r *Run, lag int64, exact bool) (state, reason string) {
	switch {
	case r.Disabled:
		return StateDisabled, "disabled: the consumer answered HTTP 410; it stays so until it is resumed"
	case r.HaltedReason != nil:
		return StateHalted, "halted: " + *r.HaltedReason
	case r.PausedNow():
		return StatePaused, pausedReason(r)
	case r.Pull:
		return pullState(r, lag, exact)
	case r.Remaining() > 0 && text(r.WaitClass) == WaitAsked:
		return StateWaiting, fmt.Sprintf("%s; resumes %s", waitReason(r), clock(*r.NotBefore, r.Now))
	case r.Remaining() > 0:
		return StateRetrying, fmt.Sprintf("%s; tries again %s", waitReason(r), clock(*r.NotBefore, r.Now))
	case r.FailingSince != nil || r.Failures > 0 || r.EventAttempt > 0:
		if wait := firstDue(r.FailingEvents); wait > 0 {
			return StateRetrying, fmt.Sprintf("%s; tries again %s", waitReason(r), clock(r.Now.Add(wait), r.Now))
		}
		return StateRetrying, waitReason(r) + "; trying again now"
	case r.InFlight > 0 || lag > 0:
		return StateActive, activeReason(lag, exact)
	}
	return StateIdle, fmt.Sprintf("caught up; waiting for the event after %d", r.Cursor)
}

// pullState is the state of a subscriber whose consumer fetches.
func pullState(r *Run, lag int64, exact bool) (state, reason string) {
	const mode = "the consumer fetches its events"
	switch {
	case r.InFlight == 0 && lag <= 0:
		return StateIdle, fmt.Sprintf("caught up; %s; waiting for the event after %d", mode, r.Cursor)
	case !exact:
		return StateActive, mode
	case lag == 1:
		return StateActive, mode + "; 1 event is not committed"
	}
	return StateActive, fmt.Sprintf("%s; %d events are not committed", mode, lag)
}

// firstDue is how long the first of the refused events has to wait; 0: one is due,
// or there is none.
func firstDue(events []FailingEvent) time.Duration {
	var first time.Duration
	for i, e := range events {
		if i == 0 || e.Wait < first {
			first = e.Wait
		}
	}
	return first
}

func pausedReason(r *Run) string {
	reason := "paused"
	if by := text(r.PausedBy); strings.HasPrefix(by, "token:") {
		reason += " through token " + strings.TrimPrefix(by, "token:")
	} else if by != "" {
		reason += " by an operator"
	}
	if why := text(r.PauseReason); why != "" {
		reason += ": " + why
	}
	if r.PausedUntil != nil {
		reason += "; resumes " + clock(*r.PausedUntil, r.Now)
	}
	return reason
}

func activeReason(lag int64, exact bool) string {
	switch {
	case !exact || lag == 0:
		return "sending"
	case lag == 1:
		return "sending; 1 event behind"
	}
	return fmt.Sprintf("sending; %d events behind", lag)
}

// waitReason is what was wrong at the last request.
func waitReason(r *Run) string {
	for _, reason := range []*string{r.WaitReason, r.LastError} {
		if text(reason) != "" {
			return *reason
		}
	}
	return "the last request failed"
}

// clock writes a time to come for people: in UTC, to the second that it is over
// by, with the date when it is another day.
func clock(at, now time.Time) string {
	at = at.Add(time.Second - time.Nanosecond).Truncate(time.Second).UTC()
	now = now.UTC()
	if at.YearDay() == now.YearDay() && at.Year() == now.Year() {
		return at.Format("15:04:05 UTC")
	}
	return at.Format("2006-01-02 15:04:05 UTC")
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

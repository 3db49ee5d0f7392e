package workflows

import (
	"hash/fnv"
	"strconv"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"postroad/contract"
)

const (
	// shortWait is how long a run waits where the outcome says nothing of when
	// to try again; half of it is jitter.
	shortWait = time.Second

	deliverTimeout   = 10 * time.Minute // well above Deliver's budget of time
	deliverHeartbeat = 30 * time.Second
	applyTimeout     = 10 * time.Second
	replayTimeout    = 2 * time.Minute // a replay's events are counted, too
)

// retryForEver retries an activity until it returns: what fails it is ours
// (PostgreSQL away, a worker lost), never the consumer's answer.
func retryForEver() *temporal.RetryPolicy {
	return &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 5 * time.Second}
}

func deliverOptions(id string) workflow.ActivityOptions {
	return workflow.ActivityOptions{
		TaskQueue:           contract.TaskQueue,
		StartToCloseTimeout: deliverTimeout,
		HeartbeatTimeout:    deliverHeartbeat,
		WaitForCancellation: true, // a cancelled run closes when nothing is in flight
		RetryPolicy:         retryForEver(),
		Summary:             "deliver to " + id,
	}
}

func applyOptions(kind string) workflow.ActivityOptions {
	timeout := applyTimeout
	if kind == contract.ControlReplay {
		timeout = replayTimeout
	}
	return workflow.ActivityOptions{
		TaskQueue:           contract.ControlTaskQueue,
		StartToCloseTimeout: timeout,
		RetryPolicy:         retryForEver(),
		Summary:             kind,
	}
}

// waitOf returns how long the run rests on an outcome; 0: until a signal comes.
func (s *subscriber) waitOf(ctx workflow.Context, result contract.DeliverResult) time.Duration {
	remaining := time.Duration(result.RemainingMillis) * time.Millisecond
	switch result.Outcome {
	case contract.OutcomeParked, contract.OutcomePaused:
		return max(remaining, 0)
	case contract.OutcomeHalted:
		return 0
	case contract.OutcomeBackoff:
		if remaining > 0 {
			return remaining
		}
	default:
	}
	// More without progress, fenced, interrupted, and whatever a later version
	// of Deliver returns.
	s.shortWaits++
	return jittered(workflow.GetInfo(ctx).OriginalRunID, s.shortWaits)
}

// jittered spreads shortWait over 0.75 to 1.25 of itself, so that the runs a
// worker leaves behind do not come back in step. It depends on nothing but its
// arguments, which replay the same.
func jittered(runID string, n int64) time.Duration {
	h := fnv.New64a()
	h.Write([]byte(runID + "/" + strconv.FormatInt(n, 10))) // a hash.Hash never returns an error
	return shortWait*3/4 + time.Duration(h.Sum64()%uint64(shortWait/2))
}

// describe brings the search attributes up to date. They hold classes that
// neither a parking nor a wake changes, so that a quiet subscriber writes none.
func (s *subscriber) describe(ctx workflow.Context, result contract.DeliverResult) {
	if !result.Attributes || result.State == "" || result.State == s.state {
		return
	}
	updates := []temporal.SearchAttributeUpdate{
		temporal.NewSearchAttributeKeyKeyword(contract.AttributeState).ValueSet(result.State),
	}
	if result.Feed != "" {
		updates = append(updates, temporal.NewSearchAttributeKeyKeyword(contract.AttributeFeed).ValueSet(result.Feed))
	}
	if err := workflow.UpsertTypedSearchAttributes(ctx, updates...); err != nil {
		workflow.GetLogger(ctx).Warn("search attributes not set", "subscriber", s.id, "error", err)
		return
	}
	s.state = result.State
}

// detailsOf is the sentence that the Temporal UI shows of a resting run.
func detailsOf(result contract.DeliverResult) string {
	if result.Reason != "" {
		return result.Reason
	}
	switch result.Outcome {
	case contract.OutcomeParked:
		return "Caught up; waiting for the next event."
	case contract.OutcomePaused:
		return "Paused."
	case contract.OutcomeHalted:
		return "Halted until it is resumed."
	case contract.OutcomeBackoff:
		return "Waiting before the next request."
	case contract.OutcomeFenced:
		return "Another run took over; looking again."
	default:
		return "Interrupted; going on in a second."
	}
}

// summaryOf names the timer of a resting run.
func summaryOf(result contract.DeliverResult) string {
	if result.Summary != "" {
		return result.Summary
	}
	return string(result.Outcome)
}

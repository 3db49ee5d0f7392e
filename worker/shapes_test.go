//go:build !slim

package worker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"postroad/contract"
)

// shapeStep is one run of Deliver and what happens to the workflow then.
type shapeStep struct {
	result contract.DeliverResult
	err    error // first, once
	during func(signal func(name string, payload any))
	after  func(signal func(name string, payload any))
}

// shapeSteps are every outcome, every way a rest ends, and every signal.
func shapeSteps() []shapeStep {
	outcome := func(o contract.Outcome, remaining time.Duration) contract.DeliverResult {
		return contract.DeliverResult{Outcome: o, RemainingMillis: remaining.Milliseconds(), Feed: "default", Attributes: true, State: contract.StateRunning}
	}
	state := func(r contract.DeliverResult, state string) contract.DeliverResult {
		r.State, r.Reason, r.Summary = state, "A sentence for people.", "a few words"
		return r
	}
	type send = func(name string, payload any)
	const brief = 50 * time.Millisecond
	more := outcome(contract.OutcomeMore, 0)
	more.Delivered = 3
	parked, raced := outcome(contract.OutcomeParked, 0), outcome(contract.OutcomeParked, 0)
	parked.Generation, raced.Generation = 7, 8
	return []shapeStep{
		{result: more},
		{result: outcome(contract.OutcomeMore, 0)},
		{result: state(outcome(contract.OutcomeBackoff, brief), contract.StateWaiting)},
		{result: state(outcome(contract.OutcomeBackoff, 0), contract.StateRetrying)},
		{result: outcome(contract.OutcomeParked, brief)},
		{result: outcome(contract.OutcomeInterrupted, 0)},
		{result: outcome(contract.OutcomeFenced, 0)},
		{result: state(outcome(contract.OutcomePaused, brief), contract.StatePaused)},
		{result: outcome("of a later release", 0)},
		{
			err:    errors.New("the database is away"),
			result: state(outcome(contract.OutcomePaused, 0), contract.StatePaused),
			after:  func(signal send) { signal(contract.SignalResume, nil) },
		},
		{
			result: state(outcome(contract.OutcomeBackoff, time.Hour), contract.StateWaiting),
			after:  func(signal send) { signal(contract.SignalWake, contract.WakeSignal{}) },
		},
		{
			result: state(outcome(contract.OutcomeHalted, 0), contract.StateHalted),
			after: func(signal send) {
				signal(contract.SignalPause, contract.PauseSignal{Reason: "maintenance", Until: "2030-01-01T00:00:00Z"})
			},
		},
		{
			result: state(outcome(contract.OutcomeHalted, 0), contract.StateDisabled),
			after:  func(signal send) { signal(contract.SignalPause, "broken") },
		},
		{
			result: parked,
			after: func(signal send) {
				signal(contract.SignalWake, contract.WakeSignal{Generation: 6})
				signal(contract.SignalWake, contract.WakeSignal{Generation: 7})
			},
		},
		{
			result: raced,
			during: func(signal send) { signal(contract.SignalWake, contract.WakeSignal{Generation: 8}) },
		},
		{
			result: outcome(contract.OutcomeHalted, 0),
			after: func(signal send) {
				signal("of a later release", nil)
				signal(contract.SignalStop, nil)
			},
		},
		{result: outcome(contract.OutcomeGone, 0)},
	}
}

// TestShapes takes one run through all that can happen to it. Its history is what
// later releases are held to. What v0.1.0 did not know yet is in TestShapesMoves:
// this file is copied to its source to record its histories.
func TestShapes(t *testing.T) {
	t.Parallel()
	takeThrough(t, "shapes", shapeSteps(), 3)
}

// takeThrough takes one run through steps that apply so many controls.
func takeThrough(t *testing.T, id string, steps []shapeStep, controls int) {
	t.Helper()
	s := setupStack(t, nil)
	signal := func(name string, payload any) {
		s.check(s.client.SignalWorkflow(t.Context(), contract.SubscriberWorkflowID(id), "", name, payload))
	}
	at, failed := 0, false // of the one Deliver at a time
	done := make(chan int, len(steps))
	s.deliver = func(context.Context, string) (contract.DeliverResult, error) {
		step := steps[at]
		if step.err != nil && !failed {
			failed = true
			return contract.DeliverResult{}, step.err
		}
		if step.during != nil {
			step.during(signal)
		}
		done <- at
		at++
		return step.result, nil
	}
	s.start()
	_, err := s.client.SignalWithStartWorkflow(t.Context(), contract.SubscriberWorkflowID(id), contract.SignalWake, contract.WakeSignal{},
		client.StartWorkflowOptions{TaskQueue: contract.TaskQueue}, contract.SubscriberWorkflow, contract.SubscriberInput{Subscriber: id})
	s.check(err)
	for i, step := range steps {
		select {
		case got := <-done:
			if got != i {
				t.Fatalf("Deliver ran for step %d, want %d", got, i)
			}
		case <-time.After(soon):
			t.Fatalf("step %d is not reached", i)
		}
		if step.after == nil {
			continue
		}
		s.eventually(func() bool {
			run, err := s.client.DescribeWorkflowExecution(t.Context(), contract.SubscriberWorkflowID(id), "")
			return err == nil && len(run.GetPendingActivities()) == 0 && run.GetPendingWorkflowTask() == nil
		}, "the run rests")
		step.after(signal)
	}
	s.eventually(func() bool { return s.closed(id) == enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED }, "the run ends")
	if got := len(s.applied()); got != controls {
		t.Errorf("%d controls were applied, want %d", got, controls)
	}
	s.replay(id, "", "subscriber-"+id)
}

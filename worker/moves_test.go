//go:build !slim

package worker_test

import (
	"context"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"

	"postroad/contract"
	"postroad/worker"
)

// TestShapesMoves takes one run through the signals that move it, and through
// parkings that end by themselves.
func TestShapesMoves(t *testing.T) {
	t.Parallel()
	type send = func(name string, payload any)
	rest := func(o contract.Outcome) contract.DeliverResult {
		return contract.DeliverResult{Outcome: o, Feed: "default", Attributes: true, State: contract.StateRunning}
	}
	brief, long := rest(contract.OutcomeParked), rest(contract.OutcomeParked)
	brief.Generation, brief.RemainingMillis = 7, 50
	long.Generation, long.RemainingMillis = 8, time.Hour.Milliseconds()
	halted := rest(contract.OutcomeHalted)
	takeThrough(t, "moves", []shapeStep{
		{result: brief},
		{result: long, after: func(signal send) { signal(contract.SignalWake, contract.WakeSignal{Generation: 8}) }},
		{result: halted, after: func(signal send) { signal(contract.SignalSeek, contract.SeekSignal{Sequence: new(int64(5))}) }},
		{result: halted, after: func(signal send) { signal(contract.SignalSeek, nil) }},
		{result: halted, after: func(signal send) {
			signal(contract.SignalReplay, contract.ReplaySignal{FromSequence: new(int64(1)), ToSequence: new(int64(5))})
		}},
		{
			during: func(signal send) { signal(contract.SignalReplay, "broken") },
			result: rest(contract.OutcomePaused),
		},
		{result: rest(contract.OutcomeGone)},
	}, 4)
}

// TestParkUntil: a parking that ends by itself, and is woken before, costs no
// more history than promised for a park and a wake.
func TestParkUntil(t *testing.T) {
	t.Parallel()
	const eventsMax, cycles = 12, 10
	s := setupStack(t, func(c *worker.WakerConfig) { c.Sweep = often })
	s.deliver = func(ctx context.Context, id string) (contract.DeliverResult, error) {
		result, err := s.parkedAtOnce(ctx, id)
		result.RemainingMillis = time.Hour.Milliseconds()
		return result, err
	}
	s.insert("acme", 1, property, "cursor, checked_at", "0, clock_timestamp() - interval '1 hour'")
	s.start()
	// A wake that comes before the workflow knows of the parking costs a task more,
	// and one of the sweep's a cycle: only what rests is woken, and each is counted.
	rests := func(least int) bool {
		if s.parkings("acme1") < least {
			return false
		}
		events := s.history("acme1", s.run("acme1"))
		return events[len(events)-1].GetEventType() == enumspb.EVENT_TYPE_TIMER_STARTED
	}
	cycle := func() {
		n := s.parkings("acme1")
		s.publish("Property", "")
		s.eventually(func() bool { return rests(n + 1) }, "the cycle ends")
	}
	s.eventually(func() bool { return rests(1) }, "the first run parks")
	cycle()
	before, parkings := len(s.history("acme1", s.run("acme1"))), s.parkings("acme1")
	for range cycles {
		cycle()
	}
	made := s.parkings("acme1") - parkings
	if got := len(s.history("acme1", s.run("acme1"))) - before; got > made*eventsMax {
		t.Errorf("%d cycles cost %d events, want at most %d each", made, got, eventsMax)
	}
}

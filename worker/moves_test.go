//go:build !slim

package worker_test

import (
	"context"
	"fmt"
	"testing"
	"time"

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
	s.eventually(func() bool { return s.parkings("acme1") == 1 }, "the first run parks")
	cycle := func(n int) {
		s.publish("Property", "")
		s.eventually(func() bool { return s.delivered("acme1") == n && s.parkings("acme1") == n }, fmt.Sprintf("cycle %d ends", n))
	}
	cycle(2)
	before := len(s.history("acme1", s.run("acme1")))
	for i := range cycles {
		cycle(3 + i)
	}
	if got := len(s.history("acme1", s.run("acme1"))) - before; got > cycles*eventsMax {
		t.Errorf("%d cycles cost %d events, want at most %d each", cycles, got, eventsMax)
	}
}

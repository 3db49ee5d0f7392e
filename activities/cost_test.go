package activities

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"postroad/delivery"
	"postroad/event"
	"postroad/store"
)

// TestUnwatchedCostsNothing: what is counted, and looked at in vain for a trace
// and a line, makes no garbage for each request.
func TestUnwatchedCostsNothing(t *testing.T) {
	a := &Activities{counters: newCounters()}
	a.cfg = Config{Logger: slog.New(slog.NewTextHandler(new(strings.Builder), nil))}.withDefaults()
	r := &run{a: a, ctx: t.Context(), log: a.cfg.Logger.With("subscriber", "acme")}
	batch := []*event.Event{{Sequence: 1}, {Sequence: 2}}
	answer := delivery.Answer{Class: delivery.ClassSuccess, Status: 200, Duration: time.Millisecond}
	allocations := testing.AllocsPerRun(1000, func() {
		span, traceparent := r.begin(batch, 1)
		a.counters.InFlight.Add(1)
		finish(span, &answer)
		r.logAttempt(&store.Attempt{Attempt: len(traceparent)}, &answer)
		a.counters.answered(&answer)
	})
	if allocations != 0 {
		t.Errorf("%v allocations a request", allocations)
	}
}

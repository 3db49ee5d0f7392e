//go:build chaos

package main_test

import (
	"testing"
	"time"

	"postroad/internal/testkit"
)

// TestChaosTakeOver kills the worker that delivers; the other one takes over.
func TestChaosTakeOver(t *testing.T) {
	t.Parallel()
	const takeOverMax = 45 * time.Second
	s := newSplit(t)
	owner := s.worker()
	events := testkit.Lines(t, "sdk-go")
	r := newRoad(t, s.api, "inherited", slow(5*time.Millisecond), nil)
	r.publish(events)
	r.consumer.WaitFor(t, 100, waitMax)
	s.worker()
	r.consumer.WaitFor(t, r.consumer.Count()+200, waitMax)
	owner.kill()
	<-time.After(arriveMax)
	killed := time.Now()
	first := r.awaitSince(killed, 1, 2*takeOverMax)
	t.Logf("the other worker took over after %.1f s", first.At.Sub(killed).Seconds())
	if first.At.Sub(killed) > takeOverMax {
		t.Errorf("the other worker took over after %s", first.At.Sub(killed))
	}
	r.checkCrash(killed)
	r.consumer.SetScript(nil)
	r.awaitCursor(deliveredMax, len(events))
	r.checkOrder(len(events), killed)
}

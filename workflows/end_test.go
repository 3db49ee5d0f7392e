package workflows

import (
	"errors"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	"postroad/contract"
)

func TestSubscriberEnds(t *testing.T) {
	t.Parallel()
	t.Run("gone completes it", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.delivers(call{0, resting(contract.OutcomeGone)})
		if err := b.run(time.Minute, acme); err != nil {
			t.Fatalf("run ended with %v", err)
		}
	})
	t.Run("woken meanwhile it looks again", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.delivers(call{10 * time.Second, resting(contract.OutcomeGone)}, call{0, resting(contract.OutcomeHalted)})
		b.signals(wake(5*time.Second, 0))
		if err := b.run(time.Minute, acme); err == nil || len(b.trace.Delivers) != 2 {
			t.Fatalf("error %v, delivered at %v", err, b.trace.Delivers)
		}
	})
	t.Run("cancelled it closes as cancelled", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.delivers(call{time.Hour, resting(contract.OutcomeHalted)})
		if err := b.run(time.Minute, acme); !temporal.IsCanceledError(errors.Unwrap(err)) {
			t.Fatalf("run ended with %v", err)
		}
	})
	t.Run("the workflow ID must be the subscriber's", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		if err := b.run(time.Minute, contract.SubscriberInput{Subscriber: "other"}); err == nil || len(b.trace.Delivers) > 0 {
			t.Fatalf("error %v, delivered at %v", err, b.trace.Delivers)
		}
	})
	t.Run("started by hand without input it knows its subscriber", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.delivers(call{0, resting(contract.OutcomeGone)})
		if err := b.run(time.Minute, contract.SubscriberInput{}); err != nil {
			t.Fatalf("run ended with %v", err)
		}
	})
	t.Run("without its interceptor it refuses to run", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.SetWorkerOptions(worker.Options{})
		if err := b.run(time.Minute, acme); err == nil || len(b.trace.Delivers) > 0 {
			t.Fatalf("error %v, delivered at %v", err, b.trace.Delivers)
		}
	})
}

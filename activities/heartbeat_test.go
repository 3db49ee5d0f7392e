package activities_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"postroad/activities"
	"postroad/contract"
	"postroad/internal/testkit"
	"postroad/store"
)

// TestUnreadTask: a task that lay in a process that stood still is run when it
// goes on. Its first heartbeat is refused, and the worker that delivers since
// then does not hear of it.
func TestUnreadTask(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	b.create(r.URL(), nil)
	b.publish(properties(3)...)
	lease := uuid.New()
	if taken, err := b.store.TakeLease(t.Context(), "acme", lease); err != nil || !taken.Held {
		t.Fatalf("take lease: %+v, %v", taken, err)
	}

	ctx, refuse := context.WithCancel(t.Context())
	defer refuse()
	result := <-b.startTask(ctx, refuse)
	if result.Outcome != contract.OutcomeInterrupted || r.Count() != 0 {
		t.Errorf("it returned %+v after %d requests", result, r.Count())
	}
	if held, err := b.store.Confirm(t.Context(), []store.Lease{{Subscriber: "acme", ID: lease}}); err != nil || len(held) != 1 {
		t.Errorf("the other worker's lease: %v, %v", held, err)
	}
}

// TestDrainBeforeTheFirstHeartbeat: a worker that stops while Temporal is away
// waits for no answer to a heartbeat.
func TestDrainBeforeTheFirstHeartbeat(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(b *bundle, cancel func()){
		"the worker stops":      func(b *bundle, _ func()) { b.Drain() },
		"the task is cancelled": func(_ *bundle, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(c *activities.Config) { c.HeartbeatEvery = time.Hour })
			b.create("http://127.0.0.1:1", nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			sent, answered := make(chan struct{}), make(chan struct{})
			defer close(answered)
			returned := b.startTask(ctx, func() { close(sent); <-answered })
			<-sent
			end(b, cancel)
			select {
			case result := <-returned:
				if result.Outcome != contract.OutcomeInterrupted || b.row().Lease != nil {
					t.Errorf("it returned %+v", result)
				}
			case <-time.After(waitMax):
				t.Error("it waits for the heartbeat")
			}
		})
	}
}

// startTask runs Deliver as a task of Temporal and yields what it returns, which
// the SDK may be slow to take. heard is called by each heartbeat, and holds it
// back until it returns.
func (b *bundle) startTask(ctx context.Context, heard func()) <-chan contract.DeliverResult {
	suite := testsuite.WorkflowTestSuite{}
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerOptions(worker.Options{BackgroundActivityContext: ctx})
	env.SetOnActivityHeartbeatListener(func(*activity.Info, converter.EncodedValues) { heard() })
	returned := make(chan contract.DeliverResult, 1)
	task := func(ctx context.Context) error {
		result, err := b.Deliver(ctx, contract.DeliverInput{Subscriber: "acme"})
		returned <- result
		return err
	}
	env.RegisterActivity(task)
	var running sync.WaitGroup
	running.Go(func() {
		if _, err := env.ExecuteActivity(task); err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(running.Wait)
	return returned
}

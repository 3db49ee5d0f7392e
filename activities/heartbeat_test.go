package activities_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"postroad/contract"
	"postroad/internal/testkit"
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
	suite := testsuite.WorkflowTestSuite{}
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerOptions(worker.Options{BackgroundActivityContext: ctx})
	env.SetOnActivityHeartbeatListener(func(*activity.Info, converter.EncodedValues) { refuse() })
	env.RegisterActivity(b.Deliver)
	value, err := env.ExecuteActivity(b.Deliver, contract.DeliverInput{Subscriber: "acme"})
	check(t, err)
	var result contract.DeliverResult
	check(t, value.Get(&result))
	if result.Outcome != contract.OutcomeInterrupted || r.Count() != 0 {
		t.Errorf("it returned %+v after %d requests", result, r.Count())
	}
	if _, held, err := b.store.Confirm(t.Context(), "acme", lease); err != nil || !held {
		t.Errorf("the other worker's lease: %v, %v", held, err)
	}
}

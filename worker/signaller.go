package worker

import (
	"context"
	"errors"
	"fmt"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"postroad/contract"
)

// Signaller reaches the workflows of subscribers.
type Signaller interface {
	// Wake makes a subscriber's workflow look at its row, starting one if none
	// runs. A generation above 0 wakes from that parking only.
	Wake(ctx context.Context, id string, generation int64) error
	// Stop makes a running workflow look at its row; closed says that none runs.
	Stop(ctx context.Context, id string) (closed bool, err error)
}

type temporalSignaller struct{ client client.Client }

// Wake implements Signaller.
func (s temporalSignaller) Wake(ctx context.Context, id string, generation int64) error {
	workflowID := contract.SubscriberWorkflowID(id)
	options := client.StartWorkflowOptions{
		ID:                       workflowID,
		TaskQueue:                contract.TaskQueue,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
	}
	_, err := s.client.SignalWithStartWorkflow(ctx, workflowID, contract.SignalWake, contract.WakeSignal{Generation: generation},
		options, contract.SubscriberWorkflow, contract.SubscriberInput{Subscriber: id})
	if err != nil {
		return fmt.Errorf("wake %s: %w", id, err)
	}
	return nil
}

// Stop implements Signaller.
func (s temporalSignaller) Stop(ctx context.Context, id string) (closed bool, err error) {
	err = s.client.SignalWorkflow(ctx, contract.SubscriberWorkflowID(id), "", contract.SignalStop, nil)
	var notFound *serviceerror.NotFound
	switch {
	case errors.As(err, &notFound): // closed, or never started
		return true, nil
	case err != nil:
		return false, fmt.Errorf("stop %s: %w", id, err)
	}
	return false, nil
}

package api_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"postroad/api"
	"postroad/contract"
)

// recordingClient answers the two calls that a TemporalWaker makes.
type recordingClient struct {
	client.Client
	workflowID, signal string
	arg                any
	options            client.StartWorkflowOptions
	workflow           any
	input              []any
	status             enumspb.WorkflowExecutionStatus
	err                error
}

func (c *recordingClient) SignalWithStartWorkflow(_ context.Context, workflowID, signal string, arg any,
	options client.StartWorkflowOptions, workflow any, input ...any,
) (client.WorkflowRun, error) {
	c.workflowID, c.signal, c.arg, c.options, c.workflow, c.input = workflowID, signal, arg, options, workflow, input
	return nil, c.err
}

func (c *recordingClient) DescribeWorkflowExecution(_ context.Context, workflowID, _ string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	c.workflowID = workflowID
	if c.err != nil {
		return nil, c.err
	}
	return &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: &workflowpb.WorkflowExecutionInfo{
		Execution: &commonpb.WorkflowExecution{WorkflowId: workflowID}, Status: c.status,
	}}, nil
}

func TestTemporalWaker_wakes(t *testing.T) {
	t.Parallel()
	c := &recordingClient{}
	must(t, api.TemporalWaker{Client: c}.Wake(t.Context(), "acme"))
	got := []any{c.workflowID, c.signal, c.arg, c.workflow, c.input, c.options.TaskQueue, c.options.WorkflowIDConflictPolicy, c.options.WorkflowIDReusePolicy}
	want := []any{
		"subscriber:acme", "wake",
		contract.WakeSignal{},
		"Subscriber",
		[]any{contract.SubscriberInput{Subscriber: "acme"}},
		"postroad",
		enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING, enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	c.err = errors.New("away")
	if err := (api.TemporalWaker{Client: c}).Wake(t.Context(), "acme"); !errors.Is(err, c.err) {
		t.Errorf("%v", err)
	}
}

func TestTemporalWaker_closed(t *testing.T) {
	t.Parallel()
	away := errors.New("away")
	for name, row := range map[string]struct {
		client recordingClient
		closed bool
		err    error
	}{
		"running":   {recordingClient{status: enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING}, false, nil},
		"completed": {recordingClient{status: enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED}, true, nil},
		"never ran": {recordingClient{err: serviceerror.NewNotFound("no")}, true, nil},
		"away":      {recordingClient{err: away}, false, away},
	} {
		closed, err := api.TemporalWaker{Client: &row.client}.Closed(t.Context(), "acme")
		if closed != row.closed || !errors.Is(err, row.err) || row.client.workflowID != "subscriber:acme" {
			t.Errorf("%s: %v, %v, %s", name, closed, err, row.client.workflowID)
		}
	}
}

// TestWake_noAnswerWaits: Temporal hangs, and all controls are answered.
func TestWake_noAnswerWaits(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.waker.stuck = make(chan struct{})
	started := time.Now()
	b.create(sub("acme")).want(201, nil)
	for range 10 {
		b.call("POST", "/v1/subscribers/acme/pause", "").want(200, nil)
		b.call("POST", "/v1/subscribers/acme/resume", "").want(200, nil)
	}
	b.call("PATCH", "/v1/subscribers/acme", `{"label":"x"}`).want(200, nil)
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	close(b.waker.stuck)
	b.awaitWakes("acme", 22)
}

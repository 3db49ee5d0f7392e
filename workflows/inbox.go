package workflows

import (
	"errors"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/workflow"

	"postroad/contract"
)

// Interceptor returns the worker interceptor that hands signals to the
// workflows of this package, in the order in which they arrived and with their
// payloads as they came.
//
// Signal channels can do neither: signals of different names that arrive within
// one workflow task lose their order (a pause sent after a resume must win), and
// a payload that does not decode is dropped together with its signal.
func Interceptor() interceptor.WorkerInterceptor { return &workerInterceptor{} }

type workerInterceptor struct {
	interceptor.WorkerInterceptorBase
}

// InterceptWorkflow implements interceptor.WorkerInterceptor: one inbox for
// each execution.
func (*workerInterceptor) InterceptWorkflow(
	_ workflow.Context, next interceptor.WorkflowInboundInterceptor,
) interceptor.WorkflowInboundInterceptor {
	i := &inboundInterceptor{}
	i.Next = next
	return i
}

type inboundInterceptor struct {
	interceptor.WorkflowInboundInterceptorBase
	inbox inbox
}

// ExecuteWorkflow implements interceptor.WorkflowInboundInterceptor.
func (i *inboundInterceptor) ExecuteWorkflow(ctx workflow.Context, in *interceptor.ExecuteWorkflowInput) (any, error) {
	return i.Next.ExecuteWorkflow(workflow.WithValue(ctx, inboxKey{}, &i.inbox), in)
}

// HandleSignal implements interceptor.WorkflowInboundInterceptor. It runs
// before the workflow's code of the same task, so it only takes note.
func (i *inboundInterceptor) HandleSignal(ctx workflow.Context, in *interceptor.HandleSignalInput) error {
	switch in.SignalName {
	case contract.SignalPause, contract.SignalResume, contract.SignalWake, contract.SignalStop, contract.SignalSeek, contract.SignalReplay:
		i.inbox.arrived = append(i.inbox.arrived, signal{in.SignalName, in.Arg})
		return nil
	}
	return i.Next.HandleSignal(ctx, in)
}

// inbox holds the signals that have arrived and were not yet taken.
type inbox struct{ arrived []signal }

type inboxKey struct{}

// signal is one signal as it arrived.
type signal struct {
	name    string
	payload *commonpb.Payloads
}

var errNoInbox = errors.New("workflow runs without workflows.Interceptor: register it with the worker or replayer")

// inboxOf returns the inbox of the execution. Without one it panics, which
// fails the workflow task and not the run: a worker set up right goes on.
func inboxOf(ctx workflow.Context) *inbox {
	box, ok := ctx.Value(inboxKey{}).(*inbox)
	if !ok {
		panic(errNoInbox) //nolint:forbidigo // the SDK's way to fail a task and not the run
	}
	return box
}

func (b *inbox) empty() bool { return len(b.arrived) == 0 }

// take empties the inbox.
func (b *inbox) take() []signal {
	arrived := b.arrived
	b.arrived = nil
	return arrived
}

// decode returns the signal's first payload as a T: the zero T where there is
// none or it is anything but one.
func decode[T any](s signal) T {
	var value, zero T
	payloads := s.payload.GetPayloads()
	if len(payloads) == 0 {
		return zero
	}
	if err := converter.GetDefaultDataConverter().FromPayload(payloads[0], &value); err != nil {
		return zero
	}
	return value
}

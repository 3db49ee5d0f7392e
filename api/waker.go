package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"postroad/contract"
)

// Waker is what the API wants of Temporal. No answer waits for Wake.
type Waker interface {
	// Wake makes the subscriber's workflow look at its row, and starts it if it
	// does not run.
	Wake(ctx context.Context, subscriberID string) error
	// Closed reports whether no workflow of the subscriber is open.
	Closed(ctx context.Context, subscriberID string) (bool, error)
}

// TemporalWaker is the Waker of a Temporal client.
type TemporalWaker struct {
	Client client.Client
}

// Wake implements Waker.
func (w TemporalWaker) Wake(ctx context.Context, subscriberID string) error {
	options := client.StartWorkflowOptions{
		TaskQueue:                contract.TaskQueue,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
	}
	_, err := w.Client.SignalWithStartWorkflow(ctx, contract.SubscriberWorkflowID(subscriberID), contract.SignalWake, contract.WakeSignal{},
		options, contract.SubscriberWorkflow, contract.SubscriberInput{Subscriber: subscriberID})
	if err != nil {
		return fmt.Errorf("wake subscriber %s: %w", subscriberID, err)
	}
	return nil
}

// Closed implements Waker.
func (w TemporalWaker) Closed(ctx context.Context, subscriberID string) (bool, error) {
	described, err := w.Client.DescribeWorkflowExecution(ctx, contract.SubscriberWorkflowID(subscriberID), "")
	if notFound := (*serviceerror.NotFound)(nil); errors.As(err, &notFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("describe workflow of subscriber %s: %w", subscriberID, err)
	}
	return described.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, nil
}

const (
	wakesQueuedMax  = 100_000          // ids; what finds no room waits for the sweep, up to two minutes
	wakesAtOnce     = 4                // more would start workflows faster than the worker takes them up
	wakeMax         = 10 * time.Second // SignalWithStart blocks as long with Temporal away
	closedAnswerMax = 2 * time.Second

	// Workflows of new subscribers that are started before there is an event.
	startsPerSecond, startsBurst = 1, 20
)

// wakeQueue sends wakes in the background. A wake that finds it full, or that
// fails, is dropped: the sweep wakes whoever should run.
type wakeQueue struct {
	waker  Waker
	logger *slog.Logger
	ids    chan string
	cancel context.CancelFunc
	all    sync.WaitGroup
}

func newWakeQueue(waker Waker, logger *slog.Logger) *wakeQueue {
	q := &wakeQueue{waker: waker, logger: logger, ids: make(chan string, wakesQueuedMax)}
	ctx, cancel := context.WithCancel(context.Background())
	q.cancel = cancel
	if waker != nil {
		for range wakesAtOnce {
			q.all.Go(func() { q.run(ctx) })
		}
	}
	return q
}

func (q *wakeQueue) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case id := <-q.ids:
			one, cancel := context.WithTimeout(ctx, wakeMax)
			err := q.waker.Wake(one, id)
			cancel()
			if err != nil && ctx.Err() == nil {
				q.logger.WarnContext(ctx, "wake not sent; the sweep will send it", slog.String("subscriber_id", id), slog.Any("error", err))
			}
		}
	}
}

// wake queues a wake and returns at once.
func (q *wakeQueue) wake(id string) {
	if q.waker == nil {
		return
	}
	select {
	case q.ids <- id:
	default:
	}
}

func (q *wakeQueue) close() {
	q.cancel()
	q.all.Wait()
}

//go:build !slim

package worker_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	sdklog "go.temporal.io/sdk/log"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"postroad/contract"
	"postroad/embedded"
	"postroad/store"
	"postroad/worker"
	"postroad/workflows"
)

// record makes the tests write the histories they made to a folder: -record
// ../workflows/testdata, from the commit of a release.
var record = flag.String("record", "", "write histories to this folder")

// fake are activities as a test scripts them.
type fake struct {
	mu       sync.Mutex
	deliver  func(ctx context.Context, id string) (contract.DeliverResult, error)
	delivers map[string]int
	applies  []contract.ApplyInput
	draining chan struct{}
	drain    sync.Once
}

// Deliver implements worker.Activities.
func (f *fake) Deliver(ctx context.Context, in contract.DeliverInput) (contract.DeliverResult, error) {
	f.mu.Lock()
	f.delivers[in.Subscriber]++
	f.mu.Unlock()
	return f.deliver(ctx, in.Subscriber)
}

// Apply implements worker.Activities.
func (f *fake) Apply(_ context.Context, in contract.ApplyInput) (contract.ApplyResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applies = append(f.applies, in)
	return contract.ApplyResult{Version: int64(len(f.applies))}, nil
}

// Drain implements worker.Activities.
func (f *fake) Drain() { f.drain.Do(func() { close(f.draining) }) }

func (f *fake) delivered(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.delivers[id]
}

func (f *fake) applied() []contract.ApplyInput {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.applies)
}

// stack is a bundle with a Temporal server, a client and a worker.
type stack struct {
	*bundle
	*fake
	client client.Client
	config worker.Config
	worker *worker.Worker
}

func setupStack(t *testing.T, waker func(*worker.WakerConfig)) *stack {
	t.Helper()
	s := &stack{bundle: setup(t), fake: &fake{delivers: map[string]int{}, draining: make(chan struct{})}}
	server, err := embedded.Start(t.Context(), embedded.Config{
		DataDir: t.TempDir(), WithoutDatabase: true, WithoutUI: true, TemporalListen: "127.0.0.1:0", NoSync: true, Logger: silent(),
		SearchAttributes: map[string]string{contract.AttributeFeed: "Keyword", contract.AttributeState: "Keyword"},
	})
	s.check(err)
	t.Cleanup(func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), soon)
		defer cancel()
		if err := server.Stop(stopping); err != nil {
			t.Errorf("stop Temporal: %v", err)
		}
	})
	s.client, err = client.Dial(client.Options{
		HostPort: server.TemporalAddress, Namespace: server.Namespace, Identity: "test", Logger: sdklog.NewStructuredLogger(silent()),
	})
	s.check(err)
	t.Cleanup(s.client.Close)
	s.config = worker.Config{
		Client: s.client, Log: s.log, Store: s.store, Activities: s.fake, DirectURL: s.url, Slots: 200,
		HeartbeatThrottle: 100 * time.Millisecond, Waker: quick(waker), Logger: silent(),
	}
	return s
}

// start starts the worker; it stops at the end of the test.
func (s *stack) start() {
	s.t.Helper()
	w, err := worker.New(s.config)
	s.check(err)
	s.check(w.Start(s.t.Context()))
	s.worker = w
	s.t.Cleanup(w.Stop)
	s.eventually(func() bool { return w.Waker().Counters().Reloads.Load() >= 2 }, "the waker is active")
}

// parkedAtOnce is a Deliver that has nothing to send.
func (s *stack) parkedAtOnce(ctx context.Context, id string) (contract.DeliverResult, error) {
	var generation int64
	err := s.pool.QueryRow(ctx, `UPDATE runs SET parked = true, generation = nextval('park_generations'),
		cursor = (SELECT coalesce(max(sequence), 0) FROM events) WHERE id = $1 RETURNING generation`, id).Scan(&generation)
	if err != nil {
		return contract.DeliverResult{}, err
	}
	return contract.DeliverResult{
		Outcome: contract.OutcomeParked, Generation: generation, State: contract.StateRunning, Reason: "Caught up.",
		Feed: "default", Attributes: true,
	}, s.store.AnnounceParked(ctx, id)
}

func (s *stack) history(id, runID string) []*historypb.HistoryEvent {
	s.t.Helper()
	var events []*historypb.HistoryEvent
	pages := s.client.GetWorkflowHistory(s.t.Context(), contract.SubscriberWorkflowID(id), runID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for pages.HasNext() {
		event, err := pages.Next()
		s.check(err)
		events = append(events, event)
	}
	return events
}

func count(events []*historypb.HistoryEvent, of enumspb.EventType) (n int) {
	for _, e := range events {
		if e.GetEventType() == of {
			n++
		}
	}
	return n
}

// replay replays a run's history against the workflow's code as it is, and
// writes it down where that was asked for.
func (s *stack) replay(id, runID, name string) {
	s.t.Helper()
	history := &historypb.History{Events: s.history(id, runID)}
	replayer, err := sdkworker.NewWorkflowReplayerWithOptions(sdkworker.WorkflowReplayerOptions{
		Interceptors: []interceptor.WorkerInterceptor{workflows.Interceptor()},
	})
	s.check(err)
	replayer.RegisterWorkflowWithOptions(workflows.Subscriber, workflow.RegisterOptions{Name: contract.SubscriberWorkflow})
	options := sdkworker.ReplayWorkflowHistoryOptions{OriginalExecution: workflow.Execution{ID: contract.SubscriberWorkflowID(id), RunID: runID}}
	if err := replayer.ReplayWorkflowHistoryWithOptions(sdklog.NewStructuredLogger(silent()), history, options); err != nil {
		s.t.Errorf("replay %s: %v", name, err)
	}
	if *record != "" && name != "" {
		text, err := temporalproto.CustomJSONMarshalOptions{Indent: "  "}.Marshal(history)
		s.check(err)
		s.check(os.WriteFile(filepath.Join(*record, name+".json"), text, 0o644))
	}
}

func (s *stack) closed(id string) enumspb.WorkflowExecutionStatus {
	s.t.Helper()
	run, err := s.client.DescribeWorkflowExecution(s.t.Context(), contract.SubscriberWorkflowID(id), "")
	s.check(err)
	return run.GetWorkflowExecutionInfo().GetStatus()
}

// TestParkAndWake publishes for a subscriber that has nothing else to do: log,
// waker, Temporal and workflow are real, Deliver parks at once.
func TestParkAndWake(t *testing.T) {
	t.Parallel()
	const eventsMax = 12 // of a cycle, in the history
	s := setupStack(t, func(c *worker.WakerConfig) { c.Sweep = often })
	s.deliver = s.parkedAtOnce
	s.insert("acme", 1, property, "cursor, checked_at", "0, clock_timestamp() - interval '1 hour'")
	s.start()
	cycle := func(n int) {
		s.publish("Property", "")
		s.eventually(func() bool { return s.delivered("acme1") == n && s.parkings("acme1") == n }, fmt.Sprintf("cycle %d ends", n))
	}
	// The sweep finds the row that nobody drives and starts the workflow.
	s.eventually(func() bool { return s.parkings("acme1") == 1 }, "the first run parks")
	cycle(2)
	run, err := s.client.DescribeWorkflowExecution(t.Context(), contract.SubscriberWorkflowID("acme1"), "")
	s.check(err)
	first := run.GetWorkflowExecutionInfo().GetExecution().GetRunId()
	before := len(s.history("acme1", first))
	const cycles = 10
	for i := range cycles {
		cycle(3 + i)
	}
	events := s.history("acme1", first)
	if got := len(events) - before; got > cycles*eventsMax {
		t.Errorf("%d cycles cost %d events, want at most %d each", cycles, got, eventsMax)
	}
	if got := count(events, enumspb.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES); got != 1 {
		t.Errorf("search attributes were written %d times, want once", got)
	}
	s.replay("acme1", first, "subscriber-parks-and-wakes")

	// Beyond 500 events the parked run continues as new, and its successor rests
	// without a Deliver of its own.
	n := cycles + 2
	for len(s.history("acme1", "")) > 100 || s.run("acme1") == first {
		if n++; n > 80 {
			t.Fatal("it does not continue as new")
		}
		cycle(n)
	}
	for i, e := range s.history("acme1", "") {
		if e.GetEventType() == enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED {
			break
		}
		if e.GetEventType() == enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED {
			t.Errorf("the successor ran Deliver without being woken: event %d", i+1)
		}
	}
	s.replay("acme1", first, "") // 500 events are too many to keep
	cycle(n + 1)
	s.replay("acme1", "", "subscriber-goes-on-parked")
}

// parkings is how many runs of Deliver the current and earlier runs know of.
func (s *stack) parkings(id string) int {
	var generation int64
	s.check(s.pool.QueryRow(s.t.Context(), `SELECT generation FROM runs WHERE id = $1`, id).Scan(&generation))
	return int(generation) // the only subscriber: generations count its parkings
}

func (s *stack) run(id string) string {
	s.t.Helper()
	run, err := s.client.DescribeWorkflowExecution(s.t.Context(), contract.SubscriberWorkflowID(id), "")
	s.check(err)
	return run.GetWorkflowExecutionInfo().GetExecution().GetRunId()
}

// TestSignals sends what people send, to a run whose Deliver goes on until it is
// told to drain.
func TestSignals(t *testing.T) {
	t.Parallel()
	s := setupStack(t, func(c *worker.WakerConfig) { c.Sweep = often })
	var drained sync.Map
	s.deliver = func(ctx context.Context, id string) (contract.DeliverResult, error) {
		var deleted bool
		err := s.pool.QueryRow(ctx, `SELECT deleted FROM runs WHERE id = $1`, id).Scan(&deleted)
		if err != nil || deleted {
			return contract.DeliverResult{Outcome: contract.OutcomeGone}, err
		}
		beat := time.NewTicker(50 * time.Millisecond)
		defer beat.Stop()
		for {
			select {
			case <-ctx.Done():
				drained.Store(id, true)
				return contract.DeliverResult{}, ctx.Err()
			case <-s.draining:
				drained.Store(id, true)
				return contract.DeliverResult{Outcome: contract.OutcomeInterrupted}, nil
			case <-beat.C:
				activity.RecordHeartbeat(ctx)
			}
			var over bool
			if err := s.pool.QueryRow(context.WithoutCancel(ctx), `SELECT paused OR deleted FROM runs WHERE id = $1`, id).Scan(&over); err != nil {
				return contract.DeliverResult{}, err
			}
			if over {
				return contract.DeliverResult{Outcome: contract.OutcomePaused, Reason: "Paused."}, nil
			}
		}
	}
	s.insert("acme", 2, `{}`, "cursor, checked_at", "0, clock_timestamp() - interval '1 hour'")
	s.start()
	s.eventually(func() bool { return s.delivered("acme1") == 1 && s.delivered("acme2") == 1 }, "both deliver")
	s.exec(`UPDATE runs SET checked_at = clock_timestamp()`) // as a real Deliver keeps doing, so that no sweep interferes

	workflowID := contract.SubscriberWorkflowID("acme1")
	signal := func(name string, payload any) {
		s.check(s.client.SignalWorkflow(t.Context(), workflowID, "", name, payload))
	}
	signal(contract.SignalPause, contract.PauseSignal{Reason: "maintenance"})
	signal(contract.SignalResume, nil)
	signal(contract.SignalPause, "broken")
	s.eventually(func() bool { return len(s.applied()) == 3 }, "the controls are applied beside Deliver")
	firstRun := s.run("acme1")
	id := func(n int) string { return fmt.Sprintf("%s/%s/%d", workflowID, firstRun, n) }
	want := []contract.ApplyInput{
		{Subscriber: "acme1", RequestID: id(1), Kind: contract.ControlPause, Reason: "maintenance"},
		{Subscriber: "acme1", RequestID: id(2), Kind: contract.ControlResume},
		{Subscriber: "acme1", RequestID: id(3), Kind: contract.ControlPause},
	}
	if diff := cmp.Diff(want, s.applied()); diff != "" {
		t.Errorf("controls (-want +got):\n%s", diff)
	}
	if got := s.delivered("acme1"); got != 1 {
		t.Errorf("Deliver ran %d times, want one that was never cancelled", got)
	}
	s.exec(`UPDATE runs SET paused = true WHERE id = 'acme1'`)
	s.eventually(func() bool { return s.delivered("acme1") == 2 }, "it looks again for the controls that came meanwhile")

	// The tombstone is told to close, then removed.
	s.exec(`UPDATE runs SET deleted = true WHERE id = 'acme1'`)
	s.eventually(func() bool { return s.worker.Waker().Counters().Purged.Load() == 1 }, "the tombstone is purged")
	if got := s.closed("acme1"); got != enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED {
		t.Errorf("the deleted subscriber's workflow is %s", got)
	}
	s.replay("acme1", "", "subscriber-controlled-and-deleted")

	// Stopping drains what runs before it returns, and Temporal hears of it. A wake
	// of the first sweeps may be left, by which the drained run looks once more.
	s.worker.Stop()
	if _, ok := drained.Load("acme2"); !ok {
		t.Error("the worker stopped before Deliver had drained")
	}
	if got, want := count(s.history("acme2", ""), enumspb.EVENT_TYPE_ACTIVITY_TASK_COMPLETED), s.delivered("acme2"); got != want {
		t.Errorf("%d completions reported, want those of all %d runs", got, want)
	}
}

func TestCancelledRun(t *testing.T) {
	t.Parallel()
	s := setupStack(t, nil)
	drained := make(chan struct{})
	s.deliver = func(ctx context.Context, _ string) (contract.DeliverResult, error) {
		beat := time.NewTicker(50 * time.Millisecond)
		defer beat.Stop()
		for ctx.Err() == nil {
			activity.RecordHeartbeat(ctx)
			<-beat.C
		}
		close(drained)
		return contract.DeliverResult{Outcome: contract.OutcomeInterrupted}, nil
	}
	s.insert("acme", 1, `{}`, "cursor", "0")
	s.start()
	workflowID := contract.SubscriberWorkflowID("acme1")
	run, err := s.client.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: workflowID, TaskQueue: contract.TaskQueue},
		contract.SubscriberWorkflow, contract.SubscriberInput{Subscriber: "acme1"})
	s.check(err)
	s.eventually(func() bool { return s.delivered("acme1") == 1 }, "it delivers")
	s.check(s.client.CancelWorkflow(t.Context(), workflowID, ""))
	ended, cancel := context.WithTimeout(t.Context(), 2*soon)
	defer cancel()
	if err := run.Get(ended, nil); err == nil || ended.Err() != nil {
		t.Fatalf("run ended with %v", err)
	}
	select {
	case <-drained:
	default:
		t.Error("the run closed before Deliver had drained")
	}
	if got := s.closed("acme1"); got != enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED {
		t.Errorf("the cancelled run is %s", got)
	}
	s.replay("acme1", "", "subscriber-cancelled")
}

// TestWaits lets each kind of wait end, by its timer and early.
func TestWaits(t *testing.T) {
	t.Parallel()
	s := setupStack(t, nil)
	outcomes := []contract.DeliverResult{
		{Outcome: contract.OutcomeBackoff, RemainingMillis: 50, State: contract.StateWaiting, Summary: "Retry-After 0.05 s, HTTP 429", Feed: "default", Attributes: true},
		{Outcome: contract.OutcomeMore, Delivered: 1, State: contract.StateRunning, Attributes: true},
		{Outcome: contract.OutcomeFenced},
		{Outcome: contract.OutcomePaused, RemainingMillis: 3_600_000, State: contract.StatePaused, Attributes: true},
		{Outcome: contract.OutcomeHalted, State: contract.StateHalted, Attributes: true},
		{Outcome: contract.OutcomeGone},
	}
	s.deliver = func(_ context.Context, id string) (contract.DeliverResult, error) {
		return outcomes[s.delivered(id)-1], nil
	}
	s.start()
	workflowID := contract.SubscriberWorkflowID("acme1")
	run, err := s.client.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: workflowID, TaskQueue: contract.TaskQueue},
		contract.SubscriberWorkflow, contract.SubscriberInput{Subscriber: "acme1"})
	s.check(err)
	s.eventually(func() bool { return s.delivered("acme1") == 4 }, "two timers fire")
	s.eventually(func() bool { return count(s.history("acme1", ""), enumspb.EVENT_TYPE_TIMER_STARTED) == 3 }, "it pauses for an hour")
	s.check(s.client.SignalWorkflow(t.Context(), workflowID, "", contract.SignalResume, nil))
	s.eventually(func() bool { return s.delivered("acme1") == 5 }, "it resumes")
	s.check(s.client.SignalWorkflow(t.Context(), workflowID, "", contract.SignalStop, nil))
	s.check(run.Get(t.Context(), nil))
	events := s.history("acme1", "")
	if fired, cancelled := count(events, enumspb.EVENT_TYPE_TIMER_FIRED), count(events, enumspb.EVENT_TYPE_TIMER_CANCELED); fired != 2 || cancelled != 1 {
		t.Errorf("%d timers fired and %d were cancelled, want 2 and 1", fired, cancelled)
	}
	s.replay("acme1", "", "subscriber-waits")
}

func TestInstallation(t *testing.T) {
	t.Parallel()
	s := setupStack(t, nil)
	other := store.Installation{ClusterID: "another", Namespace: "elsewhere"}
	s.check(s.store.PutSetting(t.Context(), store.SettingInstallation, other))
	try := func() error {
		w, err := worker.New(s.config)
		s.check(err)
		err = w.Start(t.Context())
		w.Stop()
		return err
	}
	var refused *worker.InstallationError
	if err := try(); !errors.As(err, &refused) || refused.Stored != other || !strings.Contains(err.Error(), "--adopt-cluster") {
		t.Fatalf("a database of another cluster: %v", err)
	}
	s.config.AdoptCluster = true
	s.check(try())
	s.config.AdoptCluster = false
	s.check(try())
}

func TestConfig(t *testing.T) {
	t.Parallel()
	if _, err := worker.New(worker.Config{}); err == nil || !strings.Contains(err.Error(), "Client") {
		t.Errorf("a worker without a client: %v", err)
	}
}

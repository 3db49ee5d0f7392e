package workflows

import (
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"postroad/contract"
)

// histories are all files of testdata, which releases wrote.
func histories(t *testing.T) (files []string) {
	t.Helper()
	files, err := filepath.Glob("testdata/*/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no histories: %v", err)
	}
	return files
}

func readHistory(t *testing.T, file string) *historypb.History {
	t.Helper()
	opened, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	history, err := client.HistoryFromJSON(opened, client.HistoryJSONOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return history
}

// TestReplay replays recorded histories: a change that breaks one would break
// runs that are open. They come from the commits of releases: see
// testdata/README.md.
func TestReplay(t *testing.T) {
	t.Parallel()
	for _, file := range histories(t) {
		t.Run(strings.TrimPrefix(file, "testdata/"), func(t *testing.T) {
			t.Parallel()
			replay(t, readHistory(t, file))
		})
	}
}

// TestReplayIgnoredSignals: a run of the first release that was sent a signal of a
// later one has ignored it, and goes on so.
func TestReplayIgnoredSignals(t *testing.T) {
	t.Parallel()
	for _, name := range []string{contract.SignalSeek, contract.SignalReplay} {
		history, renamed := readHistory(t, "testdata/v0.1.0/subscriber-shapes.json"), 0
		for _, e := range history.GetEvents() {
			if attributes := e.GetWorkflowExecutionSignaledEventAttributes(); attributes.GetSignalName() == "of a later release" {
				attributes.SignalName = name
				renamed++
			}
		}
		if renamed != 1 {
			t.Fatalf("%d signals to rename", renamed)
		}
		replay(t, history)
	}
}

// replay fails the test if the code does not do what the history says.
func replay(t *testing.T, history *historypb.History) {
	t.Helper()
	replayer, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{
		Interceptors: []interceptor.WorkerInterceptor{Interceptor()},
	})
	if err != nil {
		t.Fatal(err)
	}
	replayer.RegisterWorkflowWithOptions(Subscriber, workflow.RegisterOptions{Name: contract.SubscriberWorkflow})
	started := history.GetEvents()[0].GetWorkflowExecutionStartedEventAttributes()
	// Without the workflow ID the run would refuse to be a subscriber's.
	options := worker.ReplayWorkflowHistoryOptions{OriginalExecution: workflow.Execution{
		ID: started.GetWorkflowId(), RunID: started.GetOriginalExecutionRunId(),
	}}
	logger := sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))
	if err := replayer.ReplayWorkflowHistoryWithOptions(logger, history, options); err != nil {
		t.Errorf("the code no longer does what it did: %v", err)
	}
}

// TestReplayShapes wants every shape of a run in the histories, so that none can
// be changed unnoticed. Outcomes and signals are those that package contract
// names.
func TestReplayShapes(t *testing.T) {
	t.Parallel()
	wanted := []string{
		"begun afresh", "begun by continue-as-new", "completed", "cancelled",
		"outcome of a later release", "signal of a later release", "signal without payload", "signal that cannot be read",
		"activity tried again", "timer fired", "timer cancelled", "state written", "signal while Deliver runs",
		"control " + contract.ControlPause, "control " + contract.ControlResume, "control " + contract.ControlSeek, "control " + contract.ControlReplay,
	}
	for prefix, what := range map[string]string{"Outcome": "outcome ", "Signal": "signal "} {
		for _, value := range constants(t, prefix) {
			wanted = append(wanted, what+value)
		}
	}
	seen := map[string]bool{}
	for _, file := range histories(t) {
		shapesOf(readHistory(t, file), seen)
	}
	for _, shape := range wanted {
		if !seen[shape] {
			t.Errorf("no history shows: %s", shape)
		}
	}
}

// constants are the values of package contract's constants with a prefix.
func constants(t *testing.T, prefix string) (values []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../contract/contract.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, prefix) || len(spec.Values) != 1 {
			return true
		}
		value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, value)
		return true
	})
	if len(values) < 3 {
		t.Fatalf("package contract names %d constants with the prefix %s", len(values), prefix)
	}
	return values
}

// shapesOf notes what a history shows.
func shapesOf(history *historypb.History, seen map[string]bool) {
	scheduled := map[int64]string{} // activities that run, by their event
	for _, e := range history.GetEvents() {
		switch e.GetEventType() {
		case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
			began := e.GetWorkflowExecutionStartedEventAttributes()
			seen["begun afresh"] = seen["begun afresh"] || began.GetContinuedExecutionRunId() == ""
			seen["begun by continue-as-new"] = seen["begun by continue-as-new"] || began.GetContinuedExecutionRunId() != ""
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
			attributes := e.GetActivityTaskScheduledEventAttributes()
			scheduled[e.GetEventId()] = attributes.GetActivityType().GetName()
			seen["control "+decodePayloads[contract.ApplyInput](attributes.GetInput()).Kind] = true
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_STARTED:
			seen["activity tried again"] = seen["activity tried again"] || e.GetActivityTaskStartedEventAttributes().GetAttempt() > 1
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
			attributes := e.GetActivityTaskCompletedEventAttributes()
			delete(scheduled, attributes.GetScheduledEventId())
			seen["outcome "+string(decodePayloads[contract.DeliverResult](attributes.GetResult()).Outcome)] = true
		case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
			signalShapes(e.GetWorkflowExecutionSignaledEventAttributes(), len(scheduled) > 0, seen)
		case enumspb.EVENT_TYPE_TIMER_FIRED:
			seen["timer fired"] = true
		case enumspb.EVENT_TYPE_TIMER_CANCELED:
			seen["timer cancelled"] = true
		case enumspb.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
			seen["state written"] = true
		case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
			seen["completed"] = true
		case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED:
			seen["cancelled"] = true
		default:
		}
	}
}

func signalShapes(attributes *historypb.WorkflowExecutionSignaledEventAttributes, delivering bool, seen map[string]bool) {
	seen["signal "+attributes.GetSignalName()] = true
	payloads := attributes.GetInput().GetPayloads()
	empty := len(payloads) == 0 || string(payloads[0].GetMetadata()["encoding"]) == converter.MetadataEncodingNil
	seen["signal without payload"] = seen["signal without payload"] || empty
	if !empty {
		var object map[string]any
		unread := converter.GetDefaultDataConverter().FromPayload(payloads[0], &object) != nil
		seen["signal that cannot be read"] = seen["signal that cannot be read"] || unread
	}
	seen["signal while Deliver runs"] = seen["signal while Deliver runs"] || delivering
}

// decodePayloads reads the first payload; what does not fit is left out.
func decodePayloads[T any](payloads *commonpb.Payloads) (value T) {
	if len(payloads.GetPayloads()) > 0 {
		_ = converter.GetDefaultDataConverter().FromPayload(payloads.GetPayloads()[0], &value)
	}
	return value
}

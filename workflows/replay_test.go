package workflows

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"postroad/contract"
)

// TestReplay replays recorded histories: a change that breaks one would break
// runs that are open. They are written by the tests of package worker (flag
// -record) and, once there is a release, come from its commit.
func TestReplay(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no histories: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			opened, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer opened.Close()
			history, err := client.HistoryFromJSON(opened, client.HistoryJSONOptions{})
			if err != nil {
				t.Fatal(err)
			}
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
		})
	}
}

package main_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	querypb "go.temporal.io/api/query/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"postroad/contract"
	"postroad/internal/testkit"
)

// metadataQuery is what the Temporal UI asks a run for its current details.
const metadataQuery = "__temporal_workflow_metadata"

func describe(t *testing.T, temporal client.Client, subscriber string) *workflowpb.WorkflowExecutionInfo {
	t.Helper()
	run, err := temporal.DescribeWorkflowExecution(t.Context(), contract.SubscriberWorkflowID(subscriber), "")
	if err != nil {
		t.Fatalf("describe the run of %s: %v", subscriber, err)
	}
	return run.GetWorkflowExecutionInfo()
}

// canary marks a value that must not be seen; the same length for all, and
// nothing that any encoding would change.
func canary(what string) string { return fmt.Sprintf("canary0%s0%016d", what, 7) }

// TestNothingSecretInTemporal puts marked values into all that is private,
// delivers with every kind of failure, and looks for the marks in all that
// Temporal knows.
func TestNothingSecretInTemporal(t *testing.T) {
	t.Parallel()
	secret := []byte(canary("signing") + "-padded-out")
	hidden := map[string]string{
		"signing secret": string(secret), "bearer token": canary("token"), "header value": canary("header"), "URL path": canary("path"), "URL query": canary("query"),
		"record key": canary("key"), "data": canary("data"), "response body": canary("response"), "response header": canary("answer"),
		"password": canary("password"), "user": canary("user"), "idempotency key": canary("idempotency"), "record URL": canary("record"),
	}
	failures := []testkit.Answer{
		{Status: 500, Body: hidden["response body"], Header: http.Header{"X-Reason": {hidden["response header"]}}},
		{Status: 429, Body: hidden["response body"], Header: http.Header{"Retry-After": {"1"}}},
		{Status: 429, Header: http.Header{"Retry-After": {hidden["response header"]}}},
		{Status: 302, Header: http.Header{"Location": {"http://127.0.0.1/" + hidden["response header"]}}},
		{Drop: true},
		{Reset: true},
		{Raw: hidden["response body"]},
		{DropAfterHeaders: true, Body: hidden["response body"]},
		{Hang: 1100 * time.Millisecond},
		{Raw: "HTTP/1.1 " + hidden["response body"] + " x\r\n\r\n"},
	}
	script := func(n int, _ *testkit.Request) testkit.Answer {
		if n%2 == 0 && n/2 <= len(failures) {
			return failures[n/2-1]
		}
		return testkit.Answer{Body: hidden["response body"]}
	}
	const total = 12
	var events [][]byte
	for i := range total {
		events = append(events, encode(t, map[string]any{
			"resourceName": "Property", "resourceRecordKey": fmt.Sprint(hidden["record key"], i), "resourceRecordUrl": "https://example.com/" + hidden["record URL"],
			"idempotencyKey": fmt.Sprint(hidden["idempotency key"], i), "data": map[string]string{"x": hidden["data"]},
		}))
	}
	roads := map[string]map[string]any{
		"secret-bearer": {"auth": map[string]any{"type": "bearer", "token": hidden["bearer token"]}, "signing": map[string]any{"secret": "whsec_" + base64.StdEncoding.EncodeToString(secret)}},
		"secret-basic":  {"auth": map[string]any{"type": "basic", "username": hidden["user"], "password": hidden["password"]}, "format": "raw", "batchSize": 4},
		"secret-down":   {"auth": map[string]any{"type": "header", "name": "X-Key", "value": hidden["bearer token"]}},
	}
	temporal := sharedTemporal(t)
	t.Run("deliver", func(t *testing.T) {
		for name, settings := range roads {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r := newRoad(t, sharedAPI(t), name, script, map[string]any{"retry": map[string]any{"schedule": []string{"50ms"}}})
				settings["endpoint"] = map[string]any{
					"url":     r.consumer.URL() + "/" + hidden["URL path"] + "?q=" + hidden["URL query"],
					"timeout": "1s", "headers": map[string]string{"X-Extra": hidden["header value"]},
				}
				r.call(http.MethodPatch, "/v1/subscribers/"+name, settings, nil)
				down := name == "secret-down"
				if down {
					r.consumer.Close() // nobody listens there any more
				}
				r.publish(events)
				if down {
					r.awaitStatus(waitMax, "failing", func(s roadStatus) bool { return s.LastError != "" })
				} else {
					r.awaitCursor(waitMax, total)
				}
				signalThrough(t, temporal, name, contract.SignalPause, contract.PauseSignal{Reason: "maintenance"})
				r.awaitPaused()
			})
		}
	})

	known := everythingOfTemporal(t, temporal)
	if len(known) < len(roads) || !contains(known, "secret-bearer") || !contains(known, "maintenance") {
		t.Fatalf("the search finds too little in %d documents to mean anything", len(known))
	}
	for what, value := range hidden {
		for _, form := range formsOf(value) {
			for name, document := range known {
				if at := bytes.Index(document, []byte(form)); at >= 0 {
					t.Errorf("the %s stands in %s: %q", what, name, document[max(0, at-80):min(len(document), at+120)])
				}
			}
		}
	}
}

func contains(documents map[string][]byte, text string) bool {
	for _, document := range documents {
		if bytes.Contains(document, []byte(text)) {
			return true
		}
	}
	return false
}

// formsOf are a text as it is and as it stands within base64, whatever comes
// before it.
func formsOf(text string) []string {
	forms := []string{text}
	for shift := range 3 {
		encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + text))
		// The first and the last characters depend on what surrounds the text.
		forms = append(forms, strings.TrimRight(encoded, "=")[4:len(encoded)-4])
	}
	return forms
}

// everythingOfTemporal are all histories, descriptions and current details, as
// bytes and as text, and the server's own files.
func everythingOfTemporal(t *testing.T, temporal client.Client) map[string][]byte {
	t.Helper()
	known := map[string][]byte{}
	add := func(name string, message proto.Message) {
		raw, err := proto.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		known[name] = append(append(known[name], raw...), prototext.Format(message)...)
	}
	runs, err := temporal.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{PageSize: 1000})
	if err != nil {
		t.Fatalf("list the runs: %v", err)
	}
	for _, run := range runs.GetExecutions() {
		id, runID := run.GetExecution().GetWorkflowId(), run.GetExecution().GetRunId()
		add("the list, "+id, run)
		described, err := temporal.DescribeWorkflowExecution(t.Context(), id, runID)
		if err != nil {
			t.Fatalf("describe %s: %v", id, err)
		}
		add("the description of "+id, described)
		pages := temporal.GetWorkflowHistory(t.Context(), id, runID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for pages.HasNext() {
			event, err := pages.Next()
			if err != nil {
				t.Fatalf("read the history of %s: %v", id, err)
			}
			add("the history of "+id, event)
		}
		if run.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING && strings.Contains(id, ":secret-") {
			known["the details of "+id] = currentDetails(t, temporal, id, runID)
		}
	}
	files, err := filepath.Glob(filepath.Join(stack(t), "temporal*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("Temporal's files: %v, %v", files, err)
	}
	for _, file := range files {
		if known[file], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	return known
}

func currentDetails(t *testing.T, temporal client.Client, id, runID string) []byte {
	t.Helper()
	answer, err := temporal.WorkflowService().QueryWorkflow(t.Context(), &workflowservice.QueryWorkflowRequest{
		Namespace: contract.Namespace, Execution: &commonpb.WorkflowExecution{WorkflowId: id, RunId: runID},
		Query: &querypb.WorkflowQuery{QueryType: metadataQuery},
	})
	if err != nil {
		t.Fatalf("ask %s for its details: %v", id, err)
	}
	return []byte(prototext.Format(answer))
}

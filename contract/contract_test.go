package contract_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postroad/contract"
)

// result is a DeliverResult with every field set.
var result = contract.DeliverResult{
	Outcome: contract.OutcomeBackoff, RemainingMillis: 60_000, Generation: 7, State: contract.StateWaiting,
	Reason: "HTTP 429 from the consumer; resumes 14:02:10 UTC", Summary: "Retry-After 60 s, HTTP 429",
	Feed: "default", Delivered: 12, Attributes: true,
}

// golden is the JSON that open and archived histories hold. A line may gain
// members at its end; it never loses or changes one.
var golden = []struct {
	full, empty any
	want        string
}{
	{
		contract.SubscriberInput{Subscriber: "acme", Carried: &contract.Carried{Controls: 3, WokenGeneration: 6, Last: &result, State: contract.StateWaiting}},
		contract.SubscriberInput{},
		`{"subscriber":"acme","carried":{"controls":3,"wokenGeneration":6,"last":{"outcome":"backoff","remainingMillis":60000,"generation":7,"state":"waiting","reason":"HTTP 429 from the consumer; resumes 14:02:10 UTC","summary":"Retry-After 60 s, HTTP 429","feed":"default","delivered":12,"attributes":true},"state":"waiting"}} {"subscriber":""}`,
	},
	{contract.Carried{Controls: 3, WokenGeneration: 6, Last: &contract.DeliverResult{Outcome: contract.OutcomeHalted}, State: contract.StateHalted}, contract.Carried{}, `{"controls":3,"wokenGeneration":6,"last":{"outcome":"halted"},"state":"halted"} {}`},
	{contract.WakeSignal{Generation: 7}, contract.WakeSignal{}, `{"generation":7} {}`},
	{contract.PauseSignal{Reason: "maintenance", Until: "2030-01-01T00:00:00Z"}, contract.PauseSignal{}, `{"reason":"maintenance","until":"2030-01-01T00:00:00Z"} {}`},
	{contract.SeekSignal{Sequence: new(int64(5)), Time: "2030-01-02T00:00:00Z", To: contract.SeekBeginning}, contract.SeekSignal{}, `{"sequence":5,"time":"2030-01-02T00:00:00Z","to":"beginning"} {}`},
	{
		contract.ReplaySignal{
			FromSequence: new(int64(6)), ToSequence: new(int64(7)), FromTime: "2030-01-03T00:00:00Z", ToTime: "2030-01-04T00:00:00Z",
			ResourceNames: []string{"Property"}, Missed: true,
		},
		contract.ReplaySignal{},
		`{"fromSequence":6,"toSequence":7,"fromTime":"2030-01-03T00:00:00Z","toTime":"2030-01-04T00:00:00Z","resourceNames":["Property"],"missed":true} {}`,
	},
	{contract.DeliverInput{Subscriber: "acme"}, contract.DeliverInput{}, `{"subscriber":"acme"} {"subscriber":""}`},
	{
		result,
		contract.DeliverResult{},
		`{"outcome":"backoff","remainingMillis":60000,"generation":7,"state":"waiting","reason":"HTTP 429 from the consumer; resumes 14:02:10 UTC","summary":"Retry-After 60 s, HTTP 429","feed":"default","delivered":12,"attributes":true} {"outcome":""}`,
	},
	{
		contract.ApplyInput{
			Subscriber: "acme", RequestID: "subscriber:acme/run/1", Kind: contract.ControlPause, Reason: "maintenance", Until: "2030-01-01T00:00:00Z",
			Sequence: new(int64(5)), Time: "2030-01-02T00:00:00Z", To: contract.SeekNow, FromSequence: new(int64(6)), ToSequence: new(int64(7)),
			FromTime: "2030-01-03T00:00:00Z", ToTime: "2030-01-04T00:00:00Z", ResourceNames: []string{"Property"}, Missed: true,
		},
		contract.ApplyInput{},
		`{"subscriber":"acme","requestId":"subscriber:acme/run/1","kind":"pause","reason":"maintenance","until":"2030-01-01T00:00:00Z","sequence":5,"time":"2030-01-02T00:00:00Z","to":"now","fromSequence":6,"toSequence":7,"fromTime":"2030-01-03T00:00:00Z","toTime":"2030-01-04T00:00:00Z","resourceNames":["Property"],"missed":true} {"subscriber":"","requestId":"","kind":""}`,
	},
	{contract.ApplyResult{Version: 9, Gone: true, Refused: "until is past"}, contract.ApplyResult{}, `{"version":9,"gone":true,"refused":"until is past"} {}`},
}

func TestPayloads(t *testing.T) {
	t.Parallel()
	for _, tt := range golden {
		typ := reflect.TypeOf(tt.full)
		t.Run(typ.Name(), func(t *testing.T) {
			t.Parallel()
			requireAllSet(t, reflect.ValueOf(tt.full))
			full, empty, ok := strings.Cut(tt.want, "} {")
			if !ok {
				t.Fatalf("golden line %q is not two objects", tt.want)
			}
			full, empty = full+"}", "{"+empty
			if diff := cmp.Diff(full, encode(t, tt.full)); diff != "" {
				t.Errorf("with every member (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(empty, encode(t, tt.empty)); diff != "" {
				t.Errorf("with none (-want +got):\n%s", diff)
			}
			read := reflect.New(typ)
			if err := json.Unmarshal([]byte(full), read.Interface()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.full, read.Elem().Interface()); diff != "" {
				t.Errorf("read back (-want +got):\n%s", diff)
			}
			// What a later version adds must not break this one.
			later := strings.Replace(full, "{", `{"ofALaterVersion":[1],`, 1)
			if err := json.Unmarshal([]byte(later), read.Interface()); err != nil {
				t.Errorf("with a member of a later version: %v", err)
			}
		})
	}
}

// requireAllSet fails if a field is unset: a field added later must enter the
// golden line.
func requireAllSet(t *testing.T, v reflect.Value) {
	t.Helper()
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("%s.%s is not in the golden line", v.Type().Name(), v.Type().Field(i).Name)
		}
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestNames pins the words that histories, queues and people's scripts hold.
func TestNames(t *testing.T) {
	t.Parallel()
	got := strings.Join([]string{
		contract.Namespace, contract.TaskQueue, contract.ControlTaskQueue, contract.SubscriberWorkflow,
		contract.DeliverActivity, contract.ApplyActivity,
		contract.SignalPause, contract.SignalResume, contract.SignalWake, contract.SignalStop, contract.SignalSeek, contract.SignalReplay,
		contract.AttributeFeed, contract.AttributeState,
		string(contract.OutcomeMore), string(contract.OutcomeBackoff), string(contract.OutcomePaused), string(contract.OutcomeHalted),
		string(contract.OutcomeParked), string(contract.OutcomeGone), string(contract.OutcomeFenced), string(contract.OutcomeInterrupted),
		contract.StateRunning, contract.StateWaiting, contract.StateRetrying, contract.StatePaused, contract.StateHalted, contract.StateDisabled, contract.StatePull,
		contract.ControlPause, contract.ControlResume, contract.ControlConfigure, contract.ControlDelete, contract.ControlSeek, contract.ControlReplay,
		contract.SeekBeginning, contract.SeekNow,
	}, " ")
	const want = "postroad postroad postroad-control Subscriber Deliver Apply pause resume wake stop seek replay PostroadFeed PostroadState " +
		"more backoff paused halted parked gone fenced interrupted running waiting retrying paused halted disabled pull " +
		"pause resume configure delete seek replay beginning now"
	if got != want {
		t.Errorf("names\n%s, want\n%s", got, want)
	}
}

func TestSubscriberWorkflowID(t *testing.T) {
	t.Parallel()
	if got := contract.SubscriberWorkflowID("acme"); got != "subscriber:acme" {
		t.Errorf("workflow ID %q", got)
	}
	for workflowID, want := range map[string]string{"subscriber:acme": "acme", "subscriber:": "", "acme": "", "replay:acme": ""} {
		id, ok := contract.SubscriberOfWorkflowID(workflowID)
		if (id != want && ok) || (ok != strings.HasPrefix(workflowID, "subscriber:")) {
			t.Errorf("subscriber of %q: %q, %t", workflowID, id, ok)
		}
	}
}

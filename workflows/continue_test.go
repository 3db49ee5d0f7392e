package workflows

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/mock"
	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"postroad/contract"
)

func TestSubscriberContinuesAsNew(t *testing.T) {
	t.Parallel()
	const s = time.Second
	parked := contract.DeliverResult{Outcome: contract.OutcomeParked, Generation: 7, Reason: "Caught up.", State: contract.StateRunning, Attributes: true}
	waiting := contract.DeliverResult{Outcome: contract.OutcomeBackoff, RemainingMillis: 60_000}
	more := contract.DeliverResult{Outcome: contract.OutcomeMore, Delivered: 1}
	tests := map[string]struct {
		length    int
		suggested bool
		calls     []call
		events    []event
		want      *contract.Carried // nil: it does not
		delivers  int
	}{
		"a short history stays": {
			length: 500, calls: []call{{s, parked}}, delivers: 1,
		},
		"idle on a long history": {
			length: 501, calls: []call{{s, parked}}, delivers: 1,
			want: &contract.Carried{Last: &parked, State: contract.StateRunning},
		},
		"waiting on a long history stays": {
			length: 501, calls: []call{{s, waiting}, {0, resting(contract.OutcomeGone)}}, delivers: 2,
		},
		"waiting when suggested looks at the row again": {
			suggested: true, calls: []call{{s, waiting}}, delivers: 1, want: &contract.Carried{},
		},
		"busy when suggested": {
			suggested: true, calls: []call{{s, more}}, delivers: 1, want: &contract.Carried{},
		},
		"not before the controls of signals are applied": {
			suggested: true, calls: []call{{10 * s, parked}}, delivers: 2,
			events: []event{{9500 * time.Millisecond, contract.SignalPause, nil}, {9500 * time.Millisecond, contract.SignalResume, nil}},
			want:   &contract.Carried{Controls: 2, State: contract.StateRunning},
		},
		"not with Deliver in flight, and with nothing lost": {
			suggested: true, calls: []call{{10 * s, parked}}, delivers: 1,
			events: []event{{2 * s, contract.SignalPause, nil}, {2 * s, contract.SignalResume, nil}, wake(3*s, 6)},
			want:   &contract.Carried{Controls: 2, WokenGeneration: 6, State: contract.StateRunning},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.OnUpsertTypedSearchAttributes(mock.Anything).Return(nil)
			b.delivers(tt.calls...)
			b.applies(s)
			b.signals(tt.events...)
			// The first task starts Deliver, whatever the history; the rest of
			// the run sees the one of the case.
			b.RegisterDelayedCallback(func() {
				b.SetCurrentHistoryLength(tt.length)
				b.SetContinueAsNewSuggested(tt.suggested)
			}, s/10)
			err := b.run(5*time.Minute, acme)
			var continued *workflow.ContinueAsNewError
			if got := errors.As(err, &continued); got != (tt.want != nil) {
				t.Fatalf("continued as new: %t (%v)", got, err)
			}
			if len(b.trace.Delivers) != tt.delivers {
				t.Errorf("Deliver ran %d times, want %d", len(b.trace.Delivers), tt.delivers)
			}
			if tt.want == nil {
				return
			}
			var in contract.SubscriberInput
			if err := converter.GetDefaultDataConverter().FromPayloads(continued.Input, &in); err != nil {
				t.Fatal(err)
			}
			want := contract.SubscriberInput{Subscriber: "acme", Carried: tt.want}
			if diff := cmp.Diff(want, in); diff != "" {
				t.Errorf("the successor's input (-want +got):\n%s", diff)
			}
			if continued.WorkflowType.Name != contract.SubscriberWorkflow {
				t.Errorf("continued as %q", continued.WorkflowType.Name)
			}
			if applied := len(b.trace.Applies); applied != int(tt.want.Controls) {
				t.Errorf("%d controls applied before, want %d", applied, tt.want.Controls)
			}
		})
	}
}

func TestSubscriberSuccessor(t *testing.T) {
	t.Parallel()
	const s = time.Second
	last := &contract.DeliverResult{Outcome: contract.OutcomeParked, Generation: 7, Reason: "Caught up."}
	for name, tt := range map[string]struct {
		carried contract.Carried
		events  []event
		want    []time.Duration
	}{
		"rests on the same parking": {
			carried: contract.Carried{Last: last, WokenGeneration: 6}, events: []event{wake(10*s, 6), wake(20*s, 7)}, want: []time.Duration{20 * s},
		},
		"looks at the row at once otherwise": {
			carried: contract.Carried{WokenGeneration: 6}, want: []time.Duration{0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.delivers(call{0, resting(contract.OutcomeHalted)})
			b.signals(tt.events...)
			if tt.carried.Last != nil {
				b.RegisterDelayedCallback(func() { wantDetails(t, b, "Caught up.") }, s)
			}
			if err := b.run(time.Minute, contract.SubscriberInput{Subscriber: "acme", Carried: &tt.carried}); err == nil {
				t.Fatal("the run completed")
			}
			if diff := cmp.Diff(tt.want, b.trace.Delivers); diff != "" {
				t.Errorf("Deliver's starts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSubscriberShowsItself(t *testing.T) {
	t.Parallel()
	const s = time.Second
	b := setup(t)
	show := func(o contract.Outcome, state, reason string, remaining time.Duration) call {
		return call{5 * s, contract.DeliverResult{
			Outcome: o, Generation: 7, RemainingMillis: remaining.Milliseconds(),
			State: state, Reason: reason, Feed: "default", Attributes: true,
		}}
	}
	b.delivers(
		show(contract.OutcomeParked, contract.StateRunning, "Caught up.", 0),
		show(contract.OutcomeParked, contract.StateRunning, "Caught up.", 0),
		show(contract.OutcomeBackoff, contract.StateWaiting, "HTTP 429 from the consumer.", 60*s),
		call{5 * s, contract.DeliverResult{Outcome: contract.OutcomeHalted, State: contract.StateHalted}},
	)
	var upserts []string
	b.OnUpsertTypedSearchAttributes(mock.MatchedBy(func(set temporal.SearchAttributes) bool {
		state, _ := set.GetKeyword(temporal.NewSearchAttributeKeyKeyword(contract.AttributeState))
		feed, _ := set.GetKeyword(temporal.NewSearchAttributeKeyKeyword(contract.AttributeFeed))
		upserts = append(upserts, feed+" "+state)
		return true
	})).Return(nil)
	b.signals(wake(10*s, 7), wake(20*s, 7))
	for at, want := range map[time.Duration]string{
		1 * s: "Delivering.", 6 * s: "Caught up.", 12 * s: "Delivering.", 26 * s: "HTTP 429 from the consumer.",
		110 * s: "Halted until it is resumed.", // it says nothing itself, and the cluster has no attributes then
	} {
		b.RegisterDelayedCallback(func() { wantDetails(t, b, want) }, at)
	}
	if err := b.run(5*time.Minute, acme); err == nil {
		t.Fatal("the run completed")
	}
	if diff := cmp.Diff([]string{"default running", "default waiting"}, upserts); diff != "" {
		t.Errorf("search attributes written (-want +got):\n%s", diff)
	}
}

func wantDetails(t *testing.T, b *bench, want string) {
	t.Helper()
	value, err := b.QueryWorkflow("__temporal_workflow_metadata")
	if err != nil {
		t.Errorf("query details: %v", err)
		return
	}
	var metadata sdkpb.WorkflowMetadata
	if err := value.Get(&metadata); err != nil {
		t.Errorf("decode details: %v", err)
	}
	if got := strings.TrimSpace(metadata.GetCurrentDetails()); got != want {
		t.Errorf("current details %q, want %q", got, want)
	}
}

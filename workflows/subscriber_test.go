package workflows

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/mock"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"postroad/contract"
)

// call is one run of Deliver or Apply as a test scripts it.
type call struct {
	takes  time.Duration
	result contract.DeliverResult
}

// event is a signal at a time after the start; raw is sent as it stands.
type event struct {
	at      time.Duration
	signal  string
	payload any
}

// trace is what a run did, times from its start.
type trace struct {
	Delivers []time.Duration
	Applies  []contract.ApplyInput
	AppliedAt,
	Timers []time.Duration
	TimersCancelled int
}

type bench struct {
	*testsuite.TestWorkflowEnvironment
	mu    sync.Mutex
	start time.Time
	trace trace
}

const workflowID = "subscriber:acme"

func setup(t *testing.T) *bench {
	t.Helper()
	b := &bench{TestWorkflowEnvironment: new(testsuite.WorkflowTestSuite).NewTestWorkflowEnvironment()}
	b.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{Interceptor()}})
	b.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: workflowID})
	b.RegisterWorkflowWithOptions(Subscriber, workflow.RegisterOptions{Name: contract.SubscriberWorkflow})
	b.RegisterActivityWithOptions(func(context.Context, contract.DeliverInput) (contract.DeliverResult, error) {
		panic("not scripted")
	}, activity.RegisterOptions{Name: contract.DeliverActivity})
	b.RegisterActivityWithOptions(func(context.Context, contract.ApplyInput) (contract.ApplyResult, error) {
		panic("not scripted")
	}, activity.RegisterOptions{Name: contract.ApplyActivity})
	b.start = b.Now()
	b.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, args converter.EncodedValues) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch at := b.Now().Sub(b.start); info.ActivityType.Name {
		case contract.DeliverActivity:
			b.trace.Delivers = append(b.trace.Delivers, at)
		case contract.ApplyActivity:
			var in contract.ApplyInput
			if err := args.Get(&in); err != nil {
				t.Errorf("Apply's argument: %v", err)
			}
			b.trace.Applies = append(b.trace.Applies, in)
			b.trace.AppliedAt = append(b.trace.AppliedAt, at)
		}
	})
	b.SetOnTimerScheduledListener(func(_ string, d time.Duration) {
		b.trace.Timers = append(b.trace.Timers, d)
	})
	b.SetOnTimerCanceledListener(func(string) { b.trace.TimersCancelled++ })
	return b
}

// delivers scripts Deliver's runs; the last one's result is repeated.
func (b *bench) delivers(calls ...call) {
	for i, c := range calls {
		m := b.OnActivity(contract.DeliverActivity, mock.Anything, contract.DeliverInput{Subscriber: "acme"}).
			After(c.takes).Return(c.result, nil)
		if i < len(calls)-1 {
			m.Once()
		}
	}
}

func (b *bench) applies(takes time.Duration) {
	b.OnActivity(contract.ApplyActivity, mock.Anything, mock.Anything).After(takes).Return(contract.ApplyResult{Version: 1}, nil)
}

func (b *bench) signals(events ...event) {
	for i, e := range events {
		last := i == len(events)-1 || events[i+1].at != e.at
		b.RegisterDelayedCallback(func() {
			if last {
				b.SignalWorkflow(e.signal, e.payload)
			} else { // the next one arrives within the same workflow task
				b.SignalWorkflowSkippingWorkflowTask(e.signal, e.payload)
			}
		}, e.at)
	}
}

// run runs the workflow until it ends or until is over.
func (b *bench) run(until time.Duration, in contract.SubscriberInput) error {
	b.RegisterDelayedCallback(b.CancelWorkflow, until)
	b.ExecuteWorkflow(contract.SubscriberWorkflow, in)
	return b.GetWorkflowError()
}

var acme = contract.SubscriberInput{Subscriber: "acme"}

func wake(at time.Duration, generation int64) event {
	return event{at, contract.SignalWake, contract.WakeSignal{Generation: generation}}
}

func resting(o contract.Outcome) contract.DeliverResult { return contract.DeliverResult{Outcome: o} }

func TestSubscriberRests(t *testing.T) {
	t.Parallel()
	const s = time.Second
	parked := func(generation int64) contract.DeliverResult {
		return contract.DeliverResult{Outcome: contract.OutcomeParked, Generation: generation}
	}
	lasting := func(o contract.Outcome, d time.Duration) contract.DeliverResult {
		return contract.DeliverResult{Outcome: o, RemainingMillis: d.Milliseconds()}
	}
	halted := call{0, resting(contract.OutcomeHalted)}
	tests := map[string]struct {
		calls   []call
		events  []event
		want    []time.Duration // Deliver's starts
		timers  []time.Duration
		cancels int
	}{
		"backoff ends by its timer": {
			calls: []call{{0, lasting(contract.OutcomeBackoff, 60*s)}, halted},
			want:  []time.Duration{0, 60 * s}, timers: []time.Duration{60 * s},
		},
		"backoff ends early by a plain wake and its timer is cancelled": {
			calls:  []call{{0, lasting(contract.OutcomeBackoff, 60*s)}, halted},
			events: []event{wake(10*s, 0)},
			want:   []time.Duration{0, 10 * s}, timers: []time.Duration{60 * s}, cancels: 1,
		},
		"parked rests without a timer until its wake": {
			calls:  []call{{0, parked(7)}, halted},
			events: []event{wake(10*s, 7)},
			want:   []time.Duration{0, 10 * s},
		},
		"parked ignores an earlier parking's wake": {
			calls:  []call{{0, parked(7)}, halted},
			events: []event{wake(10*s, 6)},
			want:   []time.Duration{0},
		},
		"parked follows a later parking's wake": {
			calls:  []call{{0, parked(7)}, halted},
			events: []event{wake(10*s, 8)},
			want:   []time.Duration{0, 10 * s},
		},
		"parked until ends by its timer": {
			calls: []call{{0, contract.DeliverResult{Outcome: contract.OutcomeParked, Generation: 7, RemainingMillis: 30_000}}, halted},
			want:  []time.Duration{0, 30 * s}, timers: []time.Duration{30 * s},
		},
		"parked until ends early by its wake, once, and its timer is cancelled": {
			calls:  []call{{0, contract.DeliverResult{Outcome: contract.OutcomeParked, Generation: 7, RemainingMillis: 30_000}}, halted},
			events: []event{wake(10*s, 7), wake(10*s, 7)},
			want:   []time.Duration{0, 10 * s}, timers: []time.Duration{30 * s}, cancels: 1,
		},
		"parked until ignores an earlier parking's wake": {
			calls:  []call{{0, contract.DeliverResult{Outcome: contract.OutcomeParked, Generation: 7, RemainingMillis: 30_000}}, halted},
			events: []event{wake(10*s, 6)},
			want:   []time.Duration{0, 30 * s}, timers: []time.Duration{30 * s},
		},
		"parked until, woken while Deliver returned, sets no timer": {
			calls:  []call{{10 * s, contract.DeliverResult{Outcome: contract.OutcomeParked, Generation: 7, RemainingMillis: 30_000}}, halted},
			events: []event{wake(5*s, 7)},
			want:   []time.Duration{0, 10 * s},
		},
		"parked until again and again": {
			calls: []call{
				{0, contract.DeliverResult{Outcome: contract.OutcomeParked, Generation: 7, RemainingMillis: 30_000}},
				{s, contract.DeliverResult{Outcome: contract.OutcomeParked, Generation: 8, RemainingMillis: 20_000}},
				halted,
			},
			events: []event{wake(35*s, 7)}, // late: its parking is over
			want:   []time.Duration{0, 30 * s, 51 * s}, timers: []time.Duration{30 * s, 20 * s},
		},
		"a wake before the parking is known is remembered": {
			calls:  []call{{10 * s, parked(7)}, halted},
			events: []event{wake(5*s, 7)},
			want:   []time.Duration{0, 10 * s},
		},
		"an earlier parking's wake during Deliver is not remembered": {
			calls:  []call{{10 * s, parked(7)}, halted},
			events: []event{wake(5*s, 6)},
			want:   []time.Duration{0},
		},
		"a plain wake during Deliver makes one more look": {
			calls:  []call{{10 * s, lasting(contract.OutcomeBackoff, 60*s)}, halted},
			events: []event{wake(5*s, 0), wake(6*s, 0)},
			want:   []time.Duration{0, 10 * s},
		},
		"a wake without a payload is plain": {
			calls:  []call{{0, parked(7)}, halted},
			events: []event{{10 * s, contract.SignalWake, nil}},
			want:   []time.Duration{0, 10 * s},
		},
		"a wake with a broken payload is plain": {
			calls:  []call{{0, parked(7)}, halted},
			events: []event{{10 * s, contract.SignalWake, map[string]any{"generation": "six"}}},
			want:   []time.Duration{0, 10 * s},
		},
		"a wake with a payload of no known encoding is plain": {
			calls:  []call{{0, parked(7)}, halted},
			events: []event{{10 * s, contract.SignalWake, []byte{0xff, 0}}},
			want:   []time.Duration{0, 10 * s},
		},
		"stop makes it look at the row": {
			calls:  []call{{0, parked(7)}, halted},
			events: []event{{10 * s, contract.SignalStop, nil}},
			want:   []time.Duration{0, 10 * s},
		},
		"an unknown signal is ignored": {
			calls:  []call{{0, parked(7)}, halted},
			events: []event{{10 * s, "dance", nil}},
			want:   []time.Duration{0},
		},
		"paused rests without a timer": {
			calls: []call{{0, resting(contract.OutcomePaused)}},
			want:  []time.Duration{0},
		},
		"paused until ends by its timer": {
			calls: []call{{0, lasting(contract.OutcomePaused, 40*s)}, halted},
			want:  []time.Duration{0, 40 * s}, timers: []time.Duration{40 * s},
		},
		"an applied control ends a rest": {
			calls:  []call{{0, resting(contract.OutcomePaused)}, halted},
			events: []event{{10 * s, contract.SignalResume, nil}},
			want:   []time.Duration{0, 11 * s}, // Apply takes a second
		},
		"a control applied during Deliver makes one more look": {
			calls:  []call{{30 * s, resting(contract.OutcomePaused)}, halted},
			events: []event{{10 * s, contract.SignalPause, nil}},
			want:   []time.Duration{0, 30 * s},
		},
		"more runs again at once": {
			calls: []call{{10 * s, contract.DeliverResult{Outcome: contract.OutcomeMore, Delivered: 3}}, halted},
			want:  []time.Duration{0, 10 * s},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.delivers(tt.calls...)
			b.applies(s)
			b.signals(tt.events...)
			if err := b.run(5*time.Minute, acme); err == nil {
				t.Fatal("the run completed")
			}
			if diff := cmp.Diff(tt.want, b.trace.Delivers); diff != "" {
				t.Errorf("Deliver's starts (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.timers, b.trace.Timers); diff != "" {
				t.Errorf("timers (-want +got):\n%s", diff)
			}
			if b.trace.TimersCancelled != tt.cancels {
				t.Errorf("%d timers cancelled, want %d", b.trace.TimersCancelled, tt.cancels)
			}
		})
	}
}

func TestSubscriberTriesAgainSoon(t *testing.T) {
	t.Parallel()
	for _, outcome := range []contract.Outcome{
		contract.OutcomeFenced, contract.OutcomeInterrupted, contract.OutcomeMore, contract.OutcomeBackoff, "of a later version",
	} {
		t.Run(string(outcome), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.delivers(call{0, resting(outcome)}, call{0, resting(outcome)}, call{0, resting(contract.OutcomeHalted)})
			if err := b.run(time.Minute, acme); err == nil {
				t.Fatal("the run completed")
			}
			if len(b.trace.Timers) != 2 {
				t.Fatalf("timers %v, want 2", b.trace.Timers)
			}
			for _, d := range b.trace.Timers {
				if d < 750*time.Millisecond || d > 1250*time.Millisecond {
					t.Errorf("waited %s, want about a second", d)
				}
			}
			if b.trace.Timers[0] == b.trace.Timers[1] {
				t.Errorf("waited %s twice, want jitter", b.trace.Timers[0])
			}
		})
	}
}

// TestSubscriberActivities: a control never waits for a slot that deliveries
// have taken, and a dead worker's Deliver is missed soon. What fails is ours, so
// it is tried until it returns.
func TestSubscriberActivities(t *testing.T) {
	t.Parallel()
	const s = time.Second
	b := setup(t)
	type ran struct {
		Queue              string
		Attempt            int32
		Heartbeat, Timeout time.Duration
	}
	var delivers, applies []ran
	fails := func(runs *[]ran) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			info := activity.GetInfo(ctx)
			b.mu.Lock()
			defer b.mu.Unlock()
			*runs = append(*runs, ran{info.TaskQueue, info.Attempt, info.HeartbeatTimeout, info.StartToCloseTimeout})
			if len(*runs) < 5 {
				return errors.New("PostgreSQL is away")
			}
			return nil
		}
	}
	deliver, apply := fails(&delivers), fails(&applies)
	b.OnActivity(contract.DeliverActivity, mock.Anything, mock.Anything).Return(
		func(ctx context.Context, _ contract.DeliverInput) (contract.DeliverResult, error) {
			return resting(contract.OutcomeHalted), deliver(ctx)
		})
	b.OnActivity(contract.ApplyActivity, mock.Anything, mock.Anything).Return(
		func(ctx context.Context, _ contract.ApplyInput) (contract.ApplyResult, error) {
			return contract.ApplyResult{}, apply(ctx)
		})
	b.signals(event{10 * s, contract.SignalPause, nil})
	if err := b.run(5*time.Minute, acme); err == nil {
		t.Fatal("the run completed")
	}
	var wantDelivers, wantApplies []ran
	for n := range int32(5) {
		wantDelivers = append(wantDelivers, ran{contract.TaskQueue, n + 1, 30 * s, 10 * time.Minute})
		wantApplies = append(wantApplies, ran{contract.ControlTaskQueue, n + 1, 0, 10 * s})
	}
	wantDelivers = append(wantDelivers, ran{contract.TaskQueue, 1, 30 * s, 10 * time.Minute}) // for the control
	if diff := cmp.Diff(wantDelivers, delivers); diff != "" {
		t.Errorf("Deliver (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantApplies, applies); diff != "" {
		t.Errorf("Apply (-want +got):\n%s", diff)
	}
}

// TestDecode: what does not decode as a whole means the plain thing.
func TestDecode(t *testing.T) {
	t.Parallel()
	encode := func(values ...any) *commonpb.Payloads {
		payloads, err := converter.GetDefaultDataConverter().ToPayloads(values...)
		if err != nil {
			t.Fatal(err)
		}
		return payloads
	}
	plain := contract.PauseSignal{}
	for name, tt := range map[string]struct {
		payloads *commonpb.Payloads
		want     contract.PauseSignal
	}{
		"none":               {nil, plain},
		"no values":          {&commonpb.Payloads{}, plain},
		"null":               {encode(nil), plain},
		"another type":       {encode("maintenance"), plain},
		"broken in part":     {encode(map[string]any{"reason": "maintenance", "until": 5}), plain},
		"bytes":              {encode([]byte{0xff, 0}), plain},
		"as it should be":    {encode(contract.PauseSignal{Reason: "maintenance"}), contract.PauseSignal{Reason: "maintenance"}},
		"and something more": {encode(contract.PauseSignal{Reason: "maintenance"}, "more"), contract.PauseSignal{Reason: "maintenance"}},
	} {
		if diff := cmp.Diff(tt.want, decode[contract.PauseSignal](signal{contract.SignalPause, tt.payloads})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestSubscriberControls(t *testing.T) {
	t.Parallel()
	const s = time.Second
	b := setup(t)
	b.delivers(call{time.Minute, resting(contract.OutcomeHalted)})
	b.applies(2 * s)
	reason := string(slices.Repeat([]rune("ä"), 1001))
	b.signals(
		event{10 * s, contract.SignalResume, nil},
		event{10 * s, contract.SignalPause, contract.PauseSignal{Reason: reason, Until: "2030-01-01T00:00:00Z"}},
		event{10 * s, contract.SignalResume, map[string]any{"ignored": true}},
		event{11 * s, contract.SignalPause, json.RawMessage(`{"reason": 5}`)}, // while the first is being applied
		event{12 * s, contract.SignalSeek, contract.SeekSignal{Sequence: new(int64(0))}},
		event{12 * s, contract.SignalSeek, map[string]any{"to": "now", "sequence": "five"}},
		event{12 * s, contract.SignalReplay, nil},
		event{12 * s, contract.SignalReplay, map[string]any{"fromSequence": 6, "resourceNames": []string{}}},
		event{12 * s, contract.SignalReplay, contract.ReplaySignal{
			FromSequence: new(int64(6)), ToSequence: new(int64(7)), FromTime: "2030-01-03T00:00:00Z", ToTime: "2030-01-04T00:00:00Z",
			ResourceNames: []string{"Property"}, Missed: true,
		}},
	)
	carried := contract.SubscriberInput{Subscriber: "acme", Carried: &contract.Carried{Controls: 40}}
	if err := b.run(5*time.Minute, carried); err == nil {
		t.Fatal("the run completed")
	}
	id := func(n string) string { return workflowID + "//" + n } // no first run id in the test environment
	want := []contract.ApplyInput{
		{Subscriber: "acme", RequestID: id("41"), Kind: contract.ControlResume},
		{Subscriber: "acme", RequestID: id("42"), Kind: contract.ControlPause, Reason: reason[:2000], Until: "2030-01-01T00:00:00Z"},
		{Subscriber: "acme", RequestID: id("43"), Kind: contract.ControlResume},
		{Subscriber: "acme", RequestID: id("44"), Kind: contract.ControlPause},
		{Subscriber: "acme", RequestID: id("45"), Kind: contract.ControlSeek, Sequence: new(int64(0))},
		{Subscriber: "acme", RequestID: id("46"), Kind: contract.ControlSeek},
		{Subscriber: "acme", RequestID: id("47"), Kind: contract.ControlReplay},
		{Subscriber: "acme", RequestID: id("48"), Kind: contract.ControlReplay},
		{
			Subscriber: "acme", RequestID: id("49"), Kind: contract.ControlReplay, FromSequence: new(int64(6)), ToSequence: new(int64(7)),
			FromTime: "2030-01-03T00:00:00Z", ToTime: "2030-01-04T00:00:00Z", ResourceNames: []string{"Property"}, Missed: true,
		},
	}
	if diff := cmp.Diff(want, b.trace.Applies); diff != "" {
		t.Errorf("controls in order of arrival (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]time.Duration{10 * s, 12 * s, 14 * s, 16 * s, 18 * s, 20 * s, 22 * s, 24 * s, 26 * s}, b.trace.AppliedAt); diff != "" {
		t.Errorf("Apply's starts, one at a time beside Deliver (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]time.Duration{0, 60 * s}, b.trace.Delivers); diff != "" {
		t.Errorf("Deliver's starts (-want +got):\n%s", diff)
	}
}

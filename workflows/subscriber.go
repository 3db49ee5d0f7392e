package workflows

import (
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"postroad/contract"
)

const (
	// historyEventsIdleMax is the length of history, in events, from which a
	// run with nothing to do continues as new. Beyond it a run continues when
	// the server suggests it, idle or not.
	historyEventsIdleMax = 500
	// reasonCharactersMax bounds the reason kept from a pause signal.
	reasonCharactersMax = 1000
)

// Subscriber drives one subscriber for as long as it exists: it runs Deliver,
// waits for what Deliver's outcome says to wait for, and runs it again. The
// row in PostgreSQL is the truth; a run that is lost is rebuilt from it, so
// the workflow keeps nothing that cannot be lost.
//
// Signals that hold or release the subscriber go through Apply, one after the
// other and beside a running Deliver, which is never cancelled for them.
// Cancelling the run ends the run, after Deliver has drained; the subscription
// goes on in a new one.
func Subscriber(ctx workflow.Context, in contract.SubscriberInput) error {
	s, err := newSubscriber(ctx, in)
	if err != nil {
		return err
	}
	return s.run(ctx)
}

// subscriber is the state of a run. Only the main coroutine touches it.
type subscriber struct {
	id    string
	inbox *inbox

	// controls counts control signals since the first run of the chain; queue
	// holds those that were not yet handed to Apply, in order of arrival.
	controls int64
	queue    []contract.ApplyInput

	// look says that there is a reason to run Deliver that the last start of
	// Deliver came too early to see.
	look bool
	// generation is the last parking's, woken the highest one a wake named.
	generation, woken int64

	// last is what the run rests on; nil while Deliver runs. wait is how long
	// the rest lasts; 0: until a signal ends it.
	last *contract.DeliverResult
	wait time.Duration
	// shortWaits counts waits of a second, to spread them.
	shortWaits int64
	// state is the last value of the search attribute.
	state string

	deliver, apply workflow.Future // nil: not running
	timer          workflow.Future // nil: none
	cancelTimer    workflow.CancelFunc
}

func newSubscriber(ctx workflow.Context, in contract.SubscriberInput) (*subscriber, error) {
	workflowID := workflow.GetInfo(ctx).WorkflowExecution.ID
	id, ok := contract.SubscriberOfWorkflowID(workflowID)
	if !ok || id == "" || (in.Subscriber != "" && in.Subscriber != id) {
		// One ID per subscriber is what keeps it to one run.
		message := fmt.Sprintf("workflow ID %q is not the one of subscriber %q", workflowID, in.Subscriber)
		return nil, temporal.NewNonRetryableApplicationError(message, "InvalidWorkflowID", nil)
	}
	s := &subscriber{id: id, inbox: inboxOf(ctx), look: true}
	if c := in.Carried; c != nil {
		s.controls, s.woken, s.state = c.Controls, c.WokenGeneration, c.State
		if c.Last != nil {
			s.look = false
			s.rest(ctx, *c.Last)
		}
	}
	return s, nil
}

// run takes in what has happened, starts what may start, and waits for the
// next thing to happen.
func (s *subscriber) run(ctx workflow.Context) error {
	for {
		s.takeSignals(ctx)
		s.takeApplied(ctx)
		if s.takeDelivered(ctx) {
			return nil
		}
		s.startApply(ctx)
		if s.mayContinueAsNew(ctx) {
			return s.continueAsNew(ctx)
		}
		if s.look && s.deliver == nil {
			s.startDeliver(ctx)
		}
		if s.wait > 0 && s.timer == nil {
			s.startTimer(ctx)
		}
		if err := workflow.Await(ctx, s.happened); err != nil {
			return s.leave(ctx, err)
		}
		if s.timer != nil && s.timer.IsReady() {
			s.look = true
		}
	}
}

// happened reports whether there is something to take in. Whatever could be
// started has been started before it is asked.
func (s *subscriber) happened() bool {
	ready := func(f workflow.Future) bool { return f != nil && f.IsReady() }
	return !s.inbox.empty() || ready(s.apply) || ready(s.deliver) || ready(s.timer)
}

// takeSignals changes state by the signals that arrived, in their order.
func (s *subscriber) takeSignals(ctx workflow.Context) {
	for _, signal := range s.inbox.take() {
		switch signal.name {
		case contract.SignalPause:
			pause := decode[contract.PauseSignal](signal)
			s.enqueue(ctx, contract.ApplyInput{
				Kind: contract.ControlPause, Reason: truncate(pause.Reason, reasonCharactersMax), Until: pause.Until,
			})
		case contract.SignalResume:
			s.enqueue(ctx, contract.ApplyInput{Kind: contract.ControlResume})
		case contract.SignalSeek, contract.SignalReplay:
			s.move(ctx, signal)
		case contract.SignalWake:
			s.wake(decode[contract.WakeSignal](signal).Generation)
		case contract.SignalStop:
			s.look = true // the row decides whether this ends the run
		}
	}
}

// move queues a seek or a replay. A payload that cannot be read asks for
// nothing: Apply refuses it and changes nothing.
//
// Runs that began before these signals were known may have one in their
// history, ignored. It stays ignored, as do others in the same run.
func (s *subscriber) move(ctx workflow.Context, received signal) {
	if workflow.GetVersion(ctx, "signal "+received.name, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		workflow.GetLogger(ctx).Warn("signal ignored: an earlier one of that name was, in this run", "subscriber", s.id, "signal", received.name)
		return
	}
	if received.name == contract.SignalSeek {
		seek := decode[contract.SeekSignal](received)
		s.enqueue(ctx, contract.ApplyInput{Kind: contract.ControlSeek, Sequence: seek.Sequence, Time: seek.Time, To: seek.To})
		return
	}
	replay := decode[contract.ReplaySignal](received)
	if replay.ResourceNames != nil && len(replay.ResourceNames) == 0 {
		replay = contract.ReplaySignal{} // none at all is not the same as no choice
	}
	s.enqueue(ctx, contract.ApplyInput{
		Kind: contract.ControlReplay, FromSequence: replay.FromSequence, ToSequence: replay.ToSequence,
		FromTime: replay.FromTime, ToTime: replay.ToTime, ResourceNames: replay.ResourceNames, Missed: replay.Missed,
	})
}

// enqueue queues a control under a request id that no other signal gets: the
// number goes on over continue-as-new, the first run's id keeps a later chain
// of the same workflow ID apart.
func (s *subscriber) enqueue(ctx workflow.Context, in contract.ApplyInput) {
	s.controls++
	info := workflow.GetInfo(ctx)
	in.Subscriber = s.id
	in.RequestID = info.WorkflowExecution.ID + "/" + info.FirstRunID + "/" + strconv.FormatInt(s.controls, 10)
	s.queue = append(s.queue, in)
}

// wake takes a wake signal. A plain one that comes while Deliver runs counts
// too: Deliver may have read the row just before the change that the wake
// announces. One with a generation ends that parking only, and may come before
// the parking is known here. A later parking than the known one proves what is
// known here old (a reset does that), so it counts as well.
func (s *subscriber) wake(generation int64) {
	s.woken = max(s.woken, generation)
	if generation <= 0 || (s.deliver == nil && generation >= s.generation) {
		s.look = true
	}
}

// takeApplied takes in Apply's result. Any applied control makes the run look
// at its row.
func (s *subscriber) takeApplied(ctx workflow.Context) {
	if s.apply == nil || !s.apply.IsReady() {
		return
	}
	var result contract.ApplyResult
	err := s.apply.Get(ctx, &result)
	s.apply = nil
	s.look = true
	switch logger := workflow.GetLogger(ctx); {
	case err != nil:
		logger.Error("control not applied", "subscriber", s.id, "error", err)
	case result.Refused != "":
		logger.Warn("control refused", "subscriber", s.id, "reason", result.Refused)
	}
}

// takeDelivered takes in Deliver's outcome; true ends the run.
func (s *subscriber) takeDelivered(ctx workflow.Context) (gone bool) {
	if s.deliver == nil || !s.deliver.IsReady() {
		return false
	}
	var result contract.DeliverResult
	err := s.deliver.Get(ctx, &result)
	s.deliver = nil
	if err != nil {
		workflow.GetLogger(ctx).Error("delivery not run", "subscriber", s.id, "error", err)
		result = contract.DeliverResult{Outcome: contract.OutcomeInterrupted}
	}
	s.describe(ctx, result)
	switch result.Outcome {
	case contract.OutcomeGone:
		return !s.lookAgain(ctx)
	case contract.OutcomeMore:
		if result.Delivered > 0 {
			s.look = true
			return false
		}
	case contract.OutcomeParked:
		if s.woken >= result.Generation {
			s.look = true // the wake was faster than Deliver's return
		}
	default:
	}
	s.rest(ctx, result)
	return false
}

// lookAgain reports that there is a reason to look at the row once more, although
// it was gone: a wake that came meanwhile may be for a new subscriber of that id.
// A run of a release that did not ask goes on as it began.
func (s *subscriber) lookAgain(ctx workflow.Context) bool {
	return s.look && workflow.GetVersion(ctx, "look again before the end", workflow.DefaultVersion, 1) != workflow.DefaultVersion
}

// rest makes the run wait for what the outcome says.
func (s *subscriber) rest(ctx workflow.Context, result contract.DeliverResult) {
	s.last = &result
	s.wait = s.waitOf(ctx, result)
	if result.Outcome == contract.OutcomeParked {
		s.generation = result.Generation
	}
	workflow.SetCurrentDetails(ctx, detailsOf(result))
}

func (s *subscriber) startDeliver(ctx workflow.Context) {
	s.stopTimer()
	s.look, s.last, s.wait = false, nil, 0
	workflow.SetCurrentDetails(ctx, "Delivering.")
	ctx = workflow.WithActivityOptions(ctx, deliverOptions(s.id))
	s.deliver = workflow.ExecuteActivity(ctx, contract.DeliverActivity, contract.DeliverInput{Subscriber: s.id})
}

// startApply hands the next control to Apply; one at a time keeps their order.
func (s *subscriber) startApply(ctx workflow.Context) {
	if s.apply != nil || len(s.queue) == 0 {
		return
	}
	in := s.queue[0]
	s.queue = s.queue[1:]
	ctx = workflow.WithActivityOptions(ctx, applyOptions(in.Kind))
	s.apply = workflow.ExecuteActivity(ctx, contract.ApplyActivity, in)
}

func (s *subscriber) startTimer(ctx workflow.Context) {
	ctx, s.cancelTimer = workflow.WithCancel(ctx)
	s.timer = workflow.NewTimerWithOptions(ctx, s.wait, workflow.TimerOptions{Summary: summaryOf(*s.last)})
}

func (s *subscriber) stopTimer() {
	if s.timer != nil {
		s.cancelTimer()
		s.timer, s.cancelTimer = nil, nil
	}
}

// mayContinueAsNew reports whether the run can hand over to a successor now,
// and should: nothing is in flight that the successor would not hear of.
func (s *subscriber) mayContinueAsNew(ctx workflow.Context) bool {
	if s.deliver != nil || s.apply != nil || len(s.queue) > 0 || !s.inbox.empty() || !workflow.AllHandlersFinished(ctx) {
		return false
	}
	info := workflow.GetInfo(ctx)
	idle := !s.look && s.wait == 0
	return info.GetContinueAsNewSuggested() || (idle && info.GetCurrentHistoryLength() > historyEventsIdleMax)
}

// continueAsNew hands over. A successor of a run that rests until a signal
// comes rests on the same; any other looks at the row, which knows what
// remains of a wait.
func (s *subscriber) continueAsNew(ctx workflow.Context) error {
	carried := &contract.Carried{Controls: s.controls, WokenGeneration: s.woken, State: s.state}
	if !s.look && s.wait == 0 {
		carried.Last = s.last
	}
	in := contract.SubscriberInput{Subscriber: s.id, Carried: carried}
	return workflow.NewContinueAsNewError(ctx, contract.SubscriberWorkflow, in)
}

// leave ends a cancelled run once Deliver has drained.
func (s *subscriber) leave(ctx workflow.Context, reason error) error {
	if s.deliver != nil {
		if err := s.deliver.Get(ctx, nil); err != nil {
			workflow.GetLogger(ctx).Info("delivery ended by cancellation", "subscriber", s.id, "error", err)
		}
	}
	return reason
}

// truncate returns at most n characters of s.
func truncate(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n])
}

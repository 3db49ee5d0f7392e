// Package contract holds the names, identifiers and payloads that cross
// Temporal: between the API and workflows, between workflows and activities,
// and between people's signals and both.
//
// It is additive only: a field is never renamed, retyped or removed, because
// histories that are open or archived hold the old form. Golden tests pin the
// JSON. No payload carries a secret, a URL path, a record key or a body.
package contract

import "strings"

// Names that Temporal knows.
const (
	// Namespace is the namespace of the embedded stack.
	Namespace = "postroad"
	// TaskQueue runs workflows and Deliver.
	TaskQueue = "postroad"
	// ControlTaskQueue runs Apply, with slots of its own, so that a control
	// never waits behind deliveries.
	ControlTaskQueue = "postroad-control"
	// SubscriberWorkflow is the workflow type of a subscriber.
	SubscriberWorkflow = "Subscriber"
	// DeliverActivity and ApplyActivity are its activities.
	DeliverActivity = "Deliver"
	ApplyActivity   = "Apply"
)

// Signals of the Subscriber workflow. A payload that is missing or does not
// decode means the plain thing. A seek or a replay has none: without a payload
// that says where to, or how much, it is refused and changes nothing.
const (
	SignalPause  = "pause"  // PauseSignal
	SignalResume = "resume" // no payload
	SignalWake   = "wake"   // WakeSignal
	SignalStop   = "stop"   // no payload
	SignalSeek   = "seek"   // SeekSignal
	SignalReplay = "replay" // ReplaySignal
)

// Search attributes, both of type Keyword.
const (
	AttributeFeed  = "PostroadFeed"
	AttributeState = "PostroadState"
)

const subscriberPrefix = "subscriber:"

// SubscriberWorkflowID returns the workflow ID of a subscriber. It holds no
// slash: the frontend's HTTP API could not address it.
func SubscriberWorkflowID(id string) string { return subscriberPrefix + id }

// SubscriberOfWorkflowID returns the subscriber that a workflow ID names.
func SubscriberOfWorkflowID(workflowID string) (id string, ok bool) {
	return strings.CutPrefix(workflowID, subscriberPrefix)
}

// SubscriberInput starts a Subscriber run.
type SubscriberInput struct {
	Subscriber string `json:"subscriber"`
	// Carried passes state over continue-as-new; nil on a fresh start.
	Carried *Carried `json:"carried,omitempty"`
}

// Carried is what a run hands to its successor at continue-as-new.
type Carried struct {
	// Controls counts the control signals seen since the first run, so that
	// each one's request id stays unique.
	Controls int64 `json:"controls,omitempty"`
	// WokenGeneration is the highest generation a wake carried.
	WokenGeneration int64 `json:"wokenGeneration,omitempty"`
	// Last is the outcome the run was resting on; nil: deliver at once.
	Last *DeliverResult `json:"last,omitempty"`
	// State is the search attribute's last value.
	State string `json:"state,omitempty"`
}

// WakeSignal asks the run to look at its row. Generation names the parking it
// ends; 0 is a plain wake.
type WakeSignal struct {
	Generation int64 `json:"generation,omitempty"`
}

// PauseSignal asks for a pause.
type PauseSignal struct {
	// Reason is shown in the status; up to 1,000 characters are kept.
	Reason string `json:"reason,omitempty"`
	// Until is an RFC 3339 time at which the pause ends by itself.
	Until string `json:"until,omitempty"`
}

// SeekSignal asks for another position. It names one target: Sequence, Time or
// To.
type SeekSignal struct {
	// Sequence: the next event sent is the first one above it; 0 or more.
	Sequence *int64 `json:"sequence,omitempty"`
	// Time is an RFC 3339 time: the next event sent is the first one recorded
	// at it or later. It is not in the future.
	Time string `json:"time,omitempty"`
	// To is SeekBeginning or SeekNow.
	To string `json:"to,omitempty"`
}

// Targets of a SeekSignal that are neither a sequence nor a time.
const (
	SeekBeginning = "beginning" // the first event that the feed still has
	SeekNow       = "now"       // the first event published from now on
)

// ReplaySignal asks for events to be sent again: those within the bounds and of
// the resources that it names, at least one of either, or those that were missed.
// Single records are replayed through the API: their keys must not stand in a
// history.
type ReplaySignal struct {
	// FromSequence and ToSequence are the first and the last sequence.
	FromSequence *int64 `json:"fromSequence,omitempty"`
	ToSequence   *int64 `json:"toSequence,omitempty"`
	// FromTime and ToTime are RFC 3339 times: the events recorded from the one to
	// the other, both inclusive.
	FromTime string `json:"fromTime,omitempty"`
	ToTime   string `json:"toTime,omitempty"`
	// ResourceNames leaves out the events of all other resources; none: all.
	ResourceNames []string `json:"resourceNames,omitempty"`
	// Missed selects the dead letters.
	Missed bool `json:"missed,omitempty"`
}

// DeliverInput is Deliver's argument.
type DeliverInput struct {
	Subscriber string `json:"subscriber"`
}

// Outcome says why Deliver returned and so what the workflow waits for.
type Outcome string

// Outcomes of Deliver.
const (
	// OutcomeMore: the run's time budget is used up; deliver again.
	OutcomeMore Outcome = "more"
	// OutcomeBackoff: nothing may be sent for RemainingMillis.
	OutcomeBackoff Outcome = "backoff"
	// OutcomePaused: paused, for RemainingMillis or, if 0, until resumed; also where
	// the consumer fetches, until it is to be sent again.
	OutcomePaused Outcome = "paused"
	// OutcomeHalted: halted or disabled until a person resumes it.
	OutcomeHalted Outcome = "halted"
	// OutcomeParked: nothing to send; a wake with Generation ends it, and so
	// does RemainingMillis if above 0.
	OutcomeParked Outcome = "parked"
	// OutcomeGone: the subscriber does not exist any more.
	OutcomeGone Outcome = "gone"
	// OutcomeFenced: another run took the lease.
	OutcomeFenced Outcome = "fenced"
	// OutcomeInterrupted: the worker stops or lost Temporal.
	OutcomeInterrupted Outcome = "interrupted"
)

// State classes of the search attribute PostroadState. Idle and active are one
// class, so that parking and waking write no attribute.
const (
	StateRunning  = "running"
	StateWaiting  = "waiting"
	StateRetrying = "retrying"
	StatePaused   = "paused"
	StateHalted   = "halted"
	StateDisabled = "disabled"
	StatePull     = "pull" // the consumer fetches
)

// DeliverResult is what Deliver returns.
type DeliverResult struct {
	Outcome Outcome `json:"outcome"`
	// RemainingMillis is how long the outcome lasts, in milliseconds, by
	// PostgreSQL's clock when Deliver returned.
	RemainingMillis int64 `json:"remainingMillis,omitempty"`
	// Generation is the parking's number.
	Generation int64 `json:"generation,omitempty"`
	// State is one of the state classes.
	State string `json:"state,omitempty"`
	// Reason is one sentence for people, the same as status.reason; scheme and
	// host are all it says of the endpoint.
	Reason string `json:"reason,omitempty"`
	// Summary is a few words for a timer, e.g. "Retry-After 60 s, HTTP 429".
	Summary string `json:"summary,omitempty"`
	// Feed is the feed's name, for the search attribute.
	Feed string `json:"feed,omitempty"`
	// Delivered counts the events settled by this run.
	Delivered int64 `json:"delivered,omitempty"`
	// Attributes reports that the cluster has the search attributes.
	Attributes bool `json:"attributes,omitempty"`
}

// Kinds of control.
const (
	ControlPause     = "pause"
	ControlResume    = "resume"
	ControlConfigure = "configure"
	ControlDelete    = "delete"
	ControlSeek      = "seek"
	ControlReplay    = "replay"
)

// ApplyInput is Apply's argument: one control that came as a signal.
type ApplyInput struct {
	Subscriber string `json:"subscriber"`
	// RequestID makes a retry of Apply harmless: unique per signal.
	RequestID string `json:"requestId"`
	Kind      string `json:"kind"`
	Reason    string `json:"reason,omitempty"`
	Until     string `json:"until,omitempty"`
	// Of a seek; see SeekSignal.
	Sequence *int64 `json:"sequence,omitempty"`
	Time     string `json:"time,omitempty"`
	To       string `json:"to,omitempty"`
	// Of a replay; see ReplaySignal.
	FromSequence  *int64   `json:"fromSequence,omitempty"`
	ToSequence    *int64   `json:"toSequence,omitempty"`
	FromTime      string   `json:"fromTime,omitempty"`
	ToTime        string   `json:"toTime,omitempty"`
	ResourceNames []string `json:"resourceNames,omitempty"`
	Missed        bool     `json:"missed,omitempty"`
}

// ApplyResult is what Apply returns.
type ApplyResult struct {
	// Version is the control's version; 0 when it changed nothing.
	Version int64 `json:"version,omitempty"`
	// Gone reports that the subscriber does not exist.
	Gone bool `json:"gone,omitempty"`
	// Refused says in one sentence why the control was not accepted.
	Refused string `json:"refused,omitempty"`
}

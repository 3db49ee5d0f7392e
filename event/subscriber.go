package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Formats of a delivery's body.
const (
	FormatRESO = "reso" // RESO RCP-28, the default
	FormatRaw  = "raw"  // the stored bytes of data
)

// Kinds of authentication towards the endpoint.
const (
	AuthNone   = "none"
	AuthBearer = "bearer"
	AuthBasic  = "basic"
	AuthHeader = "header"
)

// Signing schemes.
const (
	SigningStandard = "standard" // Standard Webhooks v1: webhook-id, webhook-timestamp, webhook-signature
	SigningSvix     = "svix"     // the same signature under the names svix-id, svix-timestamp, svix-signature
	SigningNone     = "none"
)

// Label headers (RESO RCP-28 and the draft before it).
const (
	LabelEntityEventSource = "EntityEventSource"
	LabelConsumerLabel     = "ConsumerLabel"
	LabelBoth              = "both"
)

// What becomes of an event whose attempts are used up.
const (
	OnExhaustedHalt = "halt" // the subscriber stops at it
	OnExhaustedHold = "hold" // its key is set aside with its later events; other keys go on
	OnExhaustedSkip = "skip" // it becomes a dead letter; all others go on
)

// Modes of a subscriber.
const (
	ModePush = "push" // its endpoint is sent what it is owed
	ModePull = "pull" // the consumer fetches it, and commits it
)

// CompactCatchUp leaves out, while the subscriber is far behind, the events that
// a newer one of the same key follows.
const CompactCatchUp = "catchUp"

// Defaults of a subscriber's configuration.
const (
	TimeoutDefault       = Duration(15 * time.Second)
	BatchSizeDefault     = 1
	BatchBytesDefault    = 1 << 20
	EventAttemptsDefault = 5
	GiveUpAfterDefault   = 7 * Day
	MaxRetryAfterDefault = Day
	LeaseDurationDefault = Duration(30 * time.Second)
	PullLeasesDefault    = 1
)

// ScheduleDefault returns the retry schedule of a subscriber that names none.
func ScheduleDefault() []Duration {
	s, m, h := Duration(time.Second), Duration(time.Minute), Duration(time.Hour)
	return []Duration{5 * s, 30 * s, 2 * m, 10 * m, 30 * m, h, 2 * h, 4 * h}
}

// Subscriber is the configuration of one subscriber: what it is owed and how
// to deliver it. Secrets stand in it only on the way in; see SplitSecrets.
type Subscriber struct {
	// ID is the subscriber's name, [A-Za-z0-9][A-Za-z0-9_-]{0,62}.
	ID string `json:"id"`
	// Feed is the feed's name; it cannot be changed later.
	Feed string `json:"feed"`
	// Mode is ModePush or ModePull. What only the other mode makes use of rests
	// meanwhile: see Resting.
	Mode string `json:"mode"`
	// Pull says how a subscriber of ModePull is served.
	Pull *Pull `json:"pull,omitempty"`
	// Endpoint is where the events go.
	Endpoint Endpoint `json:"endpoint,omitzero"`
	// Auth is the credential sent with every request.
	Auth Auth `json:"auth,omitzero"`
	// Signing says how requests are signed.
	Signing Signing `json:"signing,omitzero"`
	// Label is sent in the label header (RCP-28 EntityEventSource), up to 255
	// characters; empty: no label header.
	Label string `json:"label,omitempty"`
	// LabelHeader is EntityEventSource, ConsumerLabel or both.
	LabelHeader string `json:"labelHeader,omitzero"`
	// Format is the body's format: reso or raw.
	Format string `json:"format,omitzero"`
	// BatchSize is the most events in one request, 1-1,000, or Auto.
	BatchSize Count `json:"batchSize,omitzero"`
	// BatchBytes bounds a request's body, up to 8 MiB; one event always fits.
	BatchBytes int `json:"batchBytes,omitzero"`
	// Lanes is the most requests in flight, 1-64, or Auto. Events of one key are
	// never in two of them. Lanes x BatchSize is at most InFlightEventsMax.
	Lanes Count `json:"lanes,omitzero"`
	// Start is the first event owed; it cannot be changed later.
	Start Start `json:"start"`
	// Filter selects the events owed.
	Filter Filter `json:"filter"`
	// Retry says how failures are met.
	Retry Retry `json:"retry,omitzero"`
	// OnExhausted says what happens to an event whose attempts are used up: halt,
	// hold or skip.
	OnExhausted string `json:"onExhausted,omitzero"`
	// Compact is CompactCatchUp, or empty: every event is sent.
	Compact string `json:"compact,omitempty"`
	// Alert says when people are to be told that the subscriber is behind; nil:
	// never.
	Alert *Alert `json:"alert,omitempty"`
	// Owner and Description are the operator's own words.
	Owner       string `json:"owner,omitempty"`
	Description string `json:"description,omitempty"`
}

// Endpoint is a consumer's HTTP endpoint.
type Endpoint struct {
	// URL is http or https, without user information or fragment.
	URL string `json:"url"`
	// Timeout bounds one request from dial to the end of the answer, 1-60 s.
	Timeout Duration `json:"timeout"`
	// Headers are sent with every request; values are secrets.
	Headers map[string]string `json:"headers,omitempty"`
	// HeadersSet names the headers that are stored, on reading; on writing it
	// keeps the stored value of each name in it that Headers does not carry.
	HeadersSet []string `json:"headersSet,omitempty"`
}

// Auth is a credential sent with every request. Token, Password and Value are
// secrets; on reading they are left out and TokenSet, PasswordSet and ValueSet
// say that one is stored. Writing such a mark without the secret keeps it.
type Auth struct {
	Type        string `json:"type"`
	Token       string `json:"token,omitempty"`
	TokenSet    bool   `json:"tokenSet,omitzero"`
	Username    string `json:"username,omitempty"`
	Password    string `json:"password,omitempty"`
	PasswordSet bool   `json:"passwordSet,omitzero"`
	Name        string `json:"name,omitempty"`
	Value       string `json:"value,omitempty"`
	ValueSet    bool   `json:"valueSet,omitzero"`
}

// Signing says how requests are signed. Secret is `whsec_` and the base64 of
// 24-64 bytes; it is shown once, when it was made.
type Signing struct {
	Scheme    string `json:"scheme"`
	Secret    string `json:"secret,omitempty"`
	SecretSet bool   `json:"secretSet,omitzero"`
}

// Retry says how failures are met.
type Retry struct {
	// Schedule is the wait after each failure in a row, the last one repeated;
	// 1-20 steps of 1 ms to 24 h.
	Schedule []Duration `json:"schedule"`
	// GiveUpAfter is how long the endpoint may fail without a break before the
	// subscriber is halted.
	GiveUpAfter Duration `json:"giveUpAfter"`
	// EventAttempts is how many requests one event gets, the first included,
	// when the consumer refuses it.
	EventAttempts int `json:"eventAttempts"`
	// MaxRetryAfter bounds what a consumer may ask for with Retry-After.
	MaxRetryAfter Duration `json:"maxRetryAfter"`
}

// Alert says when people are to be told, on SystemFeed, that a subscriber is
// behind.
type Alert struct {
	// LagSeconds is how old the oldest event that it has not scanned may get, from
	// 1 to AlertLagSecondsMax.
	LagSeconds int64 `json:"lagSeconds"`
}

// Start is where a subscriber begins in its feed: "now" (the default),
// "beginning", or {"sequence": n}: the first event owed is the first above n.
type Start struct {
	// Where is "now", "beginning" or "sequence".
	Where string
	// Sequence counts where Where is "sequence"; 0 or more.
	Sequence int64
}

// MarshalJSON writes the start as the API reads it.
func (s Start) MarshalJSON() ([]byte, error) {
	if s.Where == "sequence" {
		return fmt.Appendf(nil, `{"sequence":%d}`, s.Sequence), nil
	}
	return json.Marshal(s.Where)
}

// UnmarshalJSON reads "now", "beginning" or {"sequence": n}; null is the zero
// Start.
func (s *Start) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*s = Start{} // the same as absent
		return nil
	}
	var word string
	if json.Unmarshal(b, &word) == nil {
		if word != "now" && word != "beginning" {
			return fmt.Errorf(`start is "now", "beginning" or {"sequence": n}, not %q`, word)
		}
		*s = Start{Where: word}
		return nil
	}
	var members map[string]*int64
	if json.Unmarshal(b, &members) != nil || len(members) != 1 || members["sequence"] == nil {
		return errors.New(`start is "now", "beginning" or {"sequence": n}`)
	}
	*s = Start{Where: "sequence", Sequence: *members["sequence"]}
	return nil
}

// SigningSecret is one key a subscriber's requests are signed with.
type SigningSecret struct {
	// Secret is `whsec_` and base64.
	Secret string `json:"secret"`
	// ExpiresAt ends a rotated key's overlap; zero: never.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
}

// Secrets are the parts of a subscriber that are stored sealed and never
// returned.
type Secrets struct {
	Token    string            `json:"token,omitempty"`
	Password string            `json:"password,omitempty"`
	Value    string            `json:"value,omitempty"`
	Headers  map[string]string `json:"headers,omitempty"`
	// Signing holds the current key first, then those whose overlap runs.
	Signing []SigningSecret `json:"signing,omitempty"`
}

// Defaulted returns a copy with every absent member that its mode makes use of at
// its default.
func (s Subscriber) Defaulted() Subscriber {
	setDefault(&s.Feed, "default")
	setDefault(&s.Mode, ModePush)
	setDefault(&s.Start.Where, "now")
	if s.Mode == ModePull {
		return s.pullDefaulted()
	}
	setDefault(&s.Endpoint.Timeout, TimeoutDefault)
	setDefault(&s.Auth.Type, AuthNone)
	setDefault(&s.Signing.Scheme, SigningStandard)
	setDefault(&s.LabelHeader, LabelEntityEventSource)
	setDefault(&s.Format, FormatRESO)
	setDefault(&s.BatchSize, BatchSizeDefault)
	setDefault(&s.BatchBytes, BatchBytesDefault)
	setDefault(&s.Lanes, 1)
	if s.Retry.Schedule == nil {
		s.Retry.Schedule = ScheduleDefault()
	}
	setDefault(&s.Retry.GiveUpAfter, GiveUpAfterDefault)
	setDefault(&s.Retry.EventAttempts, EventAttemptsDefault)
	setDefault(&s.Retry.MaxRetryAfter, MaxRetryAfterDefault)
	setDefault(&s.OnExhausted, OnExhaustedHalt)
	return s
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

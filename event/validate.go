package event

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of a subscriber's configuration.
const (
	LabelCharactersMax       = 255
	DescriptionCharactersMax = 1000
	FilterEntriesMax         = 100
	HeadersMax               = 32
	HeaderValueBytesMax      = 4096
	BatchSizeMax             = 1000
	LanesMax                 = 64
	InFlightEventsMax        = 10000 // lanes x batchSize
	BatchBytesMax            = 8 << 20
	BatchBytesMin            = 1 << 10
	TimeoutMin               = Duration(time.Second)
	TimeoutMax               = Duration(time.Minute)
	ScheduleStepsMax         = 20
	ScheduleStepMin          = Duration(time.Millisecond)
	ScheduleStepMax          = Day
	EventAttemptsMax         = 100
	GiveUpAfterMax           = 365 * Day
	MaxRetryAfterMax         = 30 * Day
	AlertLagSecondsMax       = 30 * 24 * 60 * 60
	LeaseDurationMin         = Duration(time.Second)
	LeaseDurationMax         = 10 * Duration(time.Minute)
	PullLeasesMax            = 16
	signingSecretBytesMin    = 24
	signingSecretBytesMax    = 64
)

// SystemFeed is the feed that Postroad itself publishes to, and nobody else: what
// the people who run it have to know.
const SystemFeed = "_system"

// SigningSecretPrefix stands before the base64 of a signing secret (Standard
// Webhooks).
const SigningSecretPrefix = "whsec_"

var (
	subscriberIDPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)
	feedNamePattern     = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	headerNamePattern   = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,255}$")
)

// reservedHeaders are set by Postroad or by HTTP itself; an operator's header
// may not override them. Names that start with reservedPrefixes neither.
var reservedHeaders = map[string]bool{
	"host": true, "content-length": true, "content-type": true, "connection": true, "transfer-encoding": true,
	"keep-alive": true, "proxy-authorization": true, "proxy-connection": true, "te": true, "trailer": true,
	"upgrade": true, "expect": true, "traceparent": true, "tracestate": true, "user-agent": true, "authorization": true,
	"entityeventsource": true, "consumerlabel": true, "idempotency-key": true, "x-idempotency-key": true,
	"accept-encoding": true,
}

var reservedPrefixes = []string{"postroad-", "webhook-", "svix-"}

// ValidSubscriberID reports whether id can name a subscriber.
func ValidSubscriberID(id string) bool { return subscriberIDPattern.MatchString(id) }

// ValidFeedName reports whether name can name a feed; SystemFeed can.
func ValidFeedName(name string) bool {
	return name == SystemFeed || feedNamePattern.MatchString(name)
}

// Validate checks every member of a defaulted subscriber, secrets included, that
// its mode makes use of. allowHTTP admits endpoints without TLS.
func (s Subscriber) Validate(allowHTTP bool) FieldErrors {
	var e FieldErrors
	if !ValidSubscriberID(s.ID) {
		e.Add("/id", "must be 1-63 letters, digits, - or _, and start with a letter or digit")
	}
	if !ValidFeedName(s.Feed) {
		e.Add("/feed", "must be 1-63 lower-case letters, digits or -, and start with a letter or digit")
	}
	switch s.Mode {
	case ModePush:
		s.validatePush(&e, allowHTTP)
	case ModePull:
		s.Pull.validate(&e)
	default:
		checkOneOf(&e, "/mode", s.Mode, ModePush, ModePull)
	}
	if s.Start.Where == "sequence" && s.Start.Sequence < 0 {
		e.Add("/start/sequence", "must be 0 or more")
	}
	checkPatterns(&e, "/filter/resourceNames", s.Filter.ResourceNames)
	checkPatterns(&e, "/filter/eventTypes", s.Filter.EventTypes)
	s.validateAlert(&e)
	checkText(&e, "/owner", s.Owner, NameCharactersMax)
	checkText(&e, "/description", s.Description, DescriptionCharactersMax)
	return e
}

// validatePush checks how events are sent.
func (s Subscriber) validatePush(e *FieldErrors, allowHTTP bool) {
	s.Endpoint.validate(e, allowHTTP)
	s.Auth.validate(e)
	if s.Auth.Type == AuthHeader && s.Endpoint.names(s.Auth.Name) {
		e.Add("/auth/name", "is also the name of one of endpoint.headers")
	}
	s.Signing.validate(e)
	checkText(e, "/label", s.Label, LabelCharactersMax)
	checkHeaderValue(e, "/label", s.Label)
	checkOneOf(e, "/labelHeader", s.LabelHeader, LabelEntityEventSource, LabelConsumerLabel, LabelBoth)
	checkOneOf(e, "/format", s.Format, FormatRESO, FormatRaw)
	s.validateFlight(e)
	s.Retry.validate(e)
	checkOneOf(e, "/onExhausted", s.OnExhausted, OnExhaustedHalt, OnExhaustedHold, OnExhaustedSkip)
	checkOneOf(e, "/compact", s.Compact, "", CompactCatchUp)
}

// validateFlight checks what bounds the requests in flight. What is Auto is kept
// within InFlightEventsMax by whoever tunes it.
func (s Subscriber) validateFlight(e *FieldErrors) {
	checkCount(e, "/batchSize", s.BatchSize, BatchSizeMax)
	checkRange(e, "/batchBytes", s.BatchBytes, BatchBytesMin, BatchBytesMax)
	checkCount(e, "/lanes", s.Lanes, LanesMax)
	if events := int64(s.Lanes) * int64(s.BatchSize); s.Lanes != Auto && s.BatchSize != Auto && events > InFlightEventsMax {
		e.Add("/lanes", fmt.Sprintf("must not make lanes x batchSize more than %d: %d x %d is %d", InFlightEventsMax, s.Lanes, s.BatchSize, events))
	}
}

// Validate checks a filter that stands by itself.
func (f Filter) Validate() FieldErrors {
	var e FieldErrors
	checkPatterns(&e, "/resourceNames", f.ResourceNames)
	checkPatterns(&e, "/eventTypes", f.EventTypes)
	return e
}

func (s Subscriber) validateAlert(e *FieldErrors) {
	switch {
	case s.Alert == nil:
	case s.Feed == SystemFeed:
		e.Add("/alert", "is of no use here: what becomes of subscribers of "+SystemFeed+" is not told on it")
	case s.Alert.LagSeconds < 1 || s.Alert.LagSeconds > AlertLagSecondsMax:
		e.Add("/alert/lagSeconds", fmt.Sprintf("must be between 1 and %d", AlertLagSecondsMax))
	}
}

func (p Endpoint) validate(e *FieldErrors, allowHTTP bool) {
	if problem := checkURL(p.URL, allowHTTP); problem != "" {
		e.Add("/endpoint/url", problem)
	}
	if p.Timeout < TimeoutMin || p.Timeout > TimeoutMax {
		e.Add("/endpoint/timeout", fmt.Sprintf("must be between %s and %s", TimeoutMin, TimeoutMax))
	}
	p.validateHeaders(e)
}

// validateHeaders checks the headers sent and those kept: both together are
// what is stored. HTTP does not tell upper from lower case in names, so two
// names that differ in it only would be one header with two values.
func (p Endpoint) validateHeaders(e *FieldErrors) {
	folded := make(map[string]bool, len(p.Headers))
	for _, name := range slices.Sorted(maps.Keys(p.Headers)) {
		pointer := "/endpoint/headers/" + escapePointer(name)
		if problem := checkHeaderName(name); problem != "" {
			e.Add(pointer, problem)
		}
		if folded[strings.ToLower(name)] {
			e.Add(pointer, "is there twice: upper and lower case are the same in header names")
		}
		folded[strings.ToLower(name)] = true
		checkHeaderValue(e, pointer, p.Headers[name])
	}
	for _, name := range p.HeadersSet {
		folded[strings.ToLower(name)] = true
	}
	if len(folded) > HeadersMax {
		e.Add("/endpoint/headers", fmt.Sprintf("must not have more than %d entries, those in headersSet included", HeadersMax))
	}
}

func checkURL(raw string, allowHTTP bool) string {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		return "is required"
	case utf8.RuneCountInString(raw) > URLCharactersMax:
		return fmt.Sprintf("must not be longer than %d characters", URLCharactersMax)
	case err != nil || u.Host == "" || u.Hostname() == "":
		return "must be an absolute URL with a host"
	case u.Scheme == "http" && !allowHTTP:
		return "must be https: this server was not started with --allow-http-endpoints"
	case u.Scheme != "http" && u.Scheme != "https":
		return "must be an https URL"
	case u.User != nil:
		return "must not carry user information: use auth"
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return "must not have a fragment"
	case u.Port() != "" && !validPort(u.Port()):
		return "must have a port between 1 and 65535"
	}
	return ""
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

func checkHeaderName(name string) string {
	lower := strings.ToLower(name)
	if !headerNamePattern.MatchString(name) {
		return "is not a valid header name"
	}
	if reservedHeaders[lower] {
		return "is set by Postroad or by HTTP itself and cannot be overridden"
	}
	for _, prefix := range reservedPrefixes {
		if strings.HasPrefix(lower, prefix) {
			return "is set by Postroad and cannot be overridden"
		}
	}
	return ""
}

func checkHeaderValue(e *FieldErrors, pointer, value string) {
	if len(value) > HeaderValueBytesMax {
		e.Add(pointer, fmt.Sprintf("must not be longer than %d bytes", HeaderValueBytesMax))
	}
	for i := range len(value) {
		if c := value[i]; c < 0x20 && c != '\t' || c == 0x7f {
			e.Add(pointer, "must not contain control characters such as CR, LF or NUL")
			return
		}
	}
}

func (a Auth) validate(e *FieldErrors) {
	// Of every kind: what this type does not use is stored too, and may be put
	// to use later without being sent again.
	checkHeaderValue(e, "/auth/token", a.Token)
	checkHeaderValue(e, "/auth/username", a.Username)
	checkHeaderValue(e, "/auth/password", a.Password)
	checkHeaderValue(e, "/auth/value", a.Value)
	switch a.Type {
	case AuthNone:
	case AuthBearer:
		if a.Token == "" && !a.TokenSet {
			e.Add("/auth/token", "is required for bearer authentication")
		}
	case AuthBasic:
		if a.Username == "" || strings.Contains(a.Username, ":") {
			e.Add("/auth/username", "is required for basic authentication and must not contain a colon")
		}
	case AuthHeader:
		// Authorization is what this kind of authentication is for.
		if problem := checkHeaderName(a.Name); problem != "" && !strings.EqualFold(a.Name, "authorization") {
			e.Add("/auth/name", problem)
		}
		if a.Value == "" && !a.ValueSet {
			e.Add("/auth/value", "is required for header authentication")
		}
	default:
		checkOneOf(e, "/auth/type", a.Type, AuthNone, AuthBearer, AuthBasic, AuthHeader)
	}
}

func (s Signing) validate(e *FieldErrors) {
	checkOneOf(e, "/signing/scheme", s.Scheme, SigningStandard, SigningSvix, SigningNone)
	if s.Secret != "" && !ValidSigningSecret(s.Secret) {
		e.Add("/signing/secret", fmt.Sprintf("must be %s and the base64 of %d-%d bytes", SigningSecretPrefix, signingSecretBytesMin, signingSecretBytesMax))
	}
}

// ValidSigningSecret reports whether s is a Standard Webhooks secret: `whsec_`
// (may be left out) and the base64 of 24-64 bytes.
func ValidSigningSecret(s string) bool {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, SigningSecretPrefix))
	return err == nil && len(raw) >= signingSecretBytesMin && len(raw) <= signingSecretBytesMax
}

func (r Retry) validate(e *FieldErrors) {
	if len(r.Schedule) == 0 || len(r.Schedule) > ScheduleStepsMax {
		e.Add("/retry/schedule", fmt.Sprintf("must have 1-%d steps", ScheduleStepsMax))
	}
	for i, step := range r.Schedule {
		if step < ScheduleStepMin || step > ScheduleStepMax {
			e.Addf("/retry/schedule/%d", fmt.Sprintf("must be between %s and %s", ScheduleStepMin, ScheduleStepMax), i)
		}
	}
	checkDuration(e, "/retry/giveUpAfter", r.GiveUpAfter, GiveUpAfterMax)
	checkDuration(e, "/retry/maxRetryAfter", r.MaxRetryAfter, MaxRetryAfterMax)
	checkRange(e, "/retry/eventAttempts", r.EventAttempts, 1, EventAttemptsMax)
}

func checkDuration(e *FieldErrors, pointer string, d, longest Duration) {
	if d < Duration(time.Second) || d > longest {
		e.Add(pointer, fmt.Sprintf("must be between 1s and %s", longest))
	}
}

func checkText(e *FieldErrors, pointer, s string, charactersMax int) {
	switch {
	case utf8.RuneCountInString(s) > charactersMax:
		e.Add(pointer, fmt.Sprintf("must not be longer than %d characters", charactersMax))
	case !utf8.ValidString(s) || strings.ContainsRune(s, 0):
		e.Add(pointer, "must be valid UTF-8 without NUL")
	}
}

func checkOneOf(e *FieldErrors, pointer, s string, allowed ...string) {
	for _, a := range allowed {
		if s == a {
			return
		}
	}
	e.Add(pointer, "must be one of: "+strings.TrimPrefix(strings.Join(allowed, ", "), ", "))
}

func checkRange(e *FieldErrors, pointer string, n, low, high int) {
	if n < low || n > high {
		e.Add(pointer, fmt.Sprintf("must be between %d and %d", low, high))
	}
}

func checkCount(e *FieldErrors, pointer string, c Count, high int) {
	if c != Auto && (c < 1 || int(c) > high) {
		e.Add(pointer, fmt.Sprintf("must be between 1 and %d, or auto", high))
	}
}

func checkPatterns(e *FieldErrors, pointer string, patterns []string) {
	if patterns == nil {
		return
	}
	if len(patterns) == 0 || len(patterns) > FilterEntriesMax {
		e.Add(pointer, fmt.Sprintf("must have 1-%d entries; leave it out to match everything", FilterEntriesMax))
	}
	for i, p := range patterns {
		at := fmt.Sprintf("%s/%d", pointer, i)
		checkText(e, at, p, NameCharactersMax)
		if p == "" {
			e.Add(at, "must not be empty")
		}
		if star := strings.IndexByte(p, '*'); star >= 0 && star != len(p)-1 {
			e.Add(at, "may have * as its last character only")
		}
	}
}

func escapePointer(s string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(s)
}

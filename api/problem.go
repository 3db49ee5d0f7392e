package api

import (
	"net/http"
	"strconv"
	"time"

	"postroad/event"
)

// Code names a kind of problem; `/problems/<code>` is its RFC 9457 type. A code
// keeps its meaning for ever; texts may change.
type Code string

// Kinds of problem.
const (
	CodeMalformed           Code = "malformed"
	CodeInvalidParameter    Code = "invalid-parameter"
	CodeInvalidHeader       Code = "invalid-header"
	CodeUploadCut           Code = "upload-cut"
	CodeUnauthorized        Code = "unauthorized"
	CodeForbidden           Code = "forbidden"
	CodeNotFound            Code = "not-found"
	CodeMethodNotAllowed    Code = "method-not-allowed"
	CodeExists              Code = "exists"
	CodeDeleting            Code = "deleting"
	CodeInUse               Code = "in-use"
	CodeProtected           Code = "protected"
	CodeSequenceConflict    Code = "sequence-conflict"
	CodeHasSource           Code = "has-source"
	CodeBelowFloor          Code = "below-floor"
	CodeNotHalted           Code = "not-halted"
	CodeKeyNotHeld          Code = "key-not-held"
	CodeNotFirst            Code = "not-first"
	CodeReplayEmpty         Code = "replay-empty"
	CodeReplayFinished      Code = "replay-finished"
	CodeTooManyReplays      Code = "too-many-replays"
	CodeWrongMode           Code = "wrong-mode"
	CodeHeldBack            Code = "held-back"
	CodeLeaseOver           Code = "lease-over"
	CodeNotHandedOut        Code = "not-handed-out"
	CodeVersionMismatch     Code = "version-mismatch"
	CodeTooLarge            Code = "too-large"
	CodeUnsupportedMedia    Code = "unsupported-media-type"
	CodeNotAcceptable       Code = "not-acceptable"
	CodeTooExpensive        Code = "too-expensive"
	CodeNotImplemented      Code = "not-implemented"
	CodeInvalid             Code = "invalid"
	CodeIdempotencyConflict Code = "idempotency-conflict"
	CodeInternal            Code = "internal"
	CodeBusy                Code = "busy"
	CodeUnavailable         Code = "unavailable"
	CodeOutcomeUnknown      Code = "outcome-unknown"
	CodeNotReady            Code = "not-ready"
)

// kinds says what holds for every problem of a code.
var kinds = map[Code]struct {
	status int
	title  string
}{
	CodeMalformed:           {http.StatusBadRequest, "The body cannot be read"},
	CodeInvalidParameter:    {http.StatusBadRequest, "A query parameter is wrong"},
	CodeInvalidHeader:       {http.StatusBadRequest, "A header is wrong"},
	CodeUploadCut:           {http.StatusBadRequest, "The upload ended too early"},
	CodeUnauthorized:        {http.StatusUnauthorized, "A valid token is required"},
	CodeForbidden:           {http.StatusForbidden, "The token does not allow this"},
	CodeNotFound:            {http.StatusNotFound, "There is no such thing"},
	CodeMethodNotAllowed:    {http.StatusMethodNotAllowed, "The method is not allowed here"},
	CodeExists:              {http.StatusConflict, "The name is taken"},
	CodeDeleting:            {http.StatusConflict, "The name is still being freed"},
	CodeInUse:               {http.StatusConflict, "It is still in use"},
	CodeProtected:           {http.StatusConflict, "It cannot be deleted"},
	CodeSequenceConflict:    {http.StatusConflict, "A supplied sequence does not fit the log"},
	CodeHasSource:           {http.StatusConflict, "The feed follows a source"},
	CodeBelowFloor:          {http.StatusGone, "The events asked for have been removed"},
	CodeNotHalted:           {http.StatusConflict, "The subscriber is not halted at this event"},
	CodeKeyNotHeld:          {http.StatusNotFound, "The key is not held"},
	CodeNotFirst:            {http.StatusConflict, "The event is not the first that waits behind its key"},
	CodeReplayEmpty:         {http.StatusUnprocessableEntity, "There is nothing to send again"},
	CodeReplayFinished:      {http.StatusConflict, "The replay is finished"},
	CodeTooManyReplays:      {http.StatusConflict, "Too many replays are open"},
	CodeWrongMode:           {http.StatusConflict, "The subscriber's mode does not allow this"},
	CodeHeldBack:            {http.StatusConflict, "The subscriber is paused, halted or disabled"},
	CodeLeaseOver:           {http.StatusConflict, "The lease is over"},
	CodeNotHandedOut:        {http.StatusConflict, "The event is not handed out"},
	CodeVersionMismatch:     {http.StatusPreconditionFailed, "The configuration has changed"},
	CodeTooLarge:            {http.StatusRequestEntityTooLarge, "The request is too large"},
	CodeUnsupportedMedia:    {http.StatusUnsupportedMediaType, "The body's type is not supported"},
	CodeNotAcceptable:       {http.StatusNotAcceptable, "The representation asked for is not offered"},
	CodeTooExpensive:        {http.StatusBadRequest, "The query takes too long"},
	CodeNotImplemented:      {http.StatusNotImplemented, "This is not offered"},
	CodeInvalid:             {http.StatusUnprocessableEntity, "The request is not valid"},
	CodeIdempotencyConflict: {http.StatusUnprocessableEntity, "An idempotency key was used for other content"},
	CodeInternal:            {http.StatusInternalServerError, "Something went wrong on our side"},
	CodeBusy:                {http.StatusServiceUnavailable, "The server is busy"},
	CodeUnavailable:         {http.StatusServiceUnavailable, "The database is out of reach"},
	CodeOutcomeUnknown:      {http.StatusServiceUnavailable, "It is not known whether the events were stored"},
	CodeNotReady:            {http.StatusServiceUnavailable, "The server is not ready"},
}

// Fault names one thing that is wrong with a request. Exactly one of Pointer,
// Parameter and Header says where.
type Fault struct {
	// Pointer is a JSON Pointer (RFC 6901) into the body; "" is the whole body.
	Pointer *string `json:"pointer,omitzero"`
	// Parameter is the name of a query or path parameter.
	Parameter string `json:"parameter,omitempty"`
	// Header is the name of a request header.
	Header string `json:"header,omitempty"`
	// Detail says what is wrong and what would be right.
	Detail string `json:"detail"`
}

// Problem is an error as the client is told it (RFC 9457). All of it but cause
// is safe to show.
type Problem struct {
	Code   Code
	Detail string
	Errors []Fault
	// RetryAfter, if above 0, is sent as Retry-After in whole seconds.
	RetryAfter time.Duration
	// Header holds headers of this answer.
	Header map[string]string

	// Members of single kinds of problem.
	FirstSequence int64     // below-floor
	Head          *int64    // sequence-conflict, and what is above the head
	Sequence      int64     // not-halted: where it is halted; not-first: the first
	Version       int64     // version-mismatch
	Progress      *progress // NDJSON
	Checks        map[string]string
	// OAuthError, if set, makes the body that of RFC 6749 §5.2, with this as its
	// error and Detail, in ASCII without quotes, as its description.
	OAuthError string

	cause error
}

// progress says how far an NDJSON upload came.
type progress struct {
	line         int64
	accepted     int64
	duplicates   int64
	lastSequence int64
}

// Error implements error.
func (p *Problem) Error() string {
	if p.cause != nil {
		return string(p.Code) + ": " + p.Detail + ": " + p.cause.Error()
	}
	return string(p.Code) + ": " + p.Detail
}

// Unwrap returns the error behind the problem; it is logged, never shown.
func (p *Problem) Unwrap() error { return p.cause }

// Status is the HTTP status of the problem's kind.
func (p *Problem) Status() int { return kinds[p.Code].status }

// problemBody is the wire form.
type problemBody struct {
	Type          string            `json:"type"`
	Title         string            `json:"title"`
	Status        int               `json:"status"`
	Detail        string            `json:"detail,omitempty"`
	Errors        []Fault           `json:"errors,omitempty"`
	RequestID     string            `json:"requestId"`
	FirstSequence int64             `json:"firstSequence,omitzero"`
	Head          *int64            `json:"head,omitzero"`
	Sequence      int64             `json:"sequence,omitzero"`
	Version       int64             `json:"version,omitzero"`
	Line          int64             `json:"line,omitzero"`
	Accepted      *int64            `json:"accepted,omitzero"`
	Duplicates    *int64            `json:"duplicates,omitzero"`
	LastSequence  *int64            `json:"lastSequence,omitzero"`
	Checks        map[string]string `json:"checks,omitempty"`
}

func (p *Problem) body(requestID string) problemBody {
	b := problemBody{
		Type: "/problems/" + string(p.Code), Title: kinds[p.Code].title, Status: p.Status(), Detail: p.Detail, Errors: p.Errors,
		RequestID: requestID, FirstSequence: p.FirstSequence, Head: p.Head, Sequence: p.Sequence, Version: p.Version, Checks: p.Checks,
	}
	if g := p.Progress; g != nil {
		b.Line, b.Accepted, b.Duplicates, b.LastSequence = g.line, &g.accepted, &g.duplicates, &g.lastSequence
	}
	return b
}

// oauthBody is the wire form of RFC 6749 §5.2.
type oauthBody struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
}

// retryAfterSeconds rounds up, so that nobody comes back too early.
func retryAfterSeconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// invalid is a request whose members are wrong.
func invalid(faults event.FieldErrors) *Problem {
	p := &Problem{Code: CodeInvalid, Detail: "See errors for each member that is wrong."}
	for _, f := range faults[:min(len(faults), fieldErrorsMax)] {
		p.Errors = append(p.Errors, Fault{Pointer: &f.Pointer, Detail: f.Detail})
	}
	if len(faults) == 1 {
		p.Detail = sentence(faults[0].Pointer, faults[0].Detail)
	}
	return p
}

// invalidAt is invalid with one fault.
func invalidAt(pointer, detail string) *Problem {
	return invalid(event.FieldErrors{{Pointer: pointer, Detail: detail}})
}

func invalidParameter(name, detail string) *Problem {
	return &Problem{Code: CodeInvalidParameter, Detail: sentence(name, detail), Errors: []Fault{{Parameter: name, Detail: detail}}}
}

func invalidHeader(name, detail string) *Problem {
	return &Problem{Code: CodeInvalidHeader, Detail: sentence(name, detail), Errors: []Fault{{Header: name, Detail: detail}}}
}

func notFound(parameter, detail string) *Problem {
	return &Problem{Code: CodeNotFound, Detail: sentence("", detail), Errors: []Fault{{Parameter: parameter, Detail: detail}}}
}

// atPointer is a problem of one place in the body.
func atPointer(code Code, pointer, detail string) *Problem {
	return &Problem{Code: code, Detail: sentence(pointer, detail), Errors: []Fault{{Pointer: &pointer, Detail: detail}}}
}

// sentence makes one of a place and what is wrong there.
func sentence(place, detail string) string {
	if place == "" {
		place = "The body"
		if detail != "" && detail[0] >= 'A' && detail[0] <= 'Z' || len(detail) > 2 && detail[:3] == "no " {
			return detail + "."
		}
	}
	return place + " " + detail + "."
}

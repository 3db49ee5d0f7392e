package delivery

import "net/http"

// Class says what an answer means for the events of a request.
type Class int

// Classes of answers.
const (
	// ClassSuccess: 2xx; the events are settled.
	ClassSuccess Class = iota + 1
	// ClassGone: 410; the consumer wants nothing more.
	ClassGone
	// ClassAsked: 429 or 503 with a valid Retry-After; the consumer asked to
	// be left alone for that long.
	ClassAsked
	// ClassEndpoint: the endpoint fails; no event is to blame.
	ClassEndpoint
	// ClassRecord: the consumer refuses what was sent.
	ClassRecord
	// ClassCanceled: the caller's context ended first; whether the consumer
	// got the events is not known.
	ClassCanceled
)

var classNames = map[Class]string{
	ClassSuccess: "success", ClassGone: "gone", ClassAsked: "asked", ClassEndpoint: "endpoint",
	ClassRecord: "record", ClassCanceled: "canceled",
}

// String returns the class in one word, for logs and the attempts' log.
func (c Class) String() string { return classNames[c] }

// statusClasses is the policy for every status that is neither 2xx nor, as
// all others are, a record failure. The table is the contract; a status
// belongs here because it speaks of the endpoint or of the credentials and
// would meet any other event in the same way.
var statusClasses = map[int]Class{
	http.StatusUnauthorized:       ClassEndpoint, // 401: the credential is refused
	http.StatusForbidden:          ClassEndpoint, // 403
	http.StatusNotFound:           ClassEndpoint, // 404: the endpoint is not deployed, or the path is wrong
	http.StatusMethodNotAllowed:   ClassEndpoint, // 405
	http.StatusRequestTimeout:     ClassEndpoint, // 408
	http.StatusGone:               ClassGone,     // 410
	http.StatusTooEarly:           ClassEndpoint, // 425
	http.StatusTooManyRequests:    ClassEndpoint, // 429 without a valid Retry-After
	http.StatusBadGateway:         ClassEndpoint, // 502
	http.StatusServiceUnavailable: ClassEndpoint, // 503 without a valid Retry-After
	http.StatusGatewayTimeout:     ClassEndpoint, // 504
}

// Classify judges a status line. asked reports a valid Retry-After beside it.
func Classify(status int, asked bool) Class {
	switch {
	case status >= 200 && status <= 299:
		return ClassSuccess
	case status < 200:
		// A final answer cannot be 1xx (RFC 9110, 15.2): it is no answer.
		return ClassEndpoint
	case asked && (status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable):
		return ClassAsked
	}
	if class, ok := statusClasses[status]; ok {
		return class
	}
	return ClassRecord
}

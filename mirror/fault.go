package mirror

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"postroad/internal/retryafter"
)

// Fault is why the source could not be read.
type Fault struct {
	// URL is what was asked for.
	URL string
	// Record names the record at fault; "": none is.
	Record string
	// Status is the HTTP status; 0: there was no answer, or its body is at fault.
	Status int
	// Reason is a clause.
	Reason string
	err    error
}

// Error names the URL, the record and the reason.
func (f *Fault) Error() string {
	if f.Record != "" {
		return fmt.Sprintf("read %s: %s: %s", f.URL, f.Record, f.Reason)
	}
	return fmt.Sprintf("read %s: %s", f.URL, f.Reason)
}

// Unwrap returns what net/http said, if it did.
func (f *Fault) Unwrap() error { return f.err }

// TemporaryError is a fault that another try may mend.
type TemporaryError struct {
	Err error
	// RetryAfter is the wait that the other side asked for; 0: it did not.
	RetryAfter time.Duration
}

// Error says what the fault is.
func (e *TemporaryError) Error() string { return e.Err.Error() }

// Unwrap returns the fault.
func (e *TemporaryError) Unwrap() error { return e.Err }

// Temporary reports whether another try may mend err.
func Temporary(err error) bool {
	var temporary *TemporaryError
	return errors.As(err, &temporary)
}

// asked reports whether the other side said how long to wait.
func asked(err error) bool {
	var temporary *TemporaryError
	return errors.As(err, &temporary) && temporary.RetryAfter > 0
}

// retryIn returns the pause after the n-th fault in a row: what the other side
// asked for, or the delay that doubles, ± 10 % so that many do not call at once.
func (c *Config) retryIn(err error, n int) time.Duration {
	var temporary *TemporaryError
	if errors.As(err, &temporary) && temporary.RetryAfter > 0 {
		return temporary.RetryAfter
	}
	wait := c.RetryDelayMax
	const doublingsMax = 30
	if n = max(n, 1); n <= doublingsMax {
		wait = min(wait, c.RetryDelay<<(n-1))
	}
	if !Temporary(err) {
		wait = c.RetryDelayMax
	}
	return time.Duration(float64(wait) * (0.9 + 0.2*rand.Float64()))
}

// unreachable is a request without an answer, or with a cut one.
func unreachable(ctx context.Context, address, what string, err error) error {
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return ctx.Err()
	}
	var timeout net.Error
	reason := what + ": " + plain(err).Error()
	if errors.As(err, &timeout) && timeout.Timeout() {
		reason = what + ": no answer in time"
	}
	return &TemporaryError{Err: &Fault{URL: address, Reason: reason, err: err}}
}

// refused is an answer that is not 200. Of 4xx only those that say so, or that
// the source's load explains, pass by themselves.
func (c *Config) refused(address string, response *http.Response, body []byte, now time.Time) error {
	f := &Fault{URL: address, Status: response.StatusCode, Reason: "HTTP " + response.Status + odataMessage(body)}
	if location := response.Header.Get("Location"); location != "" && response.StatusCode/100 == 3 {
		f.Reason += ", to " + location + ": redirects are not followed"
	}
	var wait time.Duration
	if value := response.Header.Values("Retry-After"); len(value) > 0 {
		date, _ := retryafter.ParseDate(response.Header.Get("Date"), now)
		wait, _ = retryafter.Parse(value[0], now, date, c.RetryAfterMax)
	}
	switch status := response.StatusCode; {
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests,
		status >= 500 && status != http.StatusNotImplemented:
		return &TemporaryError{Err: f, RetryAfter: wait}
	}
	return f
}

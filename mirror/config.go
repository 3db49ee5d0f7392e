package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"postroad/event"
)

// Doer makes HTTP requests. It follows no redirect: a token is for the server
// that was named.
type Doer interface {
	Do(*http.Request) (*http.Response, error)
}

// Feed is where the events go.
type Feed interface {
	// Position says where the feed is.
	Position(ctx context.Context) (Position, error)
	// Append stores events under their own sequences, all or none, and returns
	// when they are durable. Events that are there already count as stored. An
	// error that matches ErrConflict says that others write to the feed.
	Append(ctx context.Context, events []event.Event) error
	// Records reads the names and keys of up to limit events above a sequence, in
	// order.
	Records(ctx context.Context, after int64, limit int) ([]event.Event, error)
}

// Position is where a feed is.
type Position struct {
	// Head is the highest sequence the feed ever had; the source is read from
	// above it.
	Head int64
	// Whole is the sequence above which nothing has been removed or compacted.
	Whole int64
}

// ErrConflict says that a feed refused a sequence: it is at or below the head,
// and not in the feed or another record's.
var ErrConflict = errors.New("the feed has other events at these sequences")

// Config says what a mirror follows. The zero value of a period or bound means
// its default.
type Config struct {
	// Root is the source's service root; /EntityEvent below it is read.
	Root string
	// Auth is how the source lets us in.
	Auth Auth
	// HTTP makes the requests.
	HTTP Doer
	// UserAgent names the program.
	UserAgent string
	// Once ends the mirror when it has all that the source had at its start.
	Once bool
	// StopOnFault ends the mirror at a fault that another try will hardly mend,
	// such as a resource that does not exist.
	StopOnFault bool
	// FaultsMax ends the mirror after so many faults in a row. Default: never.
	FaultsMax int
	// Horizon is for how long a sequence behind a gap must have been in sight
	// before it is taken. Default 10 s; below 0: none.
	Horizon time.Duration
	// Poll is the pause after the source's end was reached. Default 2 s.
	Poll time.Duration
	// Recheck is how often the latest RecheckSequences numbers are read once more
	// for what came late. Default 5 min and 10,000; at the end of Once, too.
	Recheck          time.Duration
	RecheckSequences int64
	// Reported are the sequences that an earlier mirror reported as late.
	Reported []int64
	// PageSize is how many events are asked for at once. Default 1,000.
	PageSize int
	// PageBytes bounds one answer. Default 32 MiB.
	PageBytes int64
	// RequestTimeout bounds one request. Default 1 min.
	RequestTimeout time.Duration
	// RetryDelay is the pause after a fault; it doubles up to RetryDelayMax.
	// Default 1 s and 1 min.
	RetryDelay, RetryDelayMax time.Duration
	// RetryAfterMax bounds the wait that the source may ask for. Default 24 h.
	RetryAfterMax time.Duration
	// Observer is told of what happens.
	Observer Observer
	Logger   *slog.Logger
}

// Observer is told of what a mirror does, from the goroutine that does it. Each
// member may be nil.
type Observer struct {
	// Taken says that so many events were appended, up to head.
	Taken func(count int, head int64)
	// Read says that the source answered, up to its end: it has shown sequences
	// up to sourceHead, and the feed is at head. Above head wait those that the
	// horizon holds back.
	Read func(head, sourceHead int64)
	// Late says that the source has an event that the feed can no longer take.
	Late func(Late)
	// Fault says that something went wrong, and when it is tried again.
	Fault func(err error, retryIn time.Duration)
}

// Late is an event that the feed does not have and cannot take any more.
type Late struct {
	// Event is what the source has now.
	Event event.Event
	// Instead is the record that the feed has under the sequence; zero: none, so
	// the event came late. RCP-27 has a sequence stay with its record for ever.
	Instead event.Key
}

// String says it in a sentence.
func (l Late) String() string {
	if l.Instead == (event.Key{}) {
		return fmt.Sprintf("sequence %d (%s %s) came late: it was not there when higher ones were taken",
			l.Event.Sequence, l.Event.ResourceName, l.Event.ResourceRecordKey)
	}
	return fmt.Sprintf("sequence %d was %s %s and is now %s %s", l.Event.Sequence,
		l.Instead.ResourceName, l.Instead.ResourceRecordKey, l.Event.ResourceName, l.Event.ResourceRecordKey)
}

// WithDefaults returns a copy with the defaults filled in.
func (c Config) WithDefaults() Config {
	c.UserAgent = cmp.Or(c.UserAgent, "Postroad/dev")
	c.Horizon = max(cmp.Or(c.Horizon, 10*time.Second), 0)
	c.Poll = cmp.Or(c.Poll, 2*time.Second)
	c.Recheck = cmp.Or(c.Recheck, 5*time.Minute)
	c.RecheckSequences = cmp.Or(c.RecheckSequences, 10_000)
	c.PageSize = cmp.Or(c.PageSize, 1000)
	c.PageBytes = cmp.Or(c.PageBytes, 32<<20)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, time.Minute)
	c.RetryDelay = cmp.Or(c.RetryDelay, time.Second)
	c.RetryDelayMax = cmp.Or(c.RetryDelayMax, time.Minute)
	c.RetryAfterMax = cmp.Or(c.RetryAfterMax, 24*time.Hour)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	o := &c.Observer
	if o.Taken == nil {
		o.Taken = func(int, int64) {}
	}
	if o.Read == nil {
		o.Read = func(int64, int64) {}
	}
	if o.Late == nil {
		o.Late = func(Late) {}
	}
	if o.Fault == nil {
		o.Fault = func(error, time.Duration) {}
	}
	return c
}

// ParseRoot checks a service root and returns it without a slash at its end.
func ParseRoot(text string) (*url.URL, error) {
	root, err := url.Parse(text)
	switch {
	case err != nil || root.Host == "" || root.Scheme != "https" && root.Scheme != "http":
		return nil, errors.New("must be an absolute http or https URL")
	case root.User != nil:
		return nil, errors.New("must not hold a user or password: give a token")
	case root.RawQuery != "" || root.Fragment != "":
		return nil, errors.New("must be a service root, without a query or fragment")
	}
	root.Path = strings.TrimRight(root.Path, "/")
	root.RawPath = strings.TrimRight(root.RawPath, "/")
	return root, nil
}

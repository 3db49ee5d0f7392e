package eventlog

import (
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

var (
	// ErrNotFound says that there is no such feed or event.
	ErrNotFound = errors.New("not found")
	// ErrExists says that a feed of that name exists.
	ErrExists = errors.New("feed exists")
	// ErrFeedInUse says that subscribers follow the feed.
	ErrFeedInUse = errors.New("feed has subscribers")
	// ErrProtectedFeed says that the feeds "default" and "_system" cannot be
	// deleted.
	ErrProtectedFeed = errors.New("this feed cannot be deleted")
	// ErrVersionMismatch says that the feed is no longer at the version named.
	ErrVersionMismatch = errors.New("feed version does not match")
	// ErrFeedChanged says that the feed was deleted and made again with other
	// numbering since it was read: read it again.
	ErrFeedChanged = errors.New("feed changed since it was read")
	// ErrUnavailable says that PostgreSQL could not be reached or could not
	// serve; nothing was stored.
	ErrUnavailable = errors.New("PostgreSQL is unavailable")
	// ErrUnknownOutcome says that the connection was lost, or the caller went
	// away, while the events were being stored: they may be in the log or not.
	// They are never sent again by us.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrClosed says that the log was closed, or not yet started.
	ErrClosed = errors.New("log is closed")
	// ErrBusy is what a *BusyError is.
	ErrBusy = errors.New("publishing queue is full")
)

// BusyError says that the queue of events waiting to be stored is full.
// errors.Is(err, ErrBusy) holds.
type BusyError struct {
	// RetryAfter is when another try makes sense.
	RetryAfter time.Duration
}

// Error implements error.
func (e *BusyError) Error() string {
	return fmt.Sprintf("%s, retry after %s", ErrBusy, e.RetryAfter)
}

// Is makes every BusyError an ErrBusy.
func (e *BusyError) Is(target error) bool { return target == ErrBusy }

// Kinds of conflict.
const (
	// ConflictIdempotency: the event's idempotency key was used with other
	// content (HTTP 422).
	ConflictIdempotency = "idempotency"
	// ConflictSequence: the event's number is taken by another record, or is at
	// or below the head without being in the log (HTTP 409).
	ConflictSequence = "sequence"
)

// ConflictError says which event contradicts the log. Nothing of its request
// was stored.
type ConflictError struct {
	// Index is the event's place in the request, from 0.
	Index int
	// Kind is ConflictIdempotency or ConflictSequence.
	Kind string
	// Head is the feed's highest number when the conflict was found.
	Head int64
	// Detail says it in a sentence; safe to show.
	Detail string
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("event %d: %s", e.Index, e.Detail)
}

// SequenceError says that an event's sequence member does not fit its feed or
// its request; nothing was stored.
type SequenceError struct {
	// Index is the event's place in the request, from 0.
	Index int
	// Detail says what is wrong; safe to show.
	Detail string
}

// Error implements error.
func (e *SequenceError) Error() string {
	return fmt.Sprintf("event %d: %s", e.Index, e.Detail)
}

// DataError says that PostgreSQL refused the request's data (SQLSTATE class 22
// or 23); nothing was stored.
type DataError struct {
	// SQLState is PostgreSQL's code.
	SQLState string
	err      error
}

// Error implements error.
func (e *DataError) Error() string { return "store events: " + e.err.Error() }

// Unwrap returns PostgreSQL's error.
func (e *DataError) Unwrap() error { return e.err }

// BelowFloorError says that events at or below the position asked for are no
// longer kept.
type BelowFloorError struct {
	// FirstSequence is the lowest number that may still be read: go on after
	// FirstSequence - 1.
	FirstSequence int64
}

// Error implements error.
func (e *BelowFloorError) Error() string {
	return fmt.Sprintf("events below %d are no longer kept", e.FirstSequence)
}

// RetryAfter returns how long to wait before trying again what failed with
// err, and whether trying again makes sense without changing anything.
func RetryAfter(err error) (time.Duration, bool) {
	var busy *BusyError
	switch {
	case errors.As(err, &busy):
		return busy.RetryAfter, true
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrClosed):
		return time.Second, true
	default:
		return 0, false
	}
}

// isData reports whether PostgreSQL refused data, and under which code.
func isData(err error) (string, bool) {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || len(pg.Code) != 5 {
		return "", false
	}
	return pg.Code, pg.Code[:2] == "22" || pg.Code[:2] == "23"
}

// rolledBack reports whether err proves that the statement left nothing
// behind: the server said ERROR and kept the session. A FATAL one may come
// after the commit.
func rolledBack(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.SeverityUnlocalized == "ERROR"
}

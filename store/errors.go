package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"postroad/event"
)

// Errors of the store. Their text is safe to show to whoever asked.
var (
	// ErrNotFound: there is no such subscriber (or it is being deleted).
	ErrNotFound = errors.New("no such subscriber")
	// ErrExists: the id is taken.
	ErrExists = errors.New("a subscriber with this id exists")
	// ErrDeleting: the id belongs to a tombstone whose workflow has not closed
	// yet; it becomes free shortly.
	ErrDeleting = errors.New("a subscriber with this id is still being deleted")
	// ErrVersionMismatch: the configuration is not at the version the caller
	// named.
	ErrVersionMismatch = errors.New("the configuration has changed since the version named")
	// ErrPulls: the subscriber's consumer fetches its events, so that there are no
	// requests to make.
	ErrPulls = errors.New("the consumer of this subscriber fetches its events: nothing is sent to it")
	// ErrPushes: the subscriber is sent its events.
	ErrPushes = errors.New("this subscriber is sent its events: there is nothing to fetch")
	// ErrLeaseWanted: several leases may be out, so that a commit has to name one.
	ErrLeaseWanted = errors.New("a subscriber of several leases needs to be told which one is committed")
	// ErrLeaseOver: the lease is over, and what was left of it went to others.
	ErrLeaseOver = errors.New("the lease is over: what was not committed of it is handed out again")
	// ErrFeedNotFound: there is no such feed.
	ErrFeedNotFound = errors.New("no such feed")
	// ErrNoSealer: the call needs the master key and this process has none.
	ErrNoSealer = errors.New("no master key is loaded")
	// ErrWrongKey: the master key is not the one this database was sealed with.
	ErrWrongKey = errors.New("the master key is not the one this database's secrets were sealed with")
)

// StartAboveHeadError refuses a start beyond the end of the feed.
type StartAboveHeadError struct {
	// Start is the sequence asked for, Head the feed's last one.
	Start, Head int64
}

// Error implements error.
func (e *StartAboveHeadError) Error() string {
	return fmt.Sprintf("start is above the head of the feed: %d > %d", e.Start, e.Head)
}

// ImmutableError refuses the change of a member that is fixed at creation.
type ImmutableError struct {
	// Member is the member's name: "feed" or "start".
	Member string
}

// Error implements error.
func (e *ImmutableError) Error() string {
	return fmt.Sprintf("%s cannot be changed after creation", e.Member)
}

// SeekAboveHeadError refuses a seek beyond the end of the feed.
type SeekAboveHeadError struct {
	// Sequence is what was asked for, Head the feed's last one.
	Sequence, Head int64
}

// Error implements error.
func (e *SeekAboveHeadError) Error() string {
	return fmt.Sprintf("the sequence is above the head of the feed: %d > %d", e.Sequence, e.Head)
}

// ErrSeekFuture refuses a seek to a time that is yet to come.
var ErrSeekFuture = errors.New("the time lies in the future")

// SeekBelowFloorError refuses a seek to before the first event that is kept.
type SeekBelowFloorError struct {
	// Sequence is what was asked for, FirstSequence the first that is kept.
	Sequence, FirstSequence int64
}

// Error implements error.
func (e *SeekBelowFloorError) Error() string {
	return fmt.Sprintf("events up to %d are no longer kept: the first sequence to come cannot be below %d", e.FirstSequence-1, e.FirstSequence)
}

// HeldBackError refuses to hand out what a hold keeps back.
type HeldBackError struct {
	// State is StateDisabled, StateHalted or StatePaused, Reason a sentence.
	State, Reason string
	// For is how long it lasts yet; 0: until it is resumed.
	For time.Duration
}

// Error implements error.
func (e *HeldBackError) Error() string { return "nothing is handed out: " + e.Reason }

// NotHandedOutError refuses to commit what is not under a lease.
type NotHandedOutError struct {
	// Sequence is what was asked for. First and Last are the lease's events; 0:
	// nothing is handed out.
	Sequence, First, Last int64
}

// Error implements error.
func (e *NotHandedOutError) Error() string {
	if e.Last == 0 {
		return fmt.Sprintf("event %d is not handed out: nothing is", e.Sequence)
	}
	return fmt.Sprintf("event %d is not handed out: the lease has events %d to %d", e.Sequence, e.First, e.Last)
}

// ReplayOpenError refuses mode pull while a replay is open.
type ReplayOpenError struct {
	// ID is the first such replay.
	ID int64
}

// Error implements error.
func (e *ReplayOpenError) Error() string {
	return fmt.Sprintf("replay %d is open: cancel it, or wait until it is done", e.ID)
}

// NotHaltedAtError refuses to skip an event at which the subscriber is not
// halted.
type NotHaltedAtError struct {
	// Sequence is what was asked for.
	Sequence int64
	// Halted says whether the subscriber is halted at all, At at which event; 0:
	// at none.
	Halted bool
	At     int64
}

// Error implements error.
func (e *NotHaltedAtError) Error() string {
	switch {
	case !e.Halted:
		return "the subscriber is not halted"
	case e.At == 0:
		return "the subscriber is halted, but not at an event"
	}
	return fmt.Sprintf("the subscriber is halted at event %d, not at %d", e.At, e.Sequence)
}

// KeyNotHeldError refuses a control of a key that is not held.
type KeyNotHeldError struct {
	Key event.Key
}

// Error implements error.
func (e *KeyNotHeldError) Error() string {
	return fmt.Sprintf("the key %s/%s is not held", e.Key.ResourceName, e.Key.ResourceRecordKey)
}

// NotFirstHeldError refuses to skip an event that is not the first that waits
// behind its key.
type NotFirstHeldError struct {
	Key event.Key
	// Sequence is what was asked for, First the one that is the first.
	Sequence, First int64
}

// Error implements error.
func (e *NotFirstHeldError) Error() string {
	return fmt.Sprintf("the first event that waits behind the key is %d, not %d", e.First, e.Sequence)
}

// SQLSTATE codes that the store tells apart (PostgreSQL appendix A).
const (
	sqlstateCheckViolation = "23514"
	sqlstateUndefinedTable = "42P01"

	sqlstateDeadlock         = "40P01"
	sqlstateLockNotAvailable = "55P03" // also where lock_timeout has passed
)

// hasCode reports whether err is PostgreSQL's error of that SQLSTATE.
func hasCode(err error, sqlstate string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == sqlstate
}

// unavailableCodes are the SQLSTATE codes that speak of the server's state, not
// of the statement.
var unavailableCodes = map[string]bool{
	"25006": true, // read-only: a standby after a failover
	"25P03": true, // idle-in-transaction timeout
	"57014": true, // statement timeout
	"57P01": true, // administrator shutdown
	"57P02": true, // crash shutdown
	"57P03": true, // starting up or shutting down
	"57P05": true, // idle-session timeout
}

// Unavailable reports whether err says that PostgreSQL cannot be used now:
// refused or lost connections, no free connection in time, a server that
// starts, stops or is out of resources. The same call may work later. A
// cancelled context is not unavailability: the caller went away.
func Unavailable(err error) bool {
	var (
		pg      *pgconn.PgError
		connect *pgconn.ConnectError
		network net.Error
	)
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return false
	case errors.As(err, &connect):
		return true
	case errors.As(err, &pg):
		class := pg.Code[:min(2, len(pg.Code))]
		return class == "08" || class == "53" || class == "58" || unavailableCodes[pg.Code]
	case errors.As(err, &network):
		return true // context.DeadlineExceeded is one of these
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err)
}

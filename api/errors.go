package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"postroad/api/odata"
	"postroad/event"
	"postroad/eventlog"
	"postroad/store"
)

// unavailableRetryAfter is how soon a client may come back while PostgreSQL is
// away.
const unavailableRetryAfter = 2 * time.Second

// problemOf says what the client is told of an error. Whatever it does not
// know is internal: its text is logged and never shown.
func problemOf(err error) *Problem {
	var problem *Problem
	if errors.As(err, &problem) {
		return problem
	}
	for _, known := range []func(error) *Problem{bodyProblem, odataProblem, logProblem, moveProblem, pullProblem, storeProblem} {
		if p := known(err); p != nil {
			p.cause = err
			return p
		}
	}
	return &Problem{Code: CodeInternal, Detail: "The request could not be completed. The log has the reason under requestId.", cause: err}
}

// odataProblem is what package odata answers.
func odataProblem(err error) *Problem {
	var refusal *odata.Error
	if !errors.As(err, &refusal) {
		return nil
	}
	code := map[odata.Kind]Code{
		odata.BadRequest: CodeInvalidParameter, odata.NotFound: CodeNotFound,
		odata.NotAcceptable: CodeNotAcceptable, odata.NotImplemented: CodeNotImplemented,
	}[refusal.Kind]
	return &Problem{Code: code, Detail: refusal.Error()}
}

// bodyProblem is what reading and decoding a body can end in.
func bodyProblem(err error) *Problem {
	var (
		faults    event.FieldErrors
		malformed *malformedError
		large     *eventTooLargeError
		tooLarge  *http.MaxBytesError
	)
	switch {
	case errors.As(err, &faults):
		return invalid(faults)
	case errors.As(err, &malformed):
		return atPointer(CodeMalformed, malformed.pointer, malformed.detail)
	case errors.As(err, &large):
		return atPointer(CodeTooLarge, large.pointer, fmt.Sprintf("must not be larger than %d bytes", event.EventBytesMax))
	case errors.Is(err, errTooManyEvents):
		return atPointer(CodeTooLarge, "", fmt.Sprintf("must not hold more than %d events: send more arrays, or application/x-ndjson", eventsMax))
	case errors.As(err, &tooLarge):
		return atPointer(CodeTooLarge, "", fmt.Sprintf("must not be larger than %d bytes", tooLarge.Limit))
	case errors.Is(err, errUploadCut):
		return &Problem{Code: CodeUploadCut, Detail: "The body ended, or nothing more of it came, before all of it was there."}
	}
	return nil
}

// logProblem is what eventlog answers.
func logProblem(err error) *Problem {
	var (
		conflict *eventlog.ConflictError
		sequence *eventlog.SequenceError
		below    *eventlog.BelowFloorError
		busy     *eventlog.BusyError
		data     *eventlog.DataError
	)
	switch {
	case errors.As(err, &conflict):
		return conflictProblem(conflict, fmt.Sprintf("/%d", conflict.Index))
	case errors.As(err, &sequence):
		return invalidAt(fmt.Sprintf("/%d/sequence", sequence.Index), sequence.Detail)
	case errors.As(err, &data):
		return invalidAt("", "holds data that PostgreSQL refuses")
	case errors.As(err, &below):
		return &Problem{
			Code: CodeBelowFloor, FirstSequence: below.FirstSequence,
			Detail: fmt.Sprintf("The first event still kept is %d: go on with after=%d.", below.FirstSequence, below.FirstSequence-1),
		}
	case errors.As(err, &busy):
		return &Problem{Code: CodeBusy, RetryAfter: max(busy.RetryAfter, time.Second), Detail: "The publishing queue is full; nothing was stored. Send it again later."}
	case errors.Is(err, eventlog.ErrUnknownOutcome):
		return &Problem{
			Code: CodeOutcomeUnknown, RetryAfter: unavailableRetryAfter,
			Detail: "The database was lost while the events were being stored, so they may or may not be there. " +
				"Publish them again with the same idempotency keys: events that were stored are then not stored twice.",
		}
	case errors.Is(err, eventlog.ErrUnavailable), errors.Is(err, eventlog.ErrClosed):
		return unavailable()
	case errors.Is(err, eventlog.ErrTooExpensive):
		return &Problem{Code: CodeTooExpensive, Detail: "The query looks at too many events. Bound EntityEventSequence on both sides, or leave $count and $orderby out."}
	case errors.Is(err, eventlog.ErrFeedInUse):
		return &Problem{Code: CodeInUse, Detail: "Subscribers follow this feed: delete them first."}
	case errors.Is(err, eventlog.ErrProtectedFeed):
		return &Problem{Code: CodeProtected, Detail: "The feeds default and _system are never deleted."}
	case errors.Is(err, eventlog.ErrExists):
		return atPointer(CodeExists, "/name", "names a feed that exists")
	case errors.Is(err, eventlog.ErrFeedChanged):
		return &Problem{Code: CodeBusy, RetryAfter: time.Second, Detail: "The feed was deleted or changed during the request; nothing was stored."}
	}
	return nil
}

// conflictProblem names the event that contradicts the log; at is its pointer,
// "" for a body that is one event.
func conflictProblem(conflict *eventlog.ConflictError, at string) *Problem {
	if conflict.Kind == eventlog.ConflictSequence {
		p := atPointer(CodeSequenceConflict, at+"/sequence", conflict.Detail)
		p.Head, p.cause = &conflict.Head, conflict
		return p
	}
	p := atPointer(CodeIdempotencyConflict, at+"/idempotencyKey", conflict.Detail)
	p.cause = conflict
	return p
}

// storeProblem is what store answers.
func storeProblem(err error) *Problem {
	var (
		above     *store.StartAboveHeadError
		immutable *store.ImmutableError
	)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return notFound("id", "no such subscriber")
	case errors.Is(err, store.ErrExists):
		return atPointer(CodeExists, "/id", "names a subscriber that exists: use PUT or PATCH to change it")
	case errors.Is(err, store.ErrDeleting):
		p := atPointer(CodeDeleting, "/id", "names a subscriber that is still being deleted: try again shortly")
		p.RetryAfter = time.Second
		return p
	case errors.Is(err, store.ErrVersionMismatch):
		return &Problem{Code: CodeVersionMismatch, Detail: "The configuration is not at the version that If-Match names. Read it again."}
	case errors.Is(err, store.ErrFeedNotFound):
		return invalidAt("/feed", "names no feed")
	case errors.As(err, &above):
		return invalidAt("/start/sequence", fmt.Sprintf("is above the head of the feed, which is %d", above.Head))
	case errors.As(err, &immutable):
		return invalidAt("/"+immutable.Member, immutableDetail(immutable.Member))
	case errors.Is(err, store.ErrUntilPast):
		return invalidAt("/until", "must be in the future")
	case store.Unavailable(err):
		return unavailable()
	}
	return nil
}

func immutableDetail(member string) string {
	if member == "start" {
		return "cannot be changed after creation: immutable; use seek"
	}
	return "cannot be changed after creation: immutable"
}

func unavailable() *Problem {
	return &Problem{Code: CodeUnavailable, RetryAfter: unavailableRetryAfter, Detail: "The database cannot be reached; nothing was changed. Try again later."}
}

// clientGone reports that nobody waits for the answer any more. A body that
// broke off is no sign of it: net/http ends the context then too, but whoever
// stalls may still read.
func clientGone(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, context.Canceled) && !errors.Is(err, errUploadCut)
}

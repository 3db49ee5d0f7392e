package eventlog

import (
	"fmt"
	"slices"

	"postroad/event"
)

func newResult(sequences []int64, accepted int) Result {
	return Result{
		First: slices.Min(sequences), Last: slices.Max(sequences),
		Accepted: accepted, Duplicates: len(sequences) - accepted,
		Sequences: sequences,
	}
}

// conflict says what is wrong with the event that a verdict points at.
func conflict(v verdict, e *event.Event) *ConflictError {
	c := &ConflictError{Index: v.at, Kind: v.kind, Head: v.head}
	if v.kind == ConflictIdempotency {
		c.Detail = fmt.Sprintf("idempotency key %q was used before with other content", e.IdempotencyKey)
		return c
	}
	c.Detail = fmt.Sprintf("sequence %d is taken by another record or was never stored, and the feed's head is %d", e.Sequence, v.head)
	return c
}

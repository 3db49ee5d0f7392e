package api

import (
	"errors"
	"fmt"

	"postroad/event"
	"postroad/store"
)

// moveProblem is what store answers to seeks and to controls of what is set
// aside.
func moveProblem(err error) *Problem {
	var (
		above     *store.SeekAboveHeadError
		below     *store.SeekBelowFloorError
		notHalted *store.NotHaltedAtError
		notHeld   *store.KeyNotHeldError
		notFirst  *store.NotFirstHeldError
		finished  *store.ReplayFinishedError
	)
	switch {
	case errors.As(err, &above):
		p := invalidAt("/to/sequence", fmt.Sprintf("is above the head of the feed, which is %d", above.Head))
		p.Head = &above.Head
		return p
	case errors.Is(err, store.ErrSeekFuture):
		return invalidAt("/to/time", `must not be in the future: "now" is the first event published from now on`)
	case errors.As(err, &below):
		return belowFloor("/to", below.FirstSequence)
	case errors.As(err, &notHalted):
		p := atPointer(CodeNotHalted, "/sequence", "is not the event to skip: "+notHalted.Error())
		p.Sequence = notHalted.At
		return p
	case errors.As(err, &notHeld):
		return &Problem{Code: CodeKeyNotHeld, Detail: "No event of this record waits for it to be accepted. GET .../held-keys lists those that are held."}
	case errors.As(err, &notFirst):
		p := atPointer(CodeNotFirst, "/sequence", fmt.Sprintf("is not the first event that waits behind the key, which is %d", notFirst.First))
		p.Sequence = notFirst.First
		return p
	case errors.As(err, &finished):
		return &Problem{Code: CodeReplayFinished, Detail: fmt.Sprintf("Replay %d is %s and can no longer be changed.", finished.ID, finished.State)}
	case errors.Is(err, store.ErrReplayNotFound):
		return notFound("replay", "no such replay, or it is no longer kept")
	}
	return nil
}

// belowFloor refuses what would begin below the first event kept.
func belowFloor(pointer string, first int64) *Problem {
	p := atPointer(CodeBelowFloor, pointer, fmt.Sprintf("is before the first event still kept, which is %d", first))
	p.FirstSequence = first
	return p
}

// refused says which member of a replay was refused.
func (r *replayInput) refused(err error) error {
	var refused *store.ReplayRefusedError
	if !errors.As(err, &refused) {
		return err
	}
	from, to := "/fromSequence", "/toSequence"
	if r.FromSequence == nil && r.FromTime != "" {
		from = "/fromTime"
	}
	if r.ToSequence == nil && r.ToTime != "" {
		to = "/toTime"
	}
	var p *Problem
	switch refused.Reason {
	case store.ReplayAboveHead:
		p = invalidAt(from, fmt.Sprintf("is above the head of the feed, which is %d: there is nothing to send again", refused.Head))
		p.Head = &refused.Head
	case store.ReplayToAboveHead:
		p = invalidAt(to, fmt.Sprintf("is above the head of the feed, which is %d", refused.Head))
		p.Head = &refused.Head
	case store.ReplayReversed:
		p = invalidAt(to, fmt.Sprintf("is before the beginning: the replay would go from %d to %d", refused.From, refused.To))
	case store.ReplayBelowFloor:
		p = belowFloor(r.belowFloorAt(refused.FirstSequence), refused.FirstSequence)
	case store.ReplayTooManyOpen:
		p = &Problem{Code: CodeTooManyReplays, Detail: fmt.Sprintf("The subscriber has %d replays that are not finished: cancel one, or wait.", store.ReplaysOpenMax)}
	case store.ReplayEmpty:
		p = &Problem{Code: CodeReplayEmpty, Detail: r.emptyDetail(refused)}
	default:
		p = invalid(event.FieldErrors{{Pointer: "", Detail: "asks for a replay that cannot be made: " + refused.Error()}})
	}
	p.cause = err
	return p
}

// belowFloorAt is the bound that is before the first event kept.
func (r *replayInput) belowFloorAt(first int64) string {
	switch {
	case r.FromSequence != nil && *r.FromSequence < first:
		return "/fromSequence"
	case r.ToSequence != nil && *r.ToSequence < first:
		return "/toSequence"
	case r.FromTime != "":
		return "/fromTime"
	}
	return "/toTime"
}

func (r *replayInput) emptyDetail(refused *store.ReplayRefusedError) string {
	if r.Select == selectMissed {
		return "There is nothing to send again: the subscriber has no dead letters, or other replays have taken them up."
	}
	detail := "There is nothing to send again: no event"
	if refused.From != 0 || refused.To != 0 {
		detail += fmt.Sprintf(" from %d to %d", refused.From, refused.To)
	}
	return detail + " matches the replay and the subscriber's filter."
}

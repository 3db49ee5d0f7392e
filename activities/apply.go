package activities

import (
	"context"
	"errors"
	"strings"
	"time"

	"postroad/contract"
	"postroad/event"
	"postroad/eventlog"
	"postroad/store"
)

// controlSourceSignal is the source of controls that came as signals.
const controlSourceSignal = "signal"

// Apply accepts a control that came as a signal. It never takes the lease: the
// control is in force at once where nobody holds it, and whoever holds it puts
// it in force. A repeat of the same request changes nothing.
//
// What cannot be done is a result that says why, and no error: an error is tried
// again for ever, and holds up the controls behind it.
func (a *Activities) Apply(ctx context.Context, in contract.ApplyInput) (contract.ApplyResult, error) {
	var result store.ControlResult
	var err error
	switch in.Kind {
	case contract.ControlSeek:
		result, err = a.applySeek(ctx, in)
	case contract.ControlReplay:
		result, err = a.applyReplay(ctx, in)
	default:
		result, err = a.applyHold(ctx, in)
	}
	if sentence, ok := refused(err); ok {
		return contract.ApplyResult{Refused: sentence}, nil
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return contract.ApplyResult{Gone: true}, nil
	case err != nil:
		return contract.ApplyResult{}, err
	}
	return contract.ApplyResult{Version: result.Version}, nil
}

// refusal says why a signal asks for nothing that could be done.
type refusal string

// Error implements error.
func (r refusal) Error() string { return string(r) }

// refused reports that a control will not be accepted, however often it is
// tried, and why.
func refused(err error) (sentence string, ok bool) {
	var (
		unclear refusal
		above   *store.SeekAboveHeadError
		below   *store.SeekBelowFloorError
		replay  *store.ReplayRefusedError
	)
	switch {
	case errors.Is(err, store.ErrUntilPast):
		return store.ErrUntilPast.Error(), true
	case errors.Is(err, store.ErrPulls):
		return store.ErrPulls.Error(), true
	case errors.Is(err, store.ErrSeekFuture):
		return store.ErrSeekFuture.Error(), true
	case errors.As(err, &unclear):
		return unclear.Error(), true
	case errors.As(err, &above):
		return above.Error(), true
	case errors.As(err, &below):
		return below.Error(), true
	case errors.As(err, &replay):
		return replay.Error(), true
	}
	return "", false
}

// applyHold accepts a pause or a resume.
func (a *Activities) applyHold(ctx context.Context, in contract.ApplyInput) (store.ControlResult, error) {
	request := store.ControlRequest{
		Subscriber: in.Subscriber, Kind: in.Kind,
		// PostgreSQL cannot store NUL: a pause must not fail for its reason.
		Reason: strings.ReplaceAll(strings.ToValidUTF8(in.Reason, "\ufffd"), "\x00", "\ufffd"),
		Source: controlSourceSignal, RequestID: in.RequestID,
	}
	if in.Until != "" {
		until, err := time.Parse(time.RFC3339, in.Until)
		if err == nil {
			request.Until = &until
		} // else: what does not decode means the plain thing
	}
	return a.cfg.Store.Control(ctx, request)
}

// applySeek accepts a seek. There is no plain one: where it is not clear where
// to, the position stays.
func (a *Activities) applySeek(ctx context.Context, in contract.ApplyInput) (store.ControlResult, error) {
	var targets []store.SeekTarget
	if in.Sequence != nil {
		if *in.Sequence < 0 {
			return store.ControlResult{}, refusal("sequence must be 0 or more")
		}
		targets = append(targets, store.SeekTarget{Sequence: in.Sequence})
	}
	if in.Time != "" {
		at, err := time.Parse(time.RFC3339, in.Time)
		if err != nil {
			return store.ControlResult{}, refusal("time must be an RFC 3339 time")
		}
		targets = append(targets, store.SeekTarget{Time: &at})
	}
	switch in.To {
	case "":
	case contract.SeekBeginning:
		targets = append(targets, store.SeekTarget{Beginning: true})
	case contract.SeekNow:
		targets = append(targets, store.SeekTarget{Now: true})
	default:
		return store.ControlResult{}, refusal("to must be beginning or now")
	}
	if len(targets) != 1 {
		return store.ControlResult{}, refusal("a seek needs one target: sequence, time or to")
	}
	return a.cfg.Store.Control(ctx, store.ControlRequest{
		Subscriber: in.Subscriber, Kind: store.ControlSeek, Seek: &targets[0], Source: controlSourceSignal, RequestID: in.RequestID,
	})
}

// applyReplay accepts a replay. There is no plain one: without bounds everything
// the feed has would be sent again.
func (a *Activities) applyReplay(ctx context.Context, in contract.ApplyInput) (store.ControlResult, error) {
	request := store.ReplayRequest{
		Subscriber: in.Subscriber, FromSequence: in.FromSequence, ToSequence: in.ToSequence,
		ResourceNames: in.ResourceNames, Missed: in.Missed,
		Source: controlSourceSignal, RequestID: in.RequestID, Count: a.countReplay,
	}
	for _, bound := range []struct {
		name, text string
		at         **time.Time
	}{{"fromTime", in.FromTime, &request.FromTime}, {"toTime", in.ToTime, &request.ToTime}} {
		if bound.text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339, bound.text)
		if err != nil {
			return store.ControlResult{}, refusal(bound.name + " must be an RFC 3339 time")
		}
		*bound.at = &at
	}
	bounded := in.FromSequence != nil || in.ToSequence != nil || in.FromTime != "" || in.ToTime != ""
	if !bounded && in.ResourceNames == nil && !in.Missed {
		return store.ControlResult{}, refusal("a replay needs bounds (fromSequence, toSequence, fromTime, toTime), resourceNames or missed")
	}
	if err := (event.Filter{ResourceNames: in.ResourceNames}).Validate().Err(); err != nil {
		return store.ControlResult{}, refusal("resourceNames must be 1-100 names, as in a filter")
	}
	_, result, err := a.cfg.Store.CreateReplay(ctx, request)
	return result, err
}

// countReplay counts the events of a replay, for as long as a signal may wait.
func (a *Activities) countReplay(ctx context.Context, s store.ReplayStretch) (total, first, last int64, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, a.cfg.CountReplay, errCountTooLong)
	defer cancel()
	total, first, last, err = a.cfg.Log.Count(ctx, s.FeedID, eventlog.Selection{
		After: s.After, Through: s.Through, Filter: s.Filter, Keys: s.Keys,
	})
	if err != nil && errors.Is(context.Cause(ctx), errCountTooLong) {
		err = errCountTooLong
	}
	return total, first, last, err
}

// errCountTooLong refuses what would hold up the signals behind it.
const errCountTooLong = refusal("counting the events of the replay takes too long: give narrower bounds, or ask through the API")

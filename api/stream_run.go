package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"postroad/event"
	"postroad/eventlog"
	"postroad/store"
)

const (
	// batchEvents and batchBytes bound what a stream takes from the log at once,
	// and so what one holds whose reader is slow.
	batchEvents = 200
	batchBytes  = 256 << 10
	// streamPause is the wait before the database is asked again that was away.
	streamPause = time.Second
)

// Why a stream ends, as its reader is told and metrics count.
const (
	endDraining   = "draining"    // this process stops; another goes on
	endRevoked    = "revoked"     // the token is no longer good for it
	endDeleted    = "deleted"     // the feed or the subscriber is gone
	endChanged    = "changed"     // the subscriber's configuration is another
	endBelowFloor = "below-floor" // events above the position have been removed
	endError      = "error"       // the log has the reason
	// Of these two nobody can be told.
	endSlow = "slow" // nothing was read for Config.StreamWriteMax
	endGone = "gone" // the reader went away
)

// ending is the last word to a reader.
type ending struct {
	reason string
	// after is the position to go on after.
	after int64
	// firstSequence is the first event that is kept; 0: not said.
	firstSequence int64
}

func (e ending) appendJSON(b []byte) []byte {
	b = event.AppendString(append(b, `{"reason":`...), e.reason)
	b = strconv.AppendInt(append(b, `,"after":`...), e.after, 10)
	if e.firstSequence != 0 {
		b = strconv.AppendInt(append(b, `,"firstSequence":`...), e.firstSequence, 10)
	}
	return append(b, '}')
}

// streamEnd ends a stream's context.
type streamEnd struct{ reason string }

func (e streamEnd) Error() string { return "stream ends: " + e.reason }

var errSlowReader = streamEnd{endSlow}

// wire brings a stream to its reader. An error means that nothing more gets there:
// errSlowReader where the reader does not keep up.
type wire interface {
	// begin says where the stream begins.
	begin(position int64, named bool) error
	// item sends one item, or keeps it until flush; render appends it.
	item(sequence int64, render func(b []byte) []byte) error
	flush() error
	// beat shows that the stream lives, and where it is if moved.
	beat(position int64, moved bool) error
	end(e ending) error
}

// stream is one reader that follows the log.
type stream struct {
	server  *Server
	grant   *grant
	format  string
	feed    int64
	epoch   int // of the feed
	filter  event.Filter
	version store.Version // of the subscriber's configuration
	// subscriber is whose stream it is; empty: a feed's.
	subscriber string
	partition  event.Partition
	// item appends what the reader gets of an event.
	item func(e *event.Event, b []byte) []byte

	wire     wire
	follower *eventlog.Follower
	// position: every event up to here was sent, or is not for this reader. The
	// reader has been told of told.
	position, told int64
	named          bool // the reader named the position
	sent           int64
	checked        time.Time // when the token was last found good
	beaten         time.Time // when something was last sent
}

// run streams until there is a reason to end, and returns it. The context ends with
// the reader, or with a streamEnd.
func (st *stream) run(ctx context.Context, w wire) ending {
	st.wire = w
	st.follower = st.server.config.Log.Follow(st.feed, st.position, st.filter)
	defer func() { st.follower.Close() }()
	err := w.begin(st.position, st.named)
	st.told, st.beaten = st.position, time.Now()
	for err == nil {
		err = st.turn(ctx)
	}
	e := st.ending(ctx, err)
	if e.reason != endSlow && e.reason != endGone {
		if err := w.end(e); err != nil {
			e.reason = endGone
		}
	}
	return e
}

// turn sends what there is, or waits until there may be more.
func (st *stream) turn(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	known, err := st.allowed(ctx)
	if err != nil {
		return err
	}
	found := false
	if known {
		if found, err = st.send(ctx); err != nil && !store.Unavailable(err) {
			return err
		}
		known = err == nil
	}
	if rest := st.server.config.StreamHeartbeat - time.Since(st.beaten); rest <= 0 {
		st.beaten = time.Now()
		if err := st.wire.beat(st.position, st.position != st.told); err != nil {
			return err
		}
		st.told = st.position
	}
	switch {
	case !known:
		return pause(ctx, min(streamPause, st.idle()))
	case found:
		return nil
	}
	return st.wait(ctx)
}

// idle is how long the stream may wait for events.
func (st *stream) idle() time.Duration {
	idle := st.server.config.StreamHeartbeat - time.Since(st.beaten)
	if st.grant.tokenID() != "" {
		idle = min(idle, st.server.config.TokenFresh)
	}
	return max(idle, time.Millisecond)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (st *stream) wait(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, st.idle())
	defer cancel()
	err := st.follower.Wait(waiting)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// allowed asks now and then whether the token is still good. known is false while
// that cannot be found out: then nothing is sent.
func (st *stream) allowed(ctx context.Context) (known bool, err error) {
	if st.grant.tokenID() == "" || time.Since(st.checked) < st.server.config.TokenFresh {
		return true, nil
	}
	err = st.server.stillAllowed(ctx, st.grant)
	if err == nil {
		st.checked = time.Now()
		return true, nil
	}
	if p := problemOf(err); p.Status() < http.StatusInternalServerError {
		return false, streamEnd{endRevoked}
	}
	return false, nil
}

// send sends the next events, and reports whether there may be more at once.
func (st *stream) send(ctx context.Context) (found bool, err error) {
	events, scanned, err := st.next(ctx)
	if err != nil {
		return false, err
	}
	moved := scanned != st.position
	sent := int64(0)
	for _, e := range events {
		if st.follower.Erased() {
			scanned = st.position // the others are read anew
			break
		}
		if st.partition.Has(e.ResourceName, e.ResourceRecordKey) {
			if err := st.wire.item(e.Sequence, func(b []byte) []byte { return st.item(e, b) }); err != nil {
				return false, err
			}
			st.told = e.Sequence
			sent++
		}
		st.position = e.Sequence
	}
	st.position = scanned
	if sent > 0 {
		st.sent += sent
		st.beaten = time.Now()
		st.server.metrics.streamEvents.Add(float64(sent))
		err = st.wire.flush()
	}
	return moved, err
}

// next takes events of the log; what was taken before an erasure is taken anew.
func (st *stream) next(ctx context.Context) ([]*event.Event, int64, error) {
	if st.follower.Erased() {
		st.follower.Close()
		st.follower = st.server.config.Log.Follow(st.feed, st.position, st.filter)
	}
	reading, cancel := context.WithTimeout(ctx, st.server.config.DatabaseMax)
	defer cancel()
	return st.follower.Next(reading, batchEvents, batchBytes)
}

// ending says what to tell the reader of what ended the stream.
func (st *stream) ending(ctx context.Context, err error) ending {
	e := ending{reason: endError, after: st.position}
	var end streamEnd
	var below *eventlog.BelowFloorError
	switch {
	case errors.As(err, &end), errors.As(context.Cause(ctx), &end):
		e.reason = end.reason
	case errors.Is(err, eventlog.ErrClosed):
		e.reason = endDraining
	case errors.As(err, &below):
		e.reason, e.firstSequence = endBelowFloor, below.FirstSequence
	case errors.Is(err, eventlog.ErrNotFound):
		e.reason = endDeleted
	case ctx.Err() != nil, errors.As(err, new(*wireError)):
		e.reason = endGone
	default:
		st.server.config.Logger.ErrorContext(ctx, "stream broken off", slog.Any("error", err))
	}
	return e
}

// wireError is a connection that takes nothing more.
type wireError struct{ err error }

func (e *wireError) Error() string { return "write stream: " + e.err.Error() }
func (e *wireError) Unwrap() error { return e.err }

package apiclient

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	streamIdleDefault     = time.Minute // four heartbeats
	streamPauseMinDefault = 500 * time.Millisecond
	streamPauseMaxDefault = 30 * time.Second
	// streamLineBytesMax holds an event of 1 MiB, rendered and quoted.
	streamLineBytesMax = 16 << 20
)

// ErrAgain makes a Stream begin again at the item for which it is returned.
var ErrAgain = errors.New("take the stream up again")

// Stream follows a stream of NDJSON and takes it up again where it broke off.
// The zero value of each optional field means its default.
type Stream struct {
	Client *Client
	// Path is the stream's, and Query what it is asked besides position and format.
	Path  string
	Query url.Values
	// After is the position to begin after, and moves on with the items; below 0:
	// the server says where it begins.
	After int64
	// Idle is how long nothing may come before the connection counts as lost.
	// Default 1 min.
	Idle time.Duration
	// PauseMin and PauseMax bound the wait before another attempt; it doubles and
	// has jitter. Default 500 ms and 30 s.
	PauseMin, PauseMax time.Duration
	// Waiting, unless nil, is called before a wait, with its reason.
	Waiting func(reason error, pause time.Duration)
}

// Item is one line of a stream, without its end. Line is valid during the call.
type Item struct {
	Sequence int64
	Line     []byte
}

// StreamEndError is a stream that ended for good.
type StreamEndError struct {
	// Reason is the server's: revoked, deleted or below-floor.
	Reason string
	// FirstSequence is the first event that is still kept; 0: not said.
	FirstSequence int64
}

// Error implements error.
func (e *StreamEndError) Error() string {
	switch e.Reason {
	case endRevoked:
		return "the token is no longer valid for this stream"
	case endDeleted:
		return "the feed or subscriber of this stream was deleted"
	case endBelowFloor:
		return fmt.Sprintf("events above this position were removed: the first that is kept is %d", e.FirstSequence)
	}
	return "the server ended the stream: " + e.Reason
}

// Why streams end, as the server says it.
const (
	endRevoked    = "revoked"
	endDeleted    = "deleted"
	endBelowFloor = "below-floor"
	endError      = "error"
)

// Follow hands each item to take, in order, until ctx ends or there is no way to go
// on. A failed first attempt is returned; later ones are made again. It returns what
// take returned, a *Problem, an *UnreachableError, a *StreamEndError, or the
// context's error.
func (s *Stream) Follow(ctx context.Context, take func(Item) error) error {
	pauseMin, pauseMax := orDefault(s.PauseMin, streamPauseMinDefault), orDefault(s.PauseMax, streamPauseMaxDefault)
	pause, begun := time.Duration(0), false
	for {
		c := &streamConnection{stream: s, take: take}
		err := c.run(ctx)
		begun = begun || c.open
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !begun || c.over || final(err):
			return err
		case c.moved:
			pause = 0
		}
		if errors.Is(err, ErrAgain) && c.moved {
			continue
		}
		pause = min(max(2*pause, pauseMin), pauseMax)
		wait := pause/2 + rand.N(pause/2+1)
		var busy *Problem
		if errors.As(err, &busy) {
			if seconds, err := strconv.Atoi(busy.RetryAfter); err == nil {
				wait = max(wait, min(time.Duration(seconds)*time.Second, pauseMax))
			}
		}
		if s.Waiting != nil {
			s.Waiting(err, wait)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return d
}

// final reports an answer that another attempt would get too.
func final(err error) bool {
	var problem *Problem
	var end *StreamEndError
	switch {
	case errors.As(err, &problem):
		return problem.Status < http.StatusInternalServerError && problem.Status != http.StatusTooManyRequests
	case errors.As(err, &end):
		return end.Reason == endRevoked || end.Reason == endDeleted || end.Reason == endBelowFloor
	}
	return false
}

// streamConnection is one answer of the server.
type streamConnection struct {
	stream *Stream
	take   func(Item) error
	open   bool // a 2xx answer came
	moved  bool // the position moved
	over   bool // take wants no more
}

func (c *streamConnection) run(ctx context.Context) error {
	s := c.stream
	query := url.Values{"format": {"ndjson"}}
	maps.Copy(query, s.Query)
	if s.After >= 0 {
		query.Set("after", strconv.FormatInt(s.After, 10))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := orDefault(s.Idle, streamIdleDefault)
	silent := time.AfterFunc(idle, func() { cancel(fmt.Errorf("nothing came for %s", idle)) })
	defer silent.Stop()
	body, err := s.Client.Open(ctx, Request{Method: http.MethodGet, Path: s.Path + "?" + query.Encode()})
	if err != nil {
		return err
	}
	defer body.Close()
	c.open = true
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, streamLineBytesMax)
	for lines.Scan() {
		silent.Stop() // what take does takes as long as it takes
		if err := c.line(lines.Bytes()); err != nil {
			return err
		}
		silent.Reset(idle)
	}
	err = lines.Err()
	switch cause := context.Cause(ctx); {
	case cause != nil:
		err = cause
	case err == nil:
		err = io.ErrUnexpectedEOF // it ends with a reason, else it was cut
	}
	return &UnreachableError{URL: s.Client.URL, Err: fmt.Errorf("read stream: %w", err)}
}

// line reads one line: an item, a position, the end, or a sign of life.
func (c *streamConnection) line(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	var l struct {
		Sequence *int64 `json:"sequence"`
		After    *int64 `json:"after"`
		End      *struct {
			Reason        string `json:"reason"`
			After         int64  `json:"after"`
			FirstSequence int64  `json:"firstSequence"`
		} `json:"end"`
	}
	if err := json.Unmarshal(text, &l); err != nil {
		return fmt.Errorf("read stream: %w", err)
	}
	switch {
	case l.Sequence != nil:
		if err := c.take(Item{Sequence: *l.Sequence, Line: text}); err != nil {
			c.over = !errors.Is(err, ErrAgain)
			return err
		}
		c.reach(*l.Sequence)
	case l.After != nil:
		c.reach(*l.After)
	case l.End != nil:
		c.reach(l.End.After)
		c.moved = c.moved || l.End.Reason != endError
		return &StreamEndError{Reason: l.End.Reason, FirstSequence: l.End.FirstSequence}
	}
	return nil
}

func (c *streamConnection) reach(position int64) {
	if position > c.stream.After {
		c.stream.After, c.moved = position, true
	}
}

package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gin-gonic/gin"

	"postroad/event"
	"postroad/eventlog"
)

const (
	// chunkEvents and chunkBytes bound what one append of a stream takes.
	chunkEvents = 1000
	chunkBytes  = 4 << 20
	// lineBytesMax is an event and some white space around it.
	lineBytesMax = event.EventBytesMax + 4<<10
	// busyWaitMax is how long a stream waits for room in the queue: its sender
	// cannot go slower by being told to.
	busyWaitMax = 10 * time.Second
	busyPause   = 50 * time.Millisecond
)

// upload is a stream of lines on its way into the log. While one chunk is
// appended the next is read; there is never more than that in memory.
type upload struct {
	publication *publication
	ctx         context.Context //nolint:containedctx // an upload is one call that several methods share
	feed        eventlog.Feed
	grant       *grant
	supplied    bool
	lines       *lineReader
	decoder     *eventDecoder

	chunk    chunk
	events   int64 // in the request so far
	last     int64 // the last supplied sequence
	pending  chan appended
	appended chunk // what pending is about

	total progress
	first int64
	all   []int64 // while they are few
}

// chunk is a run of events with the lines they stood in.
type chunk struct {
	events []event.Event
	lines  []int64
	bytes  int
}

type appended struct {
	result eventlog.Result
	err    error
}

// stream takes NDJSON of any length. Lines before a bad one stay.
func (p *publication) stream(c *gin.Context) error {
	feed, cached, err := p.feed(c.Request.Context())
	if err != nil {
		return err
	}
	short := isShort(c.Request)
	if cached && !short {
		// A long upload must not fail late over what was remembered.
		p.server.feeds.forget(p.name)
		if feed, _, err = p.feed(c.Request.Context()); err != nil {
			return err
		}
	}
	lines, err := p.server.lines(c)
	if err != nil {
		return err
	}
	u := p.upload(c, feed, lines)
	err = u.run()
	if err != nil && cached && short && u.total.accepted == 0 && u.total.duplicates == 0 && feedMayHaveChanged(err) {
		p.server.feeds.forget(p.name)
		if feed, _, err = p.feed(c.Request.Context()); err != nil {
			return err
		}
		lines.rewind()
		u = p.upload(c, feed, lines)
		err = u.run()
	}
	if err != nil {
		c.Header("Connection", "close") // the rest of the body is not wanted
		return u.problem(err)
	}
	if u.events == 0 {
		return invalidAt("", "must hold at least one event")
	}
	p.answer(c, published{
		first: u.first, last: u.total.lastSequence, accepted: u.total.accepted, duplicates: u.total.duplicates, sequences: u.all,
	})
	return nil
}

// upload is one try to store the lines in the feed.
func (p *publication) upload(c *gin.Context, feed eventlog.Feed, lines *lineReader) *upload {
	return &upload{
		publication: p, feed: feed, grant: grantOf(c), supplied: feed.Sequences == eventlog.SequencesSupplied, lines: lines,
		// Whole lines of a cut upload stay: their append must not end with the connection.
		ctx: context.WithoutCancel(c.Request.Context()),
	}
}

func (u *upload) run() error {
	u.decoder, _ = u.publication.server.decoders.Get().(*eventDecoder)
	readErr := u.read()
	u.decoder.reset(nil, false) // the pool must not hold the body
	u.publication.server.decoders.Put(u.decoder)
	// Whatever ended the reading, what was read before it is stored first.
	if refused := (*refusedError)(nil); !errors.As(readErr, &refused) {
		if err := u.flush(); err != nil {
			readErr = err
		} else if err := u.settle(); err != nil {
			readErr = err
		}
	} else if err := u.settle(); err != nil {
		readErr = err
	}
	return readErr
}

// read reads lines and hands chunks on until the end or the first error.
func (u *upload) read() error {
	for {
		line, err := u.lines.next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return &lineError{u.lines.number, err}
		}
		if err := u.take(line); err != nil {
			return &lineError{u.lines.number, err}
		}
		if len(u.chunk.events) == chunkEvents || u.chunk.bytes >= chunkBytes {
			if err := u.flush(); err != nil {
				return err
			}
		} else if err := u.look(); err != nil {
			return err
		}
	}
}

// take decodes a line into the chunk.
func (u *upload) take(line []byte) error {
	var ev event.Event
	if err := u.decoder.decodeLine(line, u.supplied, &ev); err != nil {
		return err
	}
	if u.supplied {
		if ev.Sequence <= u.last {
			return event.FieldErrors{{Pointer: "/sequence", Detail: fmt.Sprintf("must be above %d, the sequence before it", u.last)}}
		}
		u.last = ev.Sequence
	}
	if err := u.publication.setKey(&ev, u.events, func(int) string { return "" }); err != nil {
		return err
	}
	if u.chunk.events == nil && u.events > 0 { // where one chunk was filled, the next ones will be
		u.chunk.events = make([]event.Event, 0, chunkEvents)
		u.chunk.lines = make([]int64, 0, chunkEvents)
	}
	u.events++
	u.chunk.events = append(u.chunk.events, ev)
	u.chunk.lines = append(u.chunk.lines, u.lines.number)
	u.chunk.bytes += len(line)
	return nil
}

// flush sends the chunk on its way, after the one before it.
func (u *upload) flush() error {
	if err := u.settle(); err != nil {
		return err
	}
	if len(u.chunk.events) == 0 {
		return nil
	}
	u.appended, u.chunk = u.chunk, chunk{}
	u.pending = make(chan appended, 1)
	go func(events []event.Event, answer chan<- appended) {
		result, err := u.append(events)
		answer <- appended{result, err}
	}(u.appended.events, u.pending)
	return nil
}

// append waits for room in the queue within bounds. An upload may last longer
// than its token is valid.
func (u *upload) append(events []event.Event) (eventlog.Result, error) {
	if err := u.publication.server.stillAllowed(u.ctx, u.grant); err != nil {
		return eventlog.Result{}, err
	}
	deadline := time.Now().Add(busyWaitMax)
	for {
		result, err := u.publication.trace.append(u.ctx, u.publication.server.config.Publishing, u.feed, events)
		if !errors.Is(err, eventlog.ErrBusy) || time.Now().After(deadline) {
			return result, err
		}
		select {
		case <-time.After(busyPause):
		case <-u.publication.server.draining.Done():
			return result, err
		}
	}
}

// look notices an append that failed while the next chunk is still read.
func (u *upload) look() error {
	select {
	case answer := <-u.pending:
		return u.settled(answer)
	default: // a nil channel too
		return nil
	}
}

// settle waits for the append under way.
func (u *upload) settle() error {
	if u.pending == nil {
		return nil
	}
	return u.settled(<-u.pending)
}

func (u *upload) settled(answer appended) error {
	u.pending = nil
	if answer.err != nil {
		return &refusedError{u.appended, answer.err}
	}
	r := answer.result
	m := u.publication.server.metrics
	m.stored.Add(float64(r.Accepted))
	m.repeated.Add(float64(r.Duplicates))
	if u.first == 0 || r.First < u.first {
		u.first = r.First
	}
	u.total.lastSequence = max(u.total.lastSequence, r.Last)
	u.total.accepted += int64(r.Accepted)
	u.total.duplicates += int64(r.Duplicates)
	if u.events <= eventsMax {
		u.all = append(u.all, r.Sequences...)
	} else {
		u.all = nil
	}
	return nil
}

// lineError is a line that cannot be taken.
type lineError struct {
	line int64
	err  error
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }
func (e *lineError) Unwrap() error { return e.err }

// refusedError is a chunk that the log did not take; nothing of it was stored,
// unless its outcome is unknown.
type refusedError struct {
	chunk chunk
	err   error
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("lines from %d: %v", e.chunk.lines[0], e.err)
}
func (e *refusedError) Unwrap() error { return e.err }

// problem says what went wrong and how far the upload came.
func (u *upload) problem(err error) *Problem {
	var refused *refusedError
	var atLine *lineError
	var p *Problem
	switch {
	case errors.As(err, &refused):
		p = u.refusal(refused)
	case errors.As(err, &atLine):
		p = problemOf(atLine.err)
		u.total.line = atLine.line
		if (p.Code == CodeMalformed || p.Code == CodeTooLarge) && len(p.Errors) > 0 { // else it is gzip that is broken, not a line
			p.Code = CodeInvalid
		}
		p.Detail = fmt.Sprintf("Line %d: %s", u.total.line, p.Detail)
	}
	p.Progress = &u.total
	return p
}

func (u *upload) refusal(refused *refusedError) *Problem {
	u.total.line = refused.chunk.lines[0]
	var conflict *eventlog.ConflictError
	if errors.As(refused.err, &conflict) {
		u.total.line = refused.chunk.lines[conflict.Index]
		p := conflictProblem(conflict, "")
		p.Detail = fmt.Sprintf("Line %d: %s Nothing of lines %d to %d was stored.", u.total.line, p.Detail,
			refused.chunk.lines[0], refused.chunk.lines[len(refused.chunk.lines)-1])
		return p
	}
	p := problemOf(feedError(u.publication.name, refused.err))
	p.Detail = fmt.Sprintf("Line %d and on: %s", u.total.line, p.Detail)
	return p
}

package delivery

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync/atomic"
	"time"

	"postroad/event"
)

// The headers that differ from request to request.
const (
	fieldID = iota
	fieldTimestamp
	fieldSignature
	fieldSequence
	fieldLastSequence
	fieldCount
	fieldEventType
	fieldAttempt
	fieldPrevious
	fieldReplay
	fieldCompacted
	fieldTraceparent
	fieldTest
	fieldsCount
)

// turnedAwayMax is how often a request that was turned away unprocessed is sent
// again within its time; net/http does so at once, then after 1 s and 2 s.
const turnedAwayMax = 3

var errTurnedAway = errors.New("the request was turned away again and again")

// exchange is the working memory of one request: used again for the
// subscriber's next one, because at full rate a fresh header map, body and
// hash for each request cost more than signing it. It is given back only when
// nothing of net/http's can still look at it; otherwise it is left to the
// collector.
type exchange struct {
	target  *Target
	request http.Request // what each request is a copy of
	names   [fieldsCount]string
	values  [fieldsCount][1]string
	reader  bytes.Reader
	body    []byte
	scratch []byte
	macs    []hash.Hash // one for each of the target's keys
	kept    [responseBytesKept]byte

	trace    httptrace.ClientTrace
	gotConn  atomic.Bool // a connection was there
	reused   atomic.Bool // and had served before
	answered atomic.Bool // a byte of an answer came
	wrote    atomic.Bool // the request is written; net/http looks at it no more

	once   bool         // a test request's, which does not serve deliveries
	again  atomic.Int32 // how often the body was asked for once more
	timer  *time.Timer
	cancel context.CancelCauseFunc

	id          string
	traceparent string
}

func newExchange(t *Target) *exchange {
	x := &exchange{target: t}
	x.names = [fieldsCount]string{
		fieldID: t.signingPrefix + "Id", fieldTimestamp: t.signingPrefix + "Timestamp",
		fieldSignature: t.signingPrefix + "Signature", fieldSequence: "Postroad-Sequence",
		fieldLastSequence: "Postroad-Last-Sequence", fieldCount: "Postroad-Count",
		fieldEventType: "Postroad-Event-Type", fieldAttempt: "Postroad-Attempt", fieldPrevious: headerPrevious,
		fieldReplay: "Postroad-Replay", fieldCompacted: "Postroad-Compacted",
		fieldTraceparent: "Traceparent", fieldTest: headerTest,
	}
	header := make(http.Header, len(t.headers)+fieldsCount)
	for name, values := range t.headers {
		header[name] = values
	}
	x.request = http.Request{
		Method: http.MethodPost, URL: t.url, Host: t.url.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		// Of all readers net/http knows this one best: it sends headers and
		// body in one packet.
		Body: io.NopCloser(&x.reader), GetBody: x.bodyAgain,
	}
	for _, k := range t.keys {
		x.macs = append(x.macs, hmac.New(sha256.New, k.raw))
	}
	x.trace = httptrace.ClientTrace{GotConn: x.onConn, GotFirstResponseByte: x.onAnswer, WroteRequest: x.onWrote}
	return x
}

func (x *exchange) onConn(info httptrace.GotConnInfo) {
	x.reused.Store(info.Reused)
	x.gotConn.Store(true)
}

func (x *exchange) onAnswer() { x.answered.Store(true) }

func (x *exchange) onWrote(info httptrace.WroteRequestInfo) { x.wrote.Store(info.Err == nil) }

// bodyAgain gives net/http the body once more. As no header says that the request
// is idempotent, it asks for it only where the consumer did not process the
// request: nothing of it was written, or the connection over HTTP/2 turned it
// away (RFC 9113 §8.7), as one does that is given more requests at once than it
// takes.
func (x *exchange) bodyAgain() (io.ReadCloser, error) {
	if x.again.Add(1) > turnedAwayMax {
		return nil, errTurnedAway
	}
	return io.NopCloser(bytes.NewReader(x.body)), nil
}

func (x *exchange) onTimeout() { x.cancel(errTimedOut) }

// start begins to count the request's time and returns its context.
func (x *exchange) start(ctx context.Context, timeout time.Duration) context.Context {
	x.gotConn.Store(false)
	x.reused.Store(false)
	x.answered.Store(false)
	x.wrote.Store(false)
	x.again.Store(0)
	trace := &x.trace
	if httptrace.ContextClientTrace(ctx) != nil {
		// WithClientTrace would weave the caller's hooks into ours for good.
		copied := x.trace
		trace = &copied
	}
	ctx, x.cancel = context.WithCancelCause(httptrace.WithClientTrace(ctx, trace))
	if x.timer == nil {
		x.timer = time.AfterFunc(timeout, x.onTimeout)
	} else {
		x.timer.Reset(timeout)
	}
	return ctx
}

// finish ends the request and gives the exchange back where that is safe: the
// timer did not fire, an answer came over HTTP/1 and the request had been
// written by then.
func (x *exchange) finish(http1 bool) {
	stopped := x.timer.Stop()
	x.cancel(nil)
	if http1 && stopped && x.wrote.Load() && !x.once {
		x.target.exchanges.Put(x)
	}
}

func (x *exchange) set(field int, value string) { x.values[field][0] = value }

// fillHeader puts the request's values into the header that net/http sends.
func (x *exchange) fillHeader() {
	for field := range fieldsCount {
		if x.values[field][0] == "" {
			delete(x.request.Header, x.names[field])
		} else {
			x.request.Header[x.names[field]] = x.values[field][:]
		}
	}
	x.reader.Reset(x.body)
	x.request.ContentLength = int64(len(x.body))
}

// prepare renders and signs a request. All values that are new with it are cut
// from one string.
func (x *exchange) prepare(r Request, now time.Time) {
	t := x.target
	first, last := r.Events[0], r.Events[len(r.Events)-1]
	x.body = AppendBody(x.body[:0], t.format, t.batched, r.Events)

	b := append(append(x.scratch[:0], t.id...), '_')
	sequence := len(b)
	b = strconv.AppendInt(b, first.Sequence, 10)
	sequenceEnd, lastSequence := len(b), sequence
	if len(r.Events) > 1 {
		b = append(b, '-')
		lastSequence = len(b)
		b = strconv.AppendInt(b, last.Sequence, 10)
	}
	rangeEnd, replay := len(b), len(b)
	if r.Replay != 0 {
		b = append(b, "_r"...)
		replay = len(b)
		b = strconv.AppendInt(b, r.Replay, 10)
	}
	id := len(b)
	if !r.NoPrevious {
		b = strconv.AppendInt(b, r.Previous, 10)
	}
	previous := len(b)
	if len(r.Events) == 1 {
		b = appendHeaderText(b, first.EventType)
	}
	eventType := len(b)
	text, rest := x.sign(b, id, r.Traceparent, now)

	x.set(fieldSequence, text[sequence:sequenceEnd])
	x.set(fieldReplay, text[replay:id])
	x.set(fieldPrevious, text[id:previous])
	x.set(fieldEventType, text[previous:eventType])
	x.set(fieldAttempt, strconv.Itoa(r.Attempt))
	x.set(fieldCompacted, "")
	if r.Compacted > 0 {
		x.set(fieldCompacted, strconv.Itoa(r.Compacted))
	}
	if t.batched {
		x.set(fieldLastSequence, text[lastSequence:rangeEnd])
		x.set(fieldCount, strconv.Itoa(len(r.Events)))
	}
	x.setSigned(text[:id], rest)
}

// prepareTest renders and signs a test request: no events, whatever the batch
// size.
func (x *exchange) prepareTest(now time.Time) {
	t := x.target
	x.once = true
	x.body = AppendBody(x.body[:0], t.format, true, nil)
	b := strconv.AppendUint(append(append(x.scratch[:0], t.id...), "_test-"...), rand.Uint64(), 16)
	id := len(b)
	text, rest := x.sign(b, id, "", now)
	x.set(fieldTest, "true")
	x.setSigned(text[:id], rest)
}

// signed holds the values that sign appended.
type signed struct{ timestamp, signature, traceparent string }

// sign appends timestamp, trace and signatures to b, whose first id bytes are
// the request's id, and returns all of it as one string.
func (x *exchange) sign(b []byte, id int, traceparent string, now time.Time) (string, signed) {
	start := len(b)
	b = strconv.AppendInt(b, now.Unix(), 10)
	timestamp := len(b)
	if traceparent == "" || !validHeaderValue(traceparent) {
		b = appendTraceparent(b)
	} else {
		b = append(b, traceparent...)
	}
	trace := len(b)
	if len(x.macs) > 0 {
		// What is signed begins with id and timestamp; it is laid out behind
		// the values, and taken away again.
		b = append(append(b, b[:id]...), '.')
		b = append(append(b, b[start:timestamp]...), '.')
		head := len(b)
		for i, mac := range x.macs {
			if !x.target.keys[i].active(now) {
				continue
			}
			if len(b) > head {
				b = append(b, ' ')
			}
			b = appendSignature(b, mac, b[trace:head], x.body)
		}
		b = append(b[:trace], b[head:]...)
	}
	x.scratch = b
	text := string(b)
	return text, signed{timestamp: text[start:timestamp], traceparent: text[timestamp:trace], signature: text[trace:]}
}

func (x *exchange) setSigned(id string, s signed) {
	x.id, x.traceparent = id, s.traceparent
	x.set(fieldID, id)
	x.set(fieldTimestamp, s.timestamp)
	x.set(fieldSignature, s.signature)
	x.set(fieldTraceparent, s.traceparent)
}

// appendTraceparent appends a W3C trace context of its own: version 00, a
// random trace and span (never zero), recorded, for the attempts' log keeps it.
func appendTraceparent(b []byte) []byte {
	b = append(b, "00-"...)
	b = appendHex(b, rand.Uint64())
	b = appendHex(b, rand.Uint64()|1)
	b = append(b, '-')
	b = appendHex(b, rand.Uint64()|1)
	return append(b, "-01"...)
}

func appendHex(b []byte, n uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[n>>shift&0xf])
	}
	return b
}

// Request is one request to make.
type Request struct {
	// Events are what it carries, at least one, in the order of their
	// sequences: as many as Target.Fit allows.
	Events []*event.Event
	// Attempt counts the requests for this range, from 1.
	Attempt int
	// Previous is the sequence of the event that the subscriber matched before
	// the first of Events; 0: none.
	Previous int64
	// NoPrevious leaves Previous out: what stands between it and the first of
	// Events is not all settled, as with several lanes, so it would prove nothing.
	NoPrevious bool
	// Replay is the replay that the request is made for; 0: none.
	Replay int64
	// Compacted is how many older events of the same records were left out, as
	// Events has a newer one of each; 0: none.
	Compacted int
	// Traceparent is a W3C trace context to send; empty: one is made.
	Traceparent string
}

package delivery

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// directBodyBytesMax is the largest body that takes the direct path. A larger
// one might fill both ends' buffers while the consumer answers without
// reading: net/http reads while it writes, the direct path does not.
const directBodyBytesMax = 32 << 10

// http1Max bounds how many endpoints are remembered to speak HTTP/1.1: there is
// no end to those that a server meets.
const http1Max = 1 << 16

// direct reports whether a request takes the direct path: HTTP/1.1 written and
// read on the caller's own goroutine, over connections of our own. It does the
// same as net/http's transport, whose two goroutines for each connection and
// whose headers, checked and sorted for each request, cost a third of a
// request. net/http parses the answers here too.
//
// A TLS endpoint takes it once it was seen to choose HTTP/1.1, because it is
// net/http that offers and speaks HTTP/2.
func (c *Client) direct(x *exchange) bool {
	if c.noDirect || x.once || len(x.body) > directBodyBytesMax || x.target.address == "" {
		return false
	}
	if x.target.url.Scheme == "http" {
		return true
	}
	_, seen := c.http1.Load(x.target.origin)
	return seen
}

// sendDirect makes a prepared request on the direct path.
func (c *Client) sendDirect(ctx context.Context, x *exchange, a *Answer) {
	t := x.target
	if ctx.Err() != nil {
		a.fail(t, ctx.Err(), facts{canceled: true})
		return
	}
	deadline := a.StartedAt.Add(t.timeout)
	used := c.conns.get(t.origin, deadline)
	got := facts{reused: used != nil}
	if used == nil {
		var err error
		dialing, cancel := context.WithDeadline(ctx, deadline)
		used, err = c.dial(dialing, t)
		cancel()
		if err != nil {
			// It may be that the endpoint does not speak HTTP/1.1 any more.
			c.http1.Delete(t.origin)
			got.canceled, got.timedOut = ctx.Err() != nil, !time.Now().Before(deadline)
			a.fail(t, err, got)
			return
		}
		_ = used.SetDeadline(deadline)
	}
	got.connected = true
	// A caller that gives up ends the reading and the writing.
	var alone func() bool
	if !t.flights.begin(ctx, used) {
		alone = context.AfterFunc(ctx, func() { _ = used.SetDeadline(past) })
	}
	stop := func() bool {
		if alone != nil {
			return alone()
		}
		return t.flights.finish(used)
	}
	resp, err := used.roundTrip(x.wire(), &x.request) //nolint:bodyclose // closing would read an endless body to its end
	if err != nil {
		stop()
		used.abort()
		got.answered = used.got
		got.canceled, got.timedOut = ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded)
		a.fail(t, err, got)
		return
	}
	a.read(resp, t)
	if resp.ContentLength < 0 || resp.ContentLength > int64(used.reader.Buffered()) {
		// The rest is still on its way.
		if soon := time.Now().Add(c.answerBodyTimeout); soon.Before(deadline) {
			_ = used.SetDeadline(soon)
		}
		if ctx.Err() != nil {
			_ = used.SetDeadline(past) // again: it may just have been put off
		}
	}
	var ended bool
	a.Response, ended = x.readBody(resp)
	if stop() && ended && used.reusable(resp) {
		c.conns.put(t.origin, used)
	} else {
		used.abort()
	}
}

// appendHead appends the part of a request's head that never changes.
func appendHead(b []byte, t *Target) []byte {
	b = append(append(append(b, "POST "...), t.url.RequestURI()...), " HTTP/1.1\r\nHost: "...)
	b = append(append(b, strings.TrimSuffix(t.url.Host, ":")...), "\r\n"...)
	for _, name := range slices.Sorted(maps.Keys(t.headers)) {
		b = appendHeader(b, name, t.headers[name][0])
	}
	return b
}

func appendHeader(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	return append(append(b, value...), "\r\n"...)
}

// wire lays out the whole request, head and body, for one write.
func (x *exchange) wire() []byte {
	b := append(x.scratch[:0], x.target.head...)
	for field := range fieldsCount {
		if value := x.values[field][0]; value != "" {
			b = appendHeader(b, x.names[field], value)
		}
	}
	b = strconv.AppendInt(append(b, "Content-Length: "...), int64(len(x.body)), 10)
	b = append(append(b, "\r\n\r\n"...), x.body...)
	x.scratch = b
	return b
}

// noteHTTP1 remembers that an endpoint speaks HTTP/1.1 where it could have
// chosen HTTP/2.
func (c *Client) noteHTTP1(t *Target, resp *http.Response) {
	if resp.ProtoMajor != 1 || resp.ProtoMinor != 1 || t.url.Scheme != "https" {
		return
	}
	if _, known := c.http1.LoadOrStore(t.origin, struct{}{}); !known && c.http1Noted.Add(1) > http1Max {
		// Those that are in use are soon known again.
		c.http1.Clear()
		c.http1Noted.Store(0)
	}
}

package delivery

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// errDead reports a connection that the consumer closed while it was unused.
var errDead = errors.New("the connection was closed while it was unused")

// conn is one HTTP/1.1 connection to a consumer. It serves one request at a
// time, on the goroutine of its caller.
type conn struct {
	net.Conn
	socket    net.Conn        // below Conn, where that is TLS
	raw       syscall.RawConn // of the socket
	reader    *bufio.Reader
	left      int64 // bytes that may still be read of the answer
	wrote     bool  // the whole request was taken
	got       bool  // a byte of the answer came
	broken    error // what ended the reading
	peek      func(fd uintptr) bool
	peeked    [1]byte
	peekError error
	plain     plain

	// While a request is under way, these are its target's flights'.
	ended                  bool // by the request's context
	nextBusy, previousBusy *conn

	// While it is unused, all these are its pool's.
	origin       string
	unused       time.Time // since when
	older, newer *conn
}

// Read implements io.Reader for the buffer.
func (c *conn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, errAnswerTooLarge
	}
	n, err := c.Conn.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	c.got = c.got || n > 0
	c.broken = err
	return n, err
}

// past is a deadline that ends whatever waits for a connection.
var past = time.Unix(1, 0)

var errAnswerTooLarge = errors.New("the answer is too large")

// dial makes a connection for the direct path, guarded like every other.
func (c *Client) dial(ctx context.Context, t *Target) (*conn, error) {
	socket, err := c.transport.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, err
	}
	made := &conn{Conn: socket, socket: socket}
	made.peek = made.peekSocket
	if plain, ok := socket.(syscall.Conn); ok {
		if made.raw, err = plain.SyscallConn(); err != nil {
			_ = socket.Close()
			return nil, err
		}
	}
	if t.url.Scheme == "https" {
		config := c.tls.Clone()
		config.ServerName, config.NextProtos = t.url.Hostname(), []string{"http/1.1"}
		secured := tls.Client(socket, config)
		ctx, cancel := context.WithTimeout(ctx, c.transport.TLSHandshakeTimeout)
		defer cancel()
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = socket.Close()
			return nil, err
		}
		made.Conn = secured
	}
	made.reader = bufio.NewReaderSize(made, 4<<10)
	return made, nil
}

// abort closes a connection without a word, which in TLS might have to wait for
// a consumer that does not read.
func (c *conn) abort() { _ = c.socket.Close() }

// reusable reports whether nothing of a request and its answer, which was read
// to its end, is left on the way: what is would be the next request's answer.
func (c *conn) reusable(resp *http.Response) bool {
	return c.wrote && !resp.Close && c.reader.Buffered() == 0 && c.drained()
}

// drained reports whether TLS hands over nothing more of what it has received,
// which the socket cannot show any more. The deadline in the past keeps it from
// receiving; it does no harm to what is there of a record.
func (c *conn) drained() bool {
	if c.Conn == c.socket {
		return true
	}
	_ = c.SetReadDeadline(past)
	_, err := c.Conn.Read(c.peeked[:])
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// alive reports whether an unused connection can serve. Anything to be read
// from it, its end above all, says that it cannot.
func (c *conn) alive() bool {
	if c.raw == nil {
		return true
	}
	c.peekError = nil
	err := c.raw.Read(c.peek)
	return err == nil && c.peekError == nil
}

// roundTrip writes a request and reads the answer's head. Whatever comes
// first, be it before the request was taken, is the answer.
func (c *conn) roundTrip(wire []byte, request *http.Request) (*http.Response, error) {
	c.got, c.broken, c.left = false, nil, responseHeaderBytesMax
	_, writeErr := c.Write(wire)
	c.wrote = writeErr == nil
	switch resp, err := c.plainAnswer(); {
	case err != nil:
		return nil, c.failure(err, writeErr)
	case resp != nil:
		c.left = responseBytesMax + responseHeaderBytesMax
		return resp, nil
	}
	for {
		resp, err := http.ReadResponse(c.reader, request)
		switch {
		case err != nil:
			return nil, c.failure(err, writeErr)
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, errNotFinal
		case resp.StatusCode >= 200 || resp.StatusCode < 100:
			c.left = responseBytesMax + responseHeaderBytesMax // and the framing of chunks
			return resp, nil
		}
		// An interim answer; the bound on the header counts all of them.
	}
}

// failure is why there is no answer.
func (c *conn) failure(err, writeErr error) error {
	switch {
	case writeErr != nil && !c.got:
		return writeErr
	case c.broken != nil:
		return c.broken // of half a head the parser would say it is malformed
	}
	return err
}

package delivery

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"syscall"
	"time"
)

// errDead reports a connection that the consumer closed while it was unused.
var errDead = errors.New("the connection was closed while it was unused")

// conn is one HTTP/1.1 connection to a consumer. It serves one request at a
// time, on the goroutine of its caller.
type conn struct {
	net.Conn
	raw       syscall.RawConn // of the socket below
	reader    *bufio.Reader
	left      int64 // bytes that may still be read of the answer
	got       bool  // a byte of the answer came
	broken    error // what ended the reading
	unused    time.Time
	peek      func(fd uintptr) bool
	peeked    [1]byte
	peekError error
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

var errAnswerTooLarge = errors.New("the answer is too large")

// dial makes a connection for the direct path, guarded like every other.
func (c *Client) dial(ctx context.Context, t *Target) (*conn, error) {
	socket, err := c.transport.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, err
	}
	made := &conn{Conn: socket}
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
	for {
		resp, err := http.ReadResponse(c.reader, request)
		switch {
		case err != nil && writeErr != nil && !c.got:
			return nil, writeErr
		case err != nil && c.broken != nil:
			return nil, c.broken // of half a head the parser would say it is malformed
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, errNotFinal
		case resp.StatusCode >= 200 || resp.StatusCode < 100:
			c.left = responseBytesMax + responseHeaderBytesMax // and the framing of chunks
			return resp, nil
		}
		// An interim answer; the bound on the header counts all of them.
	}
}

package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/gin-gonic/gin"
)

const (
	// streamProtocol is the subprotocol that is agreed on where the client offers any.
	streamProtocol = "postroad"
	// bearerProtocol begins the subprotocol that carries a token: a page in a browser
	// can set no other header of a WebSocket.
	bearerProtocol = "bearer."
)

// closeCodes are the status codes (RFC 6455, 7.4) of the endings; from 4000 on they
// are our own, after HTTP's.
var closeCodes = map[string]websocket.StatusCode{
	endDraining:   websocket.StatusServiceRestart,
	endRevoked:    websocket.StatusPolicyViolation,
	endDeleted:    4404,
	endChanged:    4409,
	endBelowFloor: 4410,
	endError:      websocket.StatusInternalError,
}

// authorization is what a request says of who it is for: its header or, of a
// WebSocket without one, a subprotocol `bearer.<token>`.
func authorization(r *http.Request) string {
	header := r.Header.Get("Authorization")
	if header != "" || !strings.EqualFold(r.Header.Get("Upgrade"), formatWebSocket) {
		return header
	}
	for offered := range strings.SplitSeq(strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ","), ",") {
		if token, ok := strings.CutPrefix(strings.TrimSpace(offered), bearerProtocol); ok {
			return "Bearer " + token
		}
	}
	return ""
}

func (s *Server) serveWebSocket(c *gin.Context, st *stream) error {
	if c.Request.Header.Get("Sec-WebSocket-Version") != "13" {
		p := invalidHeader("Sec-WebSocket-Version", "must be 13")
		p.Header = map[string]string{"Sec-WebSocket-Version": "13"}
		return p
	}
	conn, err := websocket.Accept(c.Writer, c.Request, &websocket.AcceptOptions{
		Subprotocols: []string{streamProtocol},
		// There are no cookies: a page of another origin has nothing to come in with
		// but a token that it was given.
		InsecureSkipVerify: true,
	})
	if err != nil {
		if c.Writer.Written() {
			return nil //nolint:nilerr // it was answered
		}
		return &Problem{Code: CodeInvalidHeader, Detail: "The request is no WebSocket handshake.", cause: err}
	}
	defer func() { _ = conn.CloseNow() }()
	// The request's context ends with the handler alone once its connection is ours.
	hard, cancel := context.WithCancel(context.WithoutCancel(c.Request.Context()))
	defer cancel()
	reading := conn.CloseRead(hard)
	s.streams.serve(reading, st, func(ctx context.Context) wire {
		context.AfterFunc(ctx, func() { time.AfterFunc(endMax, cancel) }) // also without a word from the reader
		return &socketWire{hard: hard, conn: conn, writeMax: s.config.StreamWriteMax}
	})
	return nil
}

// socketWire sends each item as a message of its own; what else there is to say is
// said as in NDJSON.
type socketWire struct {
	hard     context.Context //nolint:containedctx // ends a little after the stream has to, and what is being written with it
	conn     *websocket.Conn
	writeMax time.Duration
}

func (w *socketWire) begin(position int64, named bool) error {
	if named {
		return nil
	}
	return w.item(position, func(b []byte) []byte { return appendAfter(b, position) })
}

func (w *socketWire) item(_ int64, render func([]byte) []byte) error {
	buffer, _ := buffers.Get().(*[]byte)
	*buffer = render((*buffer)[:0])
	oneLine(*buffer)
	err := w.within(func(ctx context.Context) error { return w.conn.Write(ctx, websocket.MessageText, *buffer) })
	if cap(*buffer) <= 4*pieceBytes {
		*buffer = (*buffer)[:0]
		buffers.Put(buffer)
	}
	return err
}

func (w *socketWire) flush() error { return nil }

func (w *socketWire) beat(position int64, moved bool) error {
	if moved {
		return w.item(position, func(b []byte) []byte { return appendAfter(b, position) })
	}
	return w.within(w.conn.Ping)
}

// end closes with the reason, which fits a close frame, and waits a moment for the
// reader to do so too.
func (w *socketWire) end(e ending) error {
	return w.conn.Close(closeCodes[e.reason], string(e.appendJSON(nil)))
}

// within gives one message its time.
func (w *socketWire) within(write func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(w.hard, w.writeMax)
	defer cancel()
	switch err := write(ctx); {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return errSlowReader
	default:
		return &wireError{err}
	}
}

package api

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
)

const (
	// pieceBytes is how much is written at once, within one deadline; a longer item
	// is written in pieces.
	pieceBytes = 64 << 10
	// endMax is how long a stream that has to end may still write.
	endMax = time.Second
)

// lines are the forms that are text in one long answer.
type lines interface {
	appendBegin(b []byte, position int64, named bool) []byte
	// appendItem appends an item, which render appends in one line.
	appendItem(b []byte, sequence int64, render func([]byte) []byte) []byte
	appendBeat(b []byte, position int64, moved bool) []byte
	appendEnd(b []byte, e ending) []byte
}

// serveLines answers with a stream of lines.
func (s *Server) serveLines(c *gin.Context, st *stream, form lines, contentType string) error {
	header := c.Writer.Header()
	header.Set("Content-Type", contentType)
	header.Set("Cache-Control", "no-store")
	header.Set("Vary", "Accept, Accept-Encoding")
	header.Set("X-Accel-Buffering", "no") // nginx hands on what comes, as it comes
	var squeeze *gzipStream
	if acceptsGzip(c.Request) {
		header.Set("Content-Encoding", "gzip")
		squeeze = &gzipStream{}
	}
	c.Status(http.StatusOK)
	l := &lineWire{form: form, w: c.Writer, control: http.NewResponseController(unwrapped(c.Writer)), squeeze: squeeze, writeMax: s.config.StreamWriteMax}
	defer l.release()
	s.streams.serve(c.Request.Context(), st, func(ctx context.Context) wire {
		context.AfterFunc(ctx, func() {
			if errors.As(context.Cause(ctx), new(streamEnd)) { // else the connection is gone, maybe by a deadline that passed
				l.hurry()
			}
		})
		return l
	})
	return nil
}

// unwrapped is the writer below gin's, which keeps the errors of a flush to itself.
func unwrapped(w http.ResponseWriter) http.ResponseWriter {
	if inner, ok := w.(interface{ Unwrap() http.ResponseWriter }); ok {
		return inner.Unwrap()
	}
	return w
}

// lineWire writes lines in pieces, each within a deadline: what its reader does not
// take in time ends the stream instead of growing.
type lineWire struct {
	form     lines
	w        http.ResponseWriter
	control  *http.ResponseController
	squeeze  *gzipStream // nil: not compressed
	writeMax time.Duration

	buffer *[]byte // nil: nothing is kept
	failed error

	mu      sync.Mutex
	hurried time.Time // zero: the stream does not have to end
	over    bool
}

// buffers are kept by nobody that waits.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func (l *lineWire) add(appended func([]byte) []byte) {
	if l.buffer == nil {
		l.buffer, _ = buffers.Get().(*[]byte)
	}
	*l.buffer = appended(*l.buffer)
}

func (l *lineWire) begin(position int64, named bool) error {
	l.add(func(b []byte) []byte { return l.form.appendBegin(b, position, named) })
	return l.flush()
}

func (l *lineWire) item(sequence int64, render func([]byte) []byte) error {
	l.add(func(b []byte) []byte { return l.form.appendItem(b, sequence, render) })
	if len(*l.buffer) < pieceBytes {
		return nil
	}
	return l.write(false)
}

func (l *lineWire) beat(position int64, moved bool) error {
	l.add(func(b []byte) []byte { return l.form.appendBeat(b, position, moved) })
	return l.flush()
}

func (l *lineWire) end(e ending) error {
	l.add(func(b []byte) []byte { return l.form.appendEnd(b, e) })
	if err := l.write(true); err != nil {
		return err
	}
	return l.fail(l.control.Flush())
}

func (l *lineWire) flush() error {
	if err := l.write(false); err != nil {
		return err
	}
	return l.fail(l.control.Flush())
}

// write writes what is in the buffer; last ends a compressed stream.
func (l *lineWire) write(last bool) error {
	defer func() {
		if l.buffer != nil && cap(*l.buffer) <= 4*pieceBytes {
			*l.buffer = (*l.buffer)[:0]
			buffers.Put(l.buffer)
		}
		l.buffer = nil
	}()
	if l.failed != nil || l.buffer == nil && !last {
		return l.failed
	}
	var text []byte
	if l.buffer != nil {
		text = *l.buffer
	}
	for piece := range slices.Chunk(text, pieceBytes) {
		l.extend()
		var err error
		if l.squeeze != nil {
			err = l.squeeze.write(l.w, piece)
		} else {
			_, err = l.w.Write(piece)
		}
		if l.fail(err) != nil {
			return l.failed
		}
	}
	if last && l.squeeze != nil {
		l.extend()
		return l.fail(l.squeeze.close(l.w))
	}
	return nil
}

// extend gives the next piece its time, unless the stream has to end.
func (l *lineWire) extend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hurried.IsZero() {
		_ = l.control.SetWriteDeadline(time.Now().Add(l.writeMax))
	}
}

// hurry gives what is being written, and the end after it, little time: the stream
// has to end.
func (l *lineWire) hurry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.hurried = time.Now()
		_ = l.control.SetWriteDeadline(time.Now().Add(endMax))
	}
}

// release leaves the connection to the next request.
func (l *lineWire) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.failed == nil {
		_ = l.control.SetWriteDeadline(time.Time{})
	}
}

// fail notes an error of the connection. One that takes too long ends the request's
// context as well, so that the stream may have been hurried a moment ago.
func (l *lineWire) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.failed != nil || err == nil:
	case errors.Is(err, os.ErrDeadlineExceeded) && (l.hurried.IsZero() || time.Since(l.hurried) < endMax):
		l.failed = errSlowReader
	default:
		l.failed = &wireError{err}
	}
	return l.failed
}

// oneLine makes blanks of the line breaks that data of a publisher may have between
// its members: there are none inside of JSON strings.
func oneLine(b []byte) {
	for i, c := range b {
		if c == '\n' || c == '\r' {
			b[i] = ' '
		}
	}
}

// contentTypeSSE is the media type of server-sent events.
const contentTypeSSE = "text/event-stream"

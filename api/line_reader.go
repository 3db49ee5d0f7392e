package api

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"

	"github.com/gin-gonic/gin"
)

// lineReader cuts a body into lines with memory of their own. A last line counts
// without its line break, but not when the body was cut.
type lineReader struct {
	r      *bufio.Reader // nil: the body is short, and text is all of it
	number int64         // of the line returned last, from 1
	arena  []byte

	text, rest []byte
	cut        error // what ended text early; nil: nothing did
}

// isShort reports a body that is read at once: of so little that waiting for its
// end keeps nobody waiting for its beginning.
func isShort(r *http.Request) bool {
	return r.ContentLength >= 0 && r.ContentLength <= freeBodyBytes && r.Header.Get("Content-Encoding") == ""
}

// lines returns a reader of the body's lines.
func (s *Server) lines(c *gin.Context) (*lineReader, error) {
	reader, err := s.openBody(c)
	if err != nil {
		return nil, err
	}
	if !isShort(c.Request) {
		return &lineReader{r: bufio.NewReaderSize(reader, freeBodyBytes)}, nil
	}
	l := &lineReader{text: make([]byte, 0, c.Request.ContentLength+1)} // room to see the end in the same read
	for err == nil {
		var n int
		n, err = reader.Read(l.text[len(l.text):cap(l.text)])
		l.text = l.text[:len(l.text)+n]
	}
	if !errors.Is(err, io.EOF) {
		l.cut = err
	}
	l.rewind()
	return l, nil
}

// rewind begins a short body again.
func (l *lineReader) rewind() { l.rest, l.number = l.text, 0 }

// next returns the next line that is not blank, without its break; io.EOF after
// the last one.
func (l *lineReader) next() ([]byte, error) {
	for {
		l.number++
		line, err := l.line()
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if trimmed := bytes.TrimSpace(line); len(trimmed) > 0 {
			return l.keep(trimmed), nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// line reads up to the next break. Its result is valid until the next call.
func (l *lineReader) line() ([]byte, error) {
	if l.r == nil {
		return l.shortLine()
	}
	line, err := l.r.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	long := bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		if len(long) > lineBytesMax {
			return nil, &eventTooLargeError{}
		}
		line, err = l.r.ReadSlice('\n')
		long = append(long, line...)
	}
	return long, err
}

func (l *lineReader) shortLine() ([]byte, error) {
	line := l.rest
	if end := bytes.IndexByte(line, '\n'); end >= 0 {
		l.rest = line[end+1:]
		return line[:end], nil
	}
	l.rest = nil
	if l.cut != nil {
		return nil, l.cut
	}
	return line, io.EOF
}

// keep copies a line to memory that outlives the next one; small ones share
// blocks. A short body is kept as a whole.
func (l *lineReader) keep(line []byte) []byte {
	const block = 64 << 10
	if l.r == nil {
		return line[:len(line):len(line)]
	}
	if len(line) > block/8 {
		return bytes.Clone(line)
	}
	if len(line) > cap(l.arena)-len(l.arena) {
		l.arena = make([]byte, 0, block)
	}
	start := len(l.arena)
	l.arena = append(l.arena, line...)
	return l.arena[start:len(l.arena):len(l.arena)]
}

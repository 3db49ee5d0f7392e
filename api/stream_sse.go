package api

import (
	"math/rand/v2"
	"strconv"
)

// retryMillisecondsMin is how soon an EventSource comes back at least, and up to
// thrice that: not all of them at the same moment.
const retryMillisecondsMin = 1000

// sseLines are server-sent events (WHATWG HTML, 9.2).
type sseLines struct{}

func (sseLines) appendBegin(b []byte, position int64, named bool) []byte {
	b = strconv.AppendInt(append(b, "retry: "...), retryMillisecondsMin+rand.Int64N(2*retryMillisecondsMin), 10)
	if named {
		return append(b, "\n\n"...)
	}
	return appendID(append(b, '\n'), position)
}

// appendID appends a block without data: no event, but what the reader sends as
// Last-Event-ID should the connection be cut.
func appendID(b []byte, position int64) []byte {
	return append(strconv.AppendInt(append(b, "id: "...), position, 10), "\n\n"...)
}

func (sseLines) appendItem(b []byte, sequence int64, render func([]byte) []byte) []byte {
	b = strconv.AppendInt(append(b, "id: "...), sequence, 10)
	b = append(b, "\ndata: "...)
	start := len(b)
	b = render(b)
	oneLine(b[start:])
	return append(b, "\n\n"...)
}

func (sseLines) appendBeat(b []byte, position int64, moved bool) []byte {
	if moved {
		return appendID(b, position)
	}
	return append(b, ":\n\n"...)
}

func (sseLines) appendEnd(b []byte, e ending) []byte {
	b = strconv.AppendInt(append(b, "id: "...), e.after, 10)
	return append(e.appendJSON(append(b, "\nevent: end\ndata: "...)), "\n\n"...)
}

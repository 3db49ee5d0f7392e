package api

import "strconv"

// ndjsonLines are a JSON document a line: an item has sequence, {"after":n} is a
// position from which nothing is missing, {"end":{...}} the last line. An empty
// line shows that the stream lives.
type ndjsonLines struct{}

func (ndjsonLines) appendBegin(b []byte, position int64, named bool) []byte {
	if named {
		return append(b, '\n')
	}
	return appendAfterLine(b, position)
}

func appendAfterLine(b []byte, position int64) []byte {
	return append(appendAfter(b, position), '\n')
}

func appendAfter(b []byte, position int64) []byte {
	return append(strconv.AppendInt(append(b, `{"after":`...), position, 10), '}')
}

func (ndjsonLines) appendItem(b []byte, _ int64, render func([]byte) []byte) []byte {
	start := len(b)
	b = render(b)
	oneLine(b[start:])
	return append(b, '\n')
}

func (ndjsonLines) appendBeat(b []byte, position int64, moved bool) []byte {
	if moved {
		return appendAfterLine(b, position)
	}
	return append(b, '\n')
}

func (ndjsonLines) appendEnd(b []byte, e ending) []byte {
	return append(e.appendJSON(append(b, `{"end":`...)), "}\n"...)
}

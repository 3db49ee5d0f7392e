package delivery

import (
	"bytes"
	"errors"
	"io"
	"net/http"
)

// plain is the memory of an answer that plainAnswer reads.
type plain struct {
	response http.Response
	body     plainBody
}

// plainBody reads so many bytes of a connection.
type plainBody struct {
	c    *conn
	left int64
}

// Read implements io.Reader.
func (b *plainBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.c.reader.Read(p[:min(int64(len(p)), b.left)])
	if b.left -= int64(n); errors.Is(err, io.EOF) && b.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close implements io.Closer; what was not read is left on the connection.
func (b *plainBody) Close() error { return nil }

// plainAnswer reads the head of an answer that is as most are, and needs no parser:
// a 2xx whose whole head has come, of known length, with nothing in it that
// matters to the connection or to us. nil: it is not; it is untouched then, and
// net/http reads it. The answer is good until the next one of the connection. An
// error says that none came.
//
// The parser allocates a map and a string for each header, which nobody looks at:
// a fifth of all that a delivery allocates.
func (c *conn) plainAnswer() (*http.Response, error) {
	if _, err := c.reader.Peek(1); err != nil {
		return nil, err
	}
	have, _ := c.reader.Peek(c.reader.Buffered())
	end := bytes.Index(have, []byte("\r\n\r\n"))
	if end < 0 {
		return nil, nil
	}
	status, length, ok := plainHead(have[:end])
	if !ok {
		return nil, nil
	}
	_, _ = c.reader.Discard(end + len("\r\n\r\n"))
	c.plain.response = http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, ContentLength: length, Body: http.NoBody}
	if length > 0 {
		c.plain.body = plainBody{c, length}
		c.plain.response.Body = &c.plain.body
	}
	return &c.plain.response, nil
}

// plainLengthDigits is the longest Content-Length that plainHead reads: longer
// than what is read of any body.
const plainLengthDigits = 9

// plainHead reads status and length of a head, without the empty line at its end.
// It knows less than the parser and is stricter: of what it reads there are no two
// opinions.
func plainHead(head []byte) (status int, length int64, ok bool) {
	line, rest, more := bytes.Cut(head, []byte("\r\n"))
	if len(line) < len("HTTP/1.1 200 ") || string(line[:10]) != "HTTP/1.1 2" || line[12] != ' ' || !isPlainText(line) {
		return 0, 0, false
	}
	a, b := line[10]-'0', line[11]-'0'
	if a > 9 || b > 9 {
		return 0, 0, false
	}
	status, length = 200+10*int(a)+int(b), -1
	for more {
		line, rest, more = bytes.Cut(rest, []byte("\r\n"))
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 || !isPlainName(line[:colon]) || !isPlainText(line[colon+1:]) {
			return 0, 0, false
		}
		switch name := line[:colon]; {
		case isHeader(name, "Content-Length"):
			n, isLength := plainLength(bytes.Trim(line[colon+1:], " \t"))
			if !isLength || length >= 0 {
				return 0, 0, false
			}
			length = n
		case isHeader(name, "Connection"), isHeader(name, "Transfer-Encoding"), isHeader(name, "Trailer"), isHeader(name, headerAcceptedThrough):
			return 0, 0, false
		}
	}
	if status == http.StatusNoContent {
		return status, 0, length <= 0
	}
	return status, length, length >= 0
}

func isHeader(name []byte, want string) bool {
	return len(name) == len(want) && bytes.EqualFold(name, []byte(want))
}

func plainLength(digits []byte) (n int64, ok bool) {
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, len(digits) > 0 && len(digits) <= plainLengthDigits
}

// isPlainName reports letters, digits and hyphens alone.
func isPlainName(name []byte) bool {
	for _, c := range name {
		if letter := c | 0x20; (letter < 'a' || letter > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// isPlainText reports printable ASCII and tabs alone.
func isPlainText(text []byte) bool {
	for _, c := range text {
		if c < ' ' && c != '\t' || c > '~' {
			return false
		}
	}
	return true
}

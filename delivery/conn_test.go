package delivery

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// scripted is a connection whose other end has already said everything.
type scripted struct {
	net.Conn
	answer *strings.Reader
}

func (s scripted) Read(b []byte) (int, error)  { return s.answer.Read(b) }
func (s scripted) Write(b []byte) (int, error) { return len(b), nil }

// Whatever a consumer answers is judged: without a panic, within bounds, and
// as net/http's own parser reads it.
func FuzzAnswer(f *testing.F) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 103 A\r\n\r\nHTTP/1.1 429 B\r\nRetry-After: 5\r\n\r\n", "", "H",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "HTTP/1.0 503 X\r\n\r\n\xff\x00body", "SSH-2.0\r\n",
		"HTTP/1.1 101 Switching\r\n\r\n", "HTTP/1.1 000 X\r\n\r\n", "HTTP/1.1 200 OK\r\nPostroad-Accepted-Through: 9223372036854775808\r\n\r\n",
	} {
		f.Add(answer)
	}
	target := &Target{origin: "https://consumer.example", maxRetryAfter: time.Hour}
	f.Fuzz(func(t *testing.T, answer string) {
		c := &conn{Conn: scripted{answer: strings.NewReader(answer)}}
		c.reader = bufio.NewReader(c)
		x := &exchange{target: target, request: http.Request{Method: http.MethodPost}}
		resp, err := c.roundTrip([]byte("request"), &x.request)
		if err != nil {
			if fault, resend := judgeFault(target, err, facts{connected: true, reused: true, answered: c.got}); fault.Code == "" || resend != (answer == "") {
				t.Fatalf("%q: %+v, re-send %v", answer, fault, resend)
			}
			return
		}
		a := Answer{StartedAt: time.Now()}
		a.read(resp, target)
		a.Response, _ = x.readBody(resp)
		if a.Class == 0 || a.Status >= 100 && a.Status < 200 || a.RetryAfter < 0 || a.RetryAfter > time.Hour {
			t.Fatalf("%q: %+v", answer, a)
		}
		if len(a.Response) > responseBytesKept || !utf8.Valid(a.Response) || strings.ContainsRune(string(a.Response), 0) {
			t.Fatalf("%q: response %q", answer, a.Response)
		}
	})
}

package delivery

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
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
		resp, err := c.roundTrip([]byte("request"), &x.request) //nolint:bodyclose // it holds nothing
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

// halfDeaf takes the first half of what is written.
type halfDeaf struct{ scripted }

func (h halfDeaf) Write(b []byte) (int, error) { return len(b) / 2, io.ErrShortWrite }

// An answer to half a request counts, but the connection cannot serve again:
// the next request would be taken for the other half.
func TestConnReusable(t *testing.T) {
	t.Parallel()
	answer := scripted{answer: strings.NewReader("HTTP/1.1 204 No Content\r\n\r\n")}
	for name, tt := range map[string]struct {
		socket net.Conn
		want   bool
	}{
		"whole request": {answer, true},
		"half of it":    {halfDeaf{scripted{answer: strings.NewReader("HTTP/1.1 429 Later\r\nContent-Length: 0\r\n\r\n")}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &conn{Conn: tt.socket, socket: tt.socket}
			c.reader = bufio.NewReader(c)
			resp, err := c.roundTrip([]byte("request"), &http.Request{Method: http.MethodPost})
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if got := c.reusable(resp); got != tt.want {
				t.Errorf("reusable: %v", got)
			}
		})
	}
}

// reluctant is a connection that takes its time to close.
type reluctant struct {
	net.Conn
	closing chan struct{}
}

func (r reluctant) Close() error {
	r.closing <- struct{}{}
	<-r.closing
	return nil
}

// One connection that does not close holds nobody up.
func TestPoolClosesOutsideItsLock(t *testing.T) {
	t.Parallel()
	p := newPool(1, 2, time.Hour)
	closing := make(chan struct{})
	slow := func() *conn { return &conn{Conn: reluctant{closing: closing}} }
	steps := []func(){
		func() { p.put("a", slow()); p.put("a", slow()) }, // one too many for its host
		func() { p.put("b", slow()); p.put("c", slow()) }, // one too many in all
		func() { p.pop("c"); p.close() },
	}
	for i, step := range steps {
		done := make(chan struct{})
		go func() { step(); close(done) }()
		<-closing
		if !p.mu.TryLock() {
			t.Errorf("step %d closes a connection under the lock", i)
		} else {
			p.mu.Unlock()
		}
		closing <- struct{}{}
		<-done
	}
}

// What is remembered of endpoints has a bound, and goes on being remembered.
func TestKnownHTTP1(t *testing.T) {
	t.Parallel()
	c := NewClient(Config{})
	defer c.Close()
	answer := &http.Response{ProtoMajor: 1, ProtoMinor: 1}
	last := &Target{url: &url.URL{Scheme: "https"}}
	for i := range http1Max + 1 {
		last.origin = fmt.Sprintf("https://%d.example", i)
		c.noteHTTP1(last, answer)
	}
	last.origin = "https://one.more.example"
	c.noteHTTP1(last, answer)
	known := 0
	c.http1.Range(func(any, any) bool { known++; return true })
	if _, ok := c.http1.Load(last.origin); !ok || known > 1 {
		t.Errorf("%d endpoints are known, the last one: %t", known, ok)
	}
}

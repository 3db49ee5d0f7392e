package delivery

import (
	"bufio"
	"errors"
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

// FuzzPlainAnswer holds what needs no parser against the parser: where the one reads
// an answer the other reads the same, and leaves the same behind.
func FuzzPlainAnswer(f *testing.F) {
	for _, answer := range []string{
		"HTTP/1.1 204 No Content\r\nDate: now\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX-Y: z\r\n\r\nokHTTP/1.1 204 \r\n\r\n",
		"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\n Content-Length: 3\r\n\r\nabc",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\na", "HTTP/1.1 204 OK\r\nContent-Length: 3\r\n\r\nabc",
		"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc", "HTTP/1.1 200 OK\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 205 R\r\nContent-Length: 4\r\n\r\nab",
		"HTTP/1.1 200 OK\r\nPostroad-Accepted-Through: 5\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200\r\n\r\n",
		"HTTP/1.1 299 A\r\nContent-Length: +1\r\n\r\na", "HTTP/1.1 2x0 A\r\nContent-Length: 1\r\n\r\na",
	} {
		f.Add(answer)
	}
	request := &http.Request{Method: http.MethodPost}
	f.Fuzz(func(t *testing.T, answer string) {
		plain := &conn{Conn: scripted{answer: strings.NewReader(answer)}, left: 1 << 20}
		plain.reader = bufio.NewReader(plain)
		got, err := plain.plainAnswer() //nolint:bodyclose // it holds nothing
		if got == nil {
			if (err != nil) != (answer == "") {
				t.Fatalf("%q: %v", answer, err)
			}
			if n := plain.reader.Buffered(); n != min(len(answer), 4096) {
				t.Fatalf("%q: %d bytes are left for the parser", answer, n)
			}
			return
		}
		reader := bufio.NewReader(strings.NewReader(answer))
		want, err := http.ReadResponse(reader, request)
		if err != nil {
			t.Fatalf("%q: read as %d, which is no answer: %v", answer, got.StatusCode, err)
		}
		gotBody, gotErr := io.ReadAll(got.Body)
		wantBody, wantErr := io.ReadAll(want.Body)
		_ = want.Body.Close()
		if !errors.Is(gotErr, wantErr) {
			t.Fatalf("%q: errors %v and %v", answer, gotErr, wantErr)
		}
		gotRest, _ := io.ReadAll(plain.reader)
		wantRest, _ := io.ReadAll(reader)
		switch {
		case got.StatusCode != want.StatusCode, got.ContentLength != want.ContentLength, want.Close,
			want.Header.Get(headerAcceptedThrough) != "", len(want.TransferEncoding) > 0, len(want.Trailer) > 0:
			t.Fatalf("%q: read %+v, the parser %+v", answer, got, want)
		case string(gotBody) != string(wantBody), string(gotRest) != string(wantRest):
			t.Fatalf("%q: body %q and %q behind it, the parser's %q and %q", answer, gotBody, gotRest, wantBody, wantRest)
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

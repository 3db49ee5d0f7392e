package delivery_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postroad/delivery"
	"postroad/event"
	"postroad/internal/testkit"
)

// heldBack lets a TLS server send several records at once.
type heldBack struct {
	net.Conn
	hold atomic.Bool
	mu   sync.Mutex
	held bytes.Buffer
}

func (c *heldBack) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hold.Load() {
		return c.held.Write(b)
	}
	return c.Conn.Write(b)
}

func (c *heldBack) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold.Store(false)
	_, _ = c.held.WriteTo(c.Conn)
}

// An answer that nobody asked for is not the next request's, also where it came
// together with the answer before and lies decrypted, or nearly so, in TLS.
func TestDirectUnaskedAnswerTLS(t *testing.T) {
	t.Parallel()
	certificates := httptest.NewTLSServer(nil)
	t.Cleanup(certificates.Close)
	server := newRawServer(t, func(conn net.Conn, _ int) {
		held := &heldBack{Conn: conn}
		secured := tls.Server(held, &tls.Config{Certificates: certificates.TLS.Certificates})
		for reader := bufio.NewReader(secured); readRequest(reader); {
			held.hold.Store(true)
			_, _ = io.WriteString(secured, okAnswer)
			_, _ = io.WriteString(secured, "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n") // a record of its own
			held.release()
		}
	})
	c := newTestClient(t, func(cfg *delivery.Config) {
		cfg.RootCAs = certificates.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	})
	target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: strings.Replace(server.url, "http:", "https:", 1)}}, event.Secrets{}, time.Time{})
	c.NoteHTTP1(target)
	for range 3 {
		if a := deliver(t, c, target); a.Class != delivery.ClassSuccess || string(a.Response) != "ok" {
			t.Fatalf("answer %+v", a)
		}
	}
	if n := server.connections.Load(); n != 3 {
		t.Errorf("%d connections for 3 requests, each of which left an answer over", n)
	}
}

// TLS connections serve again where nothing was left over.
func TestDirectReuseTLS(t *testing.T) {
	t.Parallel()
	var connections atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	c := newTestClient(t, func(cfg *delivery.Config) {
		cfg.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	})
	target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: server.URL}}, event.Secrets{}, time.Time{})
	c.NoteHTTP1(target)
	for range 5 {
		if a := deliver(t, c, target); a.Class != delivery.ClassSuccess {
			t.Fatalf("answer %+v", a)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections for 5 requests", n)
	}
}

// A TLS endpoint that gave HTTP/1.1 up is met by net/http again.
func TestDirectEndpointTurnsToHTTP2(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto)
	}))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.TLS = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if !slices.Contains(hello.SupportedProtos, "h2") {
			return nil, errors.New("HTTP/2 only")
		}
		return nil, nil
	}}
	server.StartTLS()
	t.Cleanup(server.Close)
	c := newTestClient(t, func(cfg *delivery.Config) {
		cfg.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	})
	target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: server.URL}}, event.Secrets{}, time.Time{})
	c.NoteHTTP1(target) // as it was until now
	checkFault(t, deliver(t, c, target), delivery.CodeTLS)
	if a := deliver(t, c, target); a.Class != delivery.ClassSuccess || string(a.Response) != "HTTP/2.0" {
		t.Errorf("answer %+v", a)
	}
}

// What ended the making of a connection is said as it was: the handshake's own
// bound is not the subscriber's timeout.
func TestDoHandshakeTimeout(t *testing.T) { eachPath(t, testDoHandshakeTimeout) }

func testDoHandshakeTimeout(t *testing.T, newTestClient clientMaker) {
	silent := newRawServer(t, func(conn net.Conn, _ int) { _, _ = io.Copy(io.Discard, conn) })
	c := newTestClient(t, func(cfg *delivery.Config) { cfg.TLSHandshakeTimeout = 20 * time.Millisecond })
	sub := event.Subscriber{Endpoint: event.Endpoint{URL: strings.Replace(silent.url, "http:", "https:", 1), Timeout: event.Duration(time.Minute)}}
	target := targetOf(t, c, sub, event.Secrets{}, time.Time{})
	c.NoteHTTP1(target)
	a := deliver(t, c, target)
	checkFault(t, a, delivery.CodeTLS)
	if !strings.Contains(a.Fault.Text, "handshake took too long") {
		t.Errorf("text %q", a.Fault.Text)
	}
}

// Unused connections are bounded over all hosts: those unused for longest go.
func TestIdleConnsMax(t *testing.T) { eachPath(t, testIdleConnsMax) }

func testIdleConnsMax(t *testing.T, newTestClient clientMaker) {
	const hosts, most = 10, 3
	c := newTestClient(t, func(cfg *delivery.Config) { cfg.IdleConnsMax = most })
	var open atomic.Int64
	var made atomic.Int64
	var targets []*delivery.Target
	for i := range hosts {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				open.Add(1)
				made.Add(1)
			}
			if state == http.StateClosed {
				open.Add(-1)
			}
		}
		server.Start()
		t.Cleanup(server.Close)
		targets = append(targets, targetOf(t, c, event.Subscriber{ID: fmt.Sprint("s", i), Endpoint: event.Endpoint{URL: server.URL}}, event.Secrets{}, time.Time{}))
		deliver(t, c, targets[i])
	}
	testkit.Eventually(t, 5*time.Second, func() bool { return open.Load() == most }, "connections beyond the bound are closed")
	for _, target := range targets[hosts-most:] {
		if a := c.Do(context.Background(), target, delivery.Request{Events: testEvents(1), Attempt: 1}); a.Class != delivery.ClassSuccess {
			t.Errorf("answer %+v", a)
		}
	}
	if made.Load() != hosts {
		t.Errorf("%d connections made, want %d: those used last were not kept", made.Load(), hosts)
	}
}

// A consumer may answer without reading, and its buffers may be small: the
// answer counts all the same, and one that neither reads nor answers holds
// nobody longer than the timeout.
func TestDoConsumerDoesNotRead(t *testing.T) { eachPath(t, testDoConsumerDoesNotRead) }

func testDoConsumerDoesNotRead(t *testing.T, newTestClient clientMaker) {
	for name, tt := range map[string]struct {
		answer  string
		timeout time.Duration
		class   delivery.Class
		code    delivery.Code
	}{
		"answers": {"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", 15 * time.Second, delivery.ClassAsked, delivery.CodeStatus},
		"silent":  {"", 200 * time.Millisecond, delivery.ClassEndpoint, delivery.CodeTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			server := newRawServer(t, func(conn net.Conn, _ int) {
				_ = conn.(*net.TCPConn).SetReadBuffer(1)
				// net/http takes an answer from before the request for nobody's.
				_, _ = io.ReadFull(conn, make([]byte, 1))
				_, _ = io.WriteString(conn, tt.answer)
				<-release
			})
			t.Cleanup(func() { close(release) })
			c := newTestClient(t)
			sub := event.Subscriber{Format: event.FormatRaw, Endpoint: event.Endpoint{URL: server.url, Timeout: event.Duration(tt.timeout)}}
			target := targetOf(t, c, sub, event.Secrets{}, time.Time{})
			e := &event.Event{Sequence: 1, ResourceName: "R", ResourceRecordKey: "1", Data: []byte(`"` + strings.Repeat("x", delivery.DirectBodyBytesMax-2) + `"`)}
			a := c.Do(context.Background(), target, delivery.Request{Events: []*event.Event{e}, Attempt: 1})
			if a.Class != tt.class || a.Fault.Code != tt.code || a.Resend || a.Duration > 10*time.Second {
				t.Errorf("answer %+v", a)
			}
		})
	}
}

package delivery_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"postroad/delivery"
	"postroad/event"
	"postroad/internal/testkit"
)

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// serveRaw answers each request of a connection with answer.
func serveRaw(answer string) func(net.Conn, int) {
	return func(conn net.Conn, _ int) {
		for reader := bufio.NewReader(conn); readRequest(reader); {
			_, _ = io.WriteString(conn, answer)
		}
	}
}

// Which answers leave a connection that serves again.
func TestDirectReuse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, answer string
		reused       bool
	}{
		{"length", okAnswer, true},
		{"no body", "HTTP/1.1 204 No Content\r\n\r\n", true},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true},
		{"chunks and a trailer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n", true},
		{"interim answers first", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + okAnswer, true},
		{"asked to close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", false},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
		{"more than was announced", okAnswer + "HTTP/1.1 200 OK\r\n\r\n", false},
		{"too long", "HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n" + strings.Repeat("x", 65537), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := newRawServer(t, serveRaw(tt.answer))
			c := newTestClient(t)
			target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: server.url}}, event.Secrets{}, time.Time{})
			for range 3 {
				if a := deliver(t, c, target); a.Class != delivery.ClassSuccess || a.Resend {
					t.Fatalf("answer %+v", a)
				}
			}
			if n := server.connections.Load(); n != map[bool]int64{true: 1, false: 3}[tt.reused] {
				t.Errorf("%d connections for 3 requests, want them reused: %v", n, tt.reused)
			}
		})
	}
}

// A connection that the consumer closed, or wrote to, while it was unused is
// not used: no request is lost on it.
func TestDirectDeadConnection(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(net.Conn){
		"closed":   func(conn net.Conn) { _ = conn.Close() },
		"reset":    func(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0); _ = conn.Close() },
		"babbling": func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conns := make(chan net.Conn, 2)
			server := newRawServer(t, func(conn net.Conn, n int) {
				conns <- conn
				serveRaw(okAnswer)(conn, n)
			})
			c := newTestClient(t)
			target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: server.url}}, event.Secrets{}, time.Time{})
			deliver(t, c, target)
			spoil(<-conns)
			if a := deliver(t, c, target); a.Class != delivery.ClassSuccess || string(a.Response) != "ok" || server.connections.Load() != 2 {
				t.Errorf("answer %+v over %d connections", a, server.connections.Load())
			}
		})
	}
}

func TestDirectIdleConnections(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(int, *testkit.Request) testkit.Answer { return testkit.Answer{Until: release} }})
	c := newTestClient(t, func(cfg *delivery.Config) { cfg.IdleConnsPerHost, cfg.IdleConnTimeout = 2, 50*time.Millisecond })
	target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: receiver.URL()}}, event.Secrets{}, time.Time{})
	done := make(chan delivery.Answer)
	for range 3 {
		go func() { done <- deliver(t, c, target) }()
	}
	receiver.WaitFor(t, 3, 5*time.Second)
	close(release)
	for range 3 {
		if a := <-done; a.Class != delivery.ClassSuccess {
			t.Errorf("answer %+v", a)
		}
	}
	if n := c.IdleConnections(); n > 2 {
		t.Errorf("%d idle connections, want at most 2", n)
	}
	testkit.Eventually(t, 5*time.Second, func() bool { return c.IdleConnections() == 0 }, "unused connections are closed")
	deliver(t, c, target)
	c.Close()
	if n := c.IdleConnections(); n != 0 {
		t.Errorf("%d idle connections after Close", n)
	}
	if a := deliver(t, c, target); a.Class != delivery.ClassSuccess || c.IdleConnections() != 0 {
		t.Errorf("after Close: %+v, %d idle connections", a, c.IdleConnections())
	}
}

// A TLS endpoint is first met by net/http, which offers HTTP/2; one that chose
// HTTP/1.1 is met directly from then on.
func TestDirectTLS(t *testing.T) {
	t.Parallel()
	protocols := make(chan string, 10)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		protocols <- r.RemoteAddr + " " + r.TLS.NegotiatedProtocol
	}))
	server.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
	server.StartTLS()
	t.Cleanup(server.Close)
	c := newTestClient(t, func(cfg *delivery.Config) {
		cfg.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	})
	target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: server.URL}}, event.Secrets{}, time.Time{})
	for range 3 {
		if a := deliver(t, c, target); a.Class != delivery.ClassSuccess {
			t.Fatalf("answer %+v", a)
		}
	}
	first, second, third := <-protocols, <-protocols, <-protocols
	if first == second || second != third || !strings.HasSuffix(third, " http/1.1") || c.IdleConnections() != 1 {
		t.Errorf("connections %s, %s, %s", first, second, third)
	}
}

// Large bodies take net/http's path, because it reads while it writes; the
// answer is the same.
func TestDirectLargeBody(t *testing.T) {
	t.Parallel()
	receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	c := newTestClient(t)
	target := targetOf(t, c, event.Subscriber{Format: event.FormatRaw, Endpoint: event.Endpoint{URL: receiver.URL()}}, event.Secrets{}, time.Time{})
	sizes := []int{10, delivery.DirectBodyBytesMax, delivery.DirectBodyBytesMax + 1, 1 << 20, 10}
	for i, size := range sizes {
		e := &event.Event{Sequence: int64(i + 1), ResourceName: "R", ResourceRecordKey: "1", Data: []byte(`"` + strings.Repeat("x", size-2) + `"`)}
		if a := c.Do(context.Background(), target, delivery.Request{Events: []*event.Event{e}, Attempt: 1}); a.Class != delivery.ClassSuccess {
			t.Fatalf("answer %+v", a)
		}
	}
	requests := receiver.Requests()
	for i, size := range sizes {
		if len(requests[i].Body) != size || verify(t, vectorSecret, requests[i].Header, "Webhook-", requests[i].Body) != nil {
			t.Errorf("request %d has %d bytes, want %d", i, len(requests[i].Body), size)
		}
	}
	if requests[0].Remote != requests[1].Remote || requests[1].Remote != requests[4].Remote || requests[2].Remote != requests[3].Remote || requests[1].Remote == requests[2].Remote {
		t.Error("the paths are not taken by size")
	}
}

// A request that its caller gave up before it began is not sent.
func TestDoCanceledBefore(t *testing.T) { eachPath(t, testDoCanceledBefore) }

func testDoCanceledBefore(t *testing.T, newTestClient clientMaker) {
	receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	c := newTestClient(t)
	target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: receiver.URL()}}, event.Secrets{}, time.Time{})
	deliver(t, c, target) // leaves a connection
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if a := c.Do(ctx, target, delivery.Request{Events: testEvents(1), Attempt: 1}); a.Class != delivery.ClassCanceled || receiver.Count() != 1 {
		t.Errorf("answer %+v after %d requests", a, receiver.Count())
	}
}

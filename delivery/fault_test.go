package delivery_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postroad/delivery"
	"postroad/event"
	"postroad/internal/testkit"
)

// rawServer hands each connection to a script, which may read requests from it
// and write whatever it likes.
type rawServer struct {
	url         string
	connections atomic.Int64
}

func newRawServer(t *testing.T, script func(conn net.Conn, n int)) *rawServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &rawServer{url: "http://" + listener.Addr().String()}
	var group sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			n := int(s.connections.Add(1))
			group.Go(func() {
				defer conn.Close()
				script(conn, n)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for _, conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		group.Wait()
	})
	return s
}

// readRequest reads one request, body and all; false at the end.
func readRequest(r *bufio.Reader) bool {
	request, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, request.Body)
	return err == nil
}

func TestDoFaults(t *testing.T) { eachPath(t, testDoFaults) }

func testDoFaults(t *testing.T, newTestClient clientMaker) {
	closed := httptest.NewServer(nil)
	closed.Close()
	tests := []struct {
		name   string
		url    string // empty: a server that sends answer and closes
		answer string
		reset  bool
		code   delivery.Code
	}{
		{name: "no such host", url: "https://no-such-host.invalid/top-secret", code: delivery.CodeDNS},
		{name: "refused", url: closed.URL + "/top-secret", code: delivery.CodeConnectRefused},
		{name: "closed at once", answer: "", code: delivery.CodeEOF},
		{name: "reset", reset: true, code: delivery.CodeReset},
		{name: "not HTTP", answer: "SSH-2.0-OpenSSH_9.2\r\n", code: delivery.CodeMalformed},
		{name: "HTTP/9", answer: "HTTP/9 200 OK\r\n\r\n", code: delivery.CodeMalformed},
		{name: "no status", answer: "HTTP/1.1 OK\r\n\r\n", code: delivery.CodeMalformed},
		{name: "negative status", answer: "HTTP/1.1 -20 OK\r\n\r\n", code: delivery.CodeMalformed},
		{name: "cut in the status line", answer: "HTTP/1.1 2", code: delivery.CodeEOF},
		{name: "cut in the header", answer: "HTTP/1.1 200 OK\r\nContent-Le", code: delivery.CodeEOF},
		{name: "bad header", answer: "HTTP/1.1 200 OK\r\ntop-secret\r\n\r\n", code: delivery.CodeMalformed},
		{name: "two lengths", answer: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", code: delivery.CodeMalformed},
		{name: "header without end", answer: "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 128<<10), code: delivery.CodeMalformed},
		{name: "switching protocols", answer: "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", code: delivery.CodeMalformed},
		{name: "interim answers without end", answer: strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 10_000), code: delivery.CodeMalformed},
		{name: "only early hints", answer: "HTTP/1.1 103 Early Hints\r\n\r\n", code: delivery.CodeEOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.url == "" {
				tt.url = newRawServer(t, func(conn net.Conn, _ int) {
					readRequest(bufio.NewReader(conn))
					_, _ = io.WriteString(conn, tt.answer)
					if tt.reset {
						_ = conn.(*net.TCPConn).SetLinger(0)
					}
				}).url + "/top-secret?top-secret"
			}
			c := newTestClient(t)
			a := c.Do(context.Background(), targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: tt.url}}, event.Secrets{Token: "top-secret"}, time.Time{}), delivery.Request{Events: testEvents(1), Attempt: 1})
			if c.Forced() && tt.code == delivery.CodeEOF && strings.HasPrefix(tt.name, "cut") {
				tt.code = delivery.CodeMalformed // net/http does not tell why half a head ended
			}
			checkFault(t, a, tt.code)
		})
	}
}

// checkFault checks that there was no answer, why, and that the text says no
// more of the endpoint than scheme and host.
func checkFault(t *testing.T, a delivery.Answer, code delivery.Code) {
	t.Helper()
	if a.Class != delivery.ClassEndpoint || a.Status != 0 || a.Fault.Code != code || a.Resend {
		t.Errorf("got %+v, want %s", a, code)
	}
	if a.Fault.Text == "" || strings.Contains(a.Fault.Text, "top-secret") || strings.ContainsAny(a.Fault.Text, "\r\n") {
		t.Errorf("text %q", a.Fault.Text)
	}
	if a.AcceptedThrough != 0 || a.RetryAfterValid || a.StartedAt.IsZero() || a.Duration <= 0 {
		t.Errorf("answer %+v", a)
	}
}

func TestDoTimeout(t *testing.T) { eachPath(t, testDoTimeout) }

func testDoTimeout(t *testing.T, newTestClient clientMaker) {
	hanging := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(int, *testkit.Request) testkit.Answer { return testkit.Answer{Hang: testkit.Forever} }})
	silent := newRawServer(t, func(conn net.Conn, _ int) { _, _ = io.Copy(io.Discard, conn) }) // and no handshake
	slowHeader := newRawServer(t, func(conn net.Conn, _ int) {
		readRequest(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nX-")
		_, _ = io.Copy(io.Discard, conn)
	})
	tests := []struct {
		name, url string
		code      delivery.Code
	}{
		{"no answer", hanging.URL(), delivery.CodeTimeout},
		{"half a header", slowHeader.url, delivery.CodeTimeout},
		{"no handshake", strings.Replace(silent.url, "http:", "https:", 1), delivery.CodeConnectTimeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newTestClient(t)
			sub := event.Subscriber{Endpoint: event.Endpoint{URL: tt.url, Timeout: event.Duration(50 * time.Millisecond)}}
			target := targetOf(t, c, sub, event.Secrets{}, time.Time{})
			for range 2 {
				a := c.Do(context.Background(), target, delivery.Request{Events: testEvents(1), Attempt: 1})
				checkFault(t, a, tt.code)
				if a.Duration < 50*time.Millisecond || a.Duration > 10*time.Second {
					t.Errorf("took %v", a.Duration)
				}
			}
		})
	}
}

func TestDoCanceled(t *testing.T) { eachPath(t, testDoCanceled) }

func testDoCanceled(t *testing.T, newTestClient clientMaker) {
	receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(int, *testkit.Request) testkit.Answer { return testkit.Answer{Hang: testkit.Forever} }})
	c := newTestClient(t)
	target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: receiver.URL()}}, event.Secrets{}, time.Time{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		receiver.WaitFor(t, 1, 5*time.Second)
		cancel()
	}()
	if a := c.Do(ctx, target, delivery.Request{Events: testEvents(1), Attempt: 1}); a.Class != delivery.ClassCanceled || a.Fault.Code != delivery.CodeCanceled || a.Resend {
		t.Errorf("answer %+v", a)
	}
}

func TestDoTLS(t *testing.T) { eachPath(t, testDoTLS) }

func testDoTLS(t *testing.T, newTestClient clientMaker) {
	receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{TLS: true})
	plain := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11}
	old.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	old.StartTLS()
	t.Cleanup(old.Close)
	trusted := receiver.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	tests := []struct {
		name, url string
		roots     *x509.CertPool
		code      delivery.Code
		text      string
	}{
		{"trusted", receiver.URL(), trusted, "", ""},
		{"unknown authority", receiver.URL(), nil, delivery.CodeTLS, "unknown authority"},
		{"another name", strings.Replace(receiver.URL(), "127.0.0.1", "localhost", 1), trusted, delivery.CodeTLS, "another name"},
		{"no TLS there", strings.Replace(plain.URL(), "http:", "https:", 1), trusted, delivery.CodeTLS, "does not speak TLS"},
		{"TLS 1.1", old.URL, trusted, delivery.CodeTLS, "TLS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newTestClient(t, func(cfg *delivery.Config) { cfg.RootCAs = tt.roots })
			target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: tt.url}}, event.Secrets{}, time.Time{})
			c.NoteHTTP1(target) // as if it had answered before
			a := c.Do(context.Background(), target, delivery.Request{Events: testEvents(1), Attempt: 1})
			if tt.code == "" {
				if a.Class != delivery.ClassSuccess {
					t.Errorf("answer %+v", a)
				}
				return
			}
			checkFault(t, a, tt.code)
			if !strings.Contains(a.Fault.Text, tt.text) {
				t.Errorf("text %q, want %q in it", a.Fault.Text, tt.text)
			}
		})
	}
}

// HTTP/2 is spoken where it is offered, one connection serves all requests,
// and one that the consumer gave up may be sent once more, but not by net/http.
func TestDoHTTP2(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if requests.Add(1) == 4 {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, r.Proto)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	c := newTestClient(t, func(cfg *delivery.Config) {
		cfg.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	})
	target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: server.URL}}, event.Secrets{}, time.Time{})
	r := delivery.Request{Events: testEvents(1), Attempt: 1}
	for range 3 {
		if a := c.Do(context.Background(), target, r); a.Class != delivery.ClassSuccess || string(a.Response) != "HTTP/2.0" {
			t.Fatalf("answer %+v", a)
		}
	}
	if a := c.Do(context.Background(), target, r); a.Class != delivery.ClassEndpoint || !a.Resend || requests.Load() != 4 {
		t.Errorf("answer %+v after %d requests", a, requests.Load())
	}
	if a := c.Test(context.Background(), target); a.Answer.Class != delivery.ClassSuccess || a.TLS <= 0 {
		t.Errorf("test %+v", a)
	}
}

// A connection is checked where it ends, whatever name led there.
func TestDoBlocked(t *testing.T) { eachPath(t, testDoBlocked) }

func testDoBlocked(t *testing.T, newTestClient clientMaker) {
	receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	port := receiver.URL()[strings.LastIndexByte(receiver.URL(), ':'):]
	redirecting := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(int, *testkit.Request) testkit.Answer {
		return testkit.Answer{Status: 302, Header: http.Header{"Location": {receiver.URL()}}}
	}})
	tests := []struct {
		name, url string
		guard     delivery.GuardConfig
	}{
		{"address", receiver.URL(), delivery.GuardConfig{AllowHTTP: true}},
		{"name", "http://localhost" + port, delivery.GuardConfig{AllowHTTP: true}},
		{"unspecified address", "http://0.0.0.0" + port, delivery.GuardConfig{AllowHTTP: true, AllowLoopback: true}},
		{"mapped address", "http://[::ffff:127.0.0.1]" + port, delivery.GuardConfig{AllowHTTP: true}},
		{"number", "http://2130706433" + port, delivery.GuardConfig{AllowHTTP: true}},
		{"no TLS", receiver.URL(), delivery.GuardConfig{AllowedPrefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newTestClient(t, func(cfg *delivery.Config) { cfg.Guard = tt.guard })
			a := c.Do(context.Background(), targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: tt.url}}, event.Secrets{}, time.Time{}), delivery.Request{Events: testEvents(1), Attempt: 1})
			if tt.name == "number" && a.Fault.Code == delivery.CodeDNS {
				return // this resolver does not read such hosts
			}
			checkFault(t, a, delivery.CodeBlockedAddress)
		})
	}
	t.Run("redirect", func(t *testing.T) {
		t.Parallel()
		c := newTestClient(t)
		if a := c.Do(context.Background(), targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: redirecting.URL()}}, event.Secrets{}, time.Time{}), delivery.Request{Events: testEvents(1), Attempt: 1}); a.Status != 302 || a.Class != delivery.ClassRecord {
			t.Errorf("answer %+v", a)
		}
	})
	t.Cleanup(func() {
		if receiver.Count() != 0 {
			t.Errorf("%d requests reached a blocked address", receiver.Count())
		}
	})
}

// No environment variable leads events elsewhere.
func TestDoNoProxy(t *testing.T) {
	proxy := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL())
	}
	c := newTestClient(t)
	a := c.Do(context.Background(), targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: "http://no-such-host.invalid/"}}, event.Secrets{}, time.Time{}), delivery.Request{Events: testEvents(1), Attempt: 1})
	checkFault(t, a, delivery.CodeDNS)
	if c.HasProxy() || proxy.Count() != 0 {
		t.Error("a proxy of the environment is used")
	}
}

// A consumer that closes idle connections just as the next request sets out
// gets it once more only if the caller says so: net/http must not re-send a
// POST by itself.
func TestDoResend(t *testing.T) { eachPath(t, testDoResend) }

func testDoResend(t *testing.T, newTestClient clientMaker) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	tests := map[string]struct {
		second func(conn net.Conn) // what the first connection does with its second request
		resend bool
		code   delivery.Code
	}{
		"closed":              {func(net.Conn) {}, true, delivery.CodeEOF},
		"reset":               {func(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0) }, true, delivery.CodeReset},
		"after a byte":        {func(conn net.Conn) { _, _ = io.WriteString(conn, "H") }, false, delivery.CodeMalformed},
		"after a 1xx":         {func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 103 Hints\r\n\r\n") }, false, delivery.CodeEOF},
		"after a bad line":    {func(conn net.Conn) { _, _ = io.WriteString(conn, "nonsense\r\n\r\n") }, false, delivery.CodeMalformed},
		"after a status line": {func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\n") }, false, delivery.CodeStatus},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int64
			server := newRawServer(t, func(conn net.Conn, n int) {
				reader := bufio.NewReader(conn)
				for readRequest(reader) {
					requests.Add(1)
					if n == 1 && requests.Load() == 2 {
						tt.second(conn)
						return
					}
					_, _ = io.WriteString(conn, ok)
				}
			})
			c := newTestClient(t)
			target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: server.url}}, event.Secrets{}, time.Time{})
			r := delivery.Request{Events: testEvents(1), Attempt: 1}
			if a := c.Do(context.Background(), target, r); a.Class != delivery.ClassSuccess || a.Resend {
				t.Fatalf("first: %+v", a)
			}
			a := c.Do(context.Background(), target, r)
			if name == "after a byte" && !c.Forced() {
				tt.code = delivery.CodeEOF // net/http does not tell why half a head ended
			}
			if a.Resend != tt.resend || a.Fault.Code != tt.code {
				t.Errorf("second: %+v; want re-send %v, %s", a, tt.resend, tt.code)
			}
			if requests.Load() != 2 || server.connections.Load() != 1 {
				t.Errorf("%d requests over %d connections: net/http sent one again", requests.Load(), server.connections.Load())
			}
			if a := c.Do(context.Background(), target, r); a.Class != delivery.ClassSuccess {
				t.Errorf("third: %+v", a)
			}
		})
	}
}

// A connection that fails its first request is no reason to send again.
func TestDoNoResendOnFreshConnection(t *testing.T) { eachPath(t, testDoNoResendOnFreshConnection) }

func testDoNoResendOnFreshConnection(t *testing.T, newTestClient clientMaker) {
	var requests atomic.Int64
	server := newRawServer(t, func(conn net.Conn, _ int) {
		if readRequest(bufio.NewReader(conn)) {
			requests.Add(1)
		}
	})
	c := newTestClient(t)
	target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: server.url}}, event.Secrets{}, time.Time{})
	for n := int64(1); n <= 3; n++ {
		checkFault(t, c.Do(context.Background(), target, delivery.Request{Events: testEvents(1), Attempt: 1}), delivery.CodeEOF)
		if requests.Load() != n {
			t.Fatalf("%d requests after %d", requests.Load(), n)
		}
	}
}

func TestBlockedErrorTellsNoAddress(t *testing.T) {
	t.Parallel()
	err := delivery.NewGuard(delivery.GuardConfig{}).CheckEndpoint("https://10.1.2.3/")
	var blocked *delivery.BlockedError
	if !errors.As(err, &blocked) || blocked.Addr.String() != "10.1.2.3" || strings.Contains(err.Error(), "10.1.2.3") {
		t.Errorf("got %v", err)
	}
}

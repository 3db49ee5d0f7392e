package delivery_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"postroad/delivery"
	"postroad/event"
)

// h2Script says what a scripted consumer does with the n-th stream that it gets
// on any connection, counted from 1, once the request is read. False ends the
// connection.
type h2Script func(f *http2.Framer, n int64, stream uint32) bool

// h2Answer answers a stream with 200.
func h2Answer(f *http2.Framer, stream uint32) bool {
	var block bytes.Buffer
	_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}) == nil
}

// startH2 starts a consumer that speaks HTTP/2 frame by frame, and returns its
// address and what trusts it.
func startH2(t *testing.T, script h2Script) (url string, roots *x509.CertPool, connections *atomic.Int64) {
	t.Helper()
	lent := httptest.NewTLSServer(http.NotFoundHandler()) // its certificate is of use
	t.Cleanup(lent.Close)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: lent.TLS.Certificates, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	connections = new(atomic.Int64)
	var streams atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			serving.Go(func() {
				defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
				defer func() { _ = conn.Close() }()
				serveH2(conn, &streams, script)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		serving.Wait()
	})
	return "https://" + listener.Addr().String(), lent.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, connections
}

func serveH2(conn net.Conn, streams *atomic.Int64, script h2Script) {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil {
		return
	}
	f := http2.NewFramer(conn, conn)
	if f.WriteSettings() != nil {
		return
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() && f.WriteSettingsAck() != nil {
				return
			}
		case *http2.PingFrame:
			if !frame.IsAck() && f.WritePing(true, frame.Data) != nil {
				return
			}
		case *http2.DataFrame:
			if frame.StreamEnded() && !script(f, streams.Add(1), frame.StreamID) {
				return
			}
		}
	}
}

// A consumer over HTTP/2 that turns a request away unprocessed, or says good-bye,
// costs nothing but one more request.
func TestDoHTTP2TurnedAway(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		script h2Script
		// resends are the requests that came to nothing and may be sent again at
		// once; connections those that all of it took.
		resends     int
		connections int64
	}{
		{"refused stream", func(f *http2.Framer, n int64, stream uint32) bool {
			if n == 2 {
				return f.WriteRSTStream(stream, http2.ErrCodeRefusedStream) == nil
			}
			return h2Answer(f, stream)
		}, 0, 1},
		{"goaway before the stream", func(f *http2.Framer, n int64, stream uint32) bool {
			if n == 2 {
				_ = f.WriteGoAway(stream-2, http2.ErrCodeNo, nil)
				return false
			}
			return h2Answer(f, stream)
		}, 0, 2},
		{"refused streams", func(f *http2.Framer, n int64, stream uint32) bool {
			if n > 1 && n <= 5 {
				return f.WriteRSTStream(stream, http2.ErrCodeRefusedStream) == nil
			}
			return h2Answer(f, stream)
		}, 1, 1},
		{"goaway after the answer", func(f *http2.Framer, n int64, stream uint32) bool {
			return h2Answer(f, stream) && (n != 2 || f.WriteGoAway(stream, http2.ErrCodeNo, nil) == nil)
		}, 0, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			url, roots, connections := startH2(t, tt.script)
			c := newTestClient(t, func(cfg *delivery.Config) { cfg.RootCAs = roots })
			target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: url}}, event.Secrets{}, time.Time{})
			resends := 0
			for delivered := 0; delivered < 4; {
				a := c.Do(context.Background(), target, delivery.Request{Events: testEvents(1), Attempt: 1})
				switch {
				case a.Class == delivery.ClassSuccess:
					delivered++
				case a.Resend && resends < tt.resends:
					resends++
				default:
					t.Fatalf("after %d deliveries and %d requests sent again: %+v", delivered, resends, a)
				}
			}
			if resends != tt.resends || connections.Load() != tt.connections {
				t.Errorf("%d requests sent again over %d connections, want %d over %d", resends, connections.Load(), tt.resends, tt.connections)
			}
		})
	}
}

// Sixty-four requests at once reach a consumer that takes four of them on a
// connection, though the client does not know of that when they set out.
func TestDoHTTP2ManyLanes(t *testing.T) {
	t.Parallel()
	const lanes, streams = 64, 4
	var came atomic.Int64
	full := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if came.Add(1) == streams {
			close(full)
		}
		select {
		case <-full: // the first ones hold a connection's streams
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, r.Proto)
	}))
	server.EnableHTTP2 = true
	server.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: streams}
	server.StartTLS()
	t.Cleanup(server.Close)
	c := newTestClient(t, func(cfg *delivery.Config) {
		cfg.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	})
	target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: server.URL}}, event.Secrets{}, time.Time{})
	var requests sync.WaitGroup
	for range lanes {
		requests.Go(func() {
			a := c.Do(context.Background(), target, delivery.Request{Events: testEvents(1), Attempt: 1})
			if a.Resend { // a connection with too many streams may end as a whole
				a = c.Do(context.Background(), target, delivery.Request{Events: testEvents(1), Attempt: 1})
			}
			if a.Class != delivery.ClassSuccess || string(a.Response) != "HTTP/2.0" {
				t.Errorf("answer %+v", a)
			}
		})
	}
	requests.Wait()
}

package delivery

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"postroad/internal/retryafter"
)

// Bounds of what is taken of an answer, in bytes.
const (
	// responseBytesMax is how much of a body is read so that the connection
	// can serve again; behind a longer body it is closed.
	responseBytesMax = 64 << 10
	// responseBytesKept is how much of it Answer.Response holds.
	responseBytesKept = 2 << 10
	// responseHeaderBytesMax bounds status line and header.
	responseHeaderBytesMax = 64 << 10
)

// Config is a Client's configuration. The zero value of each field but Guard
// means its default.
type Config struct {
	// Guard says which endpoints may be called.
	Guard GuardConfig
	// Version is sent in User-Agent as Postroad/<Version>; default "dev".
	Version string
	// RootCAs verify endpoints; default: the system's.
	RootCAs *x509.CertPool
	// DialTimeout bounds a connection's making over all addresses of a host,
	// within the subscriber's timeout; default 10 s.
	DialTimeout time.Duration
	// TLSHandshakeTimeout bounds the handshake; default 10 s.
	TLSHandshakeTimeout time.Duration
	// IdleConnTimeout closes connections unused for so long; default 90 s.
	IdleConnTimeout time.Duration
	// IdleConnsPerHost is the most unused connections kept for one host;
	// default 512.
	IdleConnsPerHost int
	// IdleConnsMax is the most unused connections kept for all hosts, on each
	// of the two paths: every one holds a file descriptor. Beyond it those
	// unused for longest are closed; default 4096.
	IdleConnsMax int
	// AnswerBodyTimeout bounds the wait for an answer's body once its status
	// line is there, within the subscriber's timeout; default 2 s.
	AnswerBodyTimeout time.Duration
}

// WithDefaults returns the configuration with every default filled in.
func (c Config) WithDefaults() Config {
	c.Version = cmp.Or(c.Version, "dev")
	c.DialTimeout = cmp.Or(c.DialTimeout, 10*time.Second)
	c.TLSHandshakeTimeout = cmp.Or(c.TLSHandshakeTimeout, 10*time.Second)
	c.IdleConnTimeout = cmp.Or(c.IdleConnTimeout, 90*time.Second)
	c.IdleConnsPerHost = cmp.Or(c.IdleConnsPerHost, 512)
	c.IdleConnsMax = cmp.Or(c.IdleConnsMax, 4096)
	c.AnswerBodyTimeout = cmp.Or(c.AnswerBodyTimeout, 2*time.Second)
	return c
}

// Client makes requests to consumers over connections that all subscribers
// share. It is safe for concurrent use.
type Client struct {
	guard             *Guard
	transport         *http.Transport
	testTransport     *http.Transport
	conns             *pool // of the direct path
	tls               *tls.Config
	http1             sync.Map // origins of TLS endpoints that speak HTTP/1.1
	http1Noted        atomic.Int64
	noDirect          bool // for tests of the other path
	userAgent         string
	answerBodyTimeout time.Duration
}

// NewClient returns a client; Close ends it.
func NewClient(cfg Config) *Client {
	cfg = cfg.WithDefaults()
	c := &Client{guard: NewGuard(cfg.Guard), userAgent: "Postroad/" + cfg.Version, answerBodyTimeout: cfg.AnswerBodyTimeout}
	dialer := &net.Dialer{Timeout: cfg.DialTimeout, KeepAlive: 30 * time.Second, ControlContext: c.guard.control}
	c.transport = &http.Transport{
		// No Proxy: an environment variable must not decide where events go,
		// and a proxy would connect where the guard cannot see it.
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.RootCAs},
		TLSHandshakeTimeout:    cfg.TLSHandshakeTimeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		IdleConnTimeout:        cfg.IdleConnTimeout,
		MaxIdleConnsPerHost:    cfg.IdleConnsPerHost,
		MaxIdleConns:           cfg.IdleConnsMax,
		MaxResponseHeaderBytes: responseHeaderBytesMax,
		// A connection that died without a word is noticed also while it is
		// shared by many requests.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
		// The wait for headers has no bound of its own: the subscriber's
		// timeout, from dial to the end of the answer, covers it.
	}
	c.conns = newPool(cfg.IdleConnsPerHost, cfg.IdleConnsMax, cfg.IdleConnTimeout)
	c.tls = c.transport.TLSClientConfig.Clone() // the transport changes its own
	c.testTransport = c.transport.Clone()
	c.testTransport.DisableKeepAlives = true
	return c
}

// Guard returns the client's guard, for checks at configuration time.
func (c *Client) Guard() *Guard { return c.guard }

// Close closes unused connections. Requests still under way are their
// callers' to end.
func (c *Client) Close() {
	c.conns.close()
	c.transport.CloseIdleConnections()
	c.testTransport.CloseIdleConnections()
}

// Answer is what came of one request.
type Answer struct {
	// Class says what it means for the events.
	Class Class
	// Status is the HTTP status; 0: there was no status line.
	Status int
	// RetryAfter is the wait that the consumer asked for, not longer than the
	// subscriber's maxRetryAfter; it counts where RetryAfterValid. On a 2xx it
	// is ignored.
	RetryAfter      time.Duration
	RetryAfterValid bool
	// RetryAfterCut reports that the consumer asked for more than
	// maxRetryAfter.
	RetryAfterCut bool
	// AcceptedThrough is the sequence up to which the consumer says it took
	// the events, whatever the status; 0: it did not say, or named one outside
	// of the request.
	AcceptedThrough int64
	// Resend reports that the request went out on a connection which had
	// served before and was closed without a byte of an answer: it may be sent
	// once more at once, uncharged.
	Resend bool
	// Fault is why it was no success.
	Fault Fault
	// StartedAt is when the request began, by this host's clock; Duration is
	// from there to the end of the answer.
	StartedAt time.Time
	Duration  time.Duration
	// Response is the beginning of the answer's body, at most 2 KiB of valid
	// UTF-8 without NUL.
	Response []byte
	// RequestBytes is the length of the request's body.
	RequestBytes int
	// WebhookID and Traceparent are those the request carried.
	WebhookID   string
	Traceparent string
}

// Do makes one request, bounded by the subscriber's timeout, and judges its
// answer. It never sends a request twice that the consumer may have taken, and an
// error is an answer too.
// Ending ctx ends the request.
func (c *Client) Do(ctx context.Context, t *Target, r Request) Answer {
	started := time.Now()
	x := t.exchanges.Get().(*exchange)
	x.prepare(r, started)
	a := c.send(ctx, x, started)
	if a.Status != 0 {
		a.AcceptedThrough = inRange(a.AcceptedThrough, r.Events[0].Sequence, r.Events[len(r.Events)-1].Sequence)
	}
	return a
}

func inRange(n, first, last int64) int64 {
	if n < first || n > last {
		return 0
	}
	return n
}

// send makes a prepared request. The exchange is given up by it.
func (c *Client) send(ctx context.Context, x *exchange, started time.Time) Answer {
	t := x.target
	a := Answer{StartedAt: started, WebhookID: x.id, Traceparent: x.traceparent, RequestBytes: len(x.body)}
	switch {
	case t.refused != nil:
		a.fail(t, t.refused, facts{})
	case c.direct(x):
		c.sendDirect(ctx, x, &a)
		t.exchanges.Put(x)
	default:
		c.sendTransport(ctx, x, &a)
	}
	a.Duration = time.Since(started)
	return a
}

// errNotFinal reports an answer that cannot be a request's last.
var errNotFinal = errors.New("the answer is not a final one")

// sendTransport makes a prepared request by net/http's transport.
func (c *Client) sendTransport(ctx context.Context, x *exchange, a *Answer) {
	transport := c.transport
	if x.once {
		transport = c.testTransport
	}
	x.fillHeader()
	limited := x.start(ctx, x.target.timeout)
	resp, err := transport.RoundTrip(x.request.WithContext(limited))
	if err == nil && resp.StatusCode < 200 {
		_ = resp.Body.Close() // the connection itself, after 101: nothing to read
		err = errNotFinal
	}
	if err != nil {
		a.fail(x.target, err, facts{
			connected: x.gotConn.Load(), reused: x.reused.Load(), answered: x.answered.Load(),
			timedOut: errors.Is(context.Cause(limited), errTimedOut), canceled: ctx.Err() != nil,
		})
		x.finish(false)
		return
	}
	c.noteHTTP1(x.target, resp)
	a.read(resp, x.target)
	if resp.Body != http.NoBody && x.target.timeout-time.Since(a.StartedAt) > c.answerBodyTimeout && x.timer.Stop() {
		x.timer.Reset(c.answerBodyTimeout)
	}
	a.Response, _ = x.readBody(resp)
	_ = resp.Body.Close()
	x.finish(resp.ProtoMajor == 1)
}

// fail notes why there was no answer.
func (a *Answer) fail(t *Target, err error, got facts) {
	a.Class = ClassEndpoint
	a.Fault, a.Resend = judgeFault(t, err, got)
	if a.Fault.Code == CodeCanceled {
		a.Class = ClassCanceled
	}
}

// read judges status line and header.
func (a *Answer) read(resp *http.Response, t *Target) {
	a.Status = resp.StatusCode
	if through := resp.Header[headerAcceptedThrough]; through != nil {
		a.AcceptedThrough, _ = strconv.ParseInt(through[0], 10, 64)
	}
	if a.Status >= 200 && a.Status <= 299 {
		a.Class = ClassSuccess
		return
	}
	if value := resp.Header[headerRetryAfter]; value != nil {
		date, _ := retryafter.ParseDate(resp.Header.Get(headerDate), a.StartedAt)
		const longest = time.Duration(1<<63 - 1)
		a.RetryAfter, a.RetryAfterValid = retryafter.Parse(value[0], time.Now(), date, longest)
		if a.RetryAfterCut = a.RetryAfter > t.maxRetryAfter; a.RetryAfterCut {
			a.RetryAfter = t.maxRetryAfter
		}
	}
	a.Class = Classify(a.Status, a.RetryAfterValid)
	a.Fault = Fault{CodeStatus, "HTTP " + strconv.Itoa(a.Status) + " from " + t.origin}
}

// readBody reads an answer's body for as long as it is worth, and returns
// what is kept of it. The status line has decided: no error of the body
// counts. ended reports that it was read to its end, so that the connection
// can serve again.
func (x *exchange) readBody(resp *http.Response) (kept []byte, ended bool) {
	if resp.Body == http.NoBody {
		return nil, true
	}
	n, err := 0, error(nil)
	for n < len(x.kept) && err == nil {
		var more int
		more, err = resp.Body.Read(x.kept[n:])
		n += more
	}
	if err == nil {
		// One byte more than is allowed tells a longer body from one that ends.
		_, err = io.CopyN(io.Discard, resp.Body, responseBytesMax-responseBytesKept+1)
	}
	return cleanText(x.kept[:n], n == len(x.kept)), errors.Is(err, io.EOF)
}

// cleanText copies b as valid UTF-8 without NUL, within the same bound, so
// that it can be stored; cut says that b may end within a character.
func cleanText(b []byte, cut bool) []byte {
	if cut {
		for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
			if c := b[len(b)-i]; utf8.RuneStart(c) {
				if c >= utf8.RuneSelf && !utf8.FullRune(b[len(b)-i:]) {
					b = b[:len(b)-i]
				}
				break
			}
		}
	}
	if len(b) == 0 {
		return nil
	}
	clean := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		r, size := utf8.DecodeRune(b[i:])
		if r == 0 || r == utf8.RuneError && size == 1 {
			r = utf8.RuneError
		}
		if len(clean)+utf8.RuneLen(r) > responseBytesKept {
			break
		}
		clean = utf8.AppendRune(clean, r)
		i += size
	}
	return clean
}

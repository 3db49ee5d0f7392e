package testkit

import (
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Forever as an Answer's Hang: until the client goes away or the receiver is
// released or closed.
const Forever = time.Duration(-1)

// Request is one request as a Receiver got it.
type Request struct {
	N       int           // 1 for the first to arrive
	At      time.Time     // when its body had been read
	Took    time.Duration // from At until it was answered or dropped; 0 while in flight
	Method  string
	Path    string // with the query
	Host    string
	Remote  string // the client's address and port: equal on a reused connection
	Header  http.Header
	Body    []byte
	Partial bool // the client went away within the body
}

// Answer says what a Receiver does with one request. The zero Answer is a 200
// without a body, at once.
type Answer struct {
	Status int // default 200
	Header http.Header
	Body   string
	// Hang holds the answer back that long; Forever too.
	Hang time.Duration
	// Until holds the answer back until it is closed.
	Until <-chan struct{}
	// Drop closes the connection without a byte of an answer.
	Drop bool
	// Reset does the same with a TCP reset.
	Reset bool
	// DropAfterHeaders sends status, header and Body, announces one byte more, and closes the connection.
	DropAfterHeaders bool
	// Raw is sent as it is in place of an HTTP answer, then the connection is closed.
	Raw string
}

// Script decides on the answer to request r, the n-th to arrive (from 1). It is
// called concurrently for concurrent requests. nil: 200 always.
type Script func(n int, r *Request) Answer

// ReceiverOptions configures a Receiver; the zero value answers 200 to all.
type ReceiverOptions struct {
	Script Script
	TLS    bool // serve HTTPS with a certificate that only Client trusts
	// Listener is where it listens; nil: a free port of loopback.
	Listener net.Listener
}

// Receiver is a consumer on loopback that records every request and answers by
// script.
type Receiver struct {
	server *httptest.Server

	mu          sync.Mutex
	script      Script
	requests    []*Request
	inFlight    int
	maxInFlight int
	released    chan struct{} // closed by Release and Close
	changed     chan struct{} // closed and replaced at each change
}

// NewReceiver starts a receiver; it is closed at the end of the test.
func NewReceiver(t testing.TB, options ReceiverOptions) *Receiver {
	r := &Receiver{script: options.Script, released: make(chan struct{}), changed: make(chan struct{})}
	r.server = httptest.NewUnstartedServer(http.HandlerFunc(r.serve))
	r.server.Config.ErrorLog = log.New(io.Discard, "", 0) // connections are broken on purpose
	if options.Listener != nil {
		_ = r.server.Listener.Close()
		r.server.Listener = options.Listener
	}
	if options.TLS {
		r.server.StartTLS()
	} else {
		r.server.Start()
	}
	t.Cleanup(r.Close)
	return r
}

// URL is the receiver's address, without a slash at the end.
func (r *Receiver) URL() string { return r.server.URL }

// Client is an HTTP client that trusts a TLS receiver.
func (r *Receiver) Client() *http.Client { return r.server.Client() }

// SetScript replaces the script for the requests yet to arrive.
func (r *Receiver) SetScript(script Script) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.script = script
}

// Release lets every request that hangs Forever be answered, now and later.
func (r *Receiver) Release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.released:
	default:
		close(r.released)
	}
}

// Close releases and closes the receiver: later connections are refused. A
// second call does nothing.
func (r *Receiver) Close() {
	r.Release()
	r.server.CloseClientConnections()
	r.server.Close()
}

// Requests are copies of all requests so far, in order of arrival.
func (r *Receiver) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Request, len(r.requests))
	for i, request := range r.requests {
		all[i] = *request
	}
	return all
}

// Count is the number of requests so far.
func (r *Receiver) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.requests)
}

// InFlight is the number of requests that are not answered yet.
func (r *Receiver) InFlight() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inFlight
}

// MaxInFlight is the largest number of requests that were unanswered at once.
func (r *Receiver) MaxInFlight() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.maxInFlight
}

// WaitFor waits until n requests have arrived, answered or not, and returns all
// so far; the test fails when they have not within timeout.
func (r *Receiver) WaitFor(t testing.TB, n int, timeout time.Duration) []Request {
	t.Helper()
	if !r.await(timeout, func() bool { return len(r.requests) >= n }) {
		t.Fatalf("%d requests arrived within %s, want %d", r.Count(), timeout, n)
	}
	return r.Requests()
}

// WaitAnswered waits until n requests have been answered, in whatever way, and
// returns all so far.
func (r *Receiver) WaitAnswered(t testing.TB, n int, timeout time.Duration) []Request {
	t.Helper()
	if !r.await(timeout, func() bool { return len(r.requests)-r.inFlight >= n }) {
		t.Fatalf("%d of %d requests were answered within %s, want %d", r.Count()-r.InFlight(), r.Count(), timeout, n)
	}
	return r.Requests()
}

// await waits until condition, called with the lock held, is true.
func (r *Receiver) await(timeout time.Duration, condition func() bool) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		r.mu.Lock()
		met, changed := condition(), r.changed
		r.mu.Unlock()
		if met {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		}
	}
}

func (r *Receiver) serve(w http.ResponseWriter, httpRequest *http.Request) {
	body, err := io.ReadAll(httpRequest.Body)
	request := &Request{
		At: time.Now(), Method: httpRequest.Method, Path: httpRequest.URL.RequestURI(), Host: httpRequest.Host,
		Remote: httpRequest.RemoteAddr, Header: httpRequest.Header, Body: body, Partial: err != nil,
	}
	script := r.arrived(request)
	defer r.answered(request)
	var answer Answer
	if script != nil {
		own := *request // the script may keep it; the recorded one changes
		answer = script(request.N, &own)
	}
	if r.hold(httpRequest, answer) {
		answer.send(w)
	}
}

func (r *Receiver) arrived(request *Request) Script {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, request)
	request.N = len(r.requests)
	r.inFlight++
	r.maxInFlight = max(r.maxInFlight, r.inFlight)
	r.broadcast()
	return r.script
}

func (r *Receiver) answered(request *Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	request.Took = max(time.Since(request.At), 1)
	r.inFlight--
	r.broadcast()
}

func (r *Receiver) broadcast() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// hold waits as the answer says; false if the client went away meanwhile.
func (r *Receiver) hold(request *http.Request, answer Answer) bool {
	gone := request.Context().Done()
	if answer.Hang > 0 {
		timer := time.NewTimer(answer.Hang)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-gone:
			return false
		}
	}
	if answer.Hang < 0 {
		select {
		case <-r.released:
		case <-gone:
			return false
		}
	}
	if answer.Until != nil {
		select {
		case <-answer.Until:
		case <-gone:
			return false
		}
	}
	return true
}

func (a Answer) send(w http.ResponseWriter) {
	if a.Raw != "" || a.Reset {
		a.hijack(w)
		return
	}
	if a.Drop {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), a.Header)
	if a.DropAfterHeaders {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.Body)+1))
	}
	status := a.Status
	if status == 0 {
		status = http.StatusOK
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, a.Body)
	if a.DropAfterHeaders {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func (a Answer) hijack(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, a.Raw)
	if plain, ok := conn.(*net.TCPConn); ok && a.Reset {
		_ = plain.SetLinger(0)
	}
}

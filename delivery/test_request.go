package delivery

import (
	"context"
	"crypto/tls"
	"net/http/httptrace"
	"sync"
	"time"
)

// TestResult says how a test request went, stage by stage. A stage that was
// not reached, or not needed, took 0.
type TestResult struct {
	// DNS, Connect and TLS are how long lookup, connection and handshake took.
	DNS, Connect, TLS time.Duration
	// Answer is what came of it; no events were sent.
	Answer Answer
}

// Test makes a test request to a subscriber's endpoint over a connection of
// its own: an empty array of events and the header Postroad-Test, signed and
// authorized like a delivery.
func (c *Client) Test(ctx context.Context, t *Target) TestResult {
	started := time.Now()
	x := newExchange(t)
	x.prepareTest(started)
	stages := &stageTimes{}
	a := c.send(httptrace.WithClientTrace(ctx, stages.trace()), x, started)
	a.AcceptedThrough = 0
	a.Resend = false
	stages.mu.Lock()
	defer stages.mu.Unlock()
	return TestResult{DNS: stages.dns.took, Connect: stages.connect.took, TLS: stages.tls.took, Answer: a}
}

// stageTimes takes the times of a connection's stages. Hooks run on
// net/http's goroutines, and may still do so when the request is over.
type stageTimes struct {
	mu                sync.Mutex
	dns, connect, tls stage
}

type stage struct {
	began time.Time
	took  time.Duration
}

func (s *stageTimes) begin(st *stage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.began.IsZero() { // the first of several addresses
		st.began = time.Now()
	}
}

func (s *stageTimes) end(st *stage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.took = time.Since(st.began)
}

func (s *stageTimes) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		DNSStart:          func(httptrace.DNSStartInfo) { s.begin(&s.dns) },
		DNSDone:           func(httptrace.DNSDoneInfo) { s.end(&s.dns) },
		ConnectStart:      func(_, _ string) { s.begin(&s.connect) },
		ConnectDone:       func(_, _ string, _ error) { s.end(&s.connect) },
		TLSHandshakeStart: func() { s.begin(&s.tls) },
		TLSHandshakeDone:  func(tls.ConnectionState, error) { s.end(&s.tls) },
	}
}

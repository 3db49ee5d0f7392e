package testkit

import (
	"sync"
	"testing"
	"time"
)

// Eventually calls condition every few milliseconds until it is true, and fails
// the test with message when it is not within timeout. condition is called from
// the test's goroutine, at least once.
func Eventually(t testing.TB, timeout time.Duration, condition func() bool, message string) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	pause := time.Millisecond
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", timeout, message)
		}
		<-time.After(pause)
		pause = min(2*pause, 20*time.Millisecond)
	}
}

// Clock is a clock that only a test moves. The zero Clock stands at the zero time.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that stands at now.
func NewClock(now time.Time) *Clock { return &Clock{now: now} }

// Now is the time it stands at.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves it by d and returns the new time.
func (c *Clock) Advance(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return c.now
}

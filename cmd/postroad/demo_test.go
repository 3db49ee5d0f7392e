package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	main "postroad/cmd/postroad"
	"postroad/internal/testkit"
)

// TestDemo: without a terminal it shows what it has to show, ends with 0 and
// leaves nothing behind.
func TestDemo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := invoke(t, main.Invocation{Args: []string{"demo"}, WorkDir: dir}).want(t, ok)
	r.contains(t, "429, Retry-After: 5", "status: waiting: HTTP 429", "5 4 3 2 1 ", "status: retrying:",
		"ok    298 events, each applied once, in order", "ok    300 requests", "ok    300 signatures verified", "stopped and removed")
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("it left %v behind (%v)", left, err)
	}
}

// TestDemoTakenUp kills a demo while the consumer's Retry-After holds: the next
// one goes on where it was, and the wait still holds.
func TestDemoTakenUp(t *testing.T) {
	t.Parallel()
	work := t.TempDir()
	dir := filepath.Join(work, ".postroad", "demo")
	c := startChild(t, work, "demo", "--exit")
	testkit.Eventually(t, startMax, func() bool {
		text, _ := os.ReadFile(filepath.Join(dir, "consumer.ndjson"))
		return strings.Contains(string(text), `"status":429`)
	}, "the consumer answers 429")
	c.killTree()
	r := invoke(t, main.Invocation{Args: []string{"demo", "--exit"}, WorkDir: work}).want(t, ok)
	r.contains(t, "take up the demo", "none stored twice", "the consumer's log ends with event 99", "298 events, each applied once, in order", "silence for")
	if _, err := os.Stat(filepath.Join(work, ".postroad")); err == nil {
		t.Error("it left its data behind")
	}
}

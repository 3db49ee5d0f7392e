package main_test

import (
	"path/filepath"
	"testing"
)

// TestExamples: what lies in examples is accepted as it is.
func TestExamples(t *testing.T) {
	t.Parallel()
	examples, err := filepath.Abs(filepath.Join("..", "..", "examples"))
	if err != nil {
		t.Fatal(err)
	}
	on(t, "feed", "create", "examples").want(t, ok)
	on(t, "publish", filepath.Join(examples, "events.ndjson"), "--feed", "examples").want(t, ok).contains(t, "sequences 1 to 5")
	on(t, "publish", filepath.Join(examples, "events.ndjson"), "--feed", "examples").want(t, ok).contains(t, "1 event had been published before")
	url, _ := listenTo(t)
	on(t, "subscriber", "create", "example", "--feed", "examples", "--endpoint", url, "--file", filepath.Join(examples, "subscriber.json")).want(t, ok).contains(t, "whsec_")
	on(t, "wait", "example", "--until", "idle", "--timeout", "1m").want(t, ok)
	on(t, "subscriber", "delete", "example").want(t, ok)
}

package main_test

import (
	"bytes"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"postroad/internal/testkit"
)

// TestSetAside has a consumer refuse one record, under each of the three ways in
// which that can go on, and mends it: what a person does about it with the command
// line.
func TestSetAside(t *testing.T) {
	t.Parallel()
	const name = "set-aside"
	var mended atomic.Bool
	refuse := func(_ int, q *testkit.Request) testkit.Answer {
		if bytes.Contains(q.Body, []byte(`"ResourceRecordKey":"3"`)) && !mended.Load() {
			return testkit.Answer{Status: http.StatusUnprocessableEntity}
		}
		return testkit.Answer{}
	}
	r := newRoad(t, sharedAPI(t), name, refuse, map[string]any{
		"onExhausted": "hold", "retry": map[string]any{"schedule": []string{"50ms"}, "eventAttempts": 2},
	})
	sub := func(command string, args ...string) result {
		return on(t, append([]string{"subscriber", command, name}, args...)...)
	}
	again := func() { // event n + 1 is of the bad record, n + 2 of a good one
		mended.Store(false)
		r.publish(append(numbered(3)[2:], numbered(1)...))
	}

	r.publish(append(numbered(5), numbered(3)[2]))
	r.awaitCursor(waitMax, 6)
	sub("held").want(t, ok).contains(t, "Property/3  2 ", "HTTP 422")
	sub("held", "--key", "Property/3").want(t, ok).contains(t, "\n3  ", "\n6  ")
	on(t, "status", name).want(t, ok).contains(t, "1 key: ")
	on(t, "status").want(t, ok).contains(t, "GIVEN UP")
	mended.Store(true)
	sub("held-retry", "Property/3").want(t, ok)
	testkit.Eventually(t, waitMax, func() bool { return strings.Contains(sub("held").want(t, ok).stdout, "no key") }, "nothing is held")

	sub("update", "--on-exhausted", "skip").want(t, ok)
	again() // 7 and 8
	r.awaitCursor(waitMax, 8)
	sub("dead-letters").want(t, ok).contains(t, "Property/3", "exhausted", "HTTP 422")
	on(t, "status", name).want(t, ok).contains(t, "1 event: ")
	mended.Store(true)
	sub("replay", "--missed", "--wait").want(t, ok).contains(t, "1 event, missed", "replay 1 of set-aside is done: 1 event")
	sub("dead-letters").want(t, ok).contains(t, "no dead letters")
	sub("replay", "--from", "1", "--to", "6", "--wait", "--json").want(t, ok).contains(t, `"done": 6`)
	testkit.Eventually(t, waitMax, func() bool { // attempts are written later
		return strings.Contains(on(t, "attempts", name).want(t, ok).stdout, "replay 2")
	}, "attempts tell of the replay")

	sub("update", "--on-exhausted", "halt").want(t, ok)
	again() // 9 and 10
	on(t, "wait", name, "--until", "halted", "--timeout", "1m").want(t, ok)
	sub("replay", "--from", "1", "--to", "2", "--wait").want(t, failed).contains(t, "will not go on by itself (0 of 2, queued)", "halted")
	sub("skip", "8").want(t, conflict).contains(t, "halted at event 9")
	sub("skip", "9").want(t, ok)
	on(t, "wait", name, "--until", "idle", "--timeout", "1m").want(t, ok)
	sub("dead-letters").want(t, ok).contains(t, "skipped")
	sub("dismiss", "9").want(t, ok).contains(t, "dismissed 1 dead letter of")
	sub("replays").want(t, ok).contains(t, "2 of 2, done")
}

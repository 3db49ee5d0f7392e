package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postroad/internal/testkit"
)

// handedOut is what a subscriber of mode pull fetches.
type handedOut struct {
	Events []struct {
		Sequence                        int64
		ResourceName, ResourceRecordKey string
	}
	Lease *struct {
		ID        string
		ExpiresAt time.Time
	}
	Cursor, Head int64
}

func (h *handedOut) sequences() []int64 {
	numbers := []int64{}
	for _, e := range h.Events {
		numbers = append(numbers, e.Sequence)
	}
	return numbers
}

type committed struct {
	Cursor    int64
	Committed int
	ExpiresAt *time.Time
}

const pullSubscriber = `{"id":"acme","mode":"pull","start":"beginning"}`

// fetch fetches and compares the numbers.
func (b *bundle) fetch(query string, want ...int64) handedOut {
	b.t.Helper()
	var h handedOut
	b.call("GET", "/v1/subscribers/acme/events"+query, "").want(200, &h)
	if got := h.sequences(); !slices.Equal(got, want) || (h.Lease == nil) != (len(want) == 0) {
		b.t.Fatalf("fetched %v under %v, want %v", got, h.Lease, want)
	}
	return h
}

func (b *bundle) commit(body string) answer {
	b.t.Helper()
	return b.call("POST", "/v1/subscribers/acme/commit", body)
}

func TestPullSubscriber(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.call("POST", "/v1/subscribers", pullSubscriber).want(201, nil)
	b.publishLines(lines(1, 5)).want(201, nil)
	h := b.fetch("?limit=3", 1, 2, 3)
	if h.Cursor != 0 || h.Head != 5 || time.Until(h.Lease.ExpiresAt) < 20*time.Second || h.Events[1].ResourceRecordKey != "2" {
		t.Errorf("%+v", h)
	}
	b.fetch("") // the one lease is out
	b.commit(`{"sequence":4}`).refused(409, "not-handed-out", "/sequence")
	var done committed
	b.commit(`{"sequence":2}`).want(200, &done)
	if done.Cursor != 2 || done.Committed != 2 || done.ExpiresAt == nil {
		t.Errorf("%+v", done)
	}
	b.commit(fmt.Sprintf(`{"sequence":3,"lease":%q}`, h.Lease.ID)).want(200, &done)
	b.commit(`{"sequence":1}`).want(200, &done)
	if done.Cursor != 3 || done.Committed != 0 {
		t.Errorf("%+v", done)
	}
	h = b.fetch("", 4, 5)
	b.call("POST", "/v1/subscribers/acme/seek", `{"to":"beginning"}`).want(200, nil)
	b.commit(fmt.Sprintf(`{"sequence":5,"lease":%q}`, h.Lease.ID)).refused(409, "lease-over", "/lease")
	b.fetch("", 1, 2, 3, 4, 5)
	b.waker.mu.Lock()
	defer b.waker.mu.Unlock()
	if b.waker.wakes["acme"] > 1 { // the seek's
		t.Errorf("%d wakes", b.waker.wakes["acme"])
	}
}

func TestPullSubscriber_badInput(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.call("POST", "/v1/subscribers", pullSubscriber).want(201, nil)
	for query, parameter := range map[string]string{"limit=0": "limit", "limit=1001": "limit", "wait=61s": "wait", "after=1": "after"} {
		b.call("GET", "/v1/subscribers/acme/events?"+query, "").refused(400, "invalid-parameter", "?"+parameter)
	}
	for body, places := range map[string]string{
		`{}`: "/sequence", `{"sequence":-1}`: "/sequence", `{"sequence":1,"lease":"x"}`: "/lease", `{"lease":"00000000-0000-0000-0000-000000000000"}`: "/sequence /lease",
		`{"sequence":9223372036854775807}`: "/sequence",
	} {
		b.commit(body).refused(422, "invalid", places)
	}
	b.call("GET", "/v1/subscribers/nobody/events", "").refused(404, "not-found", "?id")
	b.call("PATCH", "/v1/subscribers/acme", `{"pull":{"leases":2}}`).want(200, nil)
	b.commit(`{"sequence":1}`).refused(422, "invalid", "/lease")
	b.call("PATCH", "/v1/subscribers/acme", `{"pull":{"leases":17,"leaseDuration":"0s"}}`).refused(422, "invalid", "/pull/leases")
}

// TestPullSubscriber_modes: what a mode makes no use of rests, and is refused where
// it would change.
func TestPullSubscriber_modes(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.call("POST", "/v1/subscribers", `{"id":"acme","mode":"pull","endpoint":{"url":"https://192.0.2.1/"},"lanes":2}`).refused(422, "invalid", "/endpoint /lanes")
	b.call("POST", "/v1/subscribers", `{"id":"acme","mode":"push"}`).refused(422, "invalid", "/endpoint/url")
	b.call("POST", "/v1/subscribers", `{"id":"acme","endpoint":{"url":"http://127.0.0.1:9/"},"pull":{}}`).refused(422, "invalid", "/pull")
	var first, pull, push map[string]any
	b.call("POST", "/v1/subscribers", `{"id":"acme","start":"beginning","endpoint":{"url":"http://127.0.0.1:9/","headers":{"X-A":"1"}},"auth":{"type":"bearer","token":"t"}}`).want(201, &first)
	b.call("GET", "/v1/subscribers/acme/events", "").refused(409, "wrong-mode", "")
	b.commit(`{"sequence":1}`).refused(409, "wrong-mode", "")
	b.call("PATCH", "/v1/subscribers/acme", `{"mode":"pull","lanes":4}`).refused(422, "invalid", "/lanes")
	b.call("PATCH", "/v1/subscribers/acme", `{"mode":"pull"}`).want(200, &pull)
	for _, request := range []string{"/test", "/replays", "/signing-secret/rotate"} {
		body := ""
		if request == "/replays" {
			b.publish(one("a")).want(201, nil)
			body = `{"fromSequence":1}`
		}
		b.call("POST", "/v1/subscribers/acme"+request, body).refused(409, "wrong-mode", "")
	}
	b.fetch("", 1)
	b.call("PUT", "/v1/subscribers/acme", string(b.call("GET", "/v1/subscribers/acme", "").want(200, nil).body)).want(200, nil)
	b.call("PATCH", "/v1/subscribers/acme", `{"mode":"push"}`).want(200, &push)
	b.call("GET", "/v1/subscribers/acme/events", "").refused(409, "wrong-mode", "")
	for _, member := range []string{"endpoint", "auth", "retry", "lanes"} {
		if diff := cmp.Diff(first[member], push[member]); diff != "" || cmp.Diff(first[member], pull[member]) != "" {
			t.Errorf("%s did not rest: %s", member, diff)
		}
	}
	secrets, err := b.store.Secrets(t.Context(), "acme")
	must(t, err)
	if secrets.Token != "t" || secrets.Headers["X-A"] != "1" || len(secrets.Signing) != 1 || secrets.Signing[0].Secret != first["signing"].(map[string]any)["secret"] {
		t.Errorf("secrets %+v", secrets)
	}

	// A PUT that leaves them out lets go of them.
	clear(pull)
	b.call("PUT", "/v1/subscribers/acme", `{"mode":"pull"}`).want(200, &pull)
	if pull["endpoint"] != nil || pull["signing"] != nil || pull["pull"] == nil {
		t.Errorf("%v", pull)
	}
	if secrets, err = b.store.Secrets(t.Context(), "acme"); err != nil || secrets.Token != "" || len(secrets.Signing)+len(secrets.Headers) > 0 {
		t.Errorf("secrets %+v, %v", secrets, err)
	}
	b.call("PATCH", "/v1/subscribers/acme", `{"mode":"push"}`).refused(422, "invalid", "/endpoint/url")
	clear(push)
	b.call("PATCH", "/v1/subscribers/acme", `{"mode":"push","endpoint":{"url":"http://127.0.0.1:9/"}}`).want(200, &push)
	if push["signing"].(map[string]any)["secret"] == nil {
		t.Errorf("no signing secret was shown: %v", push)
	}
	b.call("POST", "/v1/subscribers/acme/replays", `{"fromSequence":1}`).want(201, nil)
	b.call("PATCH", "/v1/subscribers/acme", `{"mode":"pull"}`).refused(422, "invalid", "/mode")
}

// TestPullSubscriber_waits: for an event, for a commit, for a lease that is over
// and for a seek; a hold is told.
func TestPullSubscriber_waits(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.call("POST", "/v1/subscribers", pullSubscriber).want(201, nil)
	started := time.Now()
	waiting := func(change func(), want ...int64) {
		t.Helper()
		got := make(chan answer, 1)
		go func() { got <- b.call("GET", "/v1/subscribers/acme/events?limit=2&wait=60s", "") }()
		b.awaitPolls(1)
		change()
		a, h := <-got, handedOut{}
		if len(want) == 0 {
			a.refused(409, "held-back", "")
			return
		}
		if a.want(200, &h); !slices.Equal(h.sequences(), want) {
			t.Errorf("fetched %v, want %v", h.sequences(), want)
		}
	}
	waiting(func() { b.publishLines(lines(1, 3)).want(201, nil) }, 1, 2)
	waiting(func() { b.commit(`{"sequence":2}`).want(200, nil) }, 3)
	waiting(func() { b.exec(`UPDATE pull_leases SET expires_at = clock_timestamp()`) }, 3)
	b.commit(`{"sequence":3}`).want(200, nil)
	waiting(func() { b.call("POST", "/v1/subscribers/acme/seek", `{"to":{"sequence":1}}`).want(200, nil) }, 2, 3)
	b.commit(`{"sequence":3}`).want(200, nil)
	waiting(func() { b.call("POST", "/v1/subscribers/acme/pause", "").want(200, nil) })
	b.call("POST", "/v1/subscribers/acme/resume", "").want(200, nil)
	b.fetch("?wait=50ms")
	if took := time.Since(started); took > soon {
		t.Errorf("took %s", took)
	}
	got := make(chan answer, 1)
	go func() { got <- b.call("GET", "/v1/subscribers/acme/events?wait=60s", "") }()
	b.awaitPolls(1)
	b.server.Drain()
	a := <-got
	a.want(200, nil)
}

// TestPullSubscriber_threePollers: one of three dies with what it holds, and all
// events of a real stream are handled, in order.
func TestPullSubscriber_threePollers(t *testing.T) {
	t.Parallel()
	for _, leases := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d leases", leases), func(t *testing.T) {
			t.Parallel()
			b := setup(t, options{})
			b.call("POST", "/v1/subscribers", fmt.Sprintf(`{"id":"acme","mode":"pull","start":"beginning","pull":{"leases":%d,"leaseDuration":"1s"}}`, leases)).want(201, nil)
			stream := testkit.Lines(t, "sdk-go")
			var want []string
			for i, line := range stream {
				var e struct{ ResourceName, ResourceRecordKey string }
				must(t, json.Unmarshal(line, &e))
				want = append(want, fmt.Sprintf("%d %s %s", i+1, e.ResourceName, e.ResourceRecordKey))
			}
			var mu sync.Mutex
			var got []string
			var pollers sync.WaitGroup
			for i := range 3 {
				dies := i == 0
				pollers.Go(func() {
					for n := 0; !t.Failed(); n++ {
						var h handedOut
						b.call("GET", "/v1/subscribers/acme/events?limit=100&wait=60s", "").want(200, &h)
						if dies && n == 10 {
							return
						}
						mu.Lock()
						for _, e := range h.Events {
							got = append(got, fmt.Sprintf("%d %s %s", e.Sequence, e.ResourceName, e.ResourceRecordKey))
						}
						mu.Unlock()
						if len(h.Events) > 0 {
							last := h.Events[len(h.Events)-1].Sequence
							b.commit(fmt.Sprintf(`{"sequence":%d,"lease":%q}`, last, h.Lease.ID)).want(200, nil)
						}
						mu.Lock()
						all := len(got) >= len(want)
						mu.Unlock()
						if all {
							b.server.Drain() // ends the other's wait
							return
						}
					}
				})
			}
			b.publishLines(string(bytes.Join(stream, []byte("\n")))).want(201, nil)
			pollers.Wait()
			if len(want) != 12525 {
				t.Errorf("the stream has %d events", len(want))
			}
			if leases > 1 { // what is of one record is in order
				record := func(tuple string) string { return tuple[bytes.IndexByte([]byte(tuple), ' '):] }
				slices.SortStableFunc(got, func(a, b string) int { return cmpStrings(record(a), record(b)) })
				slices.SortStableFunc(want, func(a, b string) int { return cmpStrings(record(a), record(b)) })
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d events are handled, %d are there, or not in order", len(got), len(want))
			}
			var status struct{ Cursor, LagEvents int64 }
			b.call("GET", "/v1/subscribers/acme/status", "").want(200, &status)
			if status.Cursor != 12525 || status.LagEvents != 0 {
				t.Errorf("%+v", status)
			}
		})
	}
}

func cmpStrings(a, b string) int { return bytes.Compare([]byte(a), []byte(b)) }

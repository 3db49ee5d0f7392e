package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"postroad/contract"
	"postroad/internal/apiclient"
	"postroad/internal/testkit"
)

// road is a feed with one subscriber and its consumer, as a person sees it: all
// that it does goes through the API of a running stack.
type road struct {
	t        *testing.T
	api      *apiclient.Client // replaced where the stack is started again
	name     string            // the feed's and the subscriber's
	consumer *testkit.Receiver
}

// roadStatus is what the tests read of a subscriber's status.
type roadStatus struct {
	State, Reason, LastError       string
	Cursor, Head                   int64
	DesiredVersion, AppliedVersion int64
	PausedUntil, RetryAt           *time.Time
	TemporalURL                    string
}

// inForce says whether the last control is in force.
func (s roadStatus) inForce() bool { return s.AppliedVersion == s.DesiredVersion }

// newRoad makes feed and subscriber; settings are added to the subscriber's.
func newRoad(t *testing.T, api *apiclient.Client, name string, script testkit.Script, settings map[string]any) *road {
	t.Helper()
	r := &road{t: t, api: api, name: name, consumer: testkit.NewReceiver(t, testkit.ReceiverOptions{Script: script})}
	r.call(http.MethodPost, "/v1/feeds", map[string]any{"name": name}, nil)
	subscriber := map[string]any{"id": name, "feed": name, "start": "beginning", "endpoint": map[string]any{"url": r.consumer.URL()}}
	for key, value := range settings {
		subscriber[key] = value
	}
	r.call(http.MethodPost, "/v1/subscribers", subscriber, nil)
	return r
}

// call makes a request that must be answered 2xx and returns the status.
func (r *road) call(method, path string, in, out any) int {
	r.t.Helper()
	answer, err := r.api.Do(r.t.Context(), apiclient.Request{Method: method, Path: path, In: in}, out)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer.Status
}

// publish publishes events, one JSON object each.
func (r *road) publish(events [][]byte) {
	r.t.Helper()
	_, err := r.api.Do(r.t.Context(), apiclient.Request{
		Method: http.MethodPost, Path: "/v1/feeds/" + r.name + "/events",
		Body: bytes.NewReader(bytes.Join(events, []byte("\n"))), ContentType: "application/x-ndjson",
	}, nil)
	if err != nil {
		r.t.Fatalf("publish to %s: %v", r.name, err)
	}
}

// control pauses or resumes through the API and returns the status.
func (r *road) control(kind string) int {
	r.t.Helper()
	return r.call(http.MethodPost, "/v1/subscribers/"+r.name+"/"+kind, nil, nil)
}

func (r *road) status() (s roadStatus) {
	r.t.Helper()
	r.call(http.MethodGet, "/v1/subscribers/"+r.name+"/status", nil, &s)
	return s
}

// awaitStatus waits until the status is as wanted.
func (r *road) awaitStatus(most time.Duration, wanted string, is func(roadStatus) bool) (s roadStatus) {
	r.t.Helper()
	testkit.Eventually(r.t, most, func() bool {
		s = r.status()
		return is(s)
	}, r.name+" is "+wanted)
	return s
}

// awaitPaused waits until a pause is in force.
func (r *road) awaitPaused() roadStatus {
	r.t.Helper()
	return r.awaitStatus(waitMax, "paused", func(s roadStatus) bool { return s.State == contract.StatePaused && s.inForce() })
}

// awaitCursor waits until all events up to one are settled, and the row knows.
func (r *road) awaitCursor(most time.Duration, sequence int) {
	r.t.Helper()
	r.awaitStatus(most, "at "+strconv.Itoa(sequence), func(s roadStatus) bool { return s.Cursor == int64(sequence) })
}

// stays fails the test if more than count requests have come after a while. It
// waits the whole while: that nothing happens cannot be waited for otherwise.
func (r *road) stays(count int, while time.Duration) {
	r.t.Helper()
	<-time.After(while)
	if now := r.consumer.Count(); now != count {
		r.t.Fatalf("%d requests came, want the %d from before", now, count)
	}
}

// firstOf and lastOf are the sequences that a request begins and ends with.
func firstOf(t testing.TB, r testkit.Request) int {
	t.Helper()
	first, err := strconv.Atoi(r.Header.Get("Postroad-Sequence"))
	if err != nil {
		t.Fatalf("request %d has no sequence: %v", r.N, err)
	}
	return first
}

func lastOf(t testing.TB, r testkit.Request) int {
	t.Helper()
	if text := r.Header.Get("Postroad-Last-Sequence"); text != "" {
		last, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("request %d has a strange last sequence: %v", r.N, err)
		}
		return last
	}
	return firstOf(t, r)
}

// onceInOrder fails the test unless the requests bring 1 to n, each once.
func onceInOrder(t testing.TB, requests []testkit.Request, n int) {
	t.Helper()
	next := 1
	for _, r := range requests {
		if first := firstOf(t, r); first != next {
			t.Fatalf("request %d brings event %d, want %d", r.N, first, next)
		}
		next = lastOf(t, r) + 1
	}
	if next != n+1 {
		t.Fatalf("the last event that came is %d, want %d", next-1, n)
	}
}

// slow is a consumer that takes that long for each request.
func slow(pause time.Duration) testkit.Script {
	return func(int, *testkit.Request) testkit.Answer { return testkit.Answer{Hang: pause} }
}

// numbered are n small events.
func numbered(n int) [][]byte {
	events := make([][]byte, n)
	for i := range events {
		events[i] = fmt.Appendf(nil, `{"resourceName":"Property","resourceRecordKey":"%d"}`, i+1)
	}
	return events
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

package activities_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
)

// stream reads one of the real streams.
func stream(t *testing.T, name string) []event.Event {
	t.Helper()
	var events []event.Event
	for _, line := range testkit.Lines(t, name) {
		var e event.Event
		check(t, json.Unmarshal(line, &e))
		events = append(events, e)
	}
	return events
}

func properties(n int) []event.Event {
	events := make([]event.Event, n)
	for i := range events {
		events[i] = event.Event{ResourceName: "Property", ResourceRecordKey: strconv.Itoa(i), EventType: "record.updated"}
	}
	return events
}

// sequences are the sequences of the events in accepted requests, in order.
func sequences(t *testing.T, requests []testkit.Request, accepted func(testkit.Request) bool) []int64 {
	t.Helper()
	var list []int64
	for _, r := range requests {
		if !accepted(r) {
			continue
		}
		first, err := strconv.ParseInt(r.Header.Get("Postroad-Sequence"), 10, 64)
		check(t, err)
		count := 1
		if n := r.Header.Get("Postroad-Count"); n != "" {
			count, err = strconv.Atoi(n)
			check(t, err)
		}
		for i := range count {
			list = append(list, first+int64(i))
		}
	}
	return list
}

func wantSequence(t *testing.T, got []int64, n int) {
	t.Helper()
	if len(got) != n {
		t.Errorf("%d events arrived, want %d", len(got), n)
	}
	for i, sequence := range got {
		if sequence != int64(i+1) {
			t.Fatalf("arrival %d is event %d", i+1, sequence)
		}
	}
}

func all(testkit.Request) bool { return true }

func TestDeliverStreams(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"reso-transport", "sdk-go"} {
		for _, batch := range []int{1, 100} {
			for _, format := range []string{event.FormatRESO, event.FormatRaw} {
				t.Run(fmt.Sprintf("%s/%d/%s", name, batch, format), func(t *testing.T) {
					t.Parallel()
					b := setup(t)
					r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
					events := stream(t, name)
					b.publishStream(name, len(events))
					b.create(r.URL(), func(s *event.Subscriber) { s.BatchSize, s.Format = event.Count(batch), format })
					result := b.deliver()
					if result.Outcome != contract.OutcomeParked || result.Delivered != int64(len(events)) {
						t.Errorf("%+v", result)
					}
					wantSequence(t, sequences(t, r.Requests(), all), len(events))
					if r.MaxInFlight() != 1 {
						t.Errorf("%d requests at once in one lane", r.MaxInFlight())
					}
					if row := b.row(); row.Cursor != int64(len(events)) || !row.Parked {
						t.Errorf("cursor %d, parked %v", row.Cursor, row.Parked)
					}
				})
			}
		}
	}
}

// TestDeliverRoughConsumer delivers the long stream to a consumer that does
// everything a consumer may do wrong.
func TestDeliverRoughConsumer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	accepted := map[int]bool{}
	quietUntil := time.Time{}
	early := 0
	seen503, hung, failed := false, false, 0
	script := func(n int, r *testkit.Request) testkit.Answer {
		if r.At.Before(quietUntil) {
			early++
		}
		switch {
		case n%1000 == 0:
			quietUntil = r.At.Add(time.Second)
			return testkit.Answer{Status: 429, Header: http.Header{"Retry-After": {"1"}}}
		case n > 5000 && !seen503:
			seen503 = true
			until := r.At.Add(2 * time.Second)
			quietUntil = until.Truncate(time.Second)
			return testkit.Answer{Status: 503, Header: http.Header{"Retry-After": {until.UTC().Format(http.TimeFormat)}}}
		case n > 7000 && failed < 2:
			failed++
			return testkit.Answer{Status: 500}
		case n > 9000 && !hung:
			hung = true
			return testkit.Answer{Hang: testkit.Forever}
		}
		accepted[n] = true
		return testkit.Answer{}
	}
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: script})
	events := stream(t, "sdk-go")
	b.publishStream("sdk-go", len(events))
	b.create(r.URL(), nil)
	b.drive(contract.OutcomeParked)
	wantSequence(t, sequences(t, r.Requests(), func(q testkit.Request) bool { return accepted[q.N] }), len(events))
	if early > 0 {
		t.Errorf("%d requests during a wait", early)
	}
	if !seen503 || !hung || failed != 2 {
		t.Error("the consumer was not rough")
	}
}

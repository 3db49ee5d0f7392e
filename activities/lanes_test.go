package activities_test

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"testing"
	"time"

	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
)

// roundTrip is how long the consumers of these tests take for an answer.
const roundTrip = 20 * time.Millisecond

// sentEvent is what the body of a request says of an event.
type sentEvent struct {
	Sequence int64  `json:"EntityEventSequence"`
	Name     string `json:"ResourceName"`
	Key      string `json:"ResourceRecordKey"`
}

func sentEvents(t *testing.T, r testkit.Request) []sentEvent {
	t.Helper()
	var body struct {
		sentEvent
		Value []sentEvent `json:"value"`
	}
	check(t, json.Unmarshal(r.Body, &body))
	if body.Value != nil {
		return body.Value
	}
	return []sentEvent{body.sentEvent}
}

// wantKeyOrder checks requests against promise 3 for several lanes: of a key, no
// request arrives before the one before it was answered, and events come in the
// order of their sequences, each once among the accepted ones.
func wantKeyOrder(t *testing.T, requests []testkit.Request, accepted func(testkit.Request) bool, n int) {
	t.Helper()
	type past struct {
		last  int64 // accepted
		until time.Time
	}
	keys := map[event.Key]*past{}
	seen := map[int64]bool{}
	for _, r := range requests {
		for _, e := range sentEvents(t, r) {
			key := event.Key{ResourceName: e.Name, ResourceRecordKey: e.Key}
			p := keys[key]
			if p == nil {
				p = &past{}
				keys[key] = p
			}
			if e.Sequence <= p.last {
				t.Fatalf("event %d of %v arrived after %d was accepted", e.Sequence, key, p.last)
			}
		}
		for _, e := range sentEvents(t, r) {
			p := keys[event.Key{ResourceName: e.Name, ResourceRecordKey: e.Key}]
			if r.At.Before(p.until) {
				t.Fatalf("event %d arrived while another one of its key was in flight", e.Sequence)
			}
		}
		for _, e := range sentEvents(t, r) {
			p := keys[event.Key{ResourceName: e.Name, ResourceRecordKey: e.Key}]
			p.until = r.At.Add(r.Took)
			if accepted(r) {
				p.last = e.Sequence
				seen[e.Sequence] = true
			}
		}
	}
	if len(seen) != n {
		t.Errorf("%d events were accepted, want %d", len(seen), n)
	}
}

// unlucky picks 2 % of the requests, the same ones for the same events, and only
// at the first attempt.
func unlucky(r *testkit.Request) bool {
	h := fnv.New32a()
	h.Write([]byte(r.Header.Get("Postroad-Sequence")))
	return r.Header.Get("Postroad-Attempt") == "1" && h.Sum32()%50 == 0
}

func TestLanes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		lanes, batch int
		status       int // of the requests that fail; 0: none do
	}{
		{16, 1, 0}, {16, 1, 422}, {16, 1, 500}, {64, 1, 422}, {8, 20, 422}, {2, 1, 500},
	} {
		t.Run(fmt.Sprintf("%d lanes of %d, %d", test.lanes, test.batch, test.status), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var a answers
			r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, r *testkit.Request) testkit.Answer {
				answer := testkit.Answer{Hang: roundTrip}
				if test.status != 0 && unlucky(r) {
					answer.Status = test.status
				}
				return a.note(n, answer)
			}})
			events := stream(t, "sdk-go")
			if test.lanes < 8 {
				events = events[:1000]
			}
			b.publishStream("sdk-go", len(events))
			b.create(r.URL(), func(s *event.Subscriber) {
				s.Lanes, s.BatchSize = event.Count(test.lanes), event.Count(test.batch)
			})
			b.drive(contract.OutcomeParked)
			wantKeyOrder(t, r.Requests(), a.accepted, len(events))
			if most := r.MaxInFlight(); most > test.lanes || most < test.lanes/2 {
				t.Errorf("%d requests at once in %d lanes", most, test.lanes)
			}
			if row := b.row(); row.Cursor != int64(len(events)) || len(row.Settled) > 0 {
				t.Errorf("cursor %d, settled %v", row.Cursor, row.Settled)
			}
		})
	}
}

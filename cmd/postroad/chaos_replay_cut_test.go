//go:build chaos

package main_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"postroad/contract"
)

// TestChaosReplayCut kills everything at about half of a replay of 10,000 events,
// of a subscriber with one lane and of one with eight. Events that are published
// meanwhile come after it.
func TestChaosReplayCut(t *testing.T) {
	t.Parallel()
	const total, newer = 10_000, 500
	r := newRig(t)
	single := r.road("cut-single", slow(time.Millisecond), nil)
	lanes := r.road("cut-lanes", slow(12*time.Millisecond), map[string]any{"lanes": 8})
	for _, road := range r.roads {
		road.control(contract.ControlPause)
		road.publish(recordsFrom(1, total))
		road.call(http.MethodPost, "/v1/subscribers/"+road.name+"/seek", map[string]any{"to": "now"}, nil)
		road.call(http.MethodPost, "/v1/subscribers/"+road.name+"/replays", map[string]any{"fromSequence": 1, "toSequence": total}, nil)
		road.publish(recordsFrom(total+1, newer))
	}
	began := time.Now()
	for _, road := range r.roads {
		road.control(contract.ControlResume)
	}
	for _, road := range r.roads {
		road.consumer.WaitFor(t, total*4/10, deliveredMax)
	}
	r.child.killTree()
	killed := time.Now()
	command := r.restart()
	for _, road := range r.roads {
		t.Logf("%s: %d requests in %.1f s before everything was killed, the next one %.1f s after the restart command", road.name,
			len(before(road.consumer.Requests(), command)), killed.Sub(began).Seconds(), road.awaitSince(command, 1, recoverMax).At.Sub(command).Seconds())
		road.publish(recordsFrom(total+newer+1, newer))
	}
	for _, road := range r.roads {
		road.awaitCursor(deliveredMax, total+2*newer)
		var replay struct {
			State       string
			Done, Total int
		}
		road.call(http.MethodGet, "/v1/subscribers/"+road.name+"/replays/1", nil, &replay)
		if replay.State != "done" || replay.Done != total || replay.Total != total {
			t.Errorf("%s: the replay is %+v, want %d done", road.name, replay, total)
		}
	}
	single.checkReplayCut(command, total, total+2*newer, 1)
	lanes.checkReplayCut(command, total, total+2*newer, 8)
}

// recordsFrom are n events, from one on, of 499 records in turn.
func recordsFrom(from, n int) [][]byte {
	events := make([][]byte, n)
	for i := range events {
		events[i] = fmt.Appendf(nil, `{"resourceName":"Property","resourceRecordKey":"%d"}`, keyOf(from+i))
	}
	return events
}

func keyOf(sequence int) int { return sequence % 499 }

// checkReplayCut fails the test unless replayed events came first, each marked and
// in order, and then the others, each once; and unless the crash before command
// made for as few repeats as promised, as young ones.
func (r *road) checkReplayCut(command time.Time, replayed, all, lanes int) {
	r.t.Helper()
	requests := r.consumer.Requests()
	sent := before(requests, command)
	newest := sent[len(sent)-1]
	ended := map[int]time.Time{}
	last := map[int]int{} // of each key; with one lane all are of one
	repeats, oldest := 0, time.Duration(0)
	var lastReplayed time.Time
	for _, q := range requests {
		n := firstOf(r.t, q)
		marked := q.Header.Get("Postroad-Replay") == "1"
		if marked != (n <= replayed) {
			r.t.Fatalf("%s: event %d is of replay %q", r.name, n, q.Header.Get("Postroad-Replay"))
		}
		if marked {
			lastReplayed = q.At
		} else if len(ended) < replayed {
			r.t.Fatalf("%s: event %d is sent after %d events of the replay", r.name, n, len(ended))
		}
		if end, again := ended[n]; again {
			if end.After(command) || q.At.Before(command) {
				r.t.Fatalf("%s: event %d is sent twice without a crash between", r.name, n)
			}
			repeats++
			oldest = max(oldest, newest.At.Sub(end))
			continue
		}
		ended[n] = q.At.Add(q.Took)
		key := keyOf(n)
		if lanes == 1 {
			key = 0
		}
		if n < last[key] {
			r.t.Fatalf("%s: event %d comes after %d", r.name, n, last[key])
		}
		last[key] = n
	}
	r.t.Logf("%s: cut at %d of %d events; %d repeated, the oldest settled %d ms before the last request; new events from %d ms after the last of the replay",
		r.name, len(sent), replayed, repeats, oldest.Milliseconds(), r.firstAfter(lastReplayed).Sub(lastReplayed).Milliseconds())
	if len(ended) != all {
		r.t.Errorf("%s: %d events came, want %d", r.name, len(ended), all)
	}
	if repeats > repeatsMax+lanes || oldest > repeatAgeMax+measureMax {
		r.t.Errorf("%s: %d events were repeated, the oldest settled %s before the last request", r.name, repeats, oldest)
	}
	if most := r.consumer.MaxInFlight(); most > lanes {
		r.t.Errorf("%s: %d requests at once", r.name, most)
	}
}

func (r *road) firstAfter(moment time.Time) time.Time {
	r.t.Helper()
	return r.awaitSince(moment, 1, waitMax).At
}

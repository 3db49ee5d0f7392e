package bench

import (
	"encoding/json"
	"errors"
	"hash/fnv"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// keyBook is the book of a consumer whose requests may overtake one another, but
// for those of one record. Requests are in the format reso.
type keyBook struct {
	mu     sync.Mutex
	report KeyReport
	seen   map[int64]struct{}
	keys   map[recordName]*keyEntry
	flying int
}

// recordName is the name of a record.
type recordName struct{ resource, key string }

// keyEntry is what is known of one record.
type keyEntry struct {
	last   int64 // the highest sequence that arrived
	flying int   // requests that were not answered yet
}

// KeyReport is what arrived at one path of a receiver that keeps book by record.
type KeyReport struct {
	// Requests counts all, Events the events that had not come before, Keys their
	// records.
	Requests int64 `json:"requests"`
	Events   int64 `json:"events"`
	Keys     int   `json:"keys"`
	// Repeats counts events that had come before, Disorders those that came after
	// a later one of their record, Overlaps those that came while another request
	// with their record was not answered, Malformed requests that are not as they
	// should be.
	Repeats   int64 `json:"repeats"`
	Disorders int64 `json:"disorders"`
	Overlaps  int64 `json:"overlaps"`
	Malformed int64 `json:"malformed"`
	// Digest is the sum of a hash of each event's sequence and record.
	Digest uint64 `json:"digest,string"`
	// MostInFlight is the most requests that waited for an answer at once.
	MostInFlight int `json:"mostInFlight"`
	// BodyBytes is the sum of the bodies' lengths.
	BodyBytes int64 `json:"bodyBytes"`
	// FirstAt is when the first request had been read, LastAt when the last one was
	// answered, in nanoseconds of Unix time.
	FirstAt int64 `json:"firstAt"`
	LastAt  int64 `json:"lastAt"`
}

// Seconds is the time from the first request to the last answer.
func (r KeyReport) Seconds() float64 { return time.Duration(r.LastAt - r.FirstAt).Seconds() }

// digest is what one event adds to KeyReport.Digest.
func digest(sequence int64, name recordName) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, strconv.FormatInt(sequence, 10)+"\x00"+name.resource+"\x00"+name.key)
	return h.Sum64()
}

// resoEvent is an event in the format reso, resoBody a body of one or several.
type resoEvent struct {
	Sequence int64  `json:"EntityEventSequence"`
	Resource string `json:"ResourceName"`
	Key      string `json:"ResourceRecordKey"`
}

type resoBody struct {
	resoEvent
	Value []resoEvent `json:"value"`
}

func newKeyBook() *keyBook {
	return &keyBook{seen: map[int64]struct{}{}, keys: map[recordName]*keyEntry{}}
}

// serve answers 204 to a delivery once it has waited, and GET with the book.
func (b *keyBook) serve(w http.ResponseWriter, request *http.Request) {
	if request.Method == http.MethodGet {
		b.mu.Lock()
		report := b.report
		report.Keys = len(b.keys)
		b.mu.Unlock()
		writeJSON(w, report)
		return
	}
	delay, err := time.ParseDuration(request.URL.Query().Get("delay"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return // the client went away within the body
	}
	wait := time.NewTimer(delay)
	defer wait.Stop()
	records := b.arrived(body)
	<-wait.C
	b.answered(records)
	w.WriteHeader(http.StatusNoContent)
}

func eventsOf(body []byte) ([]resoEvent, error) {
	var parsed resoBody
	if err := json.Unmarshal(body, &parsed); err != nil {
		return nil, err
	}
	events := parsed.Value
	if events == nil {
		events = []resoEvent{parsed.resoEvent}
	}
	for _, e := range events {
		if e.Sequence <= 0 || e.Key == "" {
			return nil, errors.New("an event has no sequence or no key")
		}
	}
	return events, nil
}

// arrived notes a request and returns the records in it, each once.
func (b *keyBook) arrived(body []byte) []*keyEntry {
	now := time.Now().UnixNano()
	events, err := eventsOf(body)
	b.mu.Lock()
	defer b.mu.Unlock()
	r := &b.report
	if r.Requests++; r.Requests == 1 {
		r.FirstAt = now
	}
	r.BodyBytes += int64(len(body))
	b.flying++
	r.MostInFlight = max(r.MostInFlight, b.flying)
	if err != nil || len(events) == 0 {
		r.Malformed++
		return nil
	}
	mine := map[*keyEntry]bool{}
	records := make([]*keyEntry, 0, len(events))
	for _, e := range events {
		name := recordName{e.Resource, e.Key}
		k := b.keys[name]
		if k == nil {
			k = &keyEntry{}
			b.keys[name] = k
		}
		if !mine[k] {
			if k.flying > 0 {
				r.Overlaps++
			}
			mine[k] = true
			k.flying++
			records = append(records, k)
		}
		if _, again := b.seen[e.Sequence]; again {
			r.Repeats++
			continue
		}
		b.seen[e.Sequence] = struct{}{}
		if e.Sequence < k.last {
			r.Disorders++
		}
		k.last = max(k.last, e.Sequence)
		r.Events++
		r.Digest += digest(e.Sequence, name)
	}
	return records
}

func (b *keyBook) answered(records []*keyEntry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range records {
		k.flying--
	}
	b.flying--
	b.report.LastAt = time.Now().UnixNano()
}

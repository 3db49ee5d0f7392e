package bench

import (
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// manyBook is the receiver's book of many subscribers, each with a number. Those
// numbered are /many/<book>/<number>; GET /many/<book> reads the book, and POST
// /many/<book>/mark begins a new stretch in it.
type manyBook struct {
	mu     sync.Mutex
	report ManyReport
	ends   map[int]*manyEnd
}

// manyEnd is one subscriber: what it got, in the order in which it did.
type manyEnd struct {
	last, events int64
	digest       uint64
	flying       int
}

// ManyReport is what many subscribers got in the stretch that was marked last.
type ManyReport struct {
	// Events counts the requests with a sequence above the subscriber's last one.
	Events int64 `json:"events"`
	// Ends is how many subscribers got any, Most the most that one did.
	Ends int   `json:"ends"`
	Most int64 `json:"most"`
	// Repeats counts requests for a sequence that had come before or should have,
	// Overlaps those that came before the one before was answered, Malformed those
	// without a sequence.
	Repeats   int64 `json:"repeats"`
	Overlaps  int64 `json:"overlaps"`
	Malformed int64 `json:"malformed"`
	// Digest is of who got which sequences in which order.
	Digest uint64 `json:"digest"`
	// FirstAt and LastAt are when the first and the last request had been read, in
	// nanoseconds of Unix time.
	FirstAt int64 `json:"firstAt"`
	LastAt  int64 `json:"lastAt"`
}

// Seconds is the time from the first request to the last.
func (r ManyReport) Seconds() float64 { return time.Duration(r.LastAt - r.FirstAt).Seconds() }

func newManyBook() *manyBook { return &manyBook{ends: map[int]*manyEnd{}} }

// end returns a subscriber's part of the book. The caller holds mu.
func (b *manyBook) end(number int) *manyEnd {
	e := b.ends[number]
	if e == nil {
		e = &manyEnd{}
		b.ends[number] = e
	}
	return e
}

func (b *manyBook) serve(w http.ResponseWriter, request *http.Request, which string) {
	switch {
	case request.Method == http.MethodGet:
		writeJSON(w, b.read())
		return
	case which == "mark":
		b.mark()
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if _, err := io.Copy(io.Discard, request.Body); err != nil {
		return // the client went away within the body
	}
	number, err := strconv.Atoi(which)
	if err != nil {
		http.NotFound(w, request)
		return
	}
	end := b.note(number, request.Header)
	w.WriteHeader(http.StatusNoContent)
	b.mu.Lock()
	defer b.mu.Unlock()
	end.flying--
}

func (b *manyBook) note(number int, header http.Header) *manyEnd {
	now := time.Now().UnixNano()
	var sequence int64
	if values := header[headerSequence]; len(values) > 0 {
		sequence, _ = strconv.ParseInt(values[0], 10, 64)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r, e := &b.report, b.end(number)
	if r.FirstAt == 0 {
		r.FirstAt = now
	}
	r.LastAt = now
	if e.flying++; e.flying > 1 {
		r.Overlaps++
	}
	switch {
	case sequence <= 0:
		r.Malformed++
	case sequence <= e.last:
		r.Repeats++
	default:
		r.Events++
		e.take(sequence)
	}
	return e
}

// take notes the next sequence that a subscriber got, or is to get.
func (e *manyEnd) take(sequence int64) {
	e.last = sequence
	e.events++
	e.digest = e.digest*1_000_003 + uint64(sequence)
}

// mark begins a new stretch.
func (b *manyBook) mark() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.report = ManyReport{}
	for _, e := range b.ends {
		e.events, e.digest = 0, 0
	}
}

// read returns the book as it is.
func (b *manyBook) read() ManyReport {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.report
	for number, e := range b.ends {
		if e.events > 0 {
			r.Ends++
			r.Most = max(r.Most, e.events)
			r.Digest += e.digest * (2*uint64(number) + 1)
		}
	}
	return r
}

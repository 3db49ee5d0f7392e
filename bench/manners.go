package bench

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// dripEvery is how often a consumer that drips sends a byte.
const dripEvery = 50 * time.Millisecond

// gate ends what consumers do.
type gate struct {
	once sync.Once
	open chan struct{} // closed once
}

func (r *Receiver) gate(name string) *gate {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.gates[name]
	if g == nil {
		g = &gate{open: make(chan struct{})}
		r.gates[name] = g
	}
	return g
}

func (g *gate) isOpen() bool {
	select {
	case <-g.open:
		return true
	default:
		return false
	}
}

// wait waits for d, the gate, or the end of the request; false: the latter.
func (g *gate) wait(request *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-g.open:
	case <-request.Context().Done():
		return false
	}
	return true
}

// answer notes a delivery and answers it as the query says. All that a consumer
// does ends when the gate that it names with gate=<name> is opened by POST to
// /gate/<name>: from then on it answers like any other.
//
//	delay=5s      the answer comes after that time
//	wall=1        two of three requests are answered 429, Retry-After that many seconds
//	drip=body     the answer's body comes a byte at a time
//	drip=headers  the answer's headers do, and never end
//	timed=1       the body says in sentAt when it was published, in nanoseconds of
//	              Unix time: how long that is ago is noted, and read in milliseconds
//	              at /latencies/<name>/<from>/<to>
func (r *Receiver) answer(w http.ResponseWriter, request *http.Request, l *lane) {
	query := request.URL.Query()
	g := r.gate(query.Get("gate"))
	now := time.Now()
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return // the client went away within the body
	}
	if seconds, err := strconv.Atoi(query.Get("wall")); err == nil && l.walledOff(now, g.isOpen(), time.Duration(seconds)*time.Second) {
		w.Header().Set("Retry-After", query.Get("wall"))
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	if query.Get("timed") != "" {
		l.noteLatency(body, now)
	}
	l.note(request.Header, int64(len(body)))
	if delay, err := time.ParseDuration(query.Get("delay")); err == nil && !g.isOpen() && !g.wait(request, delay) {
		return
	}
	switch drip := query.Get("drip"); {
	case drip == "" || g.isOpen():
		w.WriteHeader(http.StatusNoContent)
	case drip == "headers":
		dripHeaders(w, request, g)
	default:
		dripBody(w, request, g)
	}
}

// wallEvery is of how many requests a walled-off consumer accepts one.
const wallEvery = 3

// walledOff notes a request to a consumer that refuses most of them, and says
// whether this is one. Requests before the time it asked for are noted as early.
func (l *lane) walledOff(now time.Time, over bool, wait time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.notBefore) {
		l.report.Early++
	}
	if over {
		return false
	}
	if l.asked++; l.asked%wallEvery == 0 {
		return false
	}
	l.report.Refused++
	l.notBefore = now.Add(wait)
	return true
}

func (l *lane) noteLatency(body []byte, now time.Time) {
	if !bytes.HasPrefix(body, []byte(`{"sentAt":`)) {
		return // another one
	}
	var event struct{ SentAt int64 }
	if err := json.Unmarshal(body, &event); err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.late = append(l.late, now.UnixNano()-event.SentAt)
}

func dripBody(w http.ResponseWriter, request *http.Request, g *gate) {
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	for !g.isOpen() {
		if _, err := w.Write([]byte{'.'}); err != nil || flush.Flush() != nil || !g.wait(request, dripEvery) {
			return
		}
	}
}

func dripHeaders(w http.ResponseWriter, request *http.Request, g *gate) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	text := "HTTP/1.1 204 No Content\r\nX-Drip: "
	for i := 0; !g.isOpen(); i++ {
		next := byte('.')
		if i < len(text) {
			next = text[i]
		}
		if buffered.WriteByte(next) != nil || buffered.Flush() != nil || !g.wait(request, dripEvery) {
			return
		}
	}
}

// latencies are how long events were under way, in milliseconds, in order.
type latencies []float64

// at is a percentile; 0 where there are none.
func (l latencies) at(percent int) float64 {
	if len(l) == 0 {
		return 0
	}
	return l[min(len(l)-1, len(l)*percent/100)]
}

// latencies writes those noted by lanes, and forgets them.
func (r *Receiver) latencies(w http.ResponseWriter, lanes []*lane) {
	all := latencies{}
	for _, l := range lanes {
		l.mu.Lock()
		for _, ns := range l.late {
			all = append(all, float64(ns)/float64(time.Millisecond))
		}
		l.late = nil
		l.mu.Unlock()
	}
	slices.Sort(all)
	writeJSON(w, all)
}

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Receiver is the consumer that the benchmark delivers to, in a process of its
// own: it answers 204 and keeps book of order and repeats.
//
// Deliveries to /in/<lane> are answered at once, and have to come in the order of
// their sequences; the book of a lane is read at /report/<lane>, the sum of those of
// the lanes <name>/<i> for i from one number to before another one at
// /reports/<name>/<from>/<to>. What they do besides is said at Receiver.answer.
// Those to
// /keys/<book>?delay=<duration> are answered after that time, and have to come in
// order for each record; the book is read by GET at the same path. Those to
// /many/<book>/<number> are of one of many subscribers, see manyBook.
type Receiver struct {
	mu    sync.Mutex
	lanes map[string]*lane
	books map[string]*keyBook
	gates map[string]*gate
	many  map[string]*manyBook
}

// lane is the book of one stream of requests.
type lane struct {
	mu     sync.Mutex
	report LaneReport
	late   []int64 // how long events were under way, in nanoseconds

	asked     int       // of a consumer that refuses most of it
	notBefore time.Time // what it asked for last
}

// LaneReport is what arrived at one path.
type LaneReport struct {
	// Requests counts all, Events those with a sequence that had not come
	// before.
	Requests int64 `json:"requests"`
	Events   int64 `json:"events"`
	// Repeats counts requests for a sequence that had come before, Gaps those
	// that skipped one, Malformed those without a sequence.
	Repeats   int64 `json:"repeats"`
	Gaps      int64 `json:"gaps"`
	Malformed int64 `json:"malformed"`
	// Last is the highest sequence so far.
	Last int64 `json:"last"`
	// Refused counts requests answered 429, which no other count has, Early those
	// that came before the time asked for.
	Refused int64 `json:"refused,omitempty"`
	Early   int64 `json:"early,omitempty"`
	// BodyBytes is the sum of the bodies' lengths.
	BodyBytes int64 `json:"bodyBytes"`
	// FirstAt and LastAt are when the first and the last request had been read,
	// in nanoseconds of Unix time.
	FirstAt int64 `json:"firstAt"`
	LastAt  int64 `json:"lastAt"`
}

// Seconds is the time from the first request to the last.
func (r LaneReport) Seconds() float64 { return time.Duration(r.LastAt - r.FirstAt).Seconds() }

// NewReceiver returns a receiver without a book yet.
func NewReceiver() *Receiver {
	return &Receiver{lanes: map[string]*lane{}, books: map[string]*keyBook{}, gates: map[string]*gate{}, many: map[string]*manyBook{}}
}

func (r *Receiver) lane(name string) *lane {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lanes[name]
	if l == nil {
		l = &lane{}
		r.lanes[name] = l
	}
	return l
}

func (r *Receiver) book(name string) *keyBook {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.books[name]
	if b == nil {
		b = newKeyBook()
		r.books[name] = b
	}
	return b
}

func (r *Receiver) manyBook(name string) *manyBook {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.many[name]
	if b == nil {
		b = newManyBook()
		r.many[name] = b
	}
	return b
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

// ServeHTTP implements http.Handler.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if name, ok := strings.CutPrefix(request.URL.Path, "/in/"); ok {
		if request.URL.RawQuery != "" {
			r.answer(w, request, r.lane(name))
			return
		}
		n, err := io.Copy(io.Discard, request.Body)
		if err != nil {
			return // the client went away within the body
		}
		r.lane(name).note(request.Header, n)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if name, ok := strings.CutPrefix(request.URL.Path, "/keys/"); ok {
		r.book(name).serve(w, request)
		return
	}
	if rest, ok := strings.CutPrefix(request.URL.Path, "/many/"); ok {
		name, which, _ := strings.Cut(rest, "/")
		r.manyBook(name).serve(w, request, which)
		return
	}
	if name, ok := strings.CutPrefix(request.URL.Path, "/report/"); ok {
		writeJSON(w, r.lane(name).read())
		return
	}
	if name, ok := strings.CutPrefix(request.URL.Path, "/gate/"); ok {
		g := r.gate(name)
		g.once.Do(func() { close(g.open) })
		w.WriteHeader(http.StatusNoContent)
		return
	}
	r.serveLanes(w, request)
}

// serveLanes writes the books of several lanes.
func (r *Receiver) serveLanes(w http.ResponseWriter, request *http.Request) {
	parts := strings.Split(request.URL.Path, "/")
	if len(parts) != 5 {
		http.NotFound(w, request)
		return
	}
	first, errFirst := strconv.Atoi(parts[3])
	end, errEnd := strconv.Atoi(parts[4])
	if err := errors.Join(errFirst, errEnd); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var lanes []*lane
	for i := first; i < end; i++ {
		lanes = append(lanes, r.lane(parts[2]+"/"+strconv.Itoa(i)))
	}
	switch parts[1] {
	case "latencies":
		r.latencies(w, lanes)
	case "reports":
		all := make([]LaneReport, len(lanes))
		for i, l := range lanes {
			all[i] = l.read()
		}
		writeJSON(w, crowdReport(all))
	default:
		http.NotFound(w, request)
	}
}

func (l *lane) read() LaneReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.report
}

// headerSequence is the header that carries an event's sequence, in the form
// net/http gives it.
const headerSequence = "Postroad-Sequence"

func (l *lane) note(header http.Header, bytes int64) {
	now := time.Now().UnixNano()
	var sequence int64
	if values := header[headerSequence]; len(values) > 0 {
		sequence, _ = strconv.ParseInt(values[0], 10, 64)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &l.report
	if r.Requests++; r.Requests == 1 {
		r.FirstAt = now
	}
	r.LastAt = now
	r.BodyBytes += bytes
	switch {
	case sequence <= 0:
		r.Malformed++
	case sequence <= r.Last:
		r.Repeats++
	default:
		if sequence != r.Last+1 {
			r.Gaps++
		}
		r.Events++
		r.Last = sequence
	}
}

// ServeReceiver runs a receiver on an address until ctx ends, and writes the
// address it listens on to out as soon as it does.
func ServeReceiver(ctx context.Context, listen string, out io.Writer) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", listen, err)
	}
	server := &http.Server{Handler: NewReceiver(), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if _, err := fmt.Fprintln(out, listener.Addr()); err != nil {
		return fmt.Errorf("tell the address: %w", err)
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

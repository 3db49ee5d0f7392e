package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Load is what the publisher of the benchmark sends, in a process of its own so
// that its CPU time is nobody else's.
type Load struct {
	// URL is the server's, Token what it asks for, Feed where the events go.
	URL, Token, Feed string
	// Clients is how many publish at once, each over a connection of its own that
	// is kept; Events is how many events they publish in all, Array how many of
	// them make one request (1: an event, no array).
	Clients, Events, Array int
}

// LoadReport is what became of a load.
type LoadReport struct {
	Requests int `json:"requests"`
	Events   int `json:"events"`
	// Seconds is the time from the first request to the last answer, CPUSeconds
	// what the publisher used of the processors meanwhile.
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpuSeconds"`
	// P50 and P99 are seconds from a request to its answer.
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	// First and Last are the lowest and highest sequence answered, Missing those
	// between that were not, Repeats those that were answered twice.
	First   int64 `json:"first"`
	Last    int64 `json:"last"`
	Missing int64 `json:"missing"`
	Repeats int64 `json:"repeats"`
}

// bodiesMax bounds the requests that are made before the clock starts.
const bodiesMax = 4096

// Run publishes and reports.
func (l Load) Run(ctx context.Context) (LoadReport, error) {
	target, err := url.Parse(l.URL)
	if err != nil {
		return LoadReport{}, fmt.Errorf("read URL: %w", err)
	}
	if l.Clients < 1 || l.Array < 1 || l.Events < 1 || l.Events%l.Array != 0 {
		return LoadReport{}, errors.New("bench: Clients, Array and Events must be positive, Events a multiple of Array")
	}
	requests := l.Events / l.Array
	bodies := make([][]byte, min(requests, max(1, bodiesMax/l.Array)))
	for i := range bodies {
		bodies[i] = l.request(target.Host, i)
	}
	clients := make([]*loadClient, l.Clients)
	for i := range clients {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", target.Host)
		if err != nil {
			return LoadReport{}, fmt.Errorf("connect: %w", err)
		}
		defer conn.Close()
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		defer stop()
		clients[i] = &loadClient{conn: conn, reader: bufio.NewReaderSize(conn, 4<<10)}
	}
	var next atomic.Int64
	var running sync.WaitGroup
	cpu, started := ownCPU(), time.Now()
	for _, c := range clients {
		running.Go(func() {
			for c.err == nil {
				i := int(next.Add(1)) - 1
				if i >= requests {
					return
				}
				c.err = c.publish(bodies[i%len(bodies)], l.Array)
			}
		})
	}
	running.Wait()
	report := LoadReport{Seconds: time.Since(started).Seconds(), CPUSeconds: (ownCPU() - cpu).Seconds()}
	return report, report.collect(clients)
}

// request is the whole text of the i-th request.
func (l Load) request(host string, i int) []byte {
	var body []byte
	for n := range l.Array {
		body = append(body, ',')
		body = bytes.TrimSuffix(appendEvent(body, i*l.Array+n), []byte("\n"))
	}
	if l.Array > 1 {
		body[0] = '['
		body = append(body, ']')
	} else {
		body = body[1:]
	}
	head := fmt.Sprintf("POST /v1/feeds/%s/events HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		l.Feed, host, l.Token, len(body))
	return append([]byte(head), body...)
}

// loadClient is one connection. It speaks as much HTTP as our own server does
// when all is well, so that what it costs is little of what is measured.
type loadClient struct {
	conn    net.Conn
	reader  *bufio.Reader
	answers []answeredRange
	took    []time.Duration
	err     error
}

// answeredRange are the sequences that one request was given.
type answeredRange struct{ first, last int64 }

func (c *loadClient) publish(request []byte, events int) error {
	began := time.Now()
	if _, err := c.conn.Write(request); err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	status, body, err := c.answer()
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	c.took = append(c.took, time.Since(began))
	first, ok1 := member(body, `"firstSequence":`)
	last, ok2 := member(body, `"lastSequence":`)
	if status != "201" || !ok1 || !ok2 || last-first+1 != int64(events) {
		return fmt.Errorf("the server answered %s: %s", status, body)
	}
	c.answers = append(c.answers, answeredRange{first, last})
	return nil
}

// answer reads one answer; the body is valid until the next.
func (c *loadClient) answer() (status string, body []byte, err error) {
	length := 0
	for n := 0; ; n++ {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return "", nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch value, found := bytes.CutPrefix(line, []byte("Content-Length: ")); {
		case n == 0 && len(line) > len("HTTP/1.1 200"):
			status = string(line[len("HTTP/1.1 "):len("HTTP/1.1 200")])
		case found:
			if length, err = strconv.Atoi(string(value)); err != nil {
				return "", nil, err
			}
		case len(line) == 0:
			body, err = c.reader.Peek(length)
			if err == nil {
				_, err = c.reader.Discard(length)
			}
			return status, body, err
		}
	}
}

// member reads a whole number of a JSON object that is written without white
// space.
func member(body []byte, name string) (int64, bool) {
	_, rest, found := bytes.Cut(body, []byte(name))
	end := bytes.IndexAny(rest, ",}")
	if !found || end < 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(string(rest[:end]), 10, 64)
	return n, err == nil
}

// collect takes in what the clients saw.
func (r *LoadReport) collect(clients []*loadClient) error {
	var answers []answeredRange
	var took []time.Duration
	for _, c := range clients {
		if c.err != nil {
			return c.err
		}
		answers = append(answers, c.answers...)
		took = append(took, c.took...)
	}
	slices.Sort(took)
	slices.SortFunc(answers, func(a, b answeredRange) int { return int(a.first - b.first) })
	r.Requests = len(answers)
	r.P50, r.P99 = took[len(took)/2].Seconds(), took[len(took)*99/100].Seconds()
	r.First, r.Last = answers[0].first, answers[0].first-1
	for _, a := range answers {
		r.Events += int(a.last - a.first + 1)
		r.Missing += max(0, a.first-r.Last-1)
		r.Repeats += max(0, min(r.Last, a.last)-a.first+1)
		r.Last = max(r.Last, a.last)
	}
	return nil
}

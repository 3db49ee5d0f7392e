package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"postroad/internal/testkit"
)

// item is what a stream brought: an event, or a word about the stream.
type item struct {
	Sequence                        int64
	ResourceName, ResourceRecordKey string
	After                           *int64
	End                             *ended
	text                            string
}

type ended struct {
	Reason               string
	After, FirstSequence int64
}

func readItem(t testing.TB, text string) item {
	t.Helper()
	i := item{text: text}
	if err := json.Unmarshal([]byte(text), &i); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return i
}

// opened is a stream that is read.
type opened struct {
	t        testing.TB
	response *http.Response
	body     *bufio.Reader
	cancel   context.CancelFunc
	sse      bool
	lastID   string
	beats    int
}

// open opens a stream; headers are name, value. The answer must be a stream.
func (b *bundle) open(path string, headers ...string) *opened {
	b.t.Helper()
	o, err := b.tryOpen(path, headers...)
	must(b.t, err)
	if o.response.StatusCode != 200 {
		text, _ := io.ReadAll(o.body)
		b.t.Fatalf("%s: status %d: %s", path, o.response.StatusCode, text)
	}
	return o
}

func (b *bundle) tryOpen(path string, headers ...string) (*opened, error) {
	ctx, cancel := context.WithCancel(b.t.Context())
	b.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+path, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Accept-Encoding", "identity") // else the client asks for gzip by itself
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	b.t.Cleanup(func() { _ = response.Body.Close() })
	return &opened{
		t: b.t, response: response, body: bufio.NewReader(response.Body), cancel: cancel,
		sse: response.Header.Get("Content-Type") == "text/event-stream",
	}, nil
}

// next returns the next item, or io.EOF after the last one. Heartbeats are counted.
func (o *opened) next() (item, error) {
	if o.sse {
		return o.nextSSE()
	}
	for {
		line, err := o.body.ReadString('\n')
		if err != nil {
			return item{}, err
		}
		if line != "\n" {
			return readItem(o.t, strings.TrimSuffix(line, "\n")), nil
		}
		o.beats++
	}
}

// nextSSE reads as the standard says, of one line end.
func (o *opened) nextSSE() (item, error) {
	var data []string
	event, id := "message", o.lastID
	for {
		line, err := o.body.ReadString('\n')
		if err != nil {
			return item{}, err
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "\n":
			o.lastID = id
			if data == nil {
				event = "message"
				continue
			}
			text := strings.Join(data, "\n")
			if event == "end" {
				text = `{"end":` + text + `}`
			}
			return readItem(o.t, text), nil
		case line[0] == ':':
			o.beats++
		case field == "id":
			id = value
		case field == "event":
			event = value
		case field == "data":
			data = append(data, value)
		case field != "retry":
			o.t.Errorf("line %q", line)
		}
	}
}

// must1 returns the next item, which must come.
func (o *opened) must1() item {
	o.t.Helper()
	i, err := o.next()
	must(o.t, err)
	return i
}

// awaitEnd reads to the end, which must have the reason.
func (o *opened) awaitEnd(reason string) ended {
	o.t.Helper()
	for {
		i, err := o.next()
		must(o.t, err)
		if i.End == nil {
			continue
		}
		if i.End.Reason != reason {
			o.t.Fatalf("ended with %q, want %q", i.End.Reason, reason)
		}
		if _, err := o.next(); !errors.Is(err, io.EOF) {
			o.t.Fatalf("after the end: %v", err)
		}
		return *i.End
	}
}

// dial opens a stream by WebSocket.
func (b *bundle) dial(path string, headers ...string) *websocket.Conn {
	b.t.Helper()
	header := http.Header{"Authorization": {"Bearer " + token}}
	for i := 0; i+1 < len(headers); i += 2 {
		header.Set(headers[i], headers[i+1])
	}
	conn, response, err := websocket.Dial(b.t.Context(), b.url+path, &websocket.DialOptions{HTTPHeader: header}) //nolint:bodyclose // the connection is the body
	if err != nil {
		if response != nil && response.Body != nil {
			text, _ := io.ReadAll(response.Body)
			b.t.Fatalf("%v: %s", err, text)
		}
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.CloseNow() })
	conn.SetReadLimit(2 << 20)
	return conn
}

// message returns the next message of a WebSocket.
func message(t testing.TB, conn *websocket.Conn) item {
	t.Helper()
	kind, text, err := conn.Read(t.Context())
	must(t, err)
	if kind != websocket.MessageText {
		t.Fatalf("message of kind %s", kind)
	}
	return readItem(t, string(text))
}

// awaitStreams waits until n streams are open.
func (b *bundle) awaitStreams(n int) {
	b.t.Helper()
	testkit.Eventually(b.t, soon, func() bool { return b.server.Streams() == n }, fmt.Sprintf("%d streams are open", n))
}

// logged is a feed as GET events has it: the text of each event.
func (b *bundle) logged(feed string) []string {
	b.t.Helper()
	var all []string
	for after := int64(0); ; {
		var p page
		b.call("GET", "/v1/feeds/"+feed+"/events?limit=1000&after="+strconv.FormatInt(after, 10), "").want(200, &p)
		if len(p.Events) == 0 {
			return all
		}
		for _, e := range p.Events {
			all = append(all, string(e))
		}
		after = p.Next
	}
}

// publishReal publishes a stretch of the real stream of 12,525 changes.
func (b *bundle) publishReal(lines [][]byte) {
	b.t.Helper()
	b.publishLines(string(bytes.Join(lines, []byte("\n")))+"\n").want(201, nil)
}

// same fails where a stream brought something else than the log has.
func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("%s: item %d is %s, want %s", what, i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d items, want %d", what, len(got), len(want))
	}
}

// feedID is what the database knows a feed by.
func (b *bundle) feedID(name string) int64 {
	b.t.Helper()
	feed, err := b.log.Feed(b.t.Context(), name)
	must(b.t, err)
	return feed.ID
}

// metric is the value of a series, as metrics name it; 0: there is none.
func (b *bundle) metric(series string) float64 {
	b.t.Helper()
	recorder := httptest.NewRecorder()
	b.server.MetricsHandler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(recorder.Body.String()) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			must(b.t, err)
			return n
		}
	}
	return 0
}

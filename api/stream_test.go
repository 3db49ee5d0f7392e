package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"postroad/api"
	"postroad/event"
	"postroad/internal/testkit"
)

const streamPath = "/v1/feeds/default/stream"

// fast makes streams look often.
func fast(more ...func(*api.Config)) options {
	return options{api: func(c *api.Config) {
		c.StreamCheck, c.TokenFresh = 20*time.Millisecond, 20*time.Millisecond
		for _, change := range more {
			change(c)
		}
	}}
}

// TestStream_positions: where a stream begins.
func TestStream_positions(t *testing.T) {
	t.Parallel()
	b := setup(t, fast())
	b.publishLines(lines(1, 10)).want(201, nil)
	for name, c := range map[string]struct {
		query, lastID string
		want          int64
	}{
		"after":                       {query: "&after=3", want: 4},
		"Last-Event-ID is newer":      {query: "&after=3", lastID: "7", want: 8},
		"Last-Event-ID alone":         {lastID: "0", want: 1},
		"within a part of everything": {query: "&after=5&partition=0/1", want: 6},
	} {
		for _, format := range []string{"sse", "ndjson"} {
			o := b.open(streamPath+"?format="+format+c.query, "Last-Event-ID", c.lastID)
			if first := o.must1(); first.Sequence != c.want {
				t.Errorf("%s, %s: the first is %d, want %d", name, format, first.Sequence, c.want)
			}
			o.cancel()
		}
	}
	// Without a position it is the head, which the reader is told.
	sse, lines := b.open(streamPath), b.open(streamPath, "Accept", "text/html;q=0.9, application/x-ndjson")
	socket := b.dial(streamPath)
	for _, first := range []item{lines.must1(), message(t, socket)} {
		if first.After == nil || *first.After != 10 {
			t.Errorf("the first word is %s", first.text)
		}
	}
	for sse.lastID = ""; sse.lastID != "10"; {
		line, err := sse.body.ReadString('\n')
		must(t, err)
		sse.lastID = strings.TrimSpace(strings.TrimPrefix(line, "id: "))
	}
	b.awaitStreams(3)
	b.publish(one("11")).want(201, nil)
	for _, first := range []item{sse.must1(), lines.must1(), message(t, socket)} {
		if first.Sequence != 11 {
			t.Errorf("the first event is %s", first.text)
		}
	}
}

// TestStream_refused: what cannot be streamed is said before the stream begins.
func TestStream_refused(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.publishLines(lines(1, 10)).want(201, nil)
	b.exec(`UPDATE feeds SET floor_sequence = 4`)
	b.call("POST", "/v1/subscribers", `{"id":"s","endpoint":{"url":"http://127.0.0.1:1/"}}`).want(201, nil)
	for _, c := range []struct {
		path, header, value string
		status              int
		code, places        string
	}{
		{"/v1/feeds/none/stream", "", "", 404, "not-found", "?feed"},
		{"/v1/feeds/NO/stream", "", "", 404, "not-found", "?feed"},
		{"/v1/subscribers/none/stream", "", "", 404, "not-found", "?id"},
		{streamPath + "?after=3", "", "", 410, "below-floor", ""},
		{streamPath + "?after=11", "", "", 400, "invalid-parameter", "?after"},
		{streamPath + "?after=-1", "", "", 400, "invalid-parameter", "?after"},
		{streamPath, "Last-Event-ID", "abc", 400, "invalid-header", "Last-Event-ID:"},
		{streamPath, "Last-Event-ID", "-1", 400, "invalid-header", "Last-Event-ID:"},
		{streamPath, "Last-Event-ID", "9223372036854775808", 400, "invalid-header", "Last-Event-ID:"},
		{streamPath, "Last-Event-ID", "11", 400, "invalid-header", "Last-Event-ID:"},
		{streamPath, "Last-Event-ID", "3", 410, "below-floor", ""},
		{streamPath + "?partition=8/8", "", "", 400, "invalid-parameter", "?partition"},
		{streamPath + "?resourceNames=", "", "", 400, "invalid-parameter", "?resourceNames"},
		{streamPath + "?eventTypes=a,b*c", "", "", 400, "invalid-parameter", "?eventTypes"},
		{streamPath + "?format=xml", "", "", 400, "invalid-parameter", "?format"},
		{streamPath + "?format=sse", "Upgrade", "websocket", 400, "invalid-parameter", "?format"},
		{streamPath, "Upgrade", "websocket", 400, "invalid-header", "Sec-WebSocket-Version:"},
		{streamPath + "?as=requests", "", "", 400, "invalid-parameter", "?as"},
		{"/v1/subscribers/s/stream?resourceNames=A", "", "", 400, "invalid-parameter", "?resourceNames"},
		{"/v1/subscribers/s/stream?as=letters&after=4", "", "", 400, "invalid-parameter", "?as"},
	} {
		headers := []string{}
		if c.header != "" {
			headers = []string{c.header, c.value}
		}
		if c.header == "Upgrade" {
			headers = append(headers, "Connection", "Upgrade")
		}
		p := b.call("GET", c.path, "", headers...).refused(c.status, c.code, c.places)
		if c.status == 410 && p.FirstSequence != 5 {
			t.Errorf("%s: the first kept is %d", c.path, p.FirstSequence)
		}
	}
}

// TestStream_filters: a reader gets what it asks for, and its position moves over
// the rest.
func TestStream_filters(t *testing.T) {
	t.Parallel()
	b := setup(t, fast(func(c *api.Config) { c.StreamHeartbeat = 50 * time.Millisecond }))
	event := func(name, kind string) string {
		return fmt.Sprintf(`{"resourceName":%q,"resourceRecordKey":"1","eventType":%q}`, name, kind)
	}
	b.publish("["+strings.Join([]string{
		event("Property", "new"), event("Member", "new"), event("Media", "old"), event("PropertyUnit", "old"), event("Office", "x"),
	}, ",")+"]").want(201, nil)
	for query, want := range map[string][]int64{
		"resourceNames=Property,Media":                 {1, 3},
		"resourceNames=Property*":                      {1, 4},
		"eventTypes=old":                               {3, 4},
		"eventTypes=new,old&resourceNames=M*":          {2, 3},
		"resourceNames=Property&partition=0/2&after=0": nil,
	} {
		if want == nil {
			continue
		}
		o := b.open(streamPath + "?after=0&format=ndjson&" + query)
		var got []int64
		for {
			i := o.must1()
			if i.After != nil {
				if *i.After != 5 {
					t.Errorf("%s: told of %d, want 5", query, *i.After)
				}
				break
			}
			got = append(got, i.Sequence)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
		o.cancel()
	}
	// What an EventSource would come back with moves along too.
	o := b.open(streamPath + "?after=0&resourceNames=None")
	go func() {
		testkit.Eventually(t, soon, func() bool { return b.server.Streams() > 0 }, "the stream is open")
	}()
	for o.lastID != "5" {
		line, err := o.body.ReadString('\n')
		must(t, err)
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			o.lastID = strings.TrimSpace(id)
		}
	}
}

// TestStream_oneLine: line breaks in the publisher's data break no line.
func TestStream_oneLine(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.publish("{\"resourceName\":\"A\",\"resourceRecordKey\":\"1\",\"data\":{\"a\":\r\n [1,\r2],\"b\":\"x\\ny\"}}").want(201, nil)
	const want = `{"a":   [1, 2],"b":"x\ny"}`
	check := func(way, text string) {
		var e struct{ Data json.RawMessage }
		must(t, json.Unmarshal([]byte(text), &e))
		if string(e.Data) != want {
			t.Errorf("%s: %q, want %q", way, e.Data, want)
		}
	}
	for _, format := range []string{"sse", "ndjson"} {
		check(format, b.open(streamPath+"?after=0&format="+format).must1().text)
	}
	check("websocket", message(t, b.dial(streamPath+"?after=0")).text)
}

// TestStream_heartbeats: a stream without events shows that it lives.
func TestStream_heartbeats(t *testing.T) {
	t.Parallel()
	b := setup(t, fast(func(c *api.Config) { c.StreamHeartbeat = 10 * time.Millisecond }))
	b.publish(one("1")).want(201, nil)
	for _, format := range []string{"sse", "ndjson"} {
		o := b.open(streamPath + "?after=1&format=" + format)
		b.awaitStreams(1)
		for range 8 {
			line, err := o.body.ReadString('\n')
			must(t, err)
			if line != "\n" && line != ":\n" && !strings.HasPrefix(line, "retry: ") {
				t.Errorf("%s: %q", format, line)
			}
		}
		o.cancel()
		b.awaitStreams(0)
	}
	pings := make(chan struct{}, 100)
	header := http.Header{"Authorization": {"Bearer " + token}}
	conn, _, err := websocket.Dial(t.Context(), b.url+streamPath+"?after=1", &websocket.DialOptions{ //nolint:bodyclose // the connection is the body
		HTTPHeader: header, OnPingReceived: func(context.Context, []byte) bool { pings <- struct{}{}; return true },
	})
	must(t, err)
	defer func() { _ = conn.CloseNow() }()
	conn.CloseRead(t.Context())
	for range 3 {
		<-pings
	}
}

// TestStream_ends: a stream that cannot go on says why, and where to go on.
func TestStream_ends(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		path string
		end  func(b *bundle, tokenID string)
		want string
	}{
		"drain":   {streamPath, func(b *bundle, _ string) { b.server.Drain() }, "draining"},
		"revoked": {streamPath, func(b *bundle, id string) { b.call("DELETE", "/v1/tokens/"+id, "").want(204, nil) }, "revoked"},
		"feed deleted": {"/v1/feeds/other/stream", func(b *bundle, _ string) {
			b.call("DELETE", "/v1/feeds/other", "").want(204, nil)
		}, "deleted"},
		// As is seen by who did not look between the two.
		"feed made anew": {"/v1/feeds/other/stream", func(b *bundle, _ string) {
			b.exec(`UPDATE feeds SET epoch = epoch + 1 WHERE name = 'other'`)
		}, "deleted"},
		"subscriber made anew": {"/v1/subscribers/s/stream", func(b *bundle, _ string) {
			b.exec(`UPDATE subscribers SET created_at = clock_timestamp() WHERE id = 's'`)
		}, "deleted"},
		"subscriber deleted": {"/v1/subscribers/s/stream", func(b *bundle, _ string) {
			b.exec(`UPDATE runs SET deleted = true WHERE id = 's'`)
		}, "deleted"},
		"subscriber changed": {"/v1/subscribers/s/stream", func(b *bundle, _ string) {
			b.call("PATCH", "/v1/subscribers/s", `{"filter":{"resourceNames":["Member"]}}`).want(200, nil)
		}, "changed"},
		"events removed": {streamPath, func(b *bundle, _ string) {
			b.exec(`UPDATE feeds SET floor_sequence = 50, changed = pg_current_xact_id()`)
		}, "below-floor"},
		"log closed": {streamPath, func(b *bundle, _ string) { b.log.Close() }, "draining"},
	} {
		for _, format := range []string{"sse", "ndjson", "websocket"} {
			t.Run(name+" "+format, func(t *testing.T) {
				t.Parallel()
				b := setup(t, fast())
				b.call("POST", "/v1/feeds", `{"name":"other"}`).want(201, nil)
				for _, feed := range []string{"default", "other"} {
					b.call("POST", "/v1/feeds/"+feed+"/events", lines(1, 3), "Content-Type", "application/x-ndjson").want(201, nil)
				}
				b.call("POST", "/v1/subscribers", `{"id":"s","start":"beginning","endpoint":{"url":"http://127.0.0.1:1/"}}`).want(201, nil)
				var made struct{ ID, Token string }
				b.call("POST", "/v1/tokens", `{"role":"reader","feeds":["default","other"]}`).want(201, &made)
				if c.want == "deleted" || c.want == "changed" {
					made.Token = token // one for the feed or the subscriber alone ends with it
				}
				b.checkEnd(t, c.path+"?after=2", format, made.Token, func() { c.end(b, made.ID) }, c.want)
			})
		}
	}
}

// checkEnd opens a stream, makes it end, and checks what its reader is told.
func (b *bundle) checkEnd(t *testing.T, path, format, bearer string, end func(), want string) {
	t.Helper()
	var got ended
	if format == "websocket" {
		conn := b.dial(path, "Authorization", "Bearer "+bearer)
		if i := message(t, conn); i.Sequence != 3 {
			t.Fatalf("%s", i.text)
		}
		end()
		_, _, err := conn.Read(t.Context())
		var closed websocket.CloseError
		if !errors.As(err, &closed) {
			t.Fatal(err)
		}
		must(t, json.Unmarshal([]byte(closed.Reason), &got))
		codes := map[string]websocket.StatusCode{"draining": 1012, "revoked": 1008, "deleted": 4404, "changed": 4409, "below-floor": 4410}
		if closed.Code != codes[want] {
			t.Errorf("closed with %d, want %d", closed.Code, codes[want])
		}
	} else {
		o := b.open(path+"&format="+format, "Authorization", "Bearer "+bearer)
		if i := o.must1(); i.Sequence != 3 {
			t.Fatalf("%s", i.text)
		}
		end()
		got = o.awaitEnd(want)
	}
	wantEnd := ended{Reason: want, After: 3}
	if want == "below-floor" {
		wantEnd.FirstSequence = 51
	}
	if got != wantEnd {
		t.Errorf("ended with %+v, want %+v", got, wantEnd)
	}
	testkit.Eventually(t, soon, func() bool { return b.server.Streams() == 0 }, "the stream is over")
}

// TestStream_limit: beyond the bound a client is told to come back.
func TestStream_limit(t *testing.T) {
	t.Parallel()
	b := setup(t, options{api: func(c *api.Config) { c.StreamsMax = 2 }})
	first := b.open(streamPath)
	b.open(streamPath)
	a := b.call("GET", streamPath, "")
	a.refused(503, "busy", "")
	if got := a.header.Get("Retry-After"); got != "5" {
		t.Errorf("Retry-After: %q", got)
	}
	first.cancel()
	b.awaitStreams(1)
	testkit.Eventually(t, soon, func() bool {
		o, err := b.tryOpen(streamPath)
		return err == nil && o.response.StatusCode == 200
	}, "there is a place again")
}

// TestStream_slowReader: who does not read is ended, and holds no more than a
// bounded part of the log until then.
func TestStream_slowReader(t *testing.T) {
	t.Parallel()
	b := setup(t, options{api: func(c *api.Config) { c.StreamWriteMax = 300 * time.Millisecond }})
	big := fmt.Sprintf(`"data":%q`, strings.Repeat("x", 500_000))
	for i := range 40 {
		b.publish(one(fmt.Sprint(i), big)).want(201, nil)
	}
	for _, upgrade := range []string{"", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
		must(t, err)
		defer conn.Close()
		_, err = fmt.Fprintf(conn, "GET %s?after=0 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n%s\r\n", streamPath, token, upgrade)
		must(t, err)
		_, err = bufio.NewReader(conn).ReadString('\n') // and no more
		must(t, err)
		b.awaitStreams(1)
		b.awaitStreams(0)
	}
	if n := b.metric(`postroad_streams_ended_total{reason="slow"}`); n != 2 {
		t.Errorf("%v streams ended as slow, want 2", n)
	}
	if n := b.metric(`postroad_streams_ended_total{reason="gone"}`); n != 0 {
		t.Errorf("%v streams ended as gone", n)
	}
}

// TestStream_erased: what was erased is handed out to nobody, also where a stream had
// read it before and could not write it yet.
func TestStream_erased(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	secret := fmt.Sprintf(`"data":{"secret":%q}`, strings.Repeat("s", 1000))
	all := make([]string, 0, 150)
	for range 150 { // in one batch, of three pieces
		all = append(all, one("1", secret))
	}
	b.publish("["+strings.Join(all, ",")+"]").want(201, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := &stuckWriter{header: http.Header{}, wrote: make(chan string), let: make(chan struct{}), gone: ctx.Done()}
	served := make(chan struct{})
	go func() {
		defer close(served)
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, streamPath+"?after=0", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		b.server.Handler().ServeHTTP(w, r)
	}()
	next := func() string {
		w.let <- struct{}{}
		return <-w.wrote
	}
	<-w.wrote // how it begins
	all[0] = next()
	if strings.Count(all[0], `"secret"`) < 50 {
		t.Fatalf("the first piece is %.200s", all[0])
	}
	b.call("DELETE", "/v1/feeds/default/records/Property/1/data", "").want(200, nil)
	b.awaitErasure()
	for text := ""; !strings.Contains(text, "id: 150\n"); {
		if text = next(); strings.Contains(text, `"secret"`) {
			t.Fatalf("shown after the erasure: %.300s", text)
		}
		all[0] += text
	}
	for n := range 150 {
		if id := fmt.Sprintf("id: %d\n", n+1); strings.Count(all[0], id) != 1 {
			t.Errorf("%q is there %d times", id, strings.Count(all[0], id))
		}
	}
	cancel()
	<-served
}

// awaitErasure waits until the tail has told the followers of an erasure.
func (b *bundle) awaitErasure() {
	b.t.Helper()
	follower := b.log.Follow(b.feedID("default"), 150, event.Filter{})
	defer follower.Close()
	b.publish(one("after")).want(201, nil)
	must(b.t, follower.Wait(b.t.Context()))
}

// stuckWriter writes when it is let.
type stuckWriter struct {
	header http.Header
	wrote  chan string
	let    chan struct{}
	gone   <-chan struct{}
}

func (w *stuckWriter) Header() http.Header              { return w.header }
func (w *stuckWriter) WriteHeader(int)                  {}
func (w *stuckWriter) Flush()                           {}
func (w *stuckWriter) SetWriteDeadline(time.Time) error { return nil }
func (w *stuckWriter) Write(p []byte) (int, error) {
	select {
	case w.wrote <- string(p):
	case <-w.gone:
		return 0, net.ErrClosed
	}
	select {
	case <-w.let:
	case <-w.gone:
	}
	return len(p), nil
}

// TestStream_databaseAway: a stream whose token cannot be looked up stays, and sends
// nothing that is not a heartbeat.
func TestStream_databaseAway(t *testing.T) {
	t.Parallel()
	b := setup(t, fast(func(c *api.Config) { c.StreamHeartbeat = 10 * time.Millisecond }))
	var made struct{ ID, Token string }
	b.call("POST", "/v1/tokens", `{"role":"reader","feeds":["default"]}`).want(201, &made)
	o := b.open(streamPath+"?format=ndjson", "Authorization", "Bearer "+made.Token)
	if i := o.must1(); i.After == nil {
		t.Fatal(i.text)
	}
	b.publish(one("1")).want(201, nil)
	if i := o.must1(); i.Sequence != 1 {
		t.Fatal(i.text)
	}
	follower := b.log.Follow(b.feedID("default"), 1, event.Filter{})
	waiting, stop := context.WithCancel(t.Context())
	waited := make(chan error, 1)
	go func() { waited <- follower.Wait(waiting) }()
	testkit.Eventually(t, soon, func() bool { return follower.Passed() > 0 }, "the feed is in memory")
	stop()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Errorf("the wait ended with %v", err)
	}
	follower.Close()
	b.pool.Close()
	for range 30 { // of which most come after the token was last known
		line, err := o.body.ReadString('\n')
		must(t, err)
		if line != "\n" {
			t.Fatalf("%q", line)
		}
	}
	b.server.Drain()
	o.awaitEnd("draining")
}

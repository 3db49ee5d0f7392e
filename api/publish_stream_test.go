package api_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"postroad/api"
	"postroad/internal/testkit"
)

func execAt(t *testing.T, url, sql string) error {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		return err
	}
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), sql)
	return err
}

func TestStream_takesLines(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	var p published
	// Blank lines, CRLF and a last line without a break are all fine.
	b.publishLines("\n"+one("a")+"\r\n  \n\t"+one("b")+" \n"+one("c")).want(201, &p)
	if diff := cmp.Diff(published{FirstSequence: 1, LastSequence: 3, Accepted: 3}, p); diff != "" {
		t.Error(diff)
	}
	big := one("big", `"data":"`+strings.Repeat("x", 300_000)+`"`)
	b.publishLines(big+"\n"+one("d")+"\n"+big).want(201, nil)
	if diff := cmp.Diff([]string{"a", "b", "c", "big", "d", "big"}, b.keys("default")); diff != "" {
		t.Error(diff)
	}
}

func TestStream_chunks(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	var p published
	b.call("POST", "/v1/feeds/default/events?sequences=true", lines(1, 3500), "Content-Type", "application/x-ndjson", "Idempotency-Key", "K").want(201, &p)
	if p.Accepted != 3500 || p.FirstSequence != 1 || p.LastSequence != 3500 || len(p.Sequences) != 3500 || p.Sequences[3499] != 3500 {
		t.Errorf("%d accepted, %d to %d, %d sequences", p.Accepted, p.FirstSequence, p.LastSequence, len(p.Sequences))
	}
	keys := b.keys("default")
	for i, key := range keys {
		if key != fmt.Sprint(i+1) {
			t.Fatalf("event %d has key %s", i+1, key)
		}
	}
	// The same again, and more: lines 1 to 3,500 are duplicates.
	p = published{}
	b.publishLines(lines(1, 3600), "Idempotency-Key", "K").want(201, &p)
	if p.Accepted != 100 || p.Duplicates != 3500 || p.FirstSequence != 1 || p.LastSequence != 3600 || len(p.Sequences) != 3600 {
		t.Errorf("%d accepted, %d duplicates, %d to %d, %d sequences", p.Accepted, p.Duplicates, p.FirstSequence, p.LastSequence, len(p.Sequences))
	}
}

// TestStream_badLine: the lines before it stay, whichever chunk it is in.
func TestStream_badLine(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		before int
		bad    string
		places string
	}{
		"broken JSON in line 7":     {6, `{"resourceName":`, "/resourceName"},
		"in the second chunk":       {1500, `{"resourceName":`, "/resourceName"},
		"first of the second chunk": {1000, `nonsense`, ""},
		"an unknown member":         {3, one("x", `"color":1`), "/color"},
		"a 2 MiB event":             {3, one("x", `"data":"`+strings.Repeat("x", 2<<20)+`"`), ""},
		"an event just too large":   {3, one("x", `"data":"`+strings.Repeat("x", 1<<20)+`"`), ""},
		"an array":                  {1, "[" + one("x") + "]", ""},
		"a lone surrogate":          {2, one("x", `"data":"\udfff"`), "/data"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, options{})
			p := b.publishLines(lines(1, row.before)+row.bad+"\n"+lines(5000, 5)).refused(422, "invalid", row.places)
			if p.Line != int64(row.before+1) || *p.Accepted != int64(row.before) || *p.LastSequence != int64(row.before) ||
				!strings.Contains(p.Detail, fmt.Sprintf("Line %d", row.before+1)) {
				t.Errorf("line %d, accepted %d, last %d: %s", p.Line, *p.Accepted, *p.LastSequence, p.Detail)
			}
			if keys := b.keys("default"); len(keys) != row.before {
				t.Errorf("%d events, want %d", len(keys), row.before)
			}
		})
	}
}

func TestStream_conflictKeepsChunksBefore(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.publish(one("taken", `"idempotencyKey":"taken"`)).want(201, nil)
	p := b.publishLines(lines(1, 1200)+one("other", `"idempotencyKey":"taken"`)+"\n"+lines(2000, 10)).
		refused(422, "idempotency-conflict", "/idempotencyKey")
	if p.Line != 1201 || *p.Accepted != 1000 || *p.LastSequence != 1001 {
		t.Errorf("line %d, accepted %d, last %d", p.Line, *p.Accepted, *p.LastSequence)
	}
	if keys := b.keys("default"); len(keys) != 1001 {
		t.Errorf("%d events", len(keys))
	}
}

// TestStream_cut: an upload that breaks off leaves its whole lines, and not
// the line it broke in, even where that could be read.
func TestStream_cut(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		whole int // lines
		last  string
	}{
		"in the middle of a line": {1003, `{"resourceName":"Prop`}, "after a line without its break": {1003, one("x")}, "between lines": {1003, ""},
		"in the middle of a line of few": {3, `{"resourceName":"Prop`}, "after a line of few": {3, one("x")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, options{})
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(b.url, "http://"))
			must(t, err)
			body := lines(1, c.whole) + c.last
			_, err = fmt.Fprintf(conn, "POST /v1/feeds/default/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/x-ndjson\r\n"+
				"Content-Length: %d\r\n\r\n%s", token, len(body)+100, body)
			must(t, err)
			must(t, conn.Close())
			testkit.Eventually(t, soon, func() bool { return len(b.keys("default")) == c.whole }, "the whole lines are stored")
			testkit.Eventually(t, soon, func() bool { return strings.Contains(b.logs.String(), "code=upload-cut") }, "the request ends")
			if keys := b.keys("default"); len(keys) != c.whole {
				t.Errorf("%d events", len(keys))
			}
		})
	}
}

// TestStream_cutGzip: gzip that ends early is a cut upload too, and the client
// is there to be told.
func TestStream_cutGzip(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	whole := zip(lines(1, 2000))
	p := b.publishLines(string(whole[:len(whole)-20]), "Content-Encoding", "gzip").refused(400, "upload-cut", "")
	if n := int64(len(b.keys("default"))); n != *p.Accepted || n == 0 || p.Line != n+1 {
		t.Errorf("%d events, line %d, accepted %d", n, p.Line, *p.Accepted)
	}
}

// TestStream_isRead: chunks are stored while the upload still goes on.
func TestStream_isReadAsItComes(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	reader, writer := io.Pipe()
	answers := make(chan answer, 1)
	go func() {
		a, err := b.try("POST", "/v1/feeds/default/events", reader, "Content-Type", "application/x-ndjson")
		if err != nil {
			t.Error(err)
		}
		answers <- a
	}()
	_, err := io.WriteString(writer, lines(1, 1100))
	must(t, err)
	testkit.Eventually(t, soon, func() bool { return len(b.keys("default")) == 1000 }, "the first chunk is stored")
	_, err = io.WriteString(writer, lines(1101, 50))
	must(t, err)
	must(t, writer.Close())
	(<-answers).want(201, nil)
	if keys := b.keys("default"); len(keys) != 1150 {
		t.Errorf("%d events", len(keys))
	}
}

// TestStream_refusalEndsTheUpload: a sender that never stops is told in the
// middle of its upload.
func TestStream_refusalEndsTheUpload(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(b.url, "http://"))
	must(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "POST /v1/feeds/default/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/x-ndjson\r\n"+
		"Transfer-Encoding: chunked\r\n\r\n4\r\nbad\n\r\n", token)
	must(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	defer response.Body.Close()
	if response.StatusCode != 422 || !response.Close {
		t.Errorf("status %d, close %v", response.StatusCode, response.Close)
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// TestUpload_stalls: a body that brings nothing more ends the request; what was
// whole of a stream stays.
func TestUpload_stalls(t *testing.T) {
	t.Parallel()
	for media, stored := range map[string]int{"application/x-ndjson": 2, "application/json": 0} {
		t.Run(media, func(t *testing.T) {
			t.Parallel()
			b := setup(t, options{api: func(c *api.Config) { c.BodyIdle = 200 * time.Millisecond }})
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(b.url, "http://"))
			must(t, err)
			defer conn.Close()
			_, err = fmt.Fprintf(conn, "POST /v1/feeds/default/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\n"+
				"Content-Length: 5000\r\n\r\n%s{", token, media, lines(1, 2))
			must(t, err)
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			must(t, err)
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			must(t, err)
			if response.StatusCode != 400 || !strings.Contains(string(body), "/problems/upload-cut") {
				t.Errorf("status %d: %s", response.StatusCode, body)
			}
			if keys := b.keys("default"); len(keys) != stored {
				t.Errorf("%d events, want %d", len(keys), stored)
			}
		})
	}
}

// TestPublish_clientGoesAway: the client leaves while its events wait to be
// stored; it is not counted as a success.
func TestPublish_clientGoesAway(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	release := b.holdFeed()
	defer release()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(b.url, "http://"))
	must(t, err)
	_, err = fmt.Fprintf(conn, "POST /v1/feeds/default/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
		"Content-Length: %d\r\n\r\n%s", token, len(one("1")), one("1"))
	must(t, err)
	b.awaitWaiters("pid")
	must(t, conn.Close())
	testkit.Eventually(t, soon, func() bool {
		recorder := httptest.NewRecorder()
		b.server.MetricsHandler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return strings.Contains(recorder.Body.String(), `postroad_http_requests_total{class="4xx",method="POST",route="/v1/feeds/:feed/events"} 1`)
	}, "the request is counted as one that the client left")
	if !strings.Contains(b.logs.String(), "client went away") {
		t.Errorf("%s", b.logs.String())
	}
}

package delivery_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"postroad/delivery"
	"postroad/event"
	"postroad/internal/testkit"
)

// respond sets up a receiver that gives one answer, and a target for it.
func respond(t *testing.T, newTestClient clientMaker, answer testkit.Answer, sub event.Subscriber) (*delivery.Client, *delivery.Target, *testkit.Receiver) {
	t.Helper()
	receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(int, *testkit.Request) testkit.Answer { return answer }})
	c := newTestClient(t)
	sub.Endpoint.URL = receiver.URL() + "/top-secret-path?top-secret-query"
	return c, targetOf(t, c, sub, event.Secrets{}, time.Time{}), receiver
}

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func TestDoStatus(t *testing.T) { eachPath(t, testDoStatus) }

func testDoStatus(t *testing.T, newTestClient clientMaker) {
	date := func(in time.Duration) string { return time.Now().Add(in).UTC().Format(http.TimeFormat) }
	tests := []struct {
		name   string
		status int
		header http.Header
		class  delivery.Class
		wait   time.Duration // -1: none
		cut    bool
	}{
		{"200", 200, nil, delivery.ClassSuccess, -1, false},
		{"202", 202, nil, delivery.ClassSuccess, -1, false},
		{"204", 204, header("Retry-After", "60"), delivery.ClassSuccess, -1, false},
		{"redirects are not followed", 307, header("Location", "/elsewhere"), delivery.ClassRecord, -1, false},
		{"304", 304, nil, delivery.ClassRecord, -1, false},
		{"400", 400, nil, delivery.ClassRecord, -1, false},
		{"401", 401, nil, delivery.ClassEndpoint, -1, false},
		{"410", 410, header("Retry-After", "60"), delivery.ClassGone, 60 * time.Second, false},
		{"413 may say when", 413, header("Retry-After", "5"), delivery.ClassRecord, 5 * time.Second, false},
		{"429", 429, nil, delivery.ClassEndpoint, -1, false},
		{"429 asks", 429, header("Retry-After", "60"), delivery.ClassAsked, 60 * time.Second, false},
		{"429 asks for 0", 429, header("Retry-After", "0"), delivery.ClassAsked, 0, false},
		{"429 asks for nonsense", 429, header("Retry-After", "soon"), delivery.ClassEndpoint, -1, false},
		{"the first of two lines counts", 429, header("Retry-After", "120", "Retry-After", "60"), delivery.ClassAsked, 120 * time.Second, false},
		{"503 asks", 503, header("Retry-After", "7"), delivery.ClassAsked, 7 * time.Second, false},
		{"503 asks for too much", 503, header("Retry-After", "86400"), delivery.ClassAsked, time.Hour, true},
		{"503 asks for far too much", 503, header("Retry-After", "99999999999999999999"), delivery.ClassAsked, time.Hour, true},
		{"exactly the most is not cut", 503, header("Retry-After", "3600"), delivery.ClassAsked, time.Hour, false},
		{"a date too far", 503, header("Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"), delivery.ClassAsked, time.Hour, true},
		{"a date in the past", 503, header("Retry-After", date(-time.Hour)), delivery.ClassAsked, 0, false},
		{"a date by their clock", 503, header("Retry-After", date(-40*time.Minute), "Date", date(-time.Hour)), delivery.ClassAsked, 20 * time.Minute, false},
		{"500 may say when", 500, header("Retry-After", "9"), delivery.ClassRecord, 9 * time.Second, false},
		{"501", 501, nil, delivery.ClassRecord, -1, false},
		{"599", 599, nil, delivery.ClassRecord, -1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sub := event.Subscriber{Retry: event.Retry{MaxRetryAfter: event.Duration(time.Hour)}}
			c, target, receiver := respond(t, newTestClient, testkit.Answer{Status: tt.status, Header: tt.header}, sub)
			a := c.Do(context.Background(), target, delivery.Request{Events: testEvents(1), Attempt: 1})
			if a.Status != tt.status || a.Class != tt.class || a.Resend {
				t.Errorf("got %+v, want class %v", a, tt.class)
			}
			if a.RetryAfterValid != (tt.wait >= 0) || a.RetryAfter != max(tt.wait, 0) || a.RetryAfterCut != tt.cut {
				t.Errorf("Retry-After %v, %v, cut %v; want %v, cut %v", a.RetryAfter, a.RetryAfterValid, a.RetryAfterCut, tt.wait, tt.cut)
			}
			want := delivery.Fault{delivery.CodeStatus, fmt.Sprintf("HTTP %d from %s", tt.status, receiver.URL())}
			if tt.class == delivery.ClassSuccess {
				want = delivery.Fault{}
			}
			if a.Fault != want {
				t.Errorf("fault %+v, want %+v", a.Fault, want)
			}
			if receiver.Count() != 1 {
				t.Errorf("%d requests were sent", receiver.Count())
			}
		})
	}
}

func TestDoAcceptedThrough(t *testing.T) { eachPath(t, testDoAcceptedThrough) }

func testDoAcceptedThrough(t *testing.T, newTestClient clientMaker) {
	tests := []struct {
		value string
		want  int64 // the request carries 101, 102, 103
	}{
		{"101", 101},
		{"102", 102},
		{"103", 103},
		{"100", 0},
		{"104", 0},
		{"0", 0},
		{"-101", 0},
		{"1e2", 0},
		{"", 0},
		{"102.0", 0},
		{"99999999999999999999", 0},
		{"102, 103", 0},
	}
	for _, tt := range tests {
		for _, status := range []int{200, 422, 429, 500} {
			t.Run(fmt.Sprintf("%s with %d", tt.value, status), func(t *testing.T) {
				t.Parallel()
				answer := testkit.Answer{Status: status, Header: header("Postroad-Accepted-Through", tt.value)}
				c, target, _ := respond(t, newTestClient, answer, event.Subscriber{BatchSize: 10})
				a := c.Do(context.Background(), target, delivery.Request{Events: testEvents(3), Attempt: 1})
				if a.AcceptedThrough != tt.want || a.Class != delivery.Classify(status, false) {
					t.Errorf("accepted through %d, class %v; want %d", a.AcceptedThrough, a.Class, tt.want)
				}
			})
		}
	}
}

func TestDoResponse(t *testing.T) { eachPath(t, testDoResponse) }

func testDoResponse(t *testing.T, newTestClient clientMaker) {
	tests := []struct{ name, body, want string }{
		{"none", "", ""},
		{"text", "no such listing", "no such listing"},
		{"2 KiB", strings.Repeat("x", 2048), strings.Repeat("x", 2048)},
		{"more", strings.Repeat("x", 2049), strings.Repeat("x", 2048)},
		{"cut within a character", strings.Repeat("x", 2046) + "😀", strings.Repeat("x", 2046)},
		{"ends with a character", strings.Repeat("x", 2044) + "😀y", strings.Repeat("x", 2044) + "😀"},
		{"NUL and invalid UTF-8", "a\x00b\xffc\xc3", "a\ufffdb\ufffdc\ufffd"},
		{"does not grow", strings.Repeat("\xff", 2048), strings.Repeat("\ufffd", 682)},
		{"64 KiB", strings.Repeat("x", 64<<10), strings.Repeat("x", 2048)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, target, receiver := respond(t, newTestClient, testkit.Answer{Status: 422, Body: tt.body}, event.Subscriber{})
			for range 2 {
				a := c.Do(context.Background(), target, delivery.Request{Events: testEvents(1), Attempt: 1})
				if string(a.Response) != tt.want || !utf8.Valid(a.Response) || a.Class != delivery.ClassRecord {
					t.Errorf("%d bytes kept, want %d: %q", len(a.Response), len(tt.want), a.Response)
				}
			}
			if requests := receiver.Requests(); requests[0].Remote != requests[1].Remote {
				t.Error("the connection was not used again")
			}
		})
	}
}

// A body without end costs one connection, not memory and not the timeout.
func TestDoEndlessBody(t *testing.T) { eachPath(t, testDoEndlessBody) }

func testDoEndlessBody(t *testing.T, newTestClient clientMaker) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = w.Write(make([]byte, 32<<10))
		}
	}))
	t.Cleanup(server.Close)
	c := newTestClient(t)
	target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: server.URL}}, event.Secrets{}, time.Time{})
	a := c.Do(context.Background(), target, delivery.Request{Events: testEvents(1), Attempt: 1})
	if a.Class != delivery.ClassSuccess || len(a.Response) > 2048 || a.Duration > 10*time.Second {
		t.Errorf("answer %+v", a)
	}
}

// The status line decides: whatever becomes of the body.
func TestDoStatusLineDecides(t *testing.T) { eachPath(t, testDoStatusLineDecides) }

func testDoStatusLineDecides(t *testing.T, newTestClient clientMaker) {
	const head = "HTTP/1.1 200 OK\r\n"
	tests := map[string]testkit.Answer{
		"body cut short":       {DropAfterHeaders: true, Body: "partial"},
		"no body at all":       {Raw: head + "Content-Length: 10\r\n\r\n"},
		"bad chunk":            {Raw: head + "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello"},
		"chunks cut short":     {Raw: head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhel"},
		"ends with connection": {Raw: head + "\r\nhello"},
		"says it is gzip":      {Raw: head + "Connection: close\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"},
	}
	for name, answer := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, target, receiver := respond(t, newTestClient, answer, event.Subscriber{})
			for n := 1; n <= 2; n++ {
				if a := c.Do(context.Background(), target, delivery.Request{Events: testEvents(1), Attempt: 1}); a.Class != delivery.ClassSuccess || a.Status != 200 || a.Fault != (delivery.Fault{}) {
					t.Errorf("answer %+v", a)
				}
				if receiver.Count() != n {
					t.Errorf("%d requests after %d", receiver.Count(), n)
				}
			}
		})
	}
}

// A success whose body hangs is a success, and does not hold the lane for the
// whole timeout.
func TestDoHangingBody(t *testing.T) { eachPath(t, testDoHangingBody) }

func testDoHangingBody(t *testing.T, newTestClient clientMaker) {
	gone := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, "begin")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	}))
	t.Cleanup(server.Close)
	c := newTestClient(t, func(cfg *delivery.Config) { cfg.AnswerBodyTimeout = 20 * time.Millisecond })
	sub := event.Subscriber{Endpoint: event.Endpoint{URL: server.URL, Timeout: event.Duration(time.Minute)}}
	a := c.Do(context.Background(), targetOf(t, c, sub, event.Secrets{}, time.Time{}), delivery.Request{Events: testEvents(1), Attempt: 1})
	if a.Class != delivery.ClassSuccess || string(a.Response) != "begin" || a.Duration < 20*time.Millisecond || a.Duration > 30*time.Second {
		t.Errorf("answer %+v", a)
	}
	<-gone
}

// Subscribers that share a client, and lanes that share a target, each get
// their own answer. Run with -race, this is also the proof that the memory of
// requests changes hands safely.
func TestDoConcurrently(t *testing.T) { eachPath(t, testDoConcurrently) }

func testDoConcurrently(t *testing.T, newTestClient clientMaker) {
	script := func(_ int, r *testkit.Request) testkit.Answer {
		status := 200
		if strings.Contains(string(r.Body), `"ResourceRecordKey":"odd"`) {
			status = 422
		}
		return testkit.Answer{Status: status, Body: r.Header.Get("Postroad-Subscriber") + " " + r.Header.Get("Webhook-Id")}
	}
	receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: script})
	c := newTestClient(t)
	var group sync.WaitGroup
	for subscriber := range 4 {
		id := "s" + strconv.Itoa(subscriber)
		target := targetOf(t, c, event.Subscriber{ID: id, Endpoint: event.Endpoint{URL: receiver.URL()}}, event.Secrets{}, time.Time{})
		for lane := range 4 {
			group.Go(func() {
				for i := range 50 {
					e := &event.Event{Sequence: int64(lane*1000 + i + 1), ResourceName: "R", ResourceRecordKey: "even"}
					want := delivery.ClassSuccess
					if i%2 == 1 {
						e.ResourceRecordKey, want = "odd", delivery.ClassRecord
					}
					a := c.Do(context.Background(), target, delivery.Request{Events: []*event.Event{e}, Attempt: 1})
					text := fmt.Sprintf("%s %s_%d", id, id, e.Sequence)
					if a.Class != want || string(a.Response) != text || a.WebhookID != strings.Fields(text)[1] {
						t.Errorf("got %v %q %s, want %v %q", a.Class, a.Response, a.WebhookID, want, text)
					}
				}
			})
		}
	}
	group.Wait()
	for _, r := range receiver.Requests() {
		if err := verify(t, vectorSecret, r.Header, "Webhook-", r.Body); err != nil {
			t.Fatalf("request %d: %v", r.N, err)
		}
	}
}

// An answer may come before the request has been read: what net/http still
// writes must not be the next request's bytes.
func TestDoEarlyAnswer(t *testing.T) { eachPath(t, testDoEarlyAnswer) }

func testDoEarlyAnswer(t *testing.T, newTestClient clientMaker) {
	server := newRawServer(t, func(conn net.Conn, _ int) {
		for reader := bufio.NewReader(conn); ; {
			request, err := http.ReadRequest(reader)
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
			body, _ := io.ReadAll(request.Body)
			if len(body) > 0 && strings.Count(string(body), string(body[1])) < len(body)-2 {
				t.Error("a request's bytes were mixed with another's")
			}
		}
	})
	c := newTestClient(t)
	target := targetOf(t, c, event.Subscriber{Format: event.FormatRaw, Endpoint: event.Endpoint{URL: server.url}}, event.Secrets{}, time.Time{})
	for i := range 20 {
		e := &event.Event{Sequence: int64(i + 1), ResourceName: "R", ResourceRecordKey: "1", Data: []byte(`"` + strings.Repeat(string(rune('a'+i)), 1<<20) + `"`)}
		a := c.Do(context.Background(), target, delivery.Request{Events: []*event.Event{e}, Attempt: 1})
		if a.Status != 0 && a.Status != 413 { // the write may fail first
			t.Fatalf("answer %+v", a)
		}
	}
}

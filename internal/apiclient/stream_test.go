package apiclient_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/apiclient"
)

// script answers one request after the other, and notes where each began.
type script struct {
	t     *testing.T
	turns []func(w http.ResponseWriter)

	mu    sync.Mutex
	after []string
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	n := len(s.after)
	s.after = append(s.after, r.URL.Query().Get("after"))
	s.mu.Unlock()
	if r.URL.Path != "/v1/feeds/default/stream" || r.URL.Query().Get("format") != "ndjson" || r.URL.Query().Get("partition") != "0/8" ||
		r.Header.Get("Authorization") != "Bearer secret" {
		s.t.Errorf("asked for %s with %q", r.URL, r.Header.Get("Authorization"))
	}
	if n < len(s.turns) {
		s.turns[n](w)
		return
	}
	<-r.Context().Done()
}

// positions are those that requests asked to begin after.
func (s *script) positions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.after)
}

// answer writes lines and ends, without a word where cut is set.
func answer(cut bool, lines ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		_, _ = io.WriteString(w, strings.Join(lines, "\n")+"\n")
		if cut {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler) // net/http's own way to drop a connection
		}
	}
}

func refusal(status int, header ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
	}
}

func item(n int) string {
	return fmt.Sprintf(`{"sequence":%d,"resourceName":"Property","data":{"after":7}}`, n)
}

func follow(t *testing.T, after int64, turns ...func(http.ResponseWriter)) (*apiclient.Stream, *script) {
	t.Helper()
	s := &script{t: t, turns: turns}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return &apiclient.Stream{
		Client: &apiclient.Client{URL: server.URL, Token: "secret"}, Path: "/v1/feeds/default/stream",
		Query: map[string][]string{"partition": {"0/8"}}, After: after, PauseMin: time.Microsecond, PauseMax: time.Millisecond,
	}, s
}

// TestStream_takenUpAgain: however a connection ends, the next one goes on where
// it was, and every item comes once.
func TestStream_takenUpAgain(t *testing.T) {
	t.Parallel()
	s, asked := follow(t, -1,
		answer(false, `{"after":3}`, item(4), "", item(5), `{"end":{"reason":"draining","after":5}}`),
		refusal(502),
		answer(true, "", item(6), `{"after":9}`),
		answer(true, "", `{"sequence":11,"resourceNa`),
		refusal(503, "Retry-After", "0"),
		answer(false, "", `{"end":{"reason":"error","after":10}}`),
		answer(false, "", item(11), `{"end":{"reason":"changed","after":12}}`),
		answer(true, "", item(13)),
	)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []int64
	err := s.Follow(ctx, func(i apiclient.Item) error {
		got = append(got, i.Sequence)
		if string(i.Line) != item(int(i.Sequence)) {
			t.Errorf("line %s", i.Line)
		}
		if i.Sequence == 13 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if want := []int64{4, 5, 6, 11, 13}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if want := []string{"", "5", "5", "9", "9", "9", "10", "12"}; !slices.Equal(asked.positions(), want) {
		t.Errorf("asked after %q, want %q", asked.positions(), want)
	}
}

func TestStream_ends(t *testing.T) {
	t.Parallel()
	end := func(reason string) func(http.ResponseWriter) {
		return answer(false, item(1), `{"end":{"reason":"`+reason+`","after":1,"firstSequence":5}}`)
	}
	for name, c := range map[string]struct {
		turns []func(http.ResponseWriter)
		says  string
	}{
		"the token is revoked":     {turns: []func(http.ResponseWriter){end("revoked")}, says: "token"},
		"the feed is deleted":      {turns: []func(http.ResponseWriter){end("deleted")}, says: "deleted"},
		"events were removed":      {turns: []func(http.ResponseWriter){end("below-floor")}, says: "first that is kept is 5"},
		"refused":                  {turns: []func(http.ResponseWriter){refusal(403)}, says: "403"},
		"refused later":            {turns: []func(http.ResponseWriter){answer(true, item(1)), refusal(401)}, says: "401"},
		"away from the first":      {turns: []func(http.ResponseWriter){refusal(503)}, says: "503"},
		"cut off before an answer": {turns: []func(http.ResponseWriter){func(http.ResponseWriter) { panic(http.ErrAbortHandler) }}, says: "cannot reach"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, asked := follow(t, 0, c.turns...)
			err := s.Follow(t.Context(), func(apiclient.Item) error { return nil })
			if err == nil || !strings.Contains(err.Error(), c.says) || len(asked.positions()) != len(c.turns) {
				t.Errorf("ended with %v after %d requests", err, len(asked.positions()))
			}
		})
	}
}

// TestStream_taker: its errors end the stream, except the one that asks for the
// item again.
func TestStream_taker(t *testing.T) {
	t.Parallel()
	full := errors.New("the disk is full")
	s, asked := follow(t, 0, answer(false, item(1), item(2)), answer(false, item(2), item(3)))
	var got []int64
	err := s.Follow(t.Context(), func(i apiclient.Item) error {
		got = append(got, i.Sequence)
		switch {
		case i.Sequence == 2 && len(got) == 2:
			return apiclient.ErrAgain
		case i.Sequence == 3:
			return full
		}
		return nil
	})
	if !errors.Is(err, full) || !slices.Equal(got, []int64{1, 2, 2, 3}) || !slices.Equal(asked.positions(), []string{"0", "1"}) || s.After != 2 {
		t.Errorf("%v: got %v, asked after %q, now after %d", err, got, asked.positions(), s.After)
	}
}

// silence is a server that answers and then says nothing more.
type silence struct{ asked []string }

func (s *silence) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked = append(s.asked, r.URL.Query().Get("after"))
	reader, writer := io.Pipe()
	go func() {
		if len(s.asked) == 1 {
			_, _ = io.WriteString(writer, item(1)+"\n")
		}
		<-r.Context().Done()
		_ = writer.CloseWithError(r.Context().Err())
	}()
	return &http.Response{StatusCode: http.StatusOK, Body: reader}, nil
}

// TestStream_pauses: a connection without a sign of life is given up, and attempts
// that come to nothing are made less and less often.
func TestStream_pauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		quiet := &silence{}
		s := apiclient.Stream{Client: &apiclient.Client{URL: "http://postroad", HTTP: &http.Client{Transport: quiet}}, After: 0, Idle: time.Minute}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		var pauses []time.Duration
		s.Waiting = func(_ error, pause time.Duration) { pauses = append(pauses, pause) }
		busy := false
		_ = s.Follow(ctx, func(apiclient.Item) error {
			<-time.After(2 * time.Minute) // what an item takes is no silence
			busy = true
			return nil
		})
		if !busy || len(quiet.asked) < 7 || len(quiet.asked) > 8 || !slices.Equal(quiet.asked[:2], []string{"0", "1"}) {
			t.Errorf("%t, asked after %q", busy, quiet.asked)
		}
		for i, pause := range pauses {
			most := 500 * time.Millisecond << i
			if pause < most/2 || pause > min(most, 30*time.Second) {
				t.Errorf("pause %d is %s, want up to %s", i, pause, most)
			}
		}
	})
}

func TestStream_retryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		client := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			n++
			body := io.NopCloser(strings.NewReader(item(n) + "\n"))
			if n == 1 {
				return &http.Response{StatusCode: http.StatusOK, Body: body}, nil
			}
			return &http.Response{StatusCode: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {strconv.Itoa(20)}}, Body: body}, nil
		})}
		s := apiclient.Stream{Client: &apiclient.Client{URL: "http://postroad", HTTP: client}}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
		defer cancel()
		_ = s.Follow(ctx, func(apiclient.Item) error { return nil })
		if n != 4 { // at 0, soon after, 20 s and 40 s later
			t.Errorf("%d requests", n)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (r roundTrip) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

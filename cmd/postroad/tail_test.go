package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	main "postroad/cmd/postroad"
	"postroad/consumer"
	"postroad/internal/testkit"
)

// streamServer answers a stream's requests one after the other; where nothing is
// left to say it stays silent.
type streamServer struct {
	url     string
	answers []string

	mu    sync.Mutex
	asked []string
}

func newStreamServer(t *testing.T, answers ...string) *streamServer {
	s := &streamServer{answers: answers}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		n := len(s.asked)
		s.asked = append(s.asked, r.URL.RequestURI())
		s.mu.Unlock()
		if n < len(s.answers) {
			_, _ = io.WriteString(w, s.answers[n])
			return
		}
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *streamServer) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// until runs the program until its output holds a text, and ends it as Ctrl-C does.
func until(t *testing.T, text string, i main.Invocation) result {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stdout, stderr lockedBuffer
	i.Stdin, i.Stdout, i.Stderr, i.WorkDir = strings.NewReader(""), &stdout, &stderr, t.TempDir()
	ended := make(chan int, 1)
	go func() { ended <- i.Run(ctx) }()
	testkit.Eventually(t, waitMax, func() bool { return len(ended) > 0 || strings.Contains(stdout.String(), text) }, "the output has "+text)
	cancel()
	return result{<-ended, stdout.String(), stderr.String()}
}

const tailed = `{"sequence":%d,"resourceName":"Property","resourceRecordKey":"a\u001b","eventType":"Updated","recordedAt":"2026-03-01T09:30:00Z","data":{"n":1}}` + "\n"

func TestTail(t *testing.T) {
	t.Parallel()
	answers := []string{
		`{"after":4}` + "\n" + fmt.Sprintf(tailed, 5) + `{"end":{"reason":"draining","after":5}}` + "\n", "\n" + fmt.Sprintf(tailed, 7),
	}
	t.Run("for people", func(t *testing.T) {
		t.Parallel()
		s := newStreamServer(t, answers...)
		r := until(t, "7  ", main.Invocation{Args: []string{
			"tail", "listings", "--server", s.url, "--partition", "1/8", "--resource", "Property,Media", "--resource", "O*", "--type", "Updated",
		}}).want(t, ok)
		at := time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC).Local().Format("15:04:05.000")
		if want := at + "  5  Property a   Updated  {\"n\":1}\n" + at + "  7  Property a   Updated  {\"n\":1}\n"; r.stdout != want {
			t.Errorf("got\n%swant\n%s", r.stdout, want)
		}
		const query = "/v1/feeds/listings/stream?%seventTypes=Updated&format=ndjson&partition=1%%2F8&resourceNames=Property%%2CMedia%%2CO%%2A"
		if got, want := s.requests(), []string{fmt.Sprintf(query, ""), fmt.Sprintf(query, "after=5&")}; !slices.Equal(got[:2], want) {
			t.Errorf("asked for %q, want %q", got, want)
		}
	})
	t.Run("for programs", func(t *testing.T) {
		t.Parallel()
		s := newStreamServer(t, answers...)
		r := until(t, `"sequence":7`, main.Invocation{Args: []string{"tail", "--subscriber", "acme", "--after", "0", "--json", "--server", s.url}}).want(t, ok)
		if want := fmt.Sprintf(tailed, 5) + fmt.Sprintf(tailed, 7); r.stdout != want {
			t.Errorf("got\n%swant\n%s", r.stdout, want)
		}
		if got := s.requests()[0]; got != "/v1/subscribers/acme/stream?after=0&format=ndjson" {
			t.Errorf("asked for %s", got)
		}
	})
	t.Run("until it is revoked", func(t *testing.T) {
		t.Parallel()
		s := newStreamServer(t, `{"end":{"reason":"revoked","after":5}}`+"\n")
		cli(t, "tail", "--server", s.url).want(t, failed).contains(t, "the token is no longer valid")
	})
}

// forwarded is a request as a stream has it.
func forwarded(sequence int, signed time.Time) string {
	text, _ := json.Marshal(map[string]any{
		"sequence": sequence, "method": "POST", "body": fmt.Sprintf(`{"n":%d,"é":"\n"}`, sequence),
		"headers": map[string]string{
			"Content-Type": "application/json", "Webhook-Timestamp": fmt.Sprint(signed.Unix()), "Webhook-Id": fmt.Sprintf("acme_%d", sequence),
			"Postroad-Event-Type": "Updated", "User-Agent": "Postroad/1",
		},
	})
	return string(text) + "\n"
}

// TestListen_forwards: in order, each until it is taken; what was signed too long
// ago is asked for again.
func TestListen_forwards(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := newStreamServer(t,
		"\n"+forwarded(4, now)+forwarded(5, now)+forwarded(7, now.Add(-3*time.Minute)),
		"\n"+forwarded(7, now)+forwarded(8, now))
	var mu sync.Mutex
	var got []string
	consumer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		h := r.Header
		got = append(got, fmt.Sprint(r.Method, r.URL, h.Get("Webhook-Id"), h.Get("Content-Type"), h.Get("User-Agent"), h.Get("Authorization"), string(body), err))
		if len(got) == 2 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	}))
	defer consumer.Close()
	r := until(t, "8  Updated  HTTP 200", main.Invocation{
		Args: []string{"listen", "--subscriber", "acme", "--forward", consumer.URL + "/hook?x=1", "--server", s.url}, Environ: []string{"POSTROAD_TOKEN=secret"},
	}).want(t, ok).contains(t, "5  Updated  HTTP 429", "again in 0s", "5 requests; go on with --after 8")
	var want []string
	for _, n := range []int{4, 5, 5, 7, 8} {
		want = append(want, fmt.Sprint("POST", "/hook?x=1", fmt.Sprintf("acme_%d", n), "application/json", "Postroad/1", "", fmt.Sprintf(`{"n":%d,"é":"\n"}`, n), nil))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q\n%s", got, want, r.stdout)
	}
	if got, want := s.requests(), []string{"/v1/subscribers/acme/stream?as=requests&format=ndjson", "/v1/subscribers/acme/stream?after=5&as=requests&format=ndjson"}; !slices.Equal(got[:2], want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
}

func TestListen_skipsErrors(t *testing.T) {
	t.Parallel()
	s := newStreamServer(t, "\n"+forwarded(4, time.Now())+forwarded(5, time.Now()))
	r := until(t, `"sequence":5`, main.Invocation{Args: []string{
		"listen", "--subscriber", "acme", "--forward", "http://127.0.0.1:1", "--skip-errors", "--after", "3", "--json", "--server", s.url,
	}}).want(t, ok)
	for i, line := range strings.Split(strings.TrimSpace(r.stdout), "\n") {
		var d struct {
			Sequence, Attempt int
			Error             string
		}
		if err := json.Unmarshal([]byte(line), &d); err != nil || d.Sequence != 4+i || d.Attempt != 1 || d.Error == "" {
			t.Errorf("%v: %s", err, line)
		}
	}
}

// TestListen_verified: what is forwarded passes a consumer's check of signature and
// order, and the subscriber stays where it is.
func TestListen_verified(t *testing.T) {
	t.Parallel()
	on(t, "feed", "create", "forwarded").want(t, ok)
	made := on(t, "subscriber", "create", "forwarded", "--feed", "forwarded", "--endpoint", "http://127.0.0.1:1/", "--start", "beginning", "--json").want(t, ok)
	var subscriber struct{ Signing struct{ Secret string } }
	if err := json.Unmarshal([]byte(made.stdout), &subscriber); err != nil {
		t.Fatal(err)
	}
	on(t, "subscriber", "pause", "forwarded").want(t, ok)
	file := filepath.Join(t.TempDir(), "events.ndjson")
	if err := os.WriteFile(file, []byte(strings.Repeat(`{"resourceName":"Property","resourceRecordKey":"a"}`+"\n", 3)), 0o600); err != nil {
		t.Fatal(err)
	}
	on(t, "publish", file, "--feed", "forwarded").want(t, ok)
	var position consumer.Position
	handler, err := consumer.New(consumer.Config{
		Secrets: []string{subscriber.Signing.Secret}, Store: positions{&position},
		Handle: func(_ context.Context, b consumer.Batch) error { position = b.Position(); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	defer server.Close()
	until(t, "3  HTTP 200", main.Invocation{
		Args: []string{"listen", "--subscriber", "forwarded", "--forward", server.URL, "--data-dir", stack(t)},
	}).want(t, ok).contains(t, "3 requests; go on with --after 3")
	if position.Sequence != 3 {
		t.Errorf("the consumer is at %+v", position)
	}
	on(t, "status", "forwarded").want(t, ok).contains(t, "0 of 3")
	until(t, `"sequence":3`, main.Invocation{Args: []string{"tail", "forwarded", "--after", "1", "--json", "--data-dir", stack(t)}}).want(t, ok).contains(t, `"sequence":2`)
	on(t, "subscriber", "delete", "forwarded").want(t, ok)
}

// positions keeps a position in memory.
type positions struct{ at *consumer.Position }

func (p positions) LastSequence(context.Context) (consumer.Position, error) { return *p.at, nil }

package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"postroad/api"
	"postroad/eventlog"
	"postroad/internal/testkit"
	"postroad/store"
)

func TestMain(m *testing.M) { os.Exit(testkit.Run(m)) }

const (
	token = "test-token"
	// soon bounds waiting for what should take milliseconds.
	soon = 20 * time.Second
)

// bundle is an API over a database of the test's own.
type bundle struct {
	t      testing.TB
	url    string // of the API
	dbURL  string
	server *api.Server
	store  *store.Store
	log    *eventlog.Log
	pool   *pgxpool.Pool
	waker  *fakeWaker
	logs   *syncBuffer
}

// options changes the configuration of a bundle's API and log.
type options struct {
	api   func(*api.Config)
	log   eventlog.Config
	dbURL string // "" is a database of its own
}

func setup(t testing.TB, o options) *bundle {
	t.Helper()
	b := &bundle{t: t, dbURL: o.dbURL, waker: newFakeWaker(), logs: &syncBuffer{}}
	if b.dbURL == "" {
		b.dbURL = testkit.Database(t, store.Migrate)
	}
	poolConfig, err := store.PoolConfig(b.dbURL)
	must(t, err)
	b.pool, err = pgxpool.NewWithConfig(context.Background(), poolConfig)
	must(t, err)
	t.Cleanup(b.pool.Close)
	sealer, err := store.NewSealer([store.KeyBytes]byte{1, 2, 3})
	must(t, err)
	b.store = store.New(b.pool, sealer)
	logger := slog.New(slog.NewTextHandler(b.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o.log.Logger = logger
	b.log = eventlog.New(b.pool, o.log)
	must(t, b.log.Start(context.Background()))
	t.Cleanup(b.log.Close)

	config := api.Config{
		Store: b.store, Log: b.log, Waker: b.waker, AdminToken: token, Logger: logger,
		AllowHTTPEndpoints: true, AllowLoopback: true, ForceWait: 200 * time.Millisecond,
		TemporalUIURL: "http://127.0.0.1:8233/", TemporalNamespace: "postroad",
	}
	if o.api != nil {
		o.api(&config)
	}
	b.server, err = api.New(config)
	must(t, err)
	server := httptest.NewUnstartedServer(nil)
	server.Config = api.NewHTTPServer(b.server.Handler())
	server.Start()
	b.url = server.URL
	t.Cleanup(func() {
		b.server.Drain()
		server.Close()
		b.server.Close()
	})
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// answer is what the API answered.
type answer struct {
	t      testing.TB
	status int
	header http.Header
	body   []byte
}

// call makes a request with the token and checks the answer against the API's
// description. headers are name, value, name, value.
func (b *bundle) call(method, path, body string, headers ...string) answer {
	b.t.Helper()
	return b.send(method, path, strings.NewReader(body), headers...)
}

func (b *bundle) send(method, path string, body io.Reader, headers ...string) answer {
	b.t.Helper()
	a, err := b.try(method, path, body, headers...)
	must(b.t, err)
	return a
}

func (b *bundle) try(method, path string, body io.Reader, headers ...string) (answer, error) {
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, body)
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	if r.Body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
		}
	}
	response, err := http.DefaultTransport.RoundTrip(r) // one request, no redirect, no cookie
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{t: b.t, status: response.StatusCode, header: response.Header, body: text}
	checkDescribed(b.t, method, path, a)
	return a, nil
}

// want checks the status and decodes the body into a value, unless nil.
func (a answer) want(status int, into any) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	if into != nil {
		must(a.t, json.Unmarshal(a.body, into))
	}
	return a
}

// problem is an RFC 9457 answer.
type problem struct {
	Type, Title, Detail, RequestID string
	Status                         int
	Errors                         []struct {
		Pointer                   *string
		Parameter, Header, Detail string
	}
	FirstSequence, Version, Line       int64
	Head                               *int64
	Accepted, Duplicates, LastSequence *int64
	Checks                             map[string]string
}

// places are where the problem says that something is wrong.
func (p problem) places() string {
	places := make([]string, len(p.Errors))
	for i, e := range p.Errors {
		switch {
		case e.Pointer != nil:
			places[i] = *e.Pointer
		case e.Parameter != "":
			places[i] = "?" + e.Parameter
		default:
			places[i] = e.Header + ":"
		}
	}
	return strings.Join(places, " ")
}

// refused checks that the answer is a problem of that status and code, at those
// places: pointers, ?parameters and headers with a colon, apart by spaces.
func (a answer) refused(status int, code, places string) problem {
	a.t.Helper()
	var p problem
	a.want(status, &p)
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		a.t.Errorf("content type %q", got)
	}
	if p.Type != "/problems/"+code || p.Status != status || p.places() != places || p.Detail == "" {
		a.t.Errorf("problem %s at %q, want /problems/%s at %q: %s", p.Type, p.places(), code, places, a.body)
	}
	if p.RequestID == "" || a.header.Get("X-Request-Id") != p.RequestID {
		a.t.Errorf("request id %q, header %q", p.RequestID, a.header.Get("X-Request-Id"))
	}
	return p
}

// published is the answer to a publication.
type published struct {
	FirstSequence, LastSequence, Accepted, Duplicates int64
	Sequences                                         []int64
}

func (b *bundle) publish(body string, headers ...string) answer {
	b.t.Helper()
	return b.call("POST", "/v1/feeds/default/events", body, headers...)
}

func (b *bundle) publishLines(body string, headers ...string) answer {
	b.t.Helper()
	return b.publish(body, append([]string{"Content-Type", "application/x-ndjson"}, headers...)...)
}

type page struct {
	Events                    []json.RawMessage
	Next, Head, FirstSequence int64
}

// keys are the record keys of all events of a feed, in order.
func (b *bundle) keys(feed string) []string {
	b.t.Helper()
	var keys []string
	for after := int64(0); ; {
		var p page
		b.call("GET", fmt.Sprintf("/v1/feeds/%s/events?limit=1000&after=%d", feed, after), "").want(200, &p)
		if len(p.Events) == 0 {
			return keys
		}
		for _, e := range p.Events {
			var ev struct{ ResourceRecordKey string }
			must(b.t, json.Unmarshal(e, &ev))
			keys = append(keys, ev.ResourceRecordKey)
		}
		after = p.Next
	}
}

// exec runs a statement that must succeed.
func (b *bundle) exec(sql string, args ...any) {
	b.t.Helper()
	_, err := b.pool.Exec(b.t.Context(), sql, args...)
	must(b.t, err)
}

// one is an event of that key; more are members to add.
func one(key string, more ...string) string {
	return `{"resourceName":"Property","resourceRecordKey":"` + key + `"` + strings.Join(append([]string{""}, more...), ",") + `}`
}

// lines are n events with keys from first on, a line each.
func lines(first, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(one(fmt.Sprint(first+i)) + "\n")
	}
	return b.String()
}

// fakeWaker stands in for Temporal.
type fakeWaker struct {
	mu     sync.Mutex
	wakes  map[string]int
	closed map[string]bool
	err    error
	stuck  chan struct{} // if set, Wake waits for it
}

func newFakeWaker() *fakeWaker { return &fakeWaker{wakes: map[string]int{}, closed: map[string]bool{}} }

func (w *fakeWaker) Wake(ctx context.Context, id string) error {
	if w.stuck != nil {
		select {
		case <-w.stuck:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wakes[id]++
	return w.err
}

func (w *fakeWaker) Closed(_ context.Context, id string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed[id], w.err
}

func (w *fakeWaker) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (b *bundle) awaitWakes(id string, n int) {
	b.t.Helper()
	testkit.Eventually(b.t, soon, func() bool {
		b.waker.mu.Lock()
		defer b.waker.mu.Unlock()
		return b.waker.wakes[id] >= n
	}, fmt.Sprintf("%d wakes of %s", n, id))
}

// syncBuffer is a log that tests read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

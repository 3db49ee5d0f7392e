//go:build chaos

package main_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"postroad/internal/apiclient"
	"postroad/internal/testkit"
)

// span is from when something was asked for until it was in force.
type span struct{ asked, sure time.Time }

// seeked is a move of the position: back to a place, or forward over what lies up
// to it.
type seeked struct {
	span
	to   int64
	back bool
}

// configured is a configuration.
type configured struct {
	span
	lanes    int      // 0: auto
	names    []string // nil: all
	attempts int
}

func (c configured) matches(e modelEvent) bool {
	return c.names == nil || slices.Contains(c.names, e.ResourceName)
}

// replayed is a replay that was asked for.
type replayed struct {
	span
	id, after, through int64
	names, keys        []string
	missed             bool
	total              int64 // as told; -1: refused, as there was nothing
	paused             bool  // for a while
	cancelled          time.Time
}

func (p replayed) selects(e modelEvent) bool {
	return p.after < e.Sequence && e.Sequence <= p.through && (p.names == nil || slices.Contains(p.names, e.ResourceName)) &&
		(p.keys == nil || slices.Contains(p.keys, e.key()))
}

// given is an event that was given up, or a key that is held, as told.
type given struct {
	modelEvent
	at   time.Time
	held bool
}

// answered is what the consumer answered to a request.
type answered struct {
	status int
	hangs  bool
}

// history is one subscriber, its consumer, and all that was asked of it.
type history struct {
	run     *modelRun
	id      string
	feed    *modelFeed
	driving sync.Mutex
	chance  *rand.Rand // of the driver
	calls   int

	paused  bool
	seeks   []seeked
	configs []configured
	pauses  []span // from in force until the resume was asked for
	resumes []span
	replays []*replayed
	gone    map[int64]bool // dismissed
	// givenUp is when the operator first gave up events of a key: dead letters then.
	givenUp map[string]time.Time
	told    []given

	mu       sync.Mutex
	tale     []string
	mood     *rand.Rand // of the consumer
	poisoned map[string]bool
	errors   float64 // how often it answers 500
	asks     float64 // 503 with Retry-After
	hangs    float64 // not at all
	slowest  time.Duration
	answers  map[int]answered
}

var modelNames = []string{"Property", "Media"}

func newHistory(r *modelRun, id string, feed *modelFeed, chance *rand.Rand) *history {
	h := &history{
		run: r, id: id, feed: feed, chance: chance, gone: map[int64]bool{}, givenUp: map[string]time.Time{}, answers: map[int]answered{}, poisoned: map[string]bool{},
		mood:    rand.New(rand.NewPCG(chance.Uint64(), 1)),
		slowest: time.Duration(chance.IntN(15)) * time.Millisecond,
	}
	if chance.IntN(3) == 0 {
		h.errors = 0.05
	}
	if chance.IntN(4) == 0 {
		h.asks = 0.03
	}
	if chance.IntN(4) == 0 {
		h.hangs = 0.01
	}
	if chance.IntN(10) == 0 {
		h.slowest = 100 * time.Millisecond
	}
	return h
}

// story is what happened to the history, for people.
func (h *history) story() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return fmt.Sprintf("%s of %s:\n%s", h.id, h.feed.name, strings.Join(h.tale, "\n"))
}

func (h *history) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tale = append(h.tale, fmt.Sprintf("%8.3f ", time.Since(h.run.began).Seconds())+fmt.Sprintf(format, args...))
}

// answer is the consumer.
func (h *history) answer(n int, q *testkit.Request) testkit.Answer {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := testkit.Answer{Status: http.StatusOK}
	if h.slowest > 0 {
		a.Hang = time.Duration(h.mood.Int64N(int64(h.slowest)))
	}
	mood := h.mood.Float64()
	switch {
	case slices.ContainsFunc(eventsIn(q.Body), func(e modelEvent) bool { return h.poisoned[e.key()] }):
		a.Status = http.StatusUnprocessableEntity
	case mood < h.errors:
		a.Status = http.StatusInternalServerError
	case mood < h.errors+h.asks:
		a.Status, a.Header = http.StatusServiceUnavailable, http.Header{"Retry-After": {"1"}}
	case mood < h.errors+h.asks+h.hangs:
		a.Status, a.Hang = 0, testkit.Forever
	}
	h.answers[n] = answered{a.Status, a.Hang == testkit.Forever}
	return a
}

// eventsIn are the events of a request's body.
func eventsIn(body []byte) []modelEvent {
	type member struct {
		EntityEventSequence             int64
		ResourceName, ResourceRecordKey string
	}
	var batch struct {
		member
		Value []member
	}
	if err := json.Unmarshal(body, &batch); err != nil {
		return nil
	}
	if batch.Value == nil {
		batch.Value = []member{batch.member}
	}
	events := make([]modelEvent, len(batch.Value))
	for i, m := range batch.Value {
		events[i] = modelEvent{m.EntityEventSequence, m.ResourceName, m.ResourceRecordKey}
	}
	return events
}

func (h *history) mend() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.poisoned, h.errors, h.asks, h.hangs = map[string]bool{}, 0, 0, 0
}

// modelStatus is what the driver reads of a status.
type modelStatus struct {
	State, Reason           string
	Cursor, Head, LagEvents int64
	HeldKeys, DeadLetters   int
	InFlight                int
	Replay                  *struct{ ID, Done, Total int64 }
	DesiredVersion          int64
	AppliedVersion          int64
}

func decodeAnswer(body []byte, out any) error {
	if out == nil || len(body) == 0 {
		return nil
	}
	return json.Unmarshal(body, out)
}

func (h *history) path(rest string) string { return "/v1/subscribers/" + h.id + rest }

// do makes one call that changes something, and returns when it was asked for
// and when it was in force.
func (h *history) do(method, path string, in, out any) (span, *apiclient.Problem) {
	h.calls++
	s := span{asked: time.Now()}
	key := fmt.Sprintf("%s-%d", h.id, h.calls)
	if method == http.MethodPatch {
		key = ""
	}
	_, problem := h.run.call(method, path, in, out, key)
	s.sure = time.Now()
	text := ""
	if problem != nil {
		text = ": " + problem.Error()
	}
	h.note("%s %s %s%s, after %d ms", method, path, encode(h.run.t, in), text, s.sure.Sub(s.asked).Milliseconds())
	return s, problem
}

// must is do for what is never refused.
func (h *history) must(method, path string, in, out any) span {
	s, problem := h.do(method, path, in, out)
	if problem != nil {
		h.run.fail("%s: %s %s %v: %v", h.id, method, path, in, problem)
	}
	return s
}

// get reads something of the subscriber, which may be no longer there.
func (h *history) get(rest string, out any) {
	if _, problem := h.run.call(http.MethodGet, h.path(rest), nil, out, ""); problem != nil && problem.Status != http.StatusNotFound {
		h.run.fail("%s: get %s: %v", h.id, rest, problem)
	}
}

func (h *history) status() (s modelStatus) {
	h.get("/status", &s)
	return s
}

func (h *history) create() {
	if status, problem := h.run.call(http.MethodPost, "/v1/feeds", map[string]any{"name": h.feed.name}, nil, ""); problem != nil && status != http.StatusConflict {
		h.run.fail("create feed: %v", problem)
	}
	c := configured{lanes: 1, attempts: 2}
	if h.chance.IntN(3) > 0 {
		c.lanes = 1 + h.chance.IntN(16)
	}
	batch := 1
	if h.chance.IntN(2) > 0 {
		batch = 1 + h.chance.IntN(8)
	}
	c.span = h.must(http.MethodPost, "/v1/subscribers", map[string]any{
		"id": h.id, "feed": h.feed.name, "start": "beginning", "lanes": c.lanes, "batchSize": batch, "onExhausted": h.policy(),
		"endpoint": map[string]any{"url": h.run.consumer.URL() + "/" + h.id, "timeout": "1s"}, "retry": retryOf(c.attempts),
	}, nil)
	h.configs = append(h.configs, c)
	h.publish()
}

func (h *history) policy() string { return []string{"hold", "skip", "halt", "hold"}[h.chance.IntN(4)] }

func retryOf(attempts int) map[string]any {
	return map[string]any{"schedule": []string{"5ms", "50ms", "400ms", "1500ms"}, "eventAttempts": attempts}
}

// drained does what ends whatever holds the subscriber up, and says what it still
// waits for; "": nothing.
func (h *history) drained() string {
	s := h.status()
	switch {
	case s.State == "paused" || s.State == "halted" || s.State == "disabled":
		h.resume()
		return "was " + s.State
	case s.Replay != nil:
		for _, p := range h.replays {
			if p.id == s.Replay.ID && p.paused {
				_, _ = h.do(http.MethodPost, h.path(fmt.Sprintf("/replays/%d/resume", p.id)), nil, nil)
			}
		}
		return fmt.Sprintf("has replay %+v, is %s: %s", *s.Replay, s.State, s.Reason)
	case s.HeldKeys > 0:
		for _, k := range h.lookHeld() {
			_, _ = h.do(http.MethodPost, h.path("/held-keys/retry"), recordOf(k), nil)
		}
		return fmt.Sprintf("holds %d keys, is %s: %s", s.HeldKeys, s.State, s.Reason)
	case s.State != "idle" || s.LagEvents > 0:
		return fmt.Sprintf("is %s at %d of %d: %s", s.State, s.Cursor, s.Head, s.Reason)
	case s.DeadLetters > 0:
		h.lookDead()
		h.replay(map[string]any{"select": "missed"}, &replayed{missed: true, through: math.MaxInt64})
		return fmt.Sprintf("has %d dead letters", s.DeadLetters)
	}
	return ""
}

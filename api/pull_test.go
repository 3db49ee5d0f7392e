package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postroad/eventlog"
	"postroad/internal/testkit"
)

func TestPull_pages(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.publishLines(lines(1, 250)).want(201, nil)
	var p page
	b.call("GET", "/v1/feeds/default/events", "").want(200, &p)
	if len(p.Events) != 100 || p.Next != 100 || p.Head != 250 || p.FirstSequence != 1 {
		t.Errorf("%d events, next %d, head %d, first %d", len(p.Events), p.Next, p.Head, p.FirstSequence)
	}
	b.call("GET", "/v1/feeds/default/events?after=240&limit=1000", "").want(200, &p)
	if len(p.Events) != 10 || p.Next != 250 {
		t.Errorf("%d events, next %d", len(p.Events), p.Next)
	}
	for _, after := range []int64{250, 1000} {
		b.call("GET", fmt.Sprintf("/v1/feeds/default/events?after=%d", after), "").want(200, &p)
		if len(p.Events) != 0 || p.Next != after || p.Head != 250 {
			t.Errorf("after %d: %d events, next %d, head %d", after, len(p.Events), p.Next, p.Head)
		}
	}
}

func TestPull_badInput(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	for query, parameter := range map[string]string{
		"after=-1": "after", "after=x": "after", "limit=1001": "limit", "wait=61s": "wait", "wait=5": "wait", "since=5": "since", "after=1&after=2": "after",
		"after=9223372036854775808": "after",
	} {
		b.call("GET", "/v1/feeds/default/events?"+query, "").refused(400, "invalid-parameter", "?"+parameter)
	}
	b.call("GET", "/v1/feeds/nowhere/events", "").refused(404, "not-found", "?feed")
	b.call("GET", "/v1/feeds/default/events/1", "").refused(404, "not-found", "?sequence")
	b.call("GET", "/v1/feeds/default/events/x", "").refused(404, "not-found", "?sequence")
	b.call("GET", "/v1/feeds/default/events/0", "").refused(404, "not-found", "?sequence")
}

func TestPull_belowTheFloor(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.publishLines(lines(1, 20)).want(201, nil)
	b.exec(`UPDATE feeds SET floor_sequence = 10 WHERE name = 'default'`)
	if p := b.call("GET", "/v1/feeds/default/events?after=9", "").refused(410, "below-floor", ""); p.FirstSequence != 11 || !strings.Contains(p.Detail, "after=10") {
		t.Errorf("%+v", p)
	}
	b.call("GET", "/v1/feeds/default/events/10", "").refused(410, "below-floor", "")
	var got page
	b.call("GET", "/v1/feeds/default/events?after=10", "").want(200, &got)
	if len(got.Events) != 10 || got.FirstSequence != 11 {
		t.Errorf("%d events, first %d", len(got.Events), got.FirstSequence)
	}
}

// polling starts a long poll and returns what waits for its answer.
func (b *bundle) polling(query string) func() answer {
	answers := make(chan answer, 1)
	go func() { answers <- b.call("GET", "/v1/feeds/default/events?"+query, "") }()
	return func() answer { return <-answers }
}

func TestLongPoll_answersWhenAnEventComes(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	answered := b.polling("wait=60s")
	b.awaitPolls(1)
	started := time.Now()
	b.publish(one("a")).want(201, nil)
	var p page
	answered().want(200, &p)
	if len(p.Events) != 1 || p.Next != 1 || time.Since(started) > soon {
		t.Errorf("%d events, next %d after %s", len(p.Events), p.Next, time.Since(started))
	}
}

func TestLongPoll_endsEmpty(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	var p page
	b.call("GET", "/v1/feeds/default/events?after=0&wait=50ms", "").want(200, &p)
	if diff := cmp.Diff(page{Events: p.Events, FirstSequence: 1}, p); diff != "" || len(p.Events) != 0 {
		t.Errorf("%s", diff)
	}
}

func TestLongPoll_endsAtDrain(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	answered := b.polling("wait=60s")
	b.awaitPolls(1)
	started := time.Now()
	b.server.Drain()
	answered().want(200, nil)
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	b.call("GET", "/v1/feeds/default/events?wait=60s", "").want(200, nil) // one that comes later ends as well
}

func TestLongPoll_endsWhenTheLogCloses(t *testing.T) {
	t.Parallel()
	b := setup(t, options{log: eventlog.Config{PollInterval: time.Hour}})
	answered := b.polling("wait=60s")
	b.awaitPolls(1)
	b.log.Close()
	answered().want(200, nil)
}

func TestLongPoll_clientGoesAway(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/v1/feeds/default/events?wait=60s", nil)
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+token)
	client := &http.Client{Timeout: 50 * time.Millisecond}
	if response, err := client.Do(r); err == nil {
		response.Body.Close()
		t.Fatal("answered")
	}
	testkit.Eventually(t, soon, func() bool { return strings.Contains(b.logs.String(), "client went away") }, "the poll ends")
}

// awaitPolls waits until n long polls have read their first, empty page.
func (b *bundle) awaitPolls(n int64) {
	b.t.Helper()
	testkit.Eventually(b.t, soon, func() bool { return b.server.Polling() >= n }, "long polls wait")
}

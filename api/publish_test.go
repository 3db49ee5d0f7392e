package api_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/testkit"
	"postroad/store"
)

func TestPublish_answers(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	var p published
	b.publish(one("a")).want(201, &p)
	if diff := cmp.Diff(published{FirstSequence: 1, LastSequence: 1, Accepted: 1}, p); diff != "" {
		t.Error(diff)
	}
	p = published{}
	b.publish("["+one("b", `"idempotencyKey":"kb"`)+","+one("c")+"]").want(201, &p)
	if diff := cmp.Diff(published{FirstSequence: 2, LastSequence: 3, Accepted: 2}, p); diff != "" {
		t.Error(diff)
	}
	p = published{}
	b.publish("["+one("d")+","+one("b", `"idempotencyKey":"kb"`)+"]").want(201, &p)
	if diff := cmp.Diff(published{FirstSequence: 2, LastSequence: 4, Accepted: 1, Duplicates: 1, Sequences: []int64{4, 2}}, p); diff != "" {
		t.Error(diff)
	}
	p = published{}
	b.publish(one("b", `"idempotencyKey":"kb"`)).want(200, &p)
	if diff := cmp.Diff(published{FirstSequence: 2, LastSequence: 2, Duplicates: 1, Sequences: []int64{2}}, p); diff != "" {
		t.Error(diff)
	}
	p = published{}
	b.call("POST", "/v1/feeds/default/events?sequences=true", one("e"), "Content-Type", "application/json; charset=UTF-8").want(201, &p)
	if diff := cmp.Diff([]int64{5}, p.Sequences); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"a", "b", "c", "d", "e"}, b.keys("default")); diff != "" {
		t.Error(diff)
	}
}

// TestPublish_keepsBytes: data and occurredAt come back as they were sent.
func TestPublish_keepsBytes(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	data := []string{
		"{ \"b\" : 1.00e+2,\n\t\"a\":[ ], \"b\": 2 }", `"\u00e9\/\ud83d\ude00"`, `"\\u0000"`, `-0.0`, `123456789012345678901234567890.5E-7`, `null`, ` [1 , 2]`,
	}
	var body strings.Builder
	for i, d := range data {
		body.WriteString(one(fmt.Sprint(i), `"data":`+d, `"occurredAt":"2021-08-09T00:44:43.10-07:00"`) + ",")
	}
	b.publish("["+strings.TrimSuffix(body.String(), ",")+"]").want(201, nil)
	for i, d := range data {
		a := b.call("GET", fmt.Sprintf("/v1/feeds/default/events/%d", i+1), "").want(200, nil)
		if !bytes.Contains(a.body, []byte(`"data":`+strings.TrimSpace(d)+`}`)) || !bytes.Contains(a.body, []byte(`"2021-08-09T00:44:43.10-07:00"`)) {
			t.Errorf("sent %s, got %s", d, a.body)
		}
	}
}

// TestPublish_badInput: each is a problem that names the member, and nothing is
// stored.
func TestPublish_badInput(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	long := strings.Repeat("x", 256)
	array := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat(one("k")+",", n), ",") + "]" }
	for name, row := range map[string]struct {
		body, code, places string
		status             int
		headers            []string
	}{
		"unknown member":         {one("1", `"color":"red"`), "invalid", "/color", 422, nil},
		"wrong case":             {one("1", `"EventType":"x"`), "invalid", "/EventType", 422, nil},
		"wrong types":            {"[" + one("1", `"eventType":7`, `"bulk":"no"`) + "]", "invalid", "/0/eventType /0/bulk", 422, nil},
		"too long a name":        {one(long), "invalid", "/resourceRecordKey", 422, nil},
		"a client's sequence":    {"[" + one("1") + "," + one("2", `"sequence":9`) + "]", "invalid", "/1/sequence", 422, nil},
		"10,001 events":          {array(10_001), "too-large", "", 413, nil},
		"a 2 MiB event":          {one("1", `"data":"`+strings.Repeat("x", 2<<20)+`"`), "too-large", "", 413, nil},
		"a 2 MiB event in array": {"[" + one("1") + "," + one("1", `"data":"`+strings.Repeat("x", 2<<20)+`"`) + "]", "too-large", "/1", 413, nil},
		"a 65 MiB array":         {"[" + strings.Repeat(" ", 65<<20) + "]", "too-large", "", 413, nil},
		"NUL in data":            {one("1", `"data":{"a":"\u0000"}`), "invalid", "/data", 422, nil},
		"a lone surrogate":       {one("1", `"data":{"a":["\ud800x"]}`), "invalid", "/data/a/0", 422, nil},
		"invalid UTF-8":          {one("1", "\"data\":\"\xff\""), "invalid", "/data", 422, nil},
		"broken JSON":            {"[" + one("1") + ",{]", "malformed", "/1", 400, nil},
		"nothing":                {"", "malformed", "", 400, nil},
		"no events":              {"[]", "invalid", "", 422, nil},
		"header and member":      {"[" + one("1") + "," + one("2", `"idempotencyKey":"k"`) + "]", "invalid", "/1/idempotencyKey", 422, []string{"Idempotency-Key", "K"}},
		"header too long":        {array(11), "invalid-header", "Idempotency-Key:", 400, []string{"Idempotency-Key", strings.Repeat("k", 253)}},
		"header not a string":    {one("1"), "invalid-header", "Idempotency-Key:", 400, []string{"Idempotency-Key", `"a"b"`}},
		"header empty":           {one("1"), "invalid-header", "Idempotency-Key:", 400, []string{"Idempotency-Key", `""`}},
		"another content type":   {one("1"), "unsupported-media-type", "Content-Type:", 415, []string{"Content-Type", "text/plain"}},
		"no content type":        {one("1"), "unsupported-media-type", "Content-Type:", 415, []string{"Content-Type", ""}},
		"another character set":  {one("1"), "unsupported-media-type", "Content-Type:", 415, []string{"Content-Type", "application/json; charset=latin1"}},
		"another encoding":       {one("1"), "unsupported-media-type", "Content-Encoding:", 415, []string{"Content-Encoding", "br"}},
		"not gzip":               {one("1"), "malformed", "", 400, []string{"Content-Encoding", "gzip"}},
		"gzip cut short":         {string(zip(one("1"))[:20]), "upload-cut", "", 400, []string{"Content-Encoding", "gzip"}},
		"a gzip bomb":            {string(zip("[" + strings.Repeat(" ", 65<<20) + "]")), "too-large", "", 413, []string{"Content-Encoding", "gzip"}},
		"a broken line":          {"{\n", "invalid", "", 422, []string{"Content-Type", "application/x-ndjson"}},
		"no line":                {"\n \n", "invalid", "", 422, []string{"Content-Type", "application/x-ndjson"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := b.publish(row.body, row.headers...)
			a.t = t
			a.refused(row.status, row.code, row.places)
		})
	}
	if keys := b.keys("default"); keys != nil {
		t.Errorf("something was stored: %q", keys)
	}
	b.call("POST", "/v1/feeds/nowhere/events", one("1")).refused(404, "not-found", "?feed")
	if p := b.call("POST", "/v1/feeds/No.Such/events", one("1")).refused(404, "not-found", "?feed"); !strings.Contains(p.Detail, "No.Such") {
		t.Errorf("the name is not told: %s", p.Detail)
	}
	b.call("POST", "/v1/feeds/default/events?sequences=1", one("1")).refused(400, "invalid-parameter", "?sequences")
}

func zip(text string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return b.Bytes()
}

func TestPublish_gzip(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.publish(string(zip("["+one("1")+","+one("2")+"]")), "Content-Encoding", "gzip").want(201, nil)
	b.publishLines(string(zip(lines(3, 2500))), "Content-Encoding", "gzip").want(201, nil)
	if keys := b.keys("default"); len(keys) != 2502 || keys[2501] != "2502" {
		t.Errorf("%d events", len(keys))
	}
}

func TestPublish_idempotencyHeader(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	two := "[" + one("1") + "," + one("2") + "]"
	b.publish(two, "Idempotency-Key", "K").want(201, nil)
	var p published
	b.publish(two, "Idempotency-Key", `"K"`).want(200, &p) // quoted is the same
	if diff := cmp.Diff([]int64{1, 2}, p.Sequences); diff != "" {
		t.Error(diff)
	}
	// The header's key for event 1 is the member's K/1.
	b.publish(one("2", `"idempotencyKey":"K/1"`)).want(200, nil)
	// Lines count like the events of an array, blank ones not.
	b.publishLines(one("1")+"\n\n"+one("2")+"\n", "Idempotency-Key", "K").want(200, nil)
	q := b.publish("["+one("1")+","+one("other")+"]", "Idempotency-Key", "K").refused(422, "idempotency-conflict", "/1/idempotencyKey")
	if !strings.Contains(q.Detail, "/1/idempotencyKey") {
		t.Error(q.Detail)
	}
	b.publish(one("other"), "Idempotency-Key", "K").refused(422, "idempotency-conflict", "/idempotencyKey")
	if keys := b.keys("default"); len(keys) != 2 {
		t.Errorf("%q", keys)
	}
}

func TestPublish_concurrentSameKey(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	var all sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for range 32 {
		all.Go(func() {
			a := b.publish(one("1"), "Idempotency-Key", "K")
			mu.Lock()
			defer mu.Unlock()
			statuses[a.status]++
		})
	}
	all.Wait()
	if diff := cmp.Diff(map[int]int{201: 1, 200: 31}, statuses); diff != "" {
		t.Error(diff)
	}
	if keys := b.keys("default"); len(keys) != 1 {
		t.Errorf("%q", keys)
	}
}

func TestPublish_suppliedSequences(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.call("POST", "/v1/feeds", `{"name":"mls","sequences":"supplied"}`).want(201, nil)
	send := func(body string) answer { b.t.Helper(); return b.call("POST", "/v1/feeds/mls/events", body) }
	send("["+one("a", `"sequence":10`)+","+one("b", `"sequence":20`)+"]").want(201, nil)
	send(one("a", `"sequence":10`)).want(200, nil)
	if p := send("["+one("a", `"sequence":10`)+","+one("x", `"sequence":20`)+"]").refused(409, "sequence-conflict", "/1/sequence"); p.Head == nil || *p.Head != 20 {
		t.Errorf("head %v", p.Head)
	}
	send(one("c", `"sequence":15`)).refused(409, "sequence-conflict", "/sequence")
	send(one("c")).refused(422, "invalid", "/sequence")
	send("["+one("c", `"sequence":30`)+","+one("d", `"sequence":30`)+"]").refused(422, "invalid", "/1/sequence")
	p := b.call("POST", "/v1/feeds/mls/events", one("c", `"sequence":30`)+"\n"+one("d", `"sequence":29`)+"\n", "Content-Type", "application/x-ndjson").
		refused(422, "invalid", "/sequence")
	if p.Line != 2 || *p.Accepted != 1 || *p.LastSequence != 30 {
		t.Errorf("%+v", p)
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, b.keys("mls")); diff != "" {
		t.Error(diff)
	}
}

// TestPublish_feedMadeAgain: what is remembered of a feed must not outlive it, for
// one event as for lines of them.
func TestPublish_feedMadeAgain(t *testing.T) {
	t.Parallel()
	for name, contentType := range map[string]string{"one": "application/json", "lines": "application/x-ndjson"} {
		t.Run(name, func(t *testing.T) {
			b := setup(t, options{})
			other := setup(t, options{dbURL: b.dbURL})
			publish := func(body string) answer {
				return b.call("POST", "/v1/feeds/f/events", body, "Content-Type", contentType)
			}
			b.call("POST", "/v1/feeds", `{"name":"f"}`).want(201, nil)
			publish(one("1")).want(201, nil)
			other.call("DELETE", "/v1/feeds/f", "").want(204, nil)
			publish(one("2")).refused(404, "not-found", "?feed")
			b.call("GET", "/v1/feeds/f/events", "").refused(404, "not-found", "?feed")
			b.call("POST", "/v1/feeds", `{"name":"f"}`).want(201, nil)
			publish(one("3")).want(201, nil)
			other.call("DELETE", "/v1/feeds/f", "").want(204, nil)
			other.call("POST", "/v1/feeds", `{"name":"f","sequences":"supplied"}`).want(201, nil)
			publish(one("4", `"sequence":100`)).want(201, nil)
		})
	}
}

// TestPublish_databaseAway: 503 within 5 s, with Retry-After, and nothing is
// told of hosts.
func TestPublish_databaseAway(t *testing.T) {
	t.Parallel()
	cluster := testkit.Cluster(t)
	url := cluster.URL("postgres")
	must(t, store.Migrate(t.Context(), url))
	b := setup(t, options{dbURL: url, log: eventlog.Config{AppendTimeout: 500 * time.Millisecond}})
	b.publish(one("1")).want(201, nil)
	stop := breakConnections(t, b)
	started := time.Now()
	a := b.publish(one("2"))
	a.refused(503, a.code(), "")
	if a.code() != "unavailable" && a.code() != "outcome-unknown" {
		t.Errorf("code %s", a.code())
	}
	for _, path := range []string{"/v1/feeds", "/v1/subscribers", "/v1/feeds/default/events"} {
		a := b.call("GET", path, "")
		a.refused(503, "unavailable", "")
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", path)
		}
	}
	b.publish(one("3")).refused(503, "unavailable", "")
	b.publishLines(lines(1, 3)).refused(503, "unavailable", "")
	if a.header.Get("Retry-After") == "" || time.Since(started) > 15*time.Second {
		t.Errorf("Retry-After %q after %s", a.header.Get("Retry-After"), time.Since(started))
	}
	stop()
	testkit.Eventually(t, soon, func() bool { return b.publish(one("4")).status == 201 }, "publishing goes on when PostgreSQL is back")
}

// breakConnections makes the server refuse connections until stop.
func breakConnections(t *testing.T, b *bundle) (stop func()) {
	t.Helper()
	b.exec(`CREATE DATABASE elsewhere`)
	admin := strings.Replace(b.dbURL, "/postgres?", "/elsewhere?", 1)
	if admin == b.dbURL {
		t.Fatalf("no database in %s", b.dbURL)
	}
	run := func(sql string) {
		t.Helper()
		must(t, execAt(t, admin, sql))
	}
	run(`ALTER DATABASE postgres ALLOW_CONNECTIONS false`)
	run(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'postgres'`)
	return func() { t.Helper(); run(`ALTER DATABASE postgres ALLOW_CONNECTIONS true`) }
}

// holdFeed keeps every append to the default feed waiting until release.
func (b *bundle) holdFeed() (release func()) {
	b.t.Helper()
	conn, err := pgx.Connect(b.t.Context(), b.dbURL)
	must(b.t, err)
	b.t.Cleanup(func() { conn.Close(context.Background()) })
	_, err = conn.Exec(b.t.Context(), `BEGIN; SELECT lock_feed(id) FROM feeds WHERE name = 'default'`)
	must(b.t, err)
	return func() {
		b.t.Helper()
		_, err := conn.Exec(b.t.Context(), `ROLLBACK`)
		must(b.t, err)
	}
}

// awaitWaiters waits until an append waits for a feed, and makes action of the
// waiting sessions' ids.
func (b *bundle) awaitWaiters(action string) {
	b.t.Helper()
	testkit.Eventually(b.t, soon, func() bool {
		var n int
		must(b.t, b.pool.QueryRow(b.t.Context(), `SELECT count(`+action+`) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n))
		return n > 0
	}, "an append waits for its feed")
}

// TestPublish_outcomeUnknown: the connection is lost with the events on their
// way. The problem says what to do, and doing it stores them once.
func TestPublish_outcomeUnknown(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	release := b.holdFeed()
	answers := make(chan answer, 1)
	go func() { answers <- b.publish(one("1"), "Idempotency-Key", "K") }()
	b.awaitWaiters("pg_terminate_backend(pid)")
	a := <-answers
	p := a.refused(503, "outcome-unknown", "")
	if !strings.Contains(p.Detail, "same idempotency keys") || a.header.Get("Retry-After") == "" {
		t.Errorf("%s", a.body)
	}
	release()
	if a := b.publish(one("1"), "Idempotency-Key", "K"); a.status != 200 && a.status != 201 {
		t.Errorf("again: %d %s", a.status, a.body)
	}
	if keys := b.keys("default"); len(keys) != 1 {
		t.Errorf("%q", keys)
	}
}

// TestPublish_queueFull: with one event in flight and room for one, the next
// is sent away with 503 and Retry-After.
func TestPublish_queueFull(t *testing.T) {
	t.Parallel()
	b := setup(t, options{log: eventlog.Config{QueueEvents: 1}})
	release := b.holdFeed()
	first := make(chan answer, 1)
	go func() { first <- b.publish(one("1")) }()
	b.awaitWaiters("pid")
	a := b.publish(one("2"))
	a.refused(503, "busy", "")
	if a.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	release()
	(<-first).want(201, nil)
}

func TestPublish_everyMemberComesBack(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	body := one("k/1", `"resourceRecordUrl":"https://x.test/1"`, `"eventType":"t.x"`, `"feedTypes":["IDX"]`, `"attributes":{"b":"2","a":"1"}`,
		`"related":["u1"]`, `"bulk":true`, `"occurredAt":"2021-08-09T00:44:43Z"`, `"data":{"x":1}`, `"idempotencyKey":"i"`)
	b.publish(body).want(201, nil)
	var got event.Event
	a := b.call("GET", "/v1/feeds/default/events/1", "").want(200, &got)
	want := event.Event{
		Sequence: 1, ResourceName: "Property", ResourceRecordKey: "k/1", ResourceRecordURL: "https://x.test/1", EventType: "t.x",
		FeedTypes: []string{"IDX"}, Attributes: map[string]string{"a": "1", "b": "2"}, Related: []string{"u1"}, Bulk: true,
		OccurredAt: "2021-08-09T00:44:43Z", RecordedAt: got.RecordedAt, Data: json.RawMessage(`{"x":1}`),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// An event as it was read can be published elsewhere, but for its sequence.
	again := bytes.Replace(a.body, []byte(`"sequence":1,`), nil, 1)
	b.publish(string(again)).want(201, nil)
	b.publish(string(a.body)).refused(422, "invalid", "/sequence")
}

func (a answer) code() string {
	var p problem
	_ = json.Unmarshal(a.body, &p)
	return strings.TrimPrefix(p.Type, "/problems/")
}

package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"postroad/api"
	"postroad/internal/testkit"
	"postroad/store"
)

type status struct {
	State, Reason, WorkflowID, TemporalURL string
	DesiredVersion, AppliedVersion, Cursor int64
	Head, LagEvents                        int64
	PausedUntil                            *time.Time
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.create(sub("acme")).want(201, nil)
	var s status
	b.call("POST", "/v1/subscribers/acme/pause", `{"reason":"maintenance"}`).want(200, &s)
	if s.State != "paused" || !strings.Contains(s.Reason, "maintenance") || s.DesiredVersion != 1 || s.AppliedVersion != 1 {
		t.Errorf("%+v", s)
	}
	if s.WorkflowID != "subscriber:acme" || s.TemporalURL != "http://127.0.0.1:8233/namespaces/postroad/workflows/subscriber:acme" {
		t.Errorf("%+v", s)
	}
	b.call("POST", "/v1/subscribers/acme/resume", `{}`).want(200, &s)
	if s.State != "idle" || s.AppliedVersion != 2 {
		t.Errorf("%+v", s)
	}
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	b.call("POST", "/v1/subscribers/acme/pause", `{"until":"`+until.Format(time.RFC3339)+`"}`).want(200, &s)
	if s.PausedUntil == nil || !s.PausedUntil.Equal(until) {
		t.Errorf("%+v", s)
	}
	b.awaitWakes("acme", 4)
}

func TestPause_badInput(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.create(sub("acme")).want(201, nil)
	before := b.snapshot()
	for body, place := range map[string]string{
		`{"until":"tomorrow"}`: "/until", `{"until":"2001-01-01T00:00:00Z"}`: "/until", `{"for":"1h"}`: "/for", `{"reason":7}`: "/reason",
		`{"reason":"` + strings.Repeat("é", 1001) + `"}`: "/reason", `[]`: "",
	} {
		b.call("POST", "/v1/subscribers/acme/pause", body).refused(422, "invalid", place)
	}
	b.call("POST", "/v1/subscribers/acme/resume", `{"reason":"x"}`).refused(422, "invalid", "/reason")
	b.call("POST", "/v1/subscribers/acme/pause?until=x", "").refused(400, "invalid-parameter", "?until")
	b.call("POST", "/v1/subscribers/acme/pause", "", "Idempotency-Key", "a b").refused(400, "invalid-header", "Idempotency-Key:")
	if after := b.snapshot(); after != before {
		t.Errorf("something changed: %s", cmp.Diff(before, after))
	}
}

func TestControl_idempotencyKey(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.create(sub("acme")).want(201, nil)
	b.create(sub("other")).want(201, nil)
	var s status
	for range 2 {
		b.call("POST", "/v1/subscribers/acme/pause", "", "Idempotency-Key", "K").want(200, &s)
	}
	if s.DesiredVersion != 1 {
		t.Errorf("the repeat became a control of its own: %d", s.DesiredVersion)
	}
	b.call("POST", "/v1/subscribers/acme/resume", "", "Idempotency-Key", "K").want(200, &s)
	if s.State != "idle" || s.DesiredVersion != 2 {
		t.Errorf("%+v", s)
	}
	b.call("POST", "/v1/subscribers/other/pause", "", "Idempotency-Key", "K").want(200, &s)
	if s.State != "paused" {
		t.Errorf("another subscriber's key counted: %+v", s)
	}
}

// hold makes a subscriber's row look as if a worker held its lease.
func (b *bundle) hold(id string) {
	b.t.Helper()
	b.exec(`UPDATE runs SET lease = $2, parked = false WHERE id = $1`, id, uuid.New())
}

// TestControl_notYetInForce: while a worker holds the lease, the answer waits
// for it within bounds, and then is 202.
func TestControl_notYetInForce(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.create(sub("acme")).want(201, nil)
	b.hold("acme")
	var accepted struct{ Version int64 }
	a := b.call("POST", "/v1/subscribers/acme/pause", "").want(202, &accepted)
	if accepted.Version != 1 || a.header.Get("Location") != "/v1/subscribers/acme/status" {
		t.Errorf("%s, Location %q", a.body, a.header.Get("Location"))
	}
	var s status
	b.call("GET", "/v1/subscribers/acme/status", "").want(200, &s)
	if s.DesiredVersion != 1 || s.AppliedVersion != 0 {
		t.Errorf("%+v", s)
	}
	b.call("PATCH", "/v1/subscribers/acme", `{"label":"x"}`).want(202, nil)
	b.call("DELETE", "/v1/subscribers/acme", "").want(202, &accepted)
	if accepted.Version != 3 {
		t.Errorf("version %d", accepted.Version)
	}
}

func TestControl_waitsForForce(t *testing.T) {
	t.Parallel()
	b := setup(t, options{api: func(c *api.Config) { c.ForceWait = soon }})
	b.create(sub("acme")).want(201, nil)
	b.hold("acme")
	answers := make(chan answer, 1)
	go func() { answers <- b.call("POST", "/v1/subscribers/acme/pause", "") }()
	testkit.Eventually(t, soon, func() bool {
		pending, err := b.store.PendingControls(t.Context())
		must(t, err)
		return pending["acme"] == 1
	}, "the control is accepted")
	select {
	case a := <-answers:
		t.Fatalf("answered before it was in force: %d", a.status)
	default:
	}
	b.exec(`UPDATE runs SET applied_version = desired_version WHERE id = 'acme'`) // as the holder's checkpoint does
	var s status
	(<-answers).want(200, &s)
	if s.State != "paused" {
		t.Errorf("%+v", s)
	}
}

func TestAttempts(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.create(sub("acme")).want(201, nil)
	ok, bad := 200, 503
	var attempts []store.Attempt
	for i := range 5 {
		a := store.Attempt{
			Subscriber: "acme", StartedAt: time.Now(), FirstSequence: int64(i + 1), LastSequence: int64(i + 1), EventCount: 1, Attempt: 1, Class: "success",
			Status: &ok, Duration: 1500 * time.Microsecond, RequestBytes: 10,
		}
		if i == 2 {
			a.Class, a.Status, a.Error, a.Response, a.RetryAfter = "asked", &bad, "HTTP 503", "busy", "5"
		}
		if i == 3 {
			a.Class, a.Status, a.Error = "endpoint", nil, "no connection"
		}
		if i == 4 {
			a.Sequences, a.Replay, a.Compacted = []int64{5}, 3, 7
		}
		attempts = append(attempts, a)
	}
	must(t, b.store.InsertAttempts(t.Context(), attempts))
	type part struct {
		Attempts []struct {
			FirstSequence int64
			Class         string
			Status        *int
			DurationMS    float64
			Error         string
		}
		NextPageToken string
	}
	list := func(query string) (sequences []int64) {
		for token := ""; ; {
			var p part
			b.call("GET", "/v1/subscribers/acme/attempts?limit=2"+query+token, "").want(200, &p)
			for _, a := range p.Attempts {
				sequences = append(sequences, a.FirstSequence)
				if a.DurationMS != 1.5 {
					t.Errorf("durationMs %v", a.DurationMS)
				}
			}
			if p.NextPageToken == "" {
				return sequences
			}
			token = "&pageToken=" + p.NextPageToken
		}
	}
	if diff := cmp.Diff([]int64{5, 4, 3, 2, 1}, list("")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int64{4, 3}, list("&failures=true")); diff != "" {
		t.Error(diff)
	}
	newest := b.call("GET", "/v1/subscribers/acme/attempts?limit=1", "").want(200, nil)
	if text := string(newest.body); !strings.Contains(text, `"sequences":[5],"replay":3,"compacted":7`) {
		t.Errorf("%s", text)
	}
	b.call("GET", "/v1/subscribers/acme/attempts?failures=yes", "").refused(400, "invalid-parameter", "?failures")
	b.call("GET", "/v1/subscribers/acme/attempts?pageToken=MTp4", "").refused(400, "invalid-parameter", "?pageToken")
}

func TestTest_reportsStages(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, _ *testkit.Request) testkit.Answer {
		if n == 2 {
			return testkit.Answer{Status: 500, Body: "broken"}
		}
		return testkit.Answer{}
	}})
	b.create(`{"id":"acme","endpoint":{"url":"`+receiver.URL()+`/hook"},"auth":{"type":"bearer","token":"secret"},"start":"beginning"}`).want(201, nil)
	b.publish(one("1")).want(201, nil)
	before := b.snapshot()
	type result struct {
		Success            bool
		Class, Error       string
		Status             int
		ConnectMS, TotalMS float64
		Response           string
	}
	got := decode[result](t, b.call("POST", "/v1/subscribers/acme/test", "").want(200, nil))
	if !got.Success || got.Status != 200 || got.Class != "success" || got.TotalMS <= 0 || got.ConnectMS <= 0 {
		t.Errorf("%+v", got)
	}
	request := receiver.Requests()[0]
	if request.Header.Get("Postroad-Test") != "true" || request.Header.Get("Authorization") != "Bearer secret" || request.Header.Get("Webhook-Signature") == "" {
		t.Errorf("%v", request.Header)
	}
	var body struct{ Value []json.RawMessage }
	must(t, json.Unmarshal(request.Body, &body))
	if body.Value == nil || len(body.Value) != 0 {
		t.Errorf("%s", request.Body)
	}
	got = decode[result](t, b.call("POST", "/v1/subscribers/acme/test", "{}").want(200, nil))
	if got.Success || got.Status != 500 || got.Response != "broken" || got.Error == "" {
		t.Errorf("%+v", got)
	}
	receiver.Close()
	got = decode[result](t, b.call("POST", "/v1/subscribers/acme/test", "").want(200, nil))
	if got.Success || got.Status != 0 || got.Class != "endpoint" || strings.Contains(fmt.Sprint(got), "/hook") {
		t.Errorf("%+v", got)
	}
	if after := b.snapshot(); after != before {
		t.Errorf("something changed: %s", cmp.Diff(before, after))
	}
}

package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type replay struct {
	ID                                              int64
	State, Source                                   string
	FromSequence, ToSequence, Total, Done, Position int64
	Rate                                            float64
	ETASeconds                                      *float64
	Selection                                       struct {
		Select        string
		ResourceNames []string
		Keys          []struct{ ResourceName, ResourceRecordKey string }
	}
	CreatedAt             time.Time
	StartedAt, FinishedAt *time.Time
}

const replays = "/v1/subscribers/acme/replays"

func TestReplays(t *testing.T) {
	t.Parallel()
	b := tenEvents(t, `"filter":{"resourceNames":["Property"]}`)
	b.publish(`[{"resourceName":"Media","resourceRecordKey":"1"},{"resourceName":"Media","resourceRecordKey":"2"}]`).want(201, nil)
	b.exec(`UPDATE events SET recorded_at = recorded_at - interval '1 hour' WHERE sequence <= 3`)
	ago := time.Now().Add(-30 * time.Minute).UTC().Format(time.RFC3339Nano)
	for i, row := range []struct {
		body            string
		from, to, total int64
	}{
		{`{"fromSequence":3,"toSequence":7}`, 3, 7, 5},
		{`{"fromSequence":4}`, 4, 12, 7},
		{`{"toSequence":4}`, 1, 4, 4},
		{`{"fromTime":"` + ago + `"}`, 4, 12, 7},
		{`{"toTime":"` + ago + `"}`, 1, 3, 3},
		{`{"resourceNames":["Prop*"]}`, 1, 12, 10},
		{`{"select":"events","keys":[{"resourceName":"Property","resourceRecordKey":"2"},{"resourceName":"Property","resourceRecordKey":"9"}]}`, 1, 12, 2},
	} {
		var count struct{ Total, FirstSequence, LastSequence int64 }
		b.call("POST", replays, strings.Replace(row.body, "{", `{"dryRun":true,`, 1)).want(200, &count)
		var r replay
		a := b.call("POST", replays, row.body).want(201, &r)
		if a.header.Get("Location") != fmt.Sprintf("%s/%d", replays, i+1) {
			t.Errorf("Location %q", a.header.Get("Location"))
		}
		if r.ID != int64(i+1) || r.State != "queued" || r.FromSequence != row.from || r.ToSequence != row.to || r.Total != row.total || r.Done != 0 || r.Source != "api" {
			t.Errorf("%s: %+v", row.body, r)
		}
		if count.Total != r.Total || count.FirstSequence < r.FromSequence || count.LastSequence > r.ToSequence || count.FirstSequence > count.LastSequence {
			t.Errorf("%s: dry run %+v", row.body, count)
		}
		var again replay
		b.call("GET", a.header.Get("Location"), "").want(200, &again)
		if diff := cmp.Diff(r, again); diff != "" {
			t.Error(diff)
		}
	}
	var list []int64
	for query := ""; ; {
		var part struct {
			Replays       []replay
			NextPageToken string
		}
		b.call("GET", replays+"?limit=3"+query, "").want(200, &part)
		for _, r := range part.Replays {
			list = append(list, r.ID)
		}
		if part.NextPageToken == "" {
			break
		}
		query = "&pageToken=" + part.NextPageToken
	}
	if diff := cmp.Diff([]int64{7, 6, 5, 4, 3, 2, 1}, list); diff != "" {
		t.Error(diff)
	}
	var keyed replay
	b.call("GET", replays+"/7", "").want(200, &keyed)
	if keyed.Selection.Select != "events" || len(keyed.Selection.Keys) != 2 || keyed.Selection.Keys[1].ResourceRecordKey != "9" {
		t.Errorf("%+v", keyed.Selection)
	}
	b.awaitWakes("acme", 7)
}

func TestReplays_missed(t *testing.T) {
	t.Parallel()
	b := tenEvents(t)
	b.call("POST", replays, `{"select":"missed"}`).refused(422, "replay-empty", "")
	b.giveUp("acme", 2, 5)
	var r replay
	b.call("POST", replays, `{"select":"missed"}`).want(201, &r)
	if r.Selection.Select != "missed" || r.Total != 2 || r.FromSequence > 2 || r.ToSequence < 5 {
		t.Errorf("%+v", r)
	}
	if letters := b.deadLetters("acme"); letters[0].Replay != r.ID || letters[1].Replay != r.ID {
		t.Errorf("%+v", letters)
	}
}

func TestReplays_controls(t *testing.T) {
	t.Parallel()
	b := tenEvents(t)
	for range 2 {
		var r replay
		b.call("POST", replays, `{"fromSequence":1}`, "Idempotency-Key", "K").want(201, &r)
		if r.ID != 1 {
			t.Errorf("the repeat became a replay of its own: %d", r.ID)
		}
	}
	var s struct {
		Replay *struct{ ID, Total, Done int64 }
	}
	b.call("GET", "/v1/subscribers/acme/status", "").want(200, &s)
	if s.Replay == nil || s.Replay.ID != 1 || s.Replay.Total != 10 {
		t.Errorf("status: %+v", s.Replay)
	}
	// Two at once: the second waits its turn, and that is to be seen.
	var r replay
	b.call("POST", replays, `{"fromSequence":5}`).want(201, &r)
	if r.ID != 2 || r.State != "queued" {
		t.Errorf("%+v", r)
	}
	for _, row := range []struct{ method, path, body, state string }{
		{"POST", "/1/pause", "", "paused"},
		{"POST", "/1/pause", "{}", "paused"},
		{"POST", "/1/resume", "", "queued"},
		{"DELETE", "/1", "", "cancelled"},
		{"DELETE", "/1", "", "cancelled"},
		{"POST", "/2/pause", "", "paused"},
		{"DELETE", "/2", "", "cancelled"},
	} {
		b.call(row.method, replays+row.path, row.body).want(200, &r)
		if r.State != row.state {
			t.Errorf("%s %s: %s, want %s", row.method, row.path, r.State, row.state)
		}
	}
	if r.FinishedAt == nil {
		t.Errorf("%+v", r)
	}
	// A key is one request's: of one kind, about one replay.
	b.call("POST", replays, `{"fromSequence":5}`).want(201, nil)
	for _, row := range [][2]string{{"/3/pause", "paused"}, {"/3/resume", "queued"}, {"/3/pause", "queued"}} {
		if b.call("POST", replays+row[0], "", "Idempotency-Key", "K").want(200, &r); r.State != row[1] {
			t.Errorf("%s: %s, want %s", row[0], r.State, row[1])
		}
	}
	b.exec(`UPDATE replays SET state = 'done' WHERE id = 1`)
	for path, state := range map[string]string{"/1": "done", "/2": "cancelled"} {
		for _, row := range [][2]string{{"DELETE", ""}, {"POST", "/pause"}, {"POST", "/resume"}} {
			if path == "/2" && row[0] == "DELETE" {
				continue // what is so already is no error
			}
			if p := b.call(row[0], replays+path+row[1], "").refused(409, "replay-finished", ""); !strings.Contains(p.Detail, state) {
				t.Errorf("%s", p.Detail)
			}
		}
	}
}

func TestReplays_notYetInForce(t *testing.T) {
	t.Parallel()
	b := tenEvents(t)
	b.call("POST", replays, `{"fromSequence":1}`).want(201, nil)
	b.hold("acme")
	var accepted struct{ Version int64 }
	a := b.call("POST", replays+"/1/pause", "").want(202, &accepted)
	if accepted.Version != 2 || a.header.Get("Location") != replays+"/1" {
		t.Errorf("%s, Location %q", a.body, a.header.Get("Location"))
	}
}

func TestReplays_badInput(t *testing.T) {
	t.Parallel()
	b := tenEvents(t)
	b.removeThrough(3)
	before := b.snapshot()
	many := strings.TrimSuffix(strings.Repeat(record("1")+",", 1001), ",")
	for body, places := range map[string]string{
		`{}`: "", `{"dryRun":true}`: "", `{"select":"events"}`: "", `[]`: "",
		`{"select":"all"}`: "/select", `{"fromSequence":0}`: "/fromSequence", `{"toSequence":-1,"fromSequence":"1"}`: "/fromSequence",
		`{"fromTime":"yesterday"}`: "/fromTime", `{"toTime":"2026-13-01T00:00:00Z","fromSequence":5}`: "/toTime",
		`{"resourceNames":[]}`: "/resourceNames", `{"resourceNames":["*a"]}`: "/resourceNames/0", `{"keys":[]}`: "/keys", `{"keys":[` + many + `]}`: "/keys",
		`{"keys":[{"resourceName":"Property"}]}`: "/keys/0/resourceRecordKey", `{"keys":["1"]}`: "/keys/0",
		`{"select":"missed","fromSequence":5,"keys":[` + record("5") + `]}`: "/fromSequence /keys", `{"fromSequence":5,"from":7}`: "/from",
		// Reversed.
		`{"fromSequence":8,"toSequence":7}`: "/toSequence", `{"fromTime":"2026-02-02T00:00:00Z","toTime":"2026-02-01T00:00:00Z"}`: "/toTime",
	} {
		b.call("POST", replays, body).refused(422, "invalid", places)
	}
	b.call("POST", replays, "").refused(400, "malformed", "")
	p := b.call("POST", replays, `{"fromSequence":11}`).refused(422, "invalid", "/fromSequence")
	if p.Head == nil || *p.Head != 10 {
		t.Errorf("the head is not named: %+v", p)
	}
	for body, place := range map[string]string{
		`{"fromSequence":3}`: "/fromSequence", `{"toSequence":3}`: "/toSequence", `{"fromTime":"2001-01-01T00:00:00Z"}`: "/fromTime",
		`{"toTime":"2001-01-01T00:00:00Z"}`: "/toTime", `{"fromSequence":5,"toTime":"2001-01-01T00:00:00Z"}`: "/toTime",
	} {
		if p := b.call("POST", replays, body).refused(410, "below-floor", place); p.FirstSequence != 4 {
			t.Errorf("the first sequence is not named: %+v", p)
		}
	}
	for _, body := range []string{`{"resourceNames":["Media"]}`, `{"keys":[` + record("77") + `]}`} {
		b.call("POST", replays, body).refused(422, "replay-empty", "")
	}
	for _, path := range []string{"/1", "/0", "/x", "/-1"} {
		b.call("GET", replays+path, "").refused(404, "not-found", "?replay")
		b.call("DELETE", replays+path, "").refused(404, "not-found", "?replay")
		b.call("POST", replays+path+"/pause", "").refused(404, "not-found", "?replay")
	}
	b.call("POST", replays+"/1/pause", `{"until":"x"}`).refused(422, "invalid", "/until")
	b.call("POST", "/v1/subscribers/nobody/replays", `{"fromSequence":5}`).refused(404, "not-found", "?id")
	b.call("GET", "/v1/subscribers/nobody/replays", "").refused(404, "not-found", "?id")
	b.call("GET", replays+"?state=queued", "").refused(400, "invalid-parameter", "?state")
	if after := b.snapshot(); after != before {
		t.Errorf("something changed: %s", cmp.Diff(before, after))
	}
}

func TestReplays_tooMany(t *testing.T) {
	t.Parallel()
	b := tenEvents(t)
	for range 100 {
		b.call("POST", replays, `{"fromSequence":1}`).want(201, nil)
	}
	b.call("POST", replays, `{"fromSequence":1}`).refused(409, "too-many-replays", "")
	b.call("DELETE", replays+"/50", "").want(200, nil)
	b.call("POST", replays, `{"fromSequence":1}`).want(201, nil)
}

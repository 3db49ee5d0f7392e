package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tenEvents is an API with ten events and a subscriber that is at the first.
func tenEvents(t *testing.T, more ...string) *bundle {
	b := setup(t, options{})
	b.create(sub("acme", append([]string{`"start":"beginning"`}, more...)...)).want(201, nil)
	b.publishLines(lines(1, 10)).want(201, nil)
	return b
}

// removeThrough makes the log begin above a sequence.
func (b *bundle) removeThrough(sequence int64) {
	b.t.Helper()
	b.exec(`DELETE FROM events WHERE sequence <= $1`, sequence)
	b.exec(`UPDATE feeds SET floor_sequence = $1 WHERE name = 'default'`, sequence)
}

func TestSeek(t *testing.T) {
	t.Parallel()
	b := tenEvents(t)
	b.exec(`UPDATE events SET recorded_at = recorded_at - interval '1 hour' WHERE sequence <= 3`)
	ago := time.Now().Add(-30 * time.Minute)
	for i, row := range []struct {
		to     string
		cursor int64
	}{
		{`{"sequence":4}`, 4},
		{`"now"`, 10},
		{`"beginning"`, 0},
		{`{"sequence":10}`, 10},
		{`{"sequence":0}`, 0},
		{`{"time":"` + ago.Format(time.RFC3339Nano) + `"}`, 3},
	} {
		var s status
		b.call("POST", "/v1/subscribers/acme/seek", `{"to":`+row.to+`}`).want(200, &s)
		if s.Cursor != row.cursor || s.DesiredVersion != int64(i+1) || s.AppliedVersion != s.DesiredVersion {
			t.Errorf("%s: %+v", row.to, s)
		}
	}
	b.awaitWakes("acme", 6)
	var s status
	for range 2 {
		b.call("POST", "/v1/subscribers/acme/seek", `{"to":"now"}`, "Idempotency-Key", "K").want(200, &s)
	}
	if s.DesiredVersion != 7 {
		t.Errorf("the repeat became a control of its own: %+v", s)
	}
}

func TestSeek_badInput(t *testing.T) {
	t.Parallel()
	b := tenEvents(t)
	b.removeThrough(5)
	before := b.snapshot()
	for body, place := range map[string]string{
		`{}`: "/to", `{"to":null}`: "/to", `{"to":"end"}`: "/to", `{"to":7}`: "/to", `{"to":{}}`: "/to", `{"to":["now"]}`: "/to",
		`{"to":{"sequence":7,"time":"2026-01-01T00:00:00Z"}}`: "/to", `{"to":{"sequence":null}}`: "/to", `{"to":{"sequence":-1}}`: "/to/sequence",
		`{"to":{"sequence":"7"}}`: "/to/sequence", `{"to":{"time":"yesterday"}}`: "/to/time", `{"to":{"time":"2999-01-01T00:00:00Z"}}`: "/to/time", `{"to":{"Sequence":7}}`: "/to/Sequence",
		`{"to":"now","wait":true}`: "/wait", `[]`: "",
	} {
		b.call("POST", "/v1/subscribers/acme/seek", body).refused(422, "invalid", place)
	}
	b.call("POST", "/v1/subscribers/acme/seek", "").refused(400, "malformed", "")
	b.call("POST", "/v1/subscribers/acme/seek?to=now", "").refused(400, "invalid-parameter", "?to")
	p := b.call("POST", "/v1/subscribers/acme/seek", `{"to":{"sequence":11}}`).refused(422, "invalid", "/to/sequence")
	if p.Head == nil || *p.Head != 10 || !strings.Contains(p.Detail, "10") {
		t.Errorf("the head is not named: %+v", p)
	}
	p = b.call("POST", "/v1/subscribers/acme/seek", `{"to":{"sequence":4}}`).refused(410, "below-floor", "/to")
	if p.FirstSequence != 6 {
		t.Errorf("the first sequence is not named: %+v", p)
	}
	b.call("POST", "/v1/subscribers/nobody/seek", `{"to":"now"}`).refused(404, "not-found", "?id")
	if after := b.snapshot(); after != before {
		t.Errorf("something changed: %s", cmp.Diff(before, after))
	}
	b.call("POST", "/v1/subscribers/acme/seek", `{"to":{"sequence":5}}`).want(200, nil)
}

func TestSeek_notYetInForce(t *testing.T) {
	t.Parallel()
	b := tenEvents(t)
	b.hold("acme")
	var accepted struct{ Version int64 }
	b.call("POST", "/v1/subscribers/acme/seek", `{"to":"now"}`).want(202, &accepted)
	if accepted.Version != 1 {
		t.Errorf("version %d", accepted.Version)
	}
	// Only what moved the position puts it in force, not a checkpoint of the old one.
	b.exec(`UPDATE runs SET applied_version = desired_version WHERE id = 'acme'`)
	b.call("POST", "/v1/subscribers/acme/seek", `{"to":"now"}`, "Idempotency-Key", "K").want(202, &accepted)
	b.exec(`UPDATE runs SET applied_version = desired_version WHERE id = 'acme'`)
	b.exec(`UPDATE controls SET result = 'applied' WHERE subscriber = 'acme'`)
	b.call("POST", "/v1/subscribers/acme/seek", `{"to":"now"}`, "Idempotency-Key", "K").want(200, nil)
}

// halt makes a subscriber's row look as it does at an event that was refused for
// good.
func (b *bundle) halt(id string, sequence int64) {
	b.t.Helper()
	b.exec(`UPDATE runs SET halted_reason = 'event refused', halted_event = $2::bigint, cursor = $2::bigint - 1 WHERE id = $1`, id, sequence)
}

func TestSkip(t *testing.T) {
	t.Parallel()
	b := tenEvents(t)
	b.halt("acme", 3)
	var s status
	b.call("POST", "/v1/subscribers/acme/skip", `{"sequence":3}`).want(200, &s)
	if s.State == "halted" {
		t.Errorf("%+v", s)
	}
	letters := b.deadLetters("acme")
	if len(letters) != 1 || letters[0].Sequence != 3 || letters[0].Reason != "skipped" || letters[0].Source != "api" || letters[0].ResourceRecordKey != "3" {
		t.Errorf("dead letters %+v", letters)
	}
}

func TestSkip_badInput(t *testing.T) {
	t.Parallel()
	b := tenEvents(t)
	for body, place := range map[string]string{
		`{}`: "/sequence", `{"sequence":0}`: "/sequence", `{"sequence":"3"}`: "/sequence", `{"sequence":3,"key":"x"}`: "/key", `[]`: "",
	} {
		b.call("POST", "/v1/subscribers/acme/skip", body).refused(422, "invalid", place)
	}
	b.call("POST", "/v1/subscribers/acme/skip", `{"sequence":3}`).refused(409, "not-halted", "/sequence")
	b.halt("acme", 3)
	before := b.snapshot()
	a := b.call("POST", "/v1/subscribers/acme/skip", `{"sequence":4}`)
	p := a.refused(409, "not-halted", "/sequence")
	if !strings.Contains(p.Detail, "event 3") || !strings.Contains(string(a.body), `"sequence":3`) {
		t.Errorf("the event is not named: %s", a.body)
	}
	b.exec(`UPDATE runs SET halted_event = NULL`)
	if p = b.call("POST", "/v1/subscribers/acme/skip", `{"sequence":3}`).refused(409, "not-halted", "/sequence"); !strings.Contains(p.Detail, "not at an event") {
		t.Errorf("%s", p.Detail)
	}
	b.exec(`UPDATE runs SET halted_event = 3`)
	if after := b.snapshot(); after != before {
		t.Errorf("something changed: %s", cmp.Diff(before, after))
	}
}

// TestSteering: a subscriber's token does all of this for its own subscriber, and
// nothing for another.
func TestSteering(t *testing.T) {
	t.Parallel()
	b := tenEvents(t)
	b.create(sub("other", `"start":"beginning"`)).want(201, nil)
	var made struct{ Token string }
	b.call("POST", "/v1/tokens", `{"role":"subscriber","subscriber":"acme"}`).want(201, &made)
	own := []string{"Authorization", "Bearer " + made.Token}
	for _, id := range []string{"acme", "other"} {
		b.setAside(id, "4", 4, 6, 8)
		b.setAside(id, "5", 5)
		b.setAside(id, "6", 7)
		b.halt(id, 3)
	}
	before := b.rowsOf("other")
	for _, row := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/skip", `{"sequence":3}`, 200},
		{"GET", "/held-keys", "", 200},
		{"GET", "/held-keys/events?resourceName=Property&resourceRecordKey=4", "", 200},
		{"POST", "/held-keys/retry", record("4"), 200},
		{"POST", "/held-keys/skip", record("4"), 200},
		{"POST", "/held-keys/release", record("5"), 200},
		{"GET", "/dead-letters", "", 200},
		{"POST", "/replays", `{"select":"missed"}`, 201},
		{"GET", "/replays", "", 200},
		{"GET", "/replays/1", "", 200},
		{"POST", "/replays/1/pause", "", 200},
		{"POST", "/replays/1/resume", "", 200},
		{"DELETE", "/replays/1", "", 200},
		{"POST", "/dead-letters/dismiss", `{"sequences":[3]}`, 200},
		{"POST", "/seek", `{"to":"now"}`, 200},
	} {
		b.call(row.method, "/v1/subscribers/other"+row.path, row.body, own...).refused(403, "forbidden", "")
		b.call(row.method, "/v1/subscribers/acme"+row.path, row.body, own...).want(row.status, nil)
	}
	if after := b.rowsOf("other"); after != before {
		t.Errorf("another's rows changed: %s", cmp.Diff(before, after))
	}
	var source string
	must(t, b.pool.QueryRow(t.Context(), `SELECT source FROM controls WHERE subscriber = 'acme' AND kind = 'seek'`).Scan(&source))
	if !strings.HasPrefix(source, "token:") {
		t.Errorf("the control is by %q", source)
	}
}

// rowsOf are all rows of one subscriber.
func (b *bundle) rowsOf(id string) string {
	b.t.Helper()
	var text string
	must(b.t, b.pool.QueryRow(b.t.Context(), `SELECT concat(
		(SELECT to_jsonb(s) FROM subscribers s WHERE s.id = $1), (SELECT to_jsonb(r) FROM runs r WHERE r.id = $1),
		(SELECT jsonb_agg(to_jsonb(c) ORDER BY c.version) FROM controls c WHERE c.subscriber = $1),
		(SELECT jsonb_agg(to_jsonb(k) ORDER BY k.resource_key) FROM held_keys k WHERE k.subscriber = $1),
		(SELECT jsonb_agg(to_jsonb(e) ORDER BY e.sequence) FROM held_events e WHERE e.subscriber = $1),
		(SELECT jsonb_agg(to_jsonb(d) ORDER BY d.sequence) FROM dead_letters d WHERE d.subscriber = $1),
		(SELECT jsonb_agg(to_jsonb(p) ORDER BY p.id) FROM replays p WHERE p.subscriber = $1))`, id).Scan(&text))
	return text
}

func record(key string) string {
	return fmt.Sprintf(`{"resourceName":"Property","resourceRecordKey":%q}`, key)
}

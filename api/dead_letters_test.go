package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type deadLetter struct {
	Sequence, Attempts, LastStatus, Replay                     int64
	ResourceName, ResourceRecordKey, Reason, Source, LastError string
	At                                                         time.Time
}

func (b *bundle) deadLetters(id string) (list []deadLetter) {
	b.t.Helper()
	for query := ""; ; {
		var part struct {
			DeadLetters   []deadLetter
			NextPageToken string
		}
		b.call("GET", "/v1/subscribers/"+id+"/dead-letters?limit=2"+query, "").want(200, &part)
		list = append(list, part.DeadLetters...)
		if part.NextPageToken == "" {
			return list
		}
		query = "&pageToken=" + part.NextPageToken
	}
}

// giveUp makes dead letters of events of Property.
func (b *bundle) giveUp(id string, sequences ...int64) {
	b.t.Helper()
	for _, sequence := range sequences {
		b.exec(`INSERT INTO dead_letters (subscriber, sequence, resource_name, resource_key, reason, attempts, last_status, last_error)
			VALUES ($1, $2, 'Property', $3, 'exhausted', 5, 422, 'HTTP 422 from the consumer')`, id, sequence, fmt.Sprint(sequence))
	}
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	b := tenEvents(t)
	b.create(sub("other")).want(201, nil)
	b.giveUp("other", 1)
	b.giveUp("acme", 2, 5, 7)
	letters := b.deadLetters("acme")
	if len(letters) != 3 {
		t.Fatalf("%+v", letters)
	}
	if d := letters[1]; d.Sequence != 5 || d.ResourceName != "Property" || d.ResourceRecordKey != "5" || d.Reason != "exhausted" ||
		d.Attempts != 5 || d.LastStatus != 422 || d.LastError == "" || time.Since(d.At) > time.Minute {
		t.Errorf("%+v", d)
	}
	var answer struct{ Dismissed int }
	b.call("POST", "/v1/subscribers/acme/dead-letters/dismiss", `{"sequences":[1,5,5,7,9]}`).want(200, &answer)
	if answer.Dismissed != 2 {
		t.Errorf("dismissed %d", answer.Dismissed)
	}
	if left := b.deadLetters("acme"); len(left) != 1 || left[0].Sequence != 2 || len(b.deadLetters("other")) != 1 {
		t.Errorf("left: %+v", left)
	}
}

func TestDeadLetters_badInput(t *testing.T) {
	t.Parallel()
	b := tenEvents(t)
	b.giveUp("acme", 2)
	before := b.snapshot()
	for body, places := range map[string]string{
		`{}`: "/sequences", `{"sequences":[]}`: "/sequences", `{"sequences":[2,0]}`: "/sequences/1", `{"sequences":["2"]}`: "/sequences/0",
		`{"sequences":2}`: "/sequences", `{"all":true}`: "/all", `{"sequences":[2` + strings.Repeat(",2", 1000) + `]}`: "/sequences",
	} {
		b.call("POST", "/v1/subscribers/acme/dead-letters/dismiss", body).refused(422, "invalid", places)
	}
	b.call("POST", "/v1/subscribers/acme/dead-letters/dismiss", "").refused(400, "malformed", "")
	b.call("POST", "/v1/subscribers/nobody/dead-letters/dismiss", `{"sequences":[2]}`).refused(404, "not-found", "?id")
	b.call("GET", "/v1/subscribers/nobody/dead-letters", "").refused(404, "not-found", "?id")
	b.call("GET", "/v1/subscribers/acme/dead-letters?pageToken=MTp4", "").refused(400, "invalid-parameter", "?pageToken")
	b.call("GET", "/v1/subscribers/acme/dead-letters?reason=skipped", "").refused(400, "invalid-parameter", "?reason")
	if after := b.snapshot(); after != before {
		t.Errorf("something changed: %s", cmp.Diff(before, after))
	}
	many := slices.Repeat([]string{"2"}, 1000)
	b.call("POST", "/v1/subscribers/acme/dead-letters/dismiss", `{"sequences":[`+strings.Join(many, ",")+`]}`).want(200, nil)
}

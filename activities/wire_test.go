package activities_test

import (
	"fmt"
	"strconv"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
	"postroad/store"
)

// TestSignatures verifies what arrives with the standard's own library.
func TestSignatures(t *testing.T) {
	t.Parallel()
	for _, batch := range []int{1, 100} {
		for _, format := range []string{event.FormatRESO, event.FormatRaw} {
			t.Run(fmt.Sprintf("%d/%s", batch, format), func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
				b.publishStream("reso-transport", 250)
				b.create(r.URL(), func(s *event.Subscriber) { s.BatchSize, s.Format = event.Count(batch), format })
				b.drive(contract.OutcomeParked)
				secrets, err := b.store.Secrets(t.Context(), "acme")
				check(t, err)
				webhook, err := standardwebhooks.NewWebhook(secrets.Signing[0].Secret)
				check(t, err)
				requests := r.Requests()
				if len(requests) < 250/batch {
					t.Fatalf("%d requests", len(requests))
				}
				for _, q := range requests {
					if err := webhook.Verify(q.Body, q.Header); err != nil {
						t.Fatalf("request %d: %v", q.N, err)
					}
				}
				if err := webhook.Verify(append(requests[0].Body, ' '), requests[0].Header); err == nil {
					t.Error("a changed body verifies")
				}
			})
		}
	}
}

// TestPreviousSequence shows that a consumer behind a filter can prove that it
// missed nothing, although numbers are missing.
func TestPreviousSequence(t *testing.T) {
	t.Parallel()
	for _, batch := range []int{1, 7} {
		t.Run(strconv.Itoa(batch), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			events := properties(300)
			var matching []int64
			for i := range events {
				if i%3 == 1 || i%50 < 4 {
					matching = append(matching, int64(i+1))
				} else {
					events[i].ResourceName = "Media"
				}
			}
			b.publish(events...)
			var script answers
			r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, _ *testkit.Request) testkit.Answer {
				switch n % 10 {
				case 3:
					return script.note(n, testkit.Answer{Status: 502})
				case 6:
					return script.note(n, testkit.Answer{Status: 500})
				}
				return script.note(n, testkit.Answer{})
			}})
			b.create(r.URL(), func(s *event.Subscriber) {
				s.BatchSize, s.Filter.ResourceNames = event.Count(batch), []string{"Property"}
			})
			b.drive(contract.OutcomeParked)
			got := arrivals(t, r.Requests(), script.accepted)
			if fmt.Sprint(got) != fmt.Sprint(matching) {
				t.Fatalf("arrived %v, want %v", got, matching)
			}
			last := int64(0)
			for _, q := range r.Requests() {
				if previous := q.Header.Get("Postroad-Previous-Sequence"); previous != strconv.FormatInt(last, 10) {
					t.Fatalf("request %d says that %s was before it, want %d", q.N, previous, last)
				}
				if script.accepted(q) {
					body := arrivals(t, []testkit.Request{q}, all)
					last = body[len(body)-1]
				}
			}
			if row := b.row(); row.Cursor != 300 || row.PreviousSequence != matching[len(matching)-1] {
				t.Errorf("cursor %d, previous %d", row.Cursor, row.PreviousSequence)
			}
		})
	}
}

// TestAttempts retries a range over several workers: its id stays, its number
// rises, and each request leaves one row.
func TestAttempts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other := setupOn(t, b.url)
	b.publish(properties(4)...)
	statuses := []int{0, 500, 502, 503, 429, 500}
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, _ *testkit.Request) testkit.Answer {
		if n > 1 && n <= len(statuses) {
			return testkit.Answer{Status: statuses[n-1], Body: "no\x00t now"}
		}
		return testkit.Answer{}
	}})
	b.create(r.URL(), func(s *event.Subscriber) { s.Retry.EventAttempts = 20 })
	for i := 0; ; i++ {
		worker := b
		if i%2 == 1 {
			worker = other
		}
		if worker.drive(contract.OutcomeParked, contract.OutcomeBackoff).Outcome == contract.OutcomeParked {
			break
		}
	}
	type seen struct{ id, attempt string }
	want := []seen{
		{"acme_1", "1"},
		{"acme_2", "1"},
		{"acme_2", "2"},
		{"acme_2", "3"},
		{"acme_2", "4"},
		{"acme_2", "5"},
		{"acme_2", "6"},
		{"acme_3", "1"},
		{"acme_4", "1"},
	}
	var got []seen
	for _, q := range r.Requests() {
		got = append(got, seen{q.Header.Get("Webhook-Id"), q.Header.Get("Postroad-Attempt")})
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("requests %v, want %v", got, want)
	}
	var rows []store.Attempt
	testkit.Eventually(t, waitMax, func() bool {
		var err error
		rows, err = b.store.Attempts(t.Context(), "acme", store.AttemptFilter{}, 100)
		check(t, err)
		return len(rows) >= len(want)
	}, "every request has its row")
	classes := map[string]int{}
	for _, row := range rows {
		status := 0
		if row.Status != nil {
			status = *row.Status
		}
		classes[fmt.Sprintf("%d %s %d", row.FirstSequence, row.Class, status)]++
		if row.Class != "success" && (row.Error == "" || row.Response == "") {
			t.Errorf("an attempt does not say what was wrong: %+v", row)
		}
	}
	wantClasses := map[string]int{
		"1 success 200": 1, "2 record 500": 2, "2 endpoint 502": 1, "2 endpoint 503": 1, "2 endpoint 429": 1,
		"2 success 200": 1, "3 success 200": 1, "4 success 200": 1,
	}
	if fmt.Sprint(classes) != fmt.Sprint(wantClasses) {
		t.Errorf("attempts %v, want %v", classes, wantClasses)
	}
}

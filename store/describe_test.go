package store_test

import (
	"testing"
	"time"

	"postroad/store"
)

func TestDescribe(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 14, 1, 10, 0, time.UTC)
	soon, tomorrow, past := now.Add(59500*time.Millisecond), now.Add(24*time.Hour), now.Add(-time.Minute)
	asked, endpoint, record := store.WaitAsked, store.WaitEndpoint, store.WaitRecord
	http429, http503, refused := "HTTP 429 from the consumer", "HTTP 503 from the consumer", "event 57 was refused with HTTP 422 (attempt 2 of 5)"
	api, token := "api", "token:k3v7q2m4xa"
	halted, why := "event 57 (Property) was refused 5 times, last answer HTTP 422", "maintenance"
	for name, c := range map[string]struct {
		run           store.Run
		state, reason string
	}{
		"disabled before all": {
			store.Run{Disabled: true, HaltedReason: &halted, Paused: true},
			"disabled", "disabled: the consumer answered HTTP 410; it stays so until it is resumed",
		},
		"halted before paused": {store.Run{HaltedReason: &halted, Paused: true}, "halted", "halted: " + halted},
		"paused before waiting": {
			store.Run{Paused: true, NotBefore: &soon, WaitClass: &asked, WaitReason: &http429},
			"paused", "paused",
		},
		"paused until": {
			store.Run{Paused: true, PausedBy: &api, PauseReason: &why, PausedUntil: &tomorrow},
			"paused", "paused by an operator: maintenance; resumes 2026-11-23 14:01:10 UTC",
		},
		"paused by its own token": {store.Run{Paused: true, PausedBy: &token}, "paused", "paused through token k3v7q2m4xa"},
		"a pause that is over":    {store.Run{Paused: true, PausedUntil: &past, Parked: true, Cursor: 9}, "idle", "caught up; waiting for the event after 9"},
		"waiting": {
			store.Run{NotBefore: &soon, WaitClass: &asked, WaitReason: &http429, Failures: 2},
			"waiting", "HTTP 429 from the consumer; resumes 14:02:10 UTC",
		},
		"retrying": {
			store.Run{NotBefore: &soon, WaitClass: &endpoint, WaitReason: &http503, FailingSince: &past, Failures: 1},
			"retrying", "HTTP 503 from the consumer; tries again 14:02:10 UTC",
		},
		"an event refused": {
			store.Run{NotBefore: &tomorrow, WaitClass: &record, WaitReason: &refused, EventAttempt: 2},
			"retrying", refused + "; tries again 2026-11-23 14:01:10 UTC",
		},
		"the wait is over, the answer is not there": {
			store.Run{NotBefore: &past, WaitClass: &endpoint, WaitReason: &http503, FailingSince: &past, Failures: 1},
			"retrying", "HTTP 503 from the consumer; trying again now",
		},
		"what the consumer asked for is over": {store.Run{NotBefore: &past, WaitClass: &asked, WaitReason: &http429}, "active", "sending"},
		"a failure without a wait":            {store.Run{EventAttempt: 1, LastError: &http503}, "retrying", "HTTP 503 from the consumer; trying again now"},
		"active":                              {store.Run{}, "active", "sending"},
		"parked":                              {store.Run{Parked: true, Cursor: 298}, "idle", "caught up; waiting for the event after 298"},
	} {
		t.Run(name, func(t *testing.T) {
			c.run.Now = now
			state, reason := store.Describe(&c.run)
			if state != c.state || reason != c.reason {
				t.Errorf("got  %s: %s\nwant %s: %s", state, reason, c.state, c.reason)
			}
		})
	}
}

package event_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postroad/event"
)

// TestPull: a subscriber of mode pull has what that mode makes use of, and no more.
func TestPull(t *testing.T) {
	t.Parallel()
	pull := event.Subscriber{ID: "acme", Mode: event.ModePull}.Defaulted()
	text, err := json.Marshal(pull)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"id":"acme","feed":"default","mode":"pull","pull":{"leaseDuration":"30s","leases":1},"start":"now","filter":{}}`
	if string(text) != want {
		t.Errorf("%s, want %s", text, want)
	}
	if faults := pull.Validate(false); len(faults) > 0 {
		t.Error(faults)
	}
	for pointer, p := range map[string]event.Pull{
		"/pull/leases": {LeaseDuration: event.LeaseDurationMax, Leases: event.PullLeasesMax + 1}, "/pull/leaseDuration": {LeaseDuration: event.LeaseDurationMin - 1, Leases: 1},
	} {
		pull.Pull = &p
		if faults := pull.Validate(false); len(faults) != 1 || faults[0].Pointer != pointer {
			t.Errorf("%s: %v", pointer, faults)
		}
	}
	pull.Pull = &event.Pull{LeaseDuration: event.LeaseDurationMax + 1, Leases: -1}
	if faults := pull.Validate(false); len(faults) != 2 {
		t.Error(faults)
	}
	other := event.Subscriber{ID: "acme", Mode: "poll", Endpoint: event.Endpoint{URL: "https://acme.example"}}.Defaulted()
	if faults := other.Validate(false); len(faults) != 1 || faults[0].Pointer != "/mode" {
		t.Error(faults)
	}
	none := event.Subscriber{ID: "acme", Mode: event.ModePush}.Defaulted()
	if faults := none.Validate(false); len(faults) != 1 || faults[0].Pointer != "/endpoint/url" {
		t.Error(faults)
	}
}

// TestResting: what a mode makes no use of can stay or go, and not change.
func TestResting(t *testing.T) {
	t.Parallel()
	push := event.Subscriber{ID: "acme", Endpoint: event.Endpoint{URL: "https://acme.example", HeadersSet: []string{"X"}}, Label: "l", Compact: event.CompactCatchUp}.Defaulted()
	all := []string{
		"/endpoint", "/auth", "/signing", "/label", "/labelHeader", "/format", "/batchSize", "/batchBytes", "/lanes", "/retry", "/onExhausted", "/compact",
	}
	asPull := push
	asPull.Mode = event.ModePull
	asPull = asPull.Defaulted()
	changed := asPull
	changed.Lanes, changed.Endpoint.Timeout = 2, event.Duration(time.Second)
	back := asPull
	back.Mode = event.ModePush
	for name, test := range map[string]struct {
		given, stored event.Subscriber
		want          []string
	}{
		"a new one of mode pull":            {given: asPull, want: all},
		"one that was of mode push":         {given: asPull, stored: push},
		"that and changed":                  {given: changed, stored: push, want: []string{"/endpoint", "/lanes"}},
		"all left out":                      {given: event.Subscriber{Mode: event.ModePull}, stored: push},
		"one that was of mode pull":         {given: back, stored: asPull},
		"a new one of mode push":            {given: back, want: []string{"/pull"}},
		"one that has nothing of the other": {given: push},
	} {
		var got []string
		for _, f := range test.given.Resting(test.stored) {
			got = append(got, f.Pointer)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if diff := cmp.Diff(push.Endpoint, asPull.Endpoint); diff != "" {
		t.Error(diff)
	}
}

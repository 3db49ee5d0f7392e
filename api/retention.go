package api

import (
	"time"

	"postroad/event"
	"postroad/eventlog"
)

// retention is how long a feed keeps its events, as the API shows and takes it.
// What is absent is never.
type retention struct {
	Age          *event.Duration `json:"age,omitempty"`
	HardAge      *event.Duration `json:"hardAge,omitempty"`
	CompactAfter *event.Duration `json:"compactAfter,omitempty"`
}

func retentionOf(r eventlog.Retention) retention {
	var shown retention
	for _, member := range []struct {
		age   time.Duration
		shown **event.Duration
	}{{r.Age, &shown.Age}, {r.HardAge, &shown.HardAge}, {r.CompactAfter, &shown.CompactAfter}} {
		if member.age != 0 {
			age := event.Duration(member.age)
			*member.shown = &age
		}
	}
	return shown
}

// ages reads what was sent. A zero is no age, and too short.
func (r retention) ages() (eventlog.Retention, error) {
	var ages eventlog.Retention
	var faults event.FieldErrors
	for _, member := range []struct {
		pointer string
		sent    *event.Duration
		age     *time.Duration
	}{
		{"/retention/age", r.Age, &ages.Age},
		{"/retention/hardAge", r.HardAge, &ages.HardAge},
		{"/retention/compactAfter", r.CompactAfter, &ages.CompactAfter},
	} {
		if member.sent == nil {
			continue
		}
		if *member.sent == 0 {
			faults.Add(member.pointer, "must not be 0: leave it out to keep all events")
		}
		*member.age = member.sent.Std()
	}
	return ages, faults.Err()
}

// retentionPatch is the retention in a merge patch: null is never.
type retentionPatch struct {
	Age          optional[*event.Duration] `json:"age"`
	HardAge      optional[*event.Duration] `json:"hardAge"`
	CompactAfter optional[*event.Duration] `json:"compactAfter"`
}

// change notes which ages a patch changes; nil, which was null, ends all.
func (r *retentionPatch) change(now eventlog.Retention, patch *eventlog.FeedPatch) error {
	if r == nil {
		null := optional[*event.Duration]{set: true}
		r = &retentionPatch{Age: null, HardAge: null, CompactAfter: null}
	}
	sent, err := retention{r.Age.value, r.HardAge.value, r.CompactAfter.value}.ages()
	if err != nil {
		return err
	}
	if r.Age.set && sent.Age != now.Age {
		patch.Age = &sent.Age
	}
	if r.HardAge.set && sent.HardAge != now.HardAge {
		patch.HardAge = &sent.HardAge
	}
	if r.CompactAfter.set && sent.CompactAfter != now.CompactAfter {
		patch.CompactAfter = &sent.CompactAfter
	}
	return nil
}

package api

import (
	"time"

	"postroad/event"
	"postroad/eventlog"
)

// retention is how long a feed keeps its events, as the API shows and takes it.
// What is absent is for ever.
type retention struct {
	Age     *event.Duration `json:"age,omitempty"`
	HardAge *event.Duration `json:"hardAge,omitempty"`
}

func retentionOf(r eventlog.Retention) retention {
	var shown retention
	for _, member := range []struct {
		age   time.Duration
		shown **event.Duration
	}{{r.Age, &shown.Age}, {r.HardAge, &shown.HardAge}} {
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
	}{{"/retention/age", r.Age, &ages.Age}, {"/retention/hardAge", r.HardAge, &ages.HardAge}} {
		if member.sent == nil {
			continue
		}
		if *member.sent == 0 {
			faults.Add(member.pointer, "must not be 0: leave it out to keep events for ever")
		}
		*member.age = member.sent.Std()
	}
	return ages, faults.Err()
}

// retentionPatch is the retention in a merge patch: null is for ever.
type retentionPatch struct {
	Age     optional[*event.Duration] `json:"age"`
	HardAge optional[*event.Duration] `json:"hardAge"`
}

// change notes which ages a patch changes; nil, which was null, ends both.
func (r *retentionPatch) change(now eventlog.Retention, patch *eventlog.FeedPatch) error {
	if r == nil {
		r = &retentionPatch{Age: optional[*event.Duration]{set: true}, HardAge: optional[*event.Duration]{set: true}}
	}
	sent, err := retention{r.Age.value, r.HardAge.value}.ages()
	if err != nil {
		return err
	}
	if r.Age.set && sent.Age != now.Age {
		patch.Age = &sent.Age
	}
	if r.HardAge.set && sent.HardAge != now.HardAge {
		patch.HardAge = &sent.HardAge
	}
	return nil
}

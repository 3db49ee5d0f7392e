package event

import (
	"fmt"
	"reflect"
)

// Pull says how a subscriber of ModePull is served.
type Pull struct {
	// LeaseDuration is how long events that were handed out are nobody else's, from
	// LeaseDurationMin to LeaseDurationMax.
	LeaseDuration Duration `json:"leaseDuration"`
	// Leases is how many may be out at once, 1-PullLeasesMax. With 1 everything is
	// handed out in order; with more, what is of one key.
	Leases int `json:"leases"`
}

func (s Subscriber) pullDefaulted() Subscriber {
	var p Pull
	if s.Pull != nil {
		p = *s.Pull
	}
	setDefault(&p.LeaseDuration, LeaseDurationDefault)
	setDefault(&p.Leases, PullLeasesDefault)
	s.Pull = &p
	return s
}

func (p *Pull) validate(e *FieldErrors) {
	if p.LeaseDuration < LeaseDurationMin || p.LeaseDuration > LeaseDurationMax {
		e.Add("/pull/leaseDuration", fmt.Sprintf("must be between %s and %s", LeaseDurationMin, LeaseDurationMax))
	}
	checkRange(e, "/pull/leases", p.Leases, 1, PullLeasesMax)
}

// Resting checks that a subscriber, as it was sent, sets nothing that its mode
// makes no use of: such members may only stay as they are in stored, where they
// rest until the mode changes, or be left out. The zero Subscriber has none.
func (s Subscriber) Resting(stored Subscriber) FieldErrors {
	var e FieldErrors
	rests := func(pointer string, given, had any) {
		if !reflect.ValueOf(given).IsZero() && !reflect.DeepEqual(given, had) {
			e.Add(pointer, fmt.Sprintf("is of no use in mode %s: set it together with the mode that uses it", s.Mode))
		}
	}
	switch s.Mode {
	case ModePush:
		rests("/pull", s.Pull, stored.Pull)
	case ModePull:
		rests("/endpoint", s.Endpoint, stored.Endpoint)
		rests("/auth", s.Auth, stored.Auth)
		rests("/signing", s.Signing, stored.Signing)
		rests("/label", s.Label, stored.Label)
		rests("/labelHeader", s.LabelHeader, stored.LabelHeader)
		rests("/format", s.Format, stored.Format)
		rests("/batchSize", s.BatchSize, stored.BatchSize)
		rests("/batchBytes", s.BatchBytes, stored.BatchBytes)
		rests("/lanes", s.Lanes, stored.Lanes)
		rests("/retry", s.Retry, stored.Retry)
		rests("/onExhausted", s.OnExhausted, stored.OnExhausted)
		rests("/compact", s.Compact, stored.Compact)
	}
	return e
}

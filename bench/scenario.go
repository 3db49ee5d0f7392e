package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Scenario is one declared measurement.
type Scenario struct {
	Name string `json:"name"`
	// What says what is measured, Floor what it is set against.
	What  string `json:"what"`
	Floor string `json:"floor"`
	// AtLeast and Aim are the goals for the ratio of the two.
	AtLeast float64 `json:"atLeast"`
	Aim     float64 `json:"aim"`
	// Events is how many are delivered, QuickEvents in a quick run.
	Events      int `json:"events"`
	QuickEvents int `json:"quickEvents"`

	measure func(ctx context.Context, m *measurement) error
}

// Scenarios returns all there are, in the order in which they run.
func Scenarios() []Scenario {
	return []Scenario{
		{
			Name: "ordered", What: "one ordered subscriber, 1 lane, batch 1, attempts recorded",
			Floor:   "one net/http loop posting the same bodies over one connection",
			AtLeast: 0.6, Aim: 0.9, Events: 200_000, QuickEvents: 10_000, measure: measureOrdered,
		},
		far("lanes16", "16 lanes on the history of Temporal's Go SDK", farShape{lanes: 16, batch: 1, source: sdkSource}, 12_525, 1500),
		far("lanes64", fmt.Sprintf("64 lanes on up to %d records", manyRecords), farShape{lanes: 64, batch: 1, source: manySource}, 32_000, 3000),
		far("batch100", "1 lane, batches of 100", farShape{lanes: 1, batch: 100, source: manySource}, 50_000, 5000),
	}
}

// choose returns the named scenarios, in their order; all of them for no names.
func choose(names []string) ([]Scenario, error) {
	all := Scenarios()
	if len(names) == 0 {
		return all, nil
	}
	known := make([]string, len(all))
	for i, s := range all {
		known[i] = s.Name
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("bench: there is no scenario %q, only %s", name, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(all, func(s Scenario) bool { return !slices.Contains(names, s.Name) }), nil
}

// Verdicts.
const (
	VerdictAim   = "aim reached"
	VerdictLeast = "reached"
	VerdictBelow = "below"
)

// Result is what a scenario found.
type Result struct {
	Scenario string `json:"scenario"`
	What     string `json:"what"`
	FloorIs  string `json:"floorIs"`
	// Events is how many were delivered, BodyBytes how long a request's body was
	// on average.
	Events    int `json:"events"`
	BodyBytes int `json:"bodyBytes"`
	// Rate and Floor are events per second, Ratio is Rate over Floor.
	Rate    float64 `json:"rate"`
	Floor   float64 `json:"floor"`
	Ratio   float64 `json:"ratio"`
	AtLeast float64 `json:"atLeast"`
	Aim     float64 `json:"aim"`
	// Verdict is what the ratio means; empty: the run was too short for one.
	Verdict string `json:"verdict,omitempty"`
	// RoundTripSeconds is what a request and its answer take without Postroad,
	// where the floor is made from that.
	RoundTripSeconds float64 `json:"roundTripSeconds,omitempty"`
	// CPUSecondsPer1000 is the CPU time of the product with PostgreSQL and
	// Temporal per 1,000 events, FloorCPUSecondsPer1000 that of the floor's
	// client, CPURatio the one over the other; 0: not measured.
	CPUSecondsPer1000      float64 `json:"cpuSecondsPer1000,omitempty"`
	FloorCPUSecondsPer1000 float64 `json:"floorCpuSecondsPer1000,omitempty"`
	CPURatio               float64 `json:"cpuRatio,omitempty"`
	// Publish is how fast the events were taken in, as one stream of NDJSON.
	Publish Rate `json:"publish"`
	// Received is what the receiver saw where it kept book of one order, ByKey
	// where of the order of each record.
	Received *LaneReport `json:"received,omitempty"`
	ByKey    *KeyReport  `json:"byKey,omitempty"`
	// Faults is what must not be; empty: nothing was lost, repeated or out of
	// order.
	Faults []string `json:"faults"`
}

func (r *Result) fault(format string, args ...any) {
	r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
}

// set takes in what was measured of the product and of the floor.
func (r *Result) set(product, floor Rate) {
	r.Rate, r.CPUSecondsPer1000 = product.PerSecond, product.CPUSecondsPer1000
	r.Floor, r.FloorCPUSecondsPer1000 = floor.PerSecond, floor.CPUSecondsPer1000
	if r.Floor > 0 {
		r.Ratio = r.Rate / r.Floor
	}
	if r.CPUSecondsPer1000 > 0 && r.FloorCPUSecondsPer1000 > 0 {
		r.CPURatio = r.CPUSecondsPer1000 / r.FloorCPUSecondsPer1000
	}
}

func (r *Result) judgeRatio() {
	switch {
	case r.Ratio >= r.Aim:
		r.Verdict = VerdictAim
	case r.Ratio >= r.AtLeast:
		r.Verdict = VerdictLeast
	default:
		r.Verdict = VerdictBelow
	}
}

// measurement is one scenario under way. Its feed and its subscriber have its
// name.
type measurement struct {
	*run
	scenario Scenario
	events   int
	result   Result
}

// scenario measures one.
func (r *run) scenario(ctx context.Context, s Scenario) (Result, error) {
	m := &measurement{run: r, scenario: s, events: s.Events}
	if r.cfg.Quick {
		m.events = s.QuickEvents
	}
	if r.cfg.Events > 0 {
		m.events = r.cfg.Events
	}
	m.result = Result{
		Scenario: s.Name, What: s.What, FloorIs: s.Floor, Events: m.events, AtLeast: s.AtLeast, Aim: s.Aim, Faults: []string{},
	}
	r.say("%s: %s", s.Name, s.What)
	if err := s.measure(ctx, m); err != nil {
		return Result{}, fmt.Errorf("%s: %w", s.Name, err)
	}
	if !r.cfg.Quick {
		m.result.judgeRatio()
	}
	return m.result, nil
}

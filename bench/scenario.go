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
	// Goals are for its figures, by their names.
	Goals []Goal `json:"goals"`
	// Events is how many are delivered, QuickEvents in a quick run.
	Events      int `json:"events"`
	QuickEvents int `json:"quickEvents"`

	measure func(ctx context.Context, m *measurement) error
}

// Scenarios returns all there are, in the order in which they run.
func Scenarios() []Scenario {
	return []Scenario{
		ordered(),
		naiveScenario(), // early, while there are few workflows: each is asked for its history
		fanout50(),
		fanout500(),
		slow(),
		wall429(),
		drip(),
		latency(),
		backlog(),
		catchup(),
		far("lanes16", "16 lanes on the history of Temporal's Go SDK", farShape{lanes: 16, batch: 1, source: sdkSource}, 12_525, 1500),
		far("lanes64", fmt.Sprintf("64 lanes on up to %d records", manyRecords), farShape{lanes: 64, batch: 1, source: manySource}, 32_000, 3000),
		far("batch100", "1 lane, batches of 100", farShape{lanes: 1, batch: 100, source: manySource}, 50_000, 5000),
		publish1(),
		publish16(),
		publish64(),
		publishArray(),
		select10k(),
		feeds10k(),
		parked10k(),
		busy1000(),
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

package bench

import (
	"context"
	"fmt"
	"slices"
)

// Result is what a scenario found.
type Result struct {
	Scenario string `json:"scenario"`
	What     string `json:"what"`
	FloorIs  string `json:"floorIs"`
	// Events is how many were published.
	Events int `json:"events"`
	// Figures are what was measured; the first one is what the scenario is about.
	Figures []Figure `json:"figures"`
	// Resources is what the measured stretch took; nil: it was not watched.
	Resources *Resources `json:"resources,omitempty"`
	// Notes are sentences for people: under which circumstances.
	Notes []string `json:"notes,omitempty"`
	// Book is what the receiver saw, in the form of the scenario.
	Book any `json:"book,omitempty"`
	// Faults is what must not be; empty: nothing was lost, repeated or out of
	// order.
	Faults []string `json:"faults"`
}

func (r *Result) fault(format string, args ...any) {
	r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
}

// measurement is one scenario under way. Its feed and its subscriber have its
// name.
type measurement struct {
	*run
	scenario Scenario
	events   int
	result   Result
}

// figure adds a figure with its goal, where the scenario declares one. The goals
// are for the size that it declares: there is no verdict on a smaller run.
func (m *measurement) figure(name, unit string, value, floor float64) {
	f := newFigure(name, unit, value, floor)
	if i := slices.IndexFunc(m.scenario.Goals, func(g Goal) bool { return g.Figure == name }); i >= 0 {
		f.Goal = &m.scenario.Goals[i]
	}
	if !m.cfg.Quick && m.events >= m.scenario.Events {
		f.judge()
	}
	m.result.Figures = append(m.result.Figures, f)
}

func (m *measurement) note(format string, args ...any) {
	m.result.Notes = append(m.result.Notes, fmt.Sprintf(format, args...))
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
	m.result = Result{Scenario: s.Name, What: s.What, FloorIs: s.Floor, Events: m.events, Faults: []string{}}
	r.say("%s: %s", s.Name, s.What)
	if err := s.measure(ctx, m); err != nil {
		return Result{}, fmt.Errorf("%s: %w", s.Name, err)
	}
	for _, f := range m.result.Figures {
		r.say("= %s %s: %s, floor %s, ratio %s %s", s.Name, f.Name, quantity(f.Value, f.Unit), quantity(f.Floor, f.Unit), quantity(f.Ratio, ""), f.Verdict)
	}
	for _, fault := range m.result.Faults {
		r.say("= %s FAILED: %s", s.Name, fault)
	}
	return m.result, nil
}

package bench

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteTable writes the report for people.
func (r Report) WriteTable(w io.Writer) error {
	for _, block := range []func(io.Writer){r.writeFigures, r.writeResources} {
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		block(t)
		if err := t.Flush(); err != nil {
			return fmt.Errorf("write table: %w", err)
		}
	}
	for _, one := range r.Results {
		one.describe(w)
	}
	if r.Quick {
		fmt.Fprintf(w, "\nA quick run: what it shows is that all is correct, not how fast it is.\n")
	}
	if !r.Failed() {
		fmt.Fprintf(w, "\nCorrect: each event once, in order, as it was published.\n")
	}
	return nil
}

func (r Report) writeFigures(w io.Writer) {
	fmt.Fprintf(w, "SCENARIO\tFIGURE\tVALUE\tFLOOR\tRATIO\tAT LEAST\tAIM\t\n")
	for _, one := range r.Results {
		if len(one.Faults) > 0 {
			fmt.Fprintf(w, "%s\t\t\t\t\t\t\tFAILED\n", one.Scenario)
		}
		for _, f := range one.Figures {
			least, aim := "-", "-"
			if f.Goal != nil {
				least, aim = f.Goal.text(f.Goal.AtLeast, f.Unit), f.Goal.text(f.Goal.Aim, f.Unit)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", one.Scenario, f.Name,
				quantity(f.Value, f.Unit), quantity(f.Floor, f.Unit), quantity(f.Ratio, ""), least, aim, cmp.Or(f.Verdict, "-")+f.spread())
		}
	}
}

// spread says between which ends several runs lie.
func (f Figure) spread() string {
	if f.Highest == 0 {
		return ""
	}
	return fmt.Sprintf(" (%s to %s)", quantity(f.Lowest, ""), quantity(f.Highest, ""))
}

// text says a bound.
func (g Goal) text(bound float64, unit string) string {
	text := fmt.Sprintf("%.3g", bound)
	if g.Of == OfValue {
		text = strings.TrimSpace(text + " " + unit)
	}
	if g.Lower {
		text = "≤ " + text
	}
	return text
}

// GoalsText says the goals in one line.
func (s Scenario) GoalsText() string {
	texts := make([]string, len(s.Goals))
	for i, g := range s.Goals {
		texts[i] = fmt.Sprintf("%s %s, aim %s", g.Figure, g.text(g.AtLeast, ""), g.text(g.Aim, ""))
	}
	return strings.Join(texts, "; ")
}

func quantity(value float64, unit string) string {
	switch {
	case value == 0:
		return "-"
	case value >= 100:
		return fmt.Sprintf("%.0f%s", value, spaced(unit))
	case value >= 10:
		return fmt.Sprintf("%.1f%s", value, spaced(unit))
	default:
		return fmt.Sprintf("%.3f%s", value, spaced(unit))
	}
}

func spaced(unit string) string {
	if unit == "" || strings.HasPrefix(unit, "/") {
		return unit
	}
	return " " + unit
}

// writeResources writes what the measured stretches took, by process and per
// delivery.
func (r Report) writeResources(w io.Writer) {
	fmt.Fprintf(w, "\nCPU s / 1,000 · PEAK MiB\tPOSTROAD\tPOSTGRESQL\tRECEIVER\tBENCH\tPER DELIVERY: STATEMENTS\tTRANSACTIONS\tWAL BYTES\tHISTORY EVENTS\n")
	for _, one := range r.Results {
		u := one.Resources
		if u == nil {
			continue
		}
		fmt.Fprintf(w, "%s", one.Scenario)
		for _, name := range []string{processProduct, processDatabase, processReceiver, processClient} {
			p := u.Processes[name]
			fmt.Fprintf(w, "\t%.3f · %d", p.CPUSecondsPer1000, p.MemoryPeakBytes>>20)
		}
		fmt.Fprintf(w, "\t%s\t%s\t%s\t%s\n", quantity(u.Statements, ""), quantity(u.Transactions, ""), quantity(u.WALBytes, ""), quantity(u.HistoryEvents, ""))
	}
}

// describe says what the figures of a scenario are of.
func (r *Result) describe(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s.\n  Floor: %s.\n", r.Scenario, r.What, r.FloorIs)
	for _, note := range r.Notes {
		fmt.Fprintf(w, "  %s.\n", strings.ToUpper(note[:1])+note[1:])
	}
	if len(r.Faults) > 0 {
		fmt.Fprintf(w, "  FAILED: %s\n", strings.Join(r.Faults, "; "))
	}
}

package bench

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteTable writes the report for people.
func (r Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "SCENARIO\tRATE\tFLOOR\tRATIO\tAT LEAST\tAIM\t\tCPU s / 1,000\tFLOOR'S\tRATIO\n")
	for _, one := range r.Results {
		verdict := cmp.Or(one.Verdict, "-")
		if len(one.Faults) > 0 {
			verdict = "FAILED"
		}
		fmt.Fprintf(t, "%s\t%.0f/s\t%.0f/s\t%.3f\t%g\t%g\t%s\t%s\t%s\t%s\n",
			one.Scenario, one.Rate, one.Floor, one.Ratio, one.AtLeast, one.Aim, verdict,
			cpuText(one.CPUSecondsPer1000), cpuText(one.FloorCPUSecondsPer1000), ratioText(one.CPURatio))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	for _, one := range r.Results {
		one.describe(w)
	}
	fmt.Fprintf(w, "\nCPU is that of Postroad, PostgreSQL and Temporal together, against the bare client's.\n")
	if r.Quick {
		fmt.Fprintf(w, "A quick run: what it shows is that all is correct, not how fast it is.\n")
	}
	if !r.Failed() {
		fmt.Fprintf(w, "Correct: each event once, in order, as it was published.\n")
	}
	return nil
}

// describe says what the figures of a scenario are of.
func (r *Result) describe(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s.\n  Floor: %s", r.Scenario, r.What, r.FloorIs)
	if r.RoundTripSeconds > 0 {
		fmt.Fprintf(w, " (%s)", time.Duration(r.RoundTripSeconds*float64(time.Second)).Round(10*time.Microsecond))
	}
	fmt.Fprintf(w, ".\n  %d events, published as NDJSON at %.0f/s, delivered from a backlog in bodies of %d bytes", r.Events, r.Publish.PerSecond, r.BodyBytes)
	if r.ByKey != nil {
		fmt.Fprintf(w, ", of %d records, at most %d requests at once", r.ByKey.Keys, r.ByKey.MostInFlight)
	}
	fmt.Fprintf(w, ".\n")
	if len(r.Faults) > 0 {
		fmt.Fprintf(w, "  FAILED: %s\n", strings.Join(r.Faults, "; "))
	}
}

func cpuText(seconds float64) string {
	if seconds == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f", seconds)
}

func ratioText(ratio float64) string {
	if ratio == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", ratio)
}

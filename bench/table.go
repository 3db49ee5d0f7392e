package bench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteTable writes the report for people.
func (r Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "WHAT\tRATE\tRATIO\tCPU s / 1,000\tRATIO\n")
	fmt.Fprintf(t, "floor: one net/http loop, one connection\t%.0f/s\t1\t%s\t1\n", r.Floor.PerSecond, cpuText(r.Floor.CPUSecondsPer1000))
	fmt.Fprintf(t, "one ordered subscriber, 1 lane, batch 1\t%.0f/s\t%.2f\t%s\t%s\n",
		r.Ordered.PerSecond, r.Ratio, cpuText(r.Ordered.CPUSecondsPer1000), ratioText(r.CPURatio))
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	fmt.Fprintf(w, "\n%d events of %d bytes, published as NDJSON at %.0f/s, delivered from a backlog; CPU is that of\n"+
		"Postroad, PostgreSQL and Temporal together, against the bare client's.\n", r.Events, r.BodyBytes, r.Publish.PerSecond)
	if len(r.Faults) > 0 {
		fmt.Fprintf(w, "FAILED: %s\n", strings.Join(r.Faults, "; "))
		return nil
	}
	fmt.Fprintf(w, "Correct: each event once, in order, byte for byte as long as it was published.\n")
	return nil
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

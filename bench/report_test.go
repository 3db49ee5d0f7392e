package bench

import (
	"strings"
	"testing"
)

// TestMedian: each figure's median, and every run's faults.
func TestMedian(t *testing.T) {
	t.Parallel()
	run := func(rate, cpu float64, faults ...string) []Result {
		return []Result{{
			Scenario: "one", Faults: faults, Notes: []string{quantity(rate, "")},
			Figures: []Figure{newFigure("rate", "/s", rate, 100), newFigure("CPU", "s", cpu, 1)},
		}}
	}
	report := newReport(false, [][]Result{run(50, 1), run(90, 2), run(70, 3, "lost")})
	got := report.Results[0]
	rate, cpu := got.Figures[0], got.Figures[1]
	if rate.Ratio != 0.7 || rate.Lowest != 0.5 || rate.Highest != 0.9 || cpu.Ratio != 2 || cpu.Lowest != 1 || cpu.Highest != 3 {
		t.Errorf("figures %+v", got.Figures)
	}
	if got.Notes[0] != "70.0" || len(report.Runs) != 3 || !report.Failed() {
		t.Errorf("report %+v", report)
	}
	if single := newReport(true, [][]Result{run(50, 1)}); single.Runs != nil || single.Results[0].Figures[0].Highest != 0 || !single.Quick || single.Failed() {
		t.Errorf("report of one run %+v", single)
	}
	var table strings.Builder
	if err := report.WriteTable(&table); err != nil || !strings.Contains(table.String(), "(0.500 to 0.900)") || !strings.Contains(table.String(), "FAILED: lost") {
		t.Errorf("table: %v\n%s", err, table.String())
	}
}

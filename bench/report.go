package bench

import (
	"cmp"
	"slices"
)

// Report is what was found.
type Report struct {
	// Quick says that the run was too short for its figures to be quoted.
	Quick bool `json:"quick,omitempty"`
	// Results are by scenario: of several runs the medians.
	Results []Result `json:"results"`
	// Runs are the results of each run, where there was more than one.
	Runs [][]Result `json:"runs,omitempty"`
}

// Failed reports that an event was lost, repeated or out of order somewhere.
func (r Report) Failed() bool {
	return slices.ContainsFunc(r.Results, func(one Result) bool { return len(one.Faults) > 0 })
}

func newReport(quick bool, runs [][]Result) Report {
	report := Report{Quick: quick}
	if len(runs) == 1 {
		report.Results = runs[0]
		return report
	}
	report.Runs = runs
	for i := range runs[0] {
		same := make([]Result, len(runs))
		for n, run := range runs {
			same[n] = run[i]
		}
		report.Results = append(report.Results, median(same))
	}
	return report
}

// median is the result of one scenario's runs: the run in the middle by the first
// figure, with the median of each figure and with all faults.
func median(runs []Result) Result {
	byFirst := slices.SortedStableFunc(slices.Values(runs), func(a, b Result) int {
		if len(a.Figures) == 0 || len(b.Figures) == 0 {
			return cmp.Compare(len(a.Figures), len(b.Figures))
		}
		return cmp.Compare(a.Figures[0].measured(), b.Figures[0].measured())
	})
	middle := byFirst[(len(runs)-1)/2]
	middle.Figures = slices.Clone(middle.Figures)
	middle.Faults = []string{}
	for _, one := range runs {
		middle.Faults = append(middle.Faults, one.Faults...)
	}
	for i, f := range middle.Figures {
		var same []Figure
		for _, one := range runs {
			if at := slices.IndexFunc(one.Figures, func(g Figure) bool { return g.Name == f.Name }); at >= 0 {
				same = append(same, one.Figures[at])
			}
		}
		middle.Figures[i] = medianFigure(same)
	}
	return middle
}

func medianFigure(same []Figure) Figure {
	slices.SortStableFunc(same, func(a, b Figure) int { return cmp.Compare(a.measured(), b.measured()) })
	f := same[(len(same)-1)/2]
	f.Lowest, f.Highest = same[0].measured(), same[len(same)-1].measured()
	return f
}

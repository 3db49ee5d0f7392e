package bench

// Names and units of figures that several scenarios have.
const (
	figureRate = "rate"
	figureCPU  = "CPU"

	perSecond  = "/s"
	cpuPer1000 = "s/1,000"
)

// What a goal is for.
const (
	OfRatio = "ratio"
	OfValue = "value"
)

// Goal is a goal for one figure of a scenario.
type Goal struct {
	// Figure is the name of the figure.
	Figure string `json:"figure"`
	// AtLeast is what has to be reached, Aim what is aimed at.
	AtLeast float64 `json:"atLeast"`
	Aim     float64 `json:"aim"`
	// Of says what of the figure: OfRatio (the default) or OfValue.
	Of string `json:"of,omitempty"`
	// Lower says that both are upper bounds.
	Lower bool `json:"lower,omitempty"`
}

// Verdicts.
const (
	VerdictAim   = "aim reached"
	VerdictLeast = "reached"
	VerdictBelow = "missed"
)

// Figure is one thing that was measured.
type Figure struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Value is the product's, Floor what the same machine can do at best, 0: there
	// is none. Ratio is the one over the other.
	Value float64 `json:"value"`
	Floor float64 `json:"floor,omitempty"`
	Ratio float64 `json:"ratio,omitempty"`
	// Lowest and Highest are the ends of several runs, of what the goal is for: the
	// ratio, or the value.
	Lowest  float64 `json:"lowest,omitempty"`
	Highest float64 `json:"highest,omitempty"`
	// Goal is what the scenario declares; nil: nothing.
	Goal *Goal `json:"goal,omitempty"`
	// Verdict is what the goal says of it; empty: there is none, or the run was too
	// short for one.
	Verdict string `json:"verdict,omitempty"`
}

func newFigure(name, unit string, value, floor float64) Figure {
	f := Figure{Name: name, Unit: unit, Value: value, Floor: floor}
	if floor > 0 {
		f.Ratio = value / floor
	}
	return f
}

// measured is what of the figure its goal is for.
func (f Figure) measured() float64 {
	if f.Goal != nil && f.Goal.Of == OfValue || f.Goal == nil && f.Floor == 0 {
		return f.Value
	}
	return f.Ratio
}

// judge gives the verdict.
func (f *Figure) judge() {
	if f.Goal == nil {
		return
	}
	reaches := func(bound float64) bool {
		if f.Goal.Lower {
			return f.measured() <= bound
		}
		return f.measured() >= bound
	}
	switch {
	case f.measured() <= 0:
		f.Verdict = "" // not measured on this system
	case reaches(f.Goal.Aim):
		f.Verdict = VerdictAim
	case reaches(f.Goal.AtLeast):
		f.Verdict = VerdictLeast
	default:
		f.Verdict = VerdictBelow
	}
}

package bench

import "testing"

func TestVerdict(t *testing.T) {
	t.Parallel()
	rate := Goal{Figure: "rate", AtLeast: 0.9, Aim: 0.97}
	cpu := Goal{Figure: "CPU", AtLeast: 3, Aim: 1.5, Lower: true}
	latency := Goal{Figure: "p99", AtLeast: 10, Aim: 3, Of: OfValue, Lower: true}
	for _, c := range []struct {
		goal         *Goal
		value, floor float64
		want         string
	}{
		{&rate, 97, 100, VerdictAim},
		{&rate, 96, 100, VerdictLeast},
		{&rate, 90, 100, VerdictLeast},
		{&rate, 89, 100, VerdictBelow},
		{&rate, 89, 0, ""},
		{&cpu, 3, 2, VerdictAim},
		{&cpu, 6, 2, VerdictLeast},
		{&cpu, 7, 2, VerdictBelow},
		{&latency, 3, 0, VerdictAim},
		{&latency, 4, 0, VerdictLeast},
		{&latency, 11, 100, VerdictBelow},
		{nil, 1, 1, ""},
	} {
		f := newFigure("rate", "/s", c.value, c.floor)
		f.Goal = c.goal
		if f.judge(); f.Verdict != c.want {
			t.Errorf("%g of %g with %+v: %q, want %q", c.value, c.floor, c.goal, f.Verdict, c.want)
		}
	}
}

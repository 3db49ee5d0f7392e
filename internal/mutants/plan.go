package mutants

// model is the test of random histories, which has to catch what breaks a promise
// of order, of loss or of repeats.
const model = "activities/planner.TestPlanAgainstModel"

// planMutants take out the rules of what is sent next.
var planMutants = []Mutant{
	{
		Rule: "A key is in one request at a time", File: "activities/planner/next.go",
		Old: " && (e.key == nil || e.key.taken == 0)", New: "",
		Test: model,
	},
	{
		Rule: "A key is in one request at a time", File: "activities/planner/failing.go",
		Old: "\tp.take(e)\n\tf.inFlight,", New: "\tp.free(e)\n\tf.inFlight,",
		Test: model,
	},
	{
		Rule: "One lane overtakes nothing", File: "activities/planner/next.go",
		Old: "\t\t\t\tbreak // one lane: nothing overtakes\n", New: "\t\t\t\tcontinue\n",
		Test: model,
	},
	{
		Rule: "No more requests than lanes", File: "activities/planner/next.go",
		Old: "p.requests-p.lent+len(p.failing)+len(p.groups) < p.lanes", New: "p.requests-p.lent+len(p.groups) < p.lanes",
		Test: model,
	},
	{
		Rule: "No more requests than lanes", File: "activities/planner/next.go",
		Old: "p.requests > 0 && (p.probe || !p.keyed)", New: "p.requests > 0 && !p.keyed",
		Test: model,
	},
	{
		Rule: "Nothing is set aside without a proof", File: "activities/planner/failing.go",
		Old: "\tcase f.proven:\n\t\tp.setAside(f)\n", New: "\tcase f.attempts > 0:\n\t\tp.setAside(f)\n",
		Test: model,
	},
	{
		Rule: "Nothing is set aside without a proof", File: "activities/planner/answer.go",
		Old: "\tcase r.kind == kindTrial:\n", New: "\tcase r.kind == kindTrial && len(rest) > 1:\n",
		Test: "activities/planner.TestTrial",
	},
	{
		Rule: "What is dealt with above the cursor is known", File: "activities/planner/window.go",
		Old: "\t\tif e.behind > last {\n", New: "\t\tif e.behind > last+1 {\n",
		Test: model,
	},
	{
		Rule: "What is dealt with above the cursor is known", File: "activities/planner/window.go",
		Old: "s.Settled = append(s.Settled, last+1, e.behind)", New: "s.Settled = append(s.Settled, last, e.behind)",
		Test: model,
	},
	{
		Rule: "What is dealt with above the cursor is known", File: "activities/planner/window.go",
		Old: "\t\ts.Settled = append(s.Settled, w.ranges...)\n", New: "",
		Test: model,
	},
	{
		Rule: "Late answers end no wait", File: "activities/planner/answer.go",
		Old: "\tlate := r.epoch != p.epoch\n", New: "\tlate := r.epoch > p.epoch\n",
		Test: "activities/planner.TestLate",
	},
	{
		Rule: "Late answers end no wait", File: "activities/planner/answer.go",
		Old: "\t\tif p.wait != nil && p.wait.Until.After(until) {\n", New: "\t\tif p.wait != nil && until.IsZero() {\n",
		Test: "activities/planner.TestLate",
	},
	{
		Rule: "Held events wait in order", File: "activities/planner/offer.go",
		Old: "if h != nil && p.heldEvents < p.cfg.HeldEventsMax {", New: "if h != nil && len(h.queue) == 0 && p.heldEvents < p.cfg.HeldEventsMax {",
		Test: model,
	},
	{
		Rule: "Held events wait in order", File: "activities/planner/held.go",
		Old: " || h.removed > p.aside.committed {", New: " {",
		Test: model,
	},
	{
		Rule: "What is set aside is told until it is written", File: "activities/planner/aside.go",
		Old: "return c.version <= mark })", New: "return c.version <= mark+1 })",
		Test: model,
	},
	{
		Rule: "What is set aside is bounded", File: "activities/planner/held.go",
		Old: "\tcase len(p.held) >= p.cfg.HeldKeysMax:\n", New: "\tcase len(p.held) > p.cfg.HeldKeysMax:\n",
		Test: "activities/planner.TestHeldBounds",
	},
	{
		Rule: "What is set aside is bounded", File: "activities/planner/offer.go",
		Old: "max(0, p.windowMax()-p.window.live-p.Unsaved())", New: "max(0, p.windowMax()-p.Unsaved())",
		Test: "activities/planner.TestWindow",
	},
}

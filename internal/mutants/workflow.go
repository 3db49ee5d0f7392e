package mutants

// workflowMutants take out the rules of the workflow.
var workflowMutants = []Mutant{
	{
		Rule: "Controls do not cancel Deliver", File: "workflows/subscriber.go",
		Old:  "\t\t\tpause := decode[contract.PauseSignal](signal)\n",
		New:  "\t\t\tpause := decode[contract.PauseSignal](signal)\n\t\t\ts.deliver = nil\n",
		Test: "workflows.TestSubscriberControls",
	},
	{
		Rule: "Controls do not cancel Deliver", File: "workflows/subscriber.go",
		Old: "if s.apply != nil || len(s.queue) == 0 {", New: "if s.apply != nil || s.deliver != nil || len(s.queue) == 0 {",
		Test: "workflows.TestSubscriberControls",
	},
	{
		Rule: "Controls have slots of their own", File: "workflows/outcome.go",
		Old: "contract.ControlTaskQueue", New: "contract.TaskQueue",
		Test: "workflows.TestSubscriberActivities",
	},
	{
		Rule: "A dead worker is missed soon", File: "workflows/outcome.go",
		Old: "deliverHeartbeat = 30 * time.Second", New: "deliverHeartbeat = 5 * time.Minute",
		Test: "workflows.TestSubscriberActivities",
	},
	{
		Rule: "Activities are tried until they return", File: "workflows/outcome.go",
		Old: "MaximumInterval: 5 * time.Second}", New: "MaximumInterval: 5 * time.Second, MaximumAttempts: 3}",
		Test: "workflows.TestSubscriberActivities",
	},
	{
		Rule: "Signals keep their order", File: "workflows/subscriber.go",
		Old: "if s.apply != nil || len(s.queue) == 0 {", New: "if len(s.queue) == 0 {",
		Test: "workflows.TestSubscriberControls",
	},
	{
		// As with a channel of its own for each name.
		Rule: "Signals keep their order", File: "workflows/inbox.go",
		Old:  "\t\ti.inbox.arrived = append",
		New:  "\t\tif in.SignalName == contract.SignalPause {\n\t\t\ti.inbox.arrived = append([]signal{{in.SignalName, in.Arg}}, i.inbox.arrived...)\n\t\t\treturn nil\n\t\t}\n\t\ti.inbox.arrived = append",
		Test: "workflows.TestSubscriberControls",
	},
	{
		Rule: "Broken payloads mean the plain thing", File: "workflows/inbox.go",
		Old: "\t\treturn zero\n\t}\n\treturn value", New: "\t\treturn value\n\t}\n\treturn value",
		Test: "workflows.TestDecode",
	},
	{
		Rule: "Broken payloads mean the plain thing", File: "workflows/inbox.go",
		Old:  "\t\ti.inbox.arrived = append",
		New:  "\t\tvar object map[string]any\n\t\tif err := converter.GetDefaultDataConverter().FromPayloads(in.Arg, &object); err != nil {\n\t\t\treturn nil\n\t\t}\n\t\ti.inbox.arrived = append",
		Test: "workflows.TestSubscriberRests",
	},
	{
		Rule: "Continue-as-new loses nothing", File: "workflows/subscriber.go",
		Old: "s.deliver != nil || s.apply != nil || len(s.queue) > 0 ||", New: "s.deliver != nil || len(s.queue) > 0 ||",
		Test: "workflows.TestSubscriberContinuesAsNew",
	},
	{
		Rule: "Continue-as-new loses nothing", File: "workflows/subscriber.go",
		Old: "s.deliver != nil || s.apply != nil || len(s.queue) > 0 ||", New: "s.apply != nil || len(s.queue) > 0 ||",
		Test: "workflows.TestSubscriberContinuesAsNew",
	},
	{
		Rule: "Continue-as-new loses nothing", File: "workflows/subscriber.go",
		Old: "{Controls: s.controls, WokenGeneration", New: "{WokenGeneration",
		Test: "workflows.TestSubscriberContinuesAsNew",
	},
	{
		Rule: "Continue-as-new loses nothing", File: "workflows/subscriber.go",
		Old: "\t\tcarried.Last = s.last\n", New: "",
		Test: "workflows.TestSubscriberContinuesAsNew",
	},
	{
		Rule: "Continue-as-new loses nothing", File: "workflows/subscriber.go",
		Old: "\t\t\ts.rest(ctx, *c.Last)\n", New: "\t\t\ts.last = c.Last\n",
		Test: "workflows.TestSubscriberSuccessor",
	},
	{
		Rule: "A look that came too late is made again", File: "workflows/subscriber.go",
		Old: "generation <= 0 || (s.deliver", New: "generation <= 0 && s.deliver == nil || (s.deliver",
		Test: "workflows.TestSubscriberRests",
	},
	{
		Rule: "A look that came too late is made again", File: "workflows/subscriber.go",
		Old: "\ts.apply = nil\n\ts.look = true\n", New: "\ts.apply = nil\n\ts.look = s.deliver == nil\n",
		Test: "workflows.TestSubscriberRests",
	},
	{
		Rule: "A pause between runs", File: "workflows/subscriber.go",
		Old: "if result.Delivered > 0 {", New: "if result.Delivered >= 0 {",
		Test: "workflows.TestSubscriberTriesAgainSoon",
	},
	{
		Rule: "A pause between runs", File: "workflows/outcome.go",
		Old: "\ts.shortWaits++\n\treturn jittered(", New: "\treturn jittered(",
		Test: "workflows.TestSubscriberTriesAgainSoon",
	},
	{
		Rule: "Timers end with the wait", File: "workflows/subscriber.go",
		Old: "\t\ts.cancelTimer()\n", New: "",
		Test: "workflows.TestSubscriberRests",
	},
	{
		Rule: "The row ends a run", File: "workflows/subscriber.go",
		Old: "return !s.lookAgain(ctx)", New: "return s.lookAgain(ctx)",
		Test: "workflows.TestSubscriberEnds",
	},
	{
		Rule: "The row ends a run", File: "workflows/subscriber.go",
		Old: "return !s.lookAgain(ctx)", New: "return true",
		Test: "workflows.TestSubscriberEnds",
	},
	{
		Rule: "The row ends a run", File: "workflows/subscriber.go",
		Old: "\t\t\ts.look = true // the row decides whether this ends the run", New: "\t\t\ts.look = false",
		Test: "workflows.TestSubscriberRests",
	},
	{
		Rule: "One workflow id per subscriber", File: "workflows/subscriber.go",
		Old: `!ok || id == "" || (in.Subscriber != "" && in.Subscriber != id)`, New: `!ok || id == ""`,
		Test: "workflows.TestSubscriberEnds",
	},
}

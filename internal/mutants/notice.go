package mutants

// noticeMutants break what tells people of subscribers.
var noticeMutants = []Mutant{
	{
		Rule: "A change is noted with itself", File: "store/checkpoint.go",
		Old: "WHEN c.halt <> '' AND r.halted_reason IS NULL THEN", New: "WHEN c.halt <> '' THEN",
		Test: "store.TestTransitionsTold",
	},
	{
		Rule: "A change is noted with itself", File: "store/checkpoint.go",
		Old: "ELSE coalesce(l.turn, r.trouble) END", New: "ELSE l.turn END",
		Test: "store.TestTransitionsTold",
	},
	{
		Rule: "A change is noted with itself", File: "store/checkpoint.go",
		Old: "AND NOT (c.failing OR c.disable OR c.halt <> '') THEN 'recovered'", New: "THEN 'recovered'",
		Test: "store.TestTransitionsTold",
	},
	{
		Rule: "A change is noted with itself", File: "store/notices.go",
		Old: "CASE WHEN r.behind THEN w.allowed / 2.0 ELSE w.allowed END", New: "w.allowed",
		Test: "store.TestWatchLag",
	},
	{
		Rule: "A notice is told once", File: "store/notices.go",
		Old: `e.IdempotencyKey = fmt.Sprintf("notice/%d", id)`, New: `_ = fmt.Sprint(id)`,
		Test: "worker.TestAnnouncer",
	},
	{
		Rule: "A notice is told once", File: "worker/announcer.go",
		Old: "if refused(err) && len(n.IDs) > 1 {", New: "if false {",
		Test: "worker.TestAnnouncer",
	},
	{
		Rule: "What is told raises nothing", File: "store/notices.go",
		Old: "WHERE w.run IS NOT NULL AND f.name <> '` + event.SystemFeed + `'`", New: "WHERE w.run IS NOT NULL AND f.name <> '/` + event.SystemFeed + `'`",
		Test: "store.TestSystemSubscribersRaiseNothing",
	},
	{
		Rule: "What is told raises nothing", File: "worker/announcer.go",
		Old: "if p.Feed == eventlog.SystemFeed {", New: "if false {",
		Test: "worker.TestLasting",
	},
}

package mutants

// pullMutants take out the rules of what is handed out to who fetches.
var pullMutants = []Mutant{
	{
		Rule: "An event is in one lease", File: "store/pull_scan.go",
		Old: "case s.out[sequence] || s.busy[key]:", New: "case s.busy[key]:",
		Test: "store.TestPullSeveralLeases",
	},
	{
		Rule: "An event is in one lease", File: "store/pull.go",
		Old: "SELECT `+runColumns+` FROM runs WHERE id = $1 AND NOT deleted FOR UPDATE", New: "SELECT `+runColumns+` FROM runs WHERE id = $1 AND NOT deleted",
		Test: "store.TestPullers",
	},
	{
		Rule: "A record is in one lease", File: "store/pull_scan.go",
		Old: "case s.out[sequence] || s.busy[key]:", New: "case s.out[sequence]:",
		Test: "store.TestPullSeveralLeases",
	},
	{
		Rule: "A record is in one lease", File: "store/pull.go",
		Old: " || p.liveLeases() >= p.pull.Leases {", New: " {",
		Test: "store.TestPullOneLease",
	},
	{
		Rule: "A record is in one lease", File: "store/pull_scan.go",
		Old: "owed := s.out[sequence] || s.p.filter", New: "owed := s.p.filter",
		Test: "store.TestPullFilterChanges",
	},
	{
		Rule: "What a lease leaves goes first", File: "store/pull_scan.go",
		Old: "\t\tif l.over {\n\t\t\tcontinue\n\t\t}\n", New: "",
		Test: "store.TestPullOneLease",
	},
	{
		Rule: "A commit settles what was handed out", File: "store/commit.go",
		Old: "through, _ := slices.BinarySearch(lease.sequences, r.Sequence+1)", New: "through, _ := slices.BinarySearch(lease.sequences, r.Sequence+1<<40)",
		Test: "store.TestPullOneLease",
	},
	{
		Rule: "A commit settles what was handed out", File: "store/commit.go",
		Old: "r.Sequence > last || ", New: "",
		Test: "store.TestCommit",
	},
	{
		Rule: "A commit settles what was handed out", File: "store/commit.go",
		Old: "(p.pull.Leases > 1 || len(p.leases) > 1)", New: "len(p.leases) > 1",
		Test: "store.TestCommit",
	},
	{
		Rule: "A commit settles what was handed out", File: "store/seek.go",
		Old: "\tif err := dropLeases(ctx, tx, subscriber); err != nil {\n\t\treturn err\n\t}\n", New: "",
		Test: "store.TestPullSeek",
	},
	{
		Rule: "Nothing is handed out beside a run", File: "store/pull.go",
		Old: "p.run.Lease != nil || ", New: "",
		Test: "activities.TestSwitchWaits",
	},
	{
		Rule: "Nothing is handed out beside a run", File: "store/runs.go",
		Old: "NOT disabled AND NOT pull AND halted_reason", New: "NOT disabled AND halted_reason",
		Test: "store.TestPullIsNeverParked",
	},
	{
		Rule: "Nothing is handed out beside a run", File: "store/checkpoint.go",
		Old: "parked = c.park AND NOT r.pull,", New: "parked = c.park,",
		Test: "store.TestPullIsNeverParked",
	},
	{
		Rule: "A switch loses and repeats nothing", File: "store/pull.go",
		Old: "p.run.Settled = withoutSequences(dealtWith, p.held)", New: "p.run.Settled = dealtWith",
		Test: "activities.TestSwitchWithHeldKeys",
	},
	{
		Rule: "A switch loses and repeats nothing", File: "store/mode.go",
		Old: "lease = CASE WHEN NOT parked THEN lease END, parked = false,", New: "parked = false,",
		Test: "activities.TestSwitchOfParked",
	},
	{
		Rule: "A switch loses and repeats nothing", File: "store/park.go",
		Old: " OR pull AND lease IS NOT NULL\n", New: "\n",
		Test: "activities.TestSwitchAfterADeath",
	},
}

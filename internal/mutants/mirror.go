package mutants

// mirrorMutants take out the rules of feeds that follow other servers.
var mirrorMutants = []Mutant{
	{
		Rule: "A gap waits for the horizon", File: "mirror/mirror.go",
		Old: "s != head+1 && s > settled", New: "s != head+1 && s > settled && s < 0",
		Test: "mirror.TestMirrorLateCommits",
	},
	{
		Rule: "A gap waits for the horizon", File: "mirror/marks.go",
		Old: "at.Sub(k.list[old].at) >= k.horizon", New: "at.Sub(k.list[old].at) >= k.horizon/1000",
		Test: "mirror.TestMirrorConcurrentWriters",
	},
	{
		Rule: "Only gaps wait", File: "mirror/mirror.go",
		Old: "s != head+1 && s > settled", New: "s > settled",
		Test: "mirror.TestMirrorLateCommits",
	},
	{
		Rule: "A first reading waits once", File: "mirror/mirror.go",
		Old: "\tm.saw(head)\n\tm.marked", New: "\tm.saw(head * 0)\n\tm.marked",
		Test: "mirror.TestMirrorWaitsOnce",
	},
	{
		Rule: "What comes too late is told, once", File: "mirror/recheck.go",
		Old: "\tm.config.Observer.Late(Late{Event: *e, Instead: have})\n", New: "",
		Test: "mirror.TestMirrorLateCommits",
	},
	{
		Rule: "What comes too late is told, once", File: "mirror/recheck.go",
		Old: "told || have == e.Key()", New: "told && false || have == e.Key()",
		Test: "mirror.TestMirrorRemembersReported",
	},
	{
		Rule: "A source's token stays with the source", File: "mirror/walk.go",
		Old: "next.Scheme == m.root.Scheme && next.Host == m.root.Host", New: "next.Host != \"\"",
		Test: "mirror.TestMirrorTokenStays",
	},
	{
		Rule: "No row is counted past", File: "mirror/walk.go",
		Old: "next.Query().Has(\"$skip\") || next.Query().Has(\"skip\")", New: "false",
		Test: "mirror.TestMirrorRowsRemoved",
	},
	{
		Rule: "Only the source publishes", File: "api/publish.go",
		Old: "err == nil && feed.Source != nil", New: "false",
		Test: "api.TestFeedSource",
	},
	{
		Rule: "Only the source publishes", File: "api/feeds.go",
		Old: "if feed.Sequences == eventlog.SequencesSupplied {\n\t\treturn feed, false, nil", New: "if false {\n\t\treturn feed, false, nil",
		Test: "api.TestFeedSource",
	},
	{
		Rule: "A change of a source counts at once", File: "worker/sources.go",
		Old: "feed.ID == id && feed.Version == f.version", New: "feed.ID == id",
		Test: "worker.TestSources",
	},
}

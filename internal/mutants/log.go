package mutants

// logMutants take out the rules of the log.
var logMutants = []Mutant{
	{
		Rule: "One writer at a time", File: "store/migrations/00001_log.sql",
		Old: "    PERFORM lock_feed(p_feed);\n", New: "",
		Test: "eventlog.TestOrder",
	},
}

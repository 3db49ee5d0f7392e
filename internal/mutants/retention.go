package mutants

// retentionMutants take out the rules of a log that gets shorter.
var retentionMutants = []Mutant{
	{
		Rule: "Retention waits for the slowest", File: "eventlog/retention.go",
		Old: "max(floor, min(low, max(soft, hard)))", New: "max(floor, min(low, 0), max(soft, hard))",
		Test: "eventlog.TestRetain",
	},
	{
		Rule: "Retention waits for the slowest", File: "eventlog/retention.go",
		Old: "coalesce(retention_hard_age_ms, 0) = $3 FOR NO KEY UPDATE`", New: "coalesce(retention_hard_age_ms, 0) = $3`",
		Test: "eventlog.TestRetainWaitsForNewSubscribers",
	},
	{
		Rule: "Retention waits for the slowest", File: "store/subscriber_writes.go",
		Old: "AND deleted_at IS NULL FOR SHARE`", New: "AND deleted_at IS NULL`",
		Test: "store.TestCreateWaitsForTheFloor",
	},
	{
		Rule: "Compaction keeps what is owed, and the newest", File: "eventlog/compact.go",
		Old: "err != nil || low <= from {", New: "low = 1 << 40; err != nil || low <= from {",
		Test: "eventlog.TestCompact",
	},
	{
		Rule: "Compaction keeps what is owed, and the newest", File: "eventlog/compact.go",
		Old: "older.sequence > $2 AND", New: "older.sequence > $3 AND",
		Test: "eventlog.TestCompactGoesOn",
	},
	{
		Rule: "What is lost is noted", File: "eventlog/loss.go",
		Old: "if sequence > s.cursor && ", New: "if ",
		Test: "eventlog.TestRetainNotesLosses",
	},
	{
		Rule: "What is lost is noted", File: "eventlog/loss.go",
		Old: "SET lost_events = r.lost_events + c.events", New: "SET lost_events = c.events",
		Test: "eventlog.TestRetainNotesLosses",
	},
	{
		Rule: "A run goes on above a floor", File: "activities/reading.go",
		Old: "\t\t\t\tr.fall()\n", New: "",
		Test: "activities.TestDeliverWhileTheFloorRises",
	},
	{
		Rule: "A run goes on above a floor", File: "activities/run.go",
		Old: "max(row.PreviousSequence, loaded.LostThrough)", New: "row.PreviousSequence",
		Test: "activities.TestDeliverAboveTheFloor",
	},
	{
		Rule: "What was erased is not sent", File: "activities/run.go",
		Old: "case r.closed, r.fallen, r.erased():", New: "case r.closed, r.fallen:",
		Test: "activities.TestDeliverErased",
	},
	{
		Rule: "A migration holds up no append", File: "store/migrate.go",
		Old: `migrationLockTimeout = "2s"`, New: `migrationLockTimeout = "0"`,
		Test: "store.TestMigrateBehindAReader",
	},
	{
		Rule: "A migration holds up no append", File: "store/migrate.go",
		Old: "time.Since(began) > migrationRetryFor {", New: "time.Since(began) > 0 {",
		Test: "store.TestMigrateBehindAReader",
	},
}

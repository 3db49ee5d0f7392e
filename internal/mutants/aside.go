package mutants

// asideMutants take out the rules of what is set aside, of moves and of replays'
// positions, as far as the database keeps them.
var asideMutants = []Mutant{
	{
		Rule: "Set aside with the position", File: "store/aside_changes.go",
		Old:  "replay bigint) JOIN written w USING (lease)",
		New:  "replay bigint) JOIN input w USING (lease)",
		Test: "store.TestAsideChanges/only with the position",
	},
	{
		Rule: "Set aside with the position", File: "store/aside_changes.go",
		Old:  "DELETE FROM dead_letters d USING json_to_recordset($42) AS m (lease uuid, sequence bigint) JOIN written w",
		New:  "DELETE FROM dead_letters d USING json_to_recordset($42) AS m (lease uuid, sequence bigint) JOIN input w",
		Test: "store.TestAsideChanges/only with the position",
	},
	{
		Rule: "A key with events stays held", File: "store/aside_changes.go",
		Old: "AND NOT EXISTS (SELECT FROM held_events h WHERE h.subscriber = k.subscriber AND h.resource_name", New: "AND NOT EXISTS (SELECT FROM held_events h WHERE false AND h.resource_name",
		Test: "store.TestAsideChanges/accepted and released",
	},
	{
		Rule: "A key is told of once", File: "store/aside_changes.go",
		Old: "k.xmax = 0 AS fresh", New: "true AS fresh",
		Test: "store.TestKeyHeldTold",
	},
	{
		Rule: "A key is told of once", File: "store/aside_changes.go",
		Old: "WHERE k.fresh AND f.name <> '` + event.SystemFeed + `'", New: "WHERE k.fresh AND f.name <> '/` + event.SystemFeed + `'",
		Test: "store.TestKeyHeldTold",
	},

	{
		Rule: "A replay's position is its own", File: "store/checkpoint.go",
		Old: "cursor = CASE WHEN c.replay = 0 THEN c.cursor ELSE r.cursor END", New: "cursor = c.cursor",
		Test: "store.TestReplayCheckpoint/the run's stays",
	},
	{
		Rule: "A replay's position is its own", File: "store/aside_changes.go",
		Old: " AND p.state IN ('queued', 'running', 'paused')", New: "",
		Test: "store.TestReplayCheckpoint/cancelled meanwhile",
	},
	{
		Rule: "A replay's position is its own", File: "store/aside_changes.go",
		Old: "WHEN p.state = 'paused' THEN p.state ELSE 'running'", New: "ELSE 'running'",
		Test: "store.TestReplayCheckpoint/paused meanwhile",
	},

	{
		Rule: "Moves are the taker's", File: "store/checkpoint.go",
		Old: "\n       AND NOT ` + moving + `\n", New: "\n",
		Test: "store.TestMoves/not by the holder",
	},
	{
		Rule: "Moves are the taker's", File: "store/runs.go",
		Old: "WHERE r.id = old.id AND moves = 0 AND", New: "WHERE r.id = old.id AND",
		Test: "store.TestMoves/not by the holder",
	},
	{
		Rule: "Moves are the taker's", File: "store/runs.go",
		Old: "\t\t_, err = tx.Exec(ctx, `UPDATE runs SET lease = $2 WHERE id = $1`, subscriber, fencedLease)\n", New: "",
		Test: "store.TestMoves/of a row that may not send, whose holder vanished",
	},
	{
		Rule: "Moves are the taker's", File: "store/moves.go",
		Old: "pendingMove = moving + ` AND result IS NULL`", New: "pendingMove = moving + ` AND applied_at IS NULL`",
		Test: "store.TestMoves/not by the release before",
	},
	{
		Rule: "Moves are the taker's", File: "store/moves.go",
		Old: "`+pendingMove+` ORDER BY version`", New: "`+pendingMove+` ORDER BY version DESC`",
		Test: "store.TestMoves/in order",
	},
	{
		Rule: "Moves are the taker's", File: "store/park.go",
		Old: "ELSE desired_version > applied_version OR moves > 0 OR pull", New: "ELSE desired_version > applied_version OR pull",
		Test: "store.TestMoves/not by who settles a fenced row",
	},

	{
		Rule: "A seek says where it leads", File: "store/seek.go",
		Old: "SELECT floor_sequence FROM feeds WHERE id = $1 FOR SHARE", New: "SELECT floor_sequence FROM feeds WHERE id = $1",
		Test: "store.TestSeekWaitsForTheFloor",
	},
	{
		Rule: "A seek says where it leads", File: "store/seek.go",
		Old: "case t.to < t.floor:", New: "case t.to < 0:",
		Test: "store.TestSeekRefused",
	},
	{
		Rule: "A seek says where it leads", File: "store/seek.go",
		Old: "\tif to <= run.Cursor {\n", New: "\tif to < run.Cursor {\n",
		Test: "store.TestSeek/to where it is",
	},
	{
		Rule: "A seek says where it leads", File: "store/seek.go",
		Old: "return notify(ctx, tx, ParkedChannel, subscriber)", New: "return nil",
		Test: "store.TestSeekOfAParkedRow",
	},
	{
		Rule: "Nobody skips what was not seen", File: "store/moves.go",
		Old: "h.sequence = f.sequence AND f.sequence = $4\n", New: "h.sequence = f.sequence\n",
		Test: "store.TestHeldControls/skip of what was accepted meanwhile",
	},
	{
		Rule: "Nobody skips what was not seen", File: "store/skip.go",
		Old: "case run.HaltedEvent != r.Sequence || r.Sequence == 0:", New: "case run.HaltedEvent == 0:",
		Test: "store.TestSkip/where it is not halted",
	},

	{
		Rule: "A parking may have an end", File: "store/park.go",
		Old: "coalesce(wake_at < clock_timestamp() - $1::interval, false)", New: "false",
		Test: "store.TestParkedWake/swept once it is due",
	},
	{
		Rule: "A parking may have an end", File: "store/park.go",
		Old: "greatest(r.cursor, r.scanned), r.generation", New: "r.cursor, r.generation",
		Test: "store.TestParkedWake/its position",
	},

	{
		Rule: "What is set aside keeps the log", File: "eventlog/low_water.go",
		Old: "(SELECT min(h.sequence) - 1 FROM held_events h WHERE h.subscriber = r.id)", New: "NULL",
		Test: "eventlog.TestRetainKeepsWhatIsSetAside",
	},
	{
		Rule: "What is set aside keeps the log", File: "eventlog/low_water.go",
		Old: "(SELECT min(d.sequence) - 1 FROM dead_letters d WHERE d.subscriber = r.id)", New: "NULL",
		Test: "eventlog.TestRetainKeepsWhatIsSetAside",
	},
	{
		Rule: "What is set aside keeps the log", File: "eventlog/low_water.go",
		Old: "WHERE p.subscriber = r.id AND p.state IN ('queued', 'running', 'paused'))", New: "WHERE p.subscriber = r.id AND p.state = 'running')",
		Test: "eventlog.TestRetainKeepsWhatIsSetAside",
	},
	{
		Rule: "What is set aside keeps the log", File: "eventlog/low_water.go",
		Old: "c.kind = 'seek' AND c.result IS NULL", New: "c.kind = '' AND c.result IS NULL",
		Test: "eventlog.TestRetainKeepsWhatIsSetAside",
	},
	{
		Rule: "What is lost is noted", File: "eventlog/low_water.go",
		Old: "s.events, s.through = s.events+events,", New: "s.events, s.through = s.events,",
		Test: "eventlog.TestRetainRemovesWhatIsSetAside",
	},
	{
		Rule: "What is lost is noted", File: "eventlog/loss.go",
		Old: " && !s.dealtWith(sequence)", New: "",
		Test: "eventlog.TestRetainRemovesWhatIsSetAside",
	},
}

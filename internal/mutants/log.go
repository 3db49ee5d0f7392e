package mutants

// readFeed is how append_events reads a feed and its last event.
const readFeed = `    SELECT f.sequences, f.epoch, f.floor_sequence, f.deleted_at, f.created_at, last.sequence, last.recorded_at
    INTO v_feed
    FROM feeds f LEFT JOIN LATERAL (
        SELECT e.sequence, e.recorded_at FROM events e WHERE e.feed_id = f.id ORDER BY e.sequence DESC LIMIT 1) last ON true
    WHERE f.id = p_feed;
`

// logMutants take out the rules of the log.
var logMutants = []Mutant{
	{
		Rule: "One writer at a time", File: "store/migrations/00012_append.sql",
		Old: "    PERFORM lock_feed(p_feed);\n", New: "",
		Test: "eventlog.TestOrder",
	},
	{
		// Keys that were there when the transaction began, before it had the lock.
		Rule: "Look-up after the lock", File: "store/migrations/00012_append.sql",
		Old:  "AND k.epoch = v_feed.epoch AND k.expires_at > v_now",
		New:  "AND k.epoch = v_feed.epoch AND k.expires_at - p_keep BETWEEN now() - p_keep AND now()",
		Test: "eventlog.TestSameKeyFromManyPublishers",
	},
	{
		Rule: "A feed is judged under its lock", File: "store/migrations/00012_append.sql",
		Old:  "    PERFORM lock_feed(p_feed);\n\n" + readFeed,
		New:  readFeed + "    PERFORM lock_feed(p_feed);\n",
		Test: "eventlog.TestDeleteFeedBesideAppends",
	},
	{
		Rule: "A feed is judged under its lock", File: "eventlog/feeds.go",
		Old: "SELECT lock_feed($1)", New: "SELECT $1::bigint",
		Test: "eventlog.TestDeleteFeedBesideAppends",
	},
	{
		Rule: "No counter row", File: "store/migrations/00012_append.sql",
		Old:  "    PERFORM lock_feed(p_feed);\n",
		New:  "    PERFORM lock_feed(p_feed);\n    UPDATE feeds SET description = description WHERE id = p_feed;\n",
		Test: "eventlog.TestForeignSnapshot",
	},
	{
		Rule: "What changed, by snapshot", File: "eventlog/changes.go",
		Old: "WHERE e.xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))", New: "WHERE false",
		Test: "eventlog.TestLateCommitIsSeen",
	},
	{
		Rule: "What changed, by snapshot", File: "store/migrations/00012_append.sql",
		Old: "CASE WHEN u.number = v_last THEN", New: "CASE WHEN u.number = v_head + 1 THEN",
		Test: "eventlog.TestNotified",
	},
	{
		Rule: "A bad request fails alone", File: "eventlog/batch.go",
		Old: "if len(b.requests) > 1 {", New: "if len(b.requests) > 1_000_000 {",
		Test: "eventlog.TestGroup",
	},
	{
		Rule: "A bad request fails alone", File: "store/migrations/00012_append.sql",
		Old:  "            RETURN QUERY SELECT v_request, v_verdict, v_at - 1, v_head, 0, NULL::bigint[];",
		New:  "            RAISE EXCEPTION 'conflict' USING ERRCODE = 'data_exception';",
		Test: "eventlog.TestGroup",
	},
	{
		Rule: "Unknown outcomes are not sent again", File: "eventlog/batch.go",
		Old: "case pgconn.SafeToRetry(err) && time.Since", New: "case time.Since",
		Test: "eventlog.TestOutcomeUnknown",
	},
	{
		Rule: "Unknown outcomes are not sent again", File: "eventlog/batch.go",
		Old: `"%w: %w", ErrUnknownOutcome, err`, New: `"%w: %w", ErrUnavailable, err`,
		Test: "eventlog.TestOutcomeUnknown",
	},
	{
		Rule: "Equal keys are judged alike", File: "store/migrations/00012_append.sql",
		Old: "SELECT count(u.key) = count(DISTINCT u.key) INTO v_plain", New: "SELECT true INTO v_plain",
		Test: "eventlog.TestIdempotencyKeys",
	},
	{
		Rule: "Equal keys are judged alike", File: "store/migrations/00012_append.sql",
		Old: "OR s.leading_hash <> s.hash ", New: "",
		Test: "eventlog.TestIdempotencyKeys",
	},
	{
		Rule: "Supplied numbers only rise", File: "store/migrations/00012_append.sql",
		Old: "SELECT p_sequences[1] > v_head AND bool_and", New: "SELECT bool_and",
		Test: "eventlog.TestSuppliedSequences",
	},
	{
		Rule: "Supplied numbers only rise", File: "store/migrations/00012_append.sql",
		Old: "IS DISTINCT FROM (s.name, s.record_key) THEN", New: "IS NULL THEN",
		Test: "eventlog.TestSuppliedSequences",
	},
	{
		Rule: "Recorded times never go back", File: "store/migrations/00012_append.sql",
		Old: "greatest(clock_timestamp(), v_feed.recorded_at, v_feed.created_at)", New: "greatest(clock_timestamp(), v_feed.created_at)",
		Test: "eventlog.TestRecordedAt",
	},
	{
		Rule: "Durable, whatever the session says", File: "store/migrations/00012_append.sql",
		Old: "IF current_setting('synchronous_commit') IN ('off', 'local') THEN", New: "IF false THEN",
		Test: "eventlog.TestSessionsAreDurable",
	},
	{
		Rule: "Durable, whatever the session says", File: "store/migrations/00012_append.sql",
		Old: "IF current_setting('transaction_isolation') <> 'read committed' THEN", New: "IF false THEN",
		Test: "eventlog.TestSessionsAreDurable",
	},
	{
		Rule: "A deleted feed's numbers are used up", File: "store/migrations/00012_append.sql",
		Old: "v_head := greatest(v_feed.sequence, v_feed.floor_sequence);", New: "v_head := coalesce(v_feed.sequence, 0);",
		Test: "eventlog.TestDeleteFeedBesideAppends",
	},
	{
		Rule: "A deleted feed's numbers are used up", File: "eventlog/feeds.go",
		Old: "floor_sequence = greatest(f.floor_sequence, last.sequence)", New: "floor_sequence = f.floor_sequence",
		Test: "eventlog.TestDeleteFeed",
	},
	{
		Rule: "The floor hides at once", File: "eventlog/reader.go",
		Old: "case q.after < s.floor:", New: "case q.after < 0:",
		Test: "eventlog.TestRead",
	},
	{
		Rule: "A feed takes one writer", File: "eventlog/appender.go",
		Old: "\tcase q.inFlight:\n", New: "",
		Test: "eventlog.TestOneSlowFeedHoldsUpNoOther",
	},
	{
		Rule: "Groups and queues are bounded", File: "eventlog/appender.go",
		Old: "events+len(r.events) > a.config.GroupEvents || ", New: "",
		Test: "eventlog.TestGroup",
	},
	{
		Rule: "Groups and queues are bounded", File: "eventlog/appender.go",
		Old: " || bytes+r.bytes > a.config.GroupBytes)", New: ")",
		Test: "eventlog.TestGroup",
	},
	{
		Rule: "Groups and queues are bounded", File: "eventlog/appender.go",
		Old: "if full && a.events > 0 {", New: "if full && a.events < 0 {",
		Test: "eventlog.TestQueueIsBounded",
	},
	{
		Rule: "Told after the commit, and polled", File: "eventlog/batch.go",
		Old: "\tif grew {\n", New: "\tif false && grew {\n",
		Test: "eventlog.TestNotified",
	},
	{
		Rule: "Told after the commit, and polled", File: "eventlog/tail.go",
		Old: "\t\tcase <-poll.C:\n", New: "",
		Test: "eventlog.TestLateCommitIsSeen",
	},
	{
		Rule: "A new connection looks afresh", File: "eventlog/tail.go",
		Old: "\tconnected := func() {\n\t\tt.mu.Lock()\n\t\tt.missed = true\n\t\tt.mu.Unlock()\n", New: "\tconnected := func() {\n",
		Test: "eventlog.TestServerReplaced",
	},
	{
		Rule: "Laggards read pages", File: "eventlog/ring.go",
		Old: "if !f.begun || scanned < f.lo {", New: "if !f.begun {",
		Test: "eventlog.TestFollowersSeeTheFilteredLog",
	},
	{
		Rule: "Rings are bounded", File: "eventlog/ring.go",
		Old: "for r.total > r.totalMax &&", New: "for r.total < 0 &&",
		Test: "eventlog.TestRingsAreBounded",
	},
	{
		Rule: "Idle feeds cost nothing", File: "eventlog/tail.go",
		Old: `if t.snapshot != "" && !missed {`, New: `if t.snapshot != "" && missed {`,
		Test: "eventlog.TestIdleFeedsCostNothing",
	},
}

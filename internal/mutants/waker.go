package mutants

// wakerMutants take out the rules of the waker, the sweep and the worker.
var wakerMutants = []Mutant{
	{
		Rule: "A wake names its parking", File: "worker/match.go",
		Old: "w.sender.send(r.ID, r.Generation)", New: "w.sender.send(r.ID, 0)",
		Test: "worker.TestWakerWakes",
	},
	{
		Rule: "A wake names its parking", File: "worker/board.go",
		Old: "p.Generation < old.Generation || (p.", New: "(p.",
		Test: "worker.TestBoard",
	},
	{
		Rule: "A wake names its parking", File: "workflows/subscriber.go",
		Old: "(s.deliver == nil && generation >= s.generation)", New: "s.deliver == nil",
		Test: "workflows.TestSubscriberRests",
	},
	{
		Rule: "A wake names its parking", File: "workflows/subscriber.go",
		Old: "if s.woken >= result.Generation {", New: "if s.woken > result.Generation {",
		Test: "workflows.TestSubscriberRests",
	},
	{
		Rule: "The waker's first match", File: "worker/match.go",
		Old: "\tafter := r.Cursor\n\tfor after", New: "\tafter := upTo\n\tfor after",
		Test: "worker.TestWakerWakes",
	},
	{
		Rule: "The waker's first match", File: "worker/match.go",
		Old: "rowIndexed, max(position, r.Cursor)", New: "rowIndexed, position",
		Test: "worker.TestWakerWakes",
	},
	{
		Rule: "The waker passes a raised floor", File: "worker/match.go",
		Old: "\t\t\tafter = below.FirstSequence - 1 // what", New: "\t\t\treturn 0, nil // what",
		Test: "worker.TestWakerWakes",
	},
	{
		Rule: "The waker passes a raised floor", File: "worker/match.go",
		Old: "\tif errors.As(err, &below) {", New: "\tif err == nil && errors.As(err, &below) {",
		Test: "worker.TestWakerWakes",
	},
	{
		Rule: "Wakes are sent again", File: "worker/sender.go",
		Old: "\ts.requeue(w, after)\n", New: "\ts.forget(w.id, w.generation)\n\t_ = after\n",
		Test: "worker.TestSender",
	},
	{
		Rule: "Wakes are sent again", File: "worker/sender.go",
		Old: "min(2*w.delay, s.againMax)", New: "w.delay",
		Test: "worker.TestSender",
	},
	{
		Rule: "Wakes are sent again", File: "worker/sender.go",
		Old:  "\t\ts.requeue(w, s.afterError)\n\t\treturn\n\t}\n\tif w.generation == 0",
		New:  "\t\ts.forget(w.id, w.generation)\n\t\treturn\n\t}\n\tif w.generation == 0",
		Test: "worker.TestSender",
	},
	{
		Rule: "Wakes are sent again", File: "worker/sender.go",
		Old: "if w.sends > 0 && w.generation > 0 {", New: "if w.sends < 0 {",
		Test: "worker.TestSender",
	},
	{
		Rule: "Wakes are bounded", File: "worker/sender.go",
		Old: "w == nil || s.limiter.Wait(ctx) != nil", New: "w == nil",
		Test: "worker.TestSender",
	},
	{
		Rule: "Wakes are bounded", File: "worker/waker.go",
		Old: "querying: make(chan struct{}, w.config.Statements)", New: "querying: make(chan struct{}, 100)",
		Test: "worker.TestWakerStatements",
	},
	{
		Rule: "The waker waits for nobody", File: "worker/sender.go",
		Old:  "\terr := s.signaller.Wake(signalling, w.id, w.generation)\n",
		New:  "\ts.mu.Lock()\n\terr := s.signaller.Wake(signalling, w.id, w.generation)\n\ts.mu.Unlock()\n",
		Test: "worker.TestWakerLearnsWhileSignalsBlock",
	},
	{
		Rule: "A waker out of reach yields", File: "worker/sender.go",
		Old: "if err != nil && time.Since(s.reach.failingSince) >= s.yieldAfter {", New: "if false {",
		Test: "worker.TestOneWakerIsActive/one whose signals do not arrive lets the other try",
	},
	{
		Rule: "The waker waits for nobody", File: "worker/waker.go",
		Old:  "\tdefer w.admit(ctx)()\n\treturn w.store.ParkedRow",
		New:  "\tdefer w.admit(ctx)()\n\tw.board.mu.Lock()\n\tdefer w.board.mu.Unlock()\n\treturn w.store.ParkedRow",
		Test: "worker.TestWakerMatchesWhileRowsAreRead",
	},
	{
		Rule: "The waker reloads", File: "worker/upkeep.go",
		Old: "\t\tcase <-timer.C:\n", New: "",
		Test: "worker.TestWakerWakes",
	},
	{
		Rule: "The waker reloads", File: "worker/waker.go",
		Old: "handlers, w.reloadSoon)", New: "handlers, func() {})",
		Test: "worker.TestWakerWakes",
	},
	{
		Rule: "The waker reloads", File: "worker/board.go",
		Old: "if r.round < round {", New: "if r.round < 0 {",
		Test: "worker.TestWakerForgetsRowsThatRun",
	},
	{
		Rule: "One waker", File: "worker/leader.go",
		Old: "\t\tif won {", New: "\t\tif won || !won {",
		Test: "worker.TestOneWakerIsActive",
	},
	{
		Rule: "One waker", File: "worker/leader.go",
		Old: "\t\t\treturn fmt.Errorf(\"keep waker lock: %w\", err)", New: "\t\t\tl.logger.Warn(\"waker session lost\", \"error\", err)",
		Test: "worker.TestOneWakerIsActive",
	},
	{
		Rule: "One waker", File: "worker/leader.go",
		Old: "l.timeout.Milliseconds())", New: "0*l.timeout.Milliseconds())",
		Test: "worker.TestOneWakerIsActive",
	},
	{
		Rule: "Cursors of parked rows move", File: "worker/board.go",
		Old: "Version: r.Version, Cursor: r.feed.position}", New: "Version: r.Version, Cursor: r.Cursor}",
		Test: "worker.TestWakerMovesCursors",
	},
	{
		Rule: "Cursors of parked rows move", File: "worker/board.go",
		Old: "r.state == rowIndexed && r.feed.position", New: "r.feed.position",
		Test: "worker.TestWakerMovesCursors",
	},
	{
		Rule: "Cursors of parked rows move", File: "store/park.go",
		Old: "AND r.generation = c.generation AND", New: "AND",
		Test: "store.TestParkedRows",
	},
	{
		Rule: "Cursors of parked rows move", File: "store/park.go",
		Old: "AND r.desired_version = c.version\n", New: "\n",
		Test: "store.TestParkedRows",
	},
	{
		Rule: "Cursors of parked rows move", File: "store/park.go",
		Old: " SKIP LOCKED\n", New: "\n",
		Test: "store.TestMoveParkedCursorsPassesOverLockedRows",
	},
	{
		Rule: "The sweep", File: "worker/upkeep.go",
		Old: "\t\t\tw.sweeper.send(id, 0)\n", New: "\t\t\t_ = id\n",
		Test: "worker.TestWakerSweeps",
	},
	{
		Rule: "The sweep", File: "store/park.go",
		Old: "ELSE desired_version > applied_version OR", New: "ELSE false OR",
		Test: "store.TestSweepRows",
	},
	{
		Rule: "The sweep", File: "store/park.go",
		Old: "AND CASE WHEN parked THEN", New: "AND CASE WHEN false THEN",
		Test: "store.TestSweepRows",
	},
	{
		Rule: "Tombstones", File: "worker/upkeep.go",
		Old: "\t\tif !closed {\n\t\t\tcontinue\n\t\t}\n", New: "\t\t_ = closed\n",
		Test: "worker.TestWakerPurges",
	},
	{
		Rule: "Tombstones", File: "worker/upkeep.go",
		Old: "\t\treturn w.sweepTombstones(ctx)", New: "\t\treturn nil",
		Test: "worker.TestWakerPurges",
	},
	{
		Rule: "Tombstones", File: "store/subscriber_writes.go",
		Old: "DELETE FROM runs WHERE id = $1 AND deleted`", New: "DELETE FROM runs WHERE id = $1`",
		Test: "store.TestDelete",
	},
	{
		Rule: "Tombstones", File: "store/subscriber_writes.go",
		Old: "\tcase deleted:\n\t\treturn ErrDeleting\n", New: "\tcase deleted:\n\t\treturn ErrExists\n",
		Test: "store.TestDelete",
	},
	{
		Rule: "One cluster per database", File: "worker/installation.go",
		Old: "\tif stored != here {", New: "\tif stored.Namespace == \"\" {",
		Test: "worker.TestInstallation", Temporal: true,
	},
	{
		Rule: "A cancelled run drains", File: "workflows/outcome.go",
		Old: "\t\tWaitForCancellation: true, // a cancelled run closes when nothing is in flight\n", New: "",
		Test: "workflows.TestReplay",
	},
}

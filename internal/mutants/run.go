package mutants

// runMutants take out the rules of a run: the gate, waits, parking, the drain.
var runMutants = []Mutant{
	{
		Rule: "Gate a: no control, no drain", File: "activities/gate.go",
		Old: "r.applied, r.closed = version, true", New: "r.applied = version",
		Test: "activities.TestControlInFlight/pause and resume",
	},
	{
		Rule: "Gate a: no control, no drain", File: "activities/gate.go",
		Old: "case r.closed || r.draining || r.lost", New: "case r.draining || r.lost",
		Test: "activities.TestControlSeen/confirmation",
	},
	{
		Rule: "Gate a: no control, no drain", File: "activities/gate.go",
		Old: "case r.closed || r.draining || r.lost", New: "case r.closed || r.lost",
		Test: "activities.TestDrain/at the gate",
	},
	{
		Rule: "Gate a: no control, no drain", File: "activities/gate.go",
		Old: "\t\t\tcase <-roomMade:\n\t\t\tcase <-r.kick:\n", New: "\t\t\tcase <-roomMade:\n",
		Test: "activities.TestDrain/at the gate",
	},

	{
		Rule: "Gate b: few unsaved", File: "activities/gate.go",
		Old: "count+n <= r.a.cfg.UnsavedEvents && ", New: "",
		Test: "activities.TestGateUnsaved/by their number",
	},
	{
		Rule: "Gate b: few unsaved", File: "activities/gate.go",
		Old: "count+n <= r.a.cfg.UnsavedEvents && ", New: "n > 0 && count <= r.a.cfg.UnsavedEvents && ",
		Test: "activities.TestGateUnsaved/by their number",
	},
	{
		Rule: "Gate b: few unsaved", File: "activities/gate.go",
		Old: " && r.unsaved.age(now) < r.a.cfg.UnsavedAge", New: " && !now.IsZero()",
		Test: "activities.TestGateUnsaved/by their age",
	},
	{
		Rule: "Gate b: few unsaved", File: "activities/gate.go",
		Old: "r.unsaved.age(now) < r.a.cfg.UnsavedAge", New: "r.unsaved.age(now) <= 4*r.a.cfg.UnsavedAge",
		Test: "activities.TestFewUnsaved",
	},
	{
		Rule: "Gate b: few unsaved", File: "activities/gate.go",
		Old: "return count == 0 || count+n", New: "return count+n",
		Test: "activities.TestGateUnsaved/one request may hold more",
	},

	{
		Rule: "Gate c: confirmed within a second", File: "activities/gate.go",
		Old: "case now.Sub(r.confirmed) >= r.a.cfg.LeaseTrust:", New: "case r.confirmed.IsZero():",
		Test: "activities.TestGateLease",
	},
	{
		Rule: "Gate c: confirmed within a second", File: "activities/gate.go",
		Old: "\tif !held {\n", New: "\tif !held && sentAt.IsZero() {\n",
		Test: "activities.TestGateTrust/confirming",
	},
	{
		Rule: "Gate c: confirmed within a second", File: "store/runs.go",
		Old:  "SELECT r.id, r.lease, r.desired_version\n\t\t  FROM unnest($1::text[], $2::uuid[]) AS c (id, lease) JOIN runs r ON r.id = c.id AND r.lease = c.lease",
		New:  "SELECT r.id, c.lease, r.desired_version\n\t\t  FROM unnest($1::text[], $2::uuid[]) AS c (id, lease) JOIN runs r ON r.id = c.id",
		Test: "store.TestTakeLease/fences whoever held it",
	},
	{
		Rule: "Gate c: confirmed within a second", File: "store/runs.go",
		Old: "WHERE NOT r.parked AND NOT r.deleted`", New: "WHERE NOT r.deleted`",
		Test: "store.TestWriteCheckpoints/a parking gets a generation of its own",
	},
	{
		Rule: "Gate c: confirmed within a second", File: "activities/confirmer.go",
		Old: "return desired, held, mine.sentAt, mine.err", New: "return desired, held, time.Now(), mine.err",
		Test: "activities.TestConfirmer",
	},
	{
		Rule: "Gate c: confirmed within a second", File: "activities/run.go",
		Old: "confirmed: sentAt, touched: now", New: "confirmed: now, touched: now",
		Test: "activities.TestGateTrust/taking",
	},
	{
		Rule: "Gate c: confirmed within a second", File: "activities/gate.go",
		Old: "\tr.confirmed = sentAt\n\tr.controlSeenLocked(desired)", New: "\tr.confirmed = sentAt.Add(time.Since(sentAt))\n\tr.controlSeenLocked(desired)",
		Test: "activities.TestGateTrust/confirming",
	},
	{
		Rule: "Gate c: confirmed within a second", File: "activities/checkpointer.go",
		Old: "} else {\n\t\t\t\t\ts.resolve(saved{CheckpointResult: results[i], sentAt: sentAt})", New: "} else {\n\t\t\t\t\ts.resolve(saved{CheckpointResult: results[i], sentAt: sentAt.Add(time.Since(sentAt))})",
		Test: "activities.TestGateTrust/checkpoint",
	},

	{
		Rule: "Gate d: no wait", File: "activities/planner/answer.go",
		Old: "return p.wait != nil || p.disabled || p.halted != \"\" }", New: "return p.disabled || p.halted != \"\" }",
		Test: "activities.TestWaitWritten",
	},
	{
		Rule: "Gate d: no wait", File: "activities/planner/answer.go",
		Old: "return p.wait != nil || p.disabled || p.halted != \"\" }", New: "return p.wait != nil || p.halted != \"\" }",
		Test: "activities.TestGone",
	},
	{
		Rule: "Gate d: no wait", File: "activities/planner/answer.go",
		Old: "return p.wait != nil || p.disabled || p.halted != \"\" }", New: "return p.wait != nil || p.disabled }",
		Test: "activities/planner.TestPlanAgainstModel",
	},

	{
		Rule: "Gate e: room for attempts", File: "activities/attempts.go",
		Old: "return w.count < w.max && w.bytes < attemptsQueueBytesMax, w.room", New: "return true, w.room",
		Test: "activities.TestGateAttempts",
	},

	{
		Rule: "The position stays under a control", File: "activities/reading.go",
		Old: "\tif r.closed {\n", New: "\tif r.closed && r.plan == nil {\n",
		Test: "activities.TestControlStaysPut",
	},

	{
		Rule: "A run that lives marks its row", File: "activities/rest.go",
		Old: "\tif left <= 0 && !r.parking {\n\t\tr.saveLocked(nil, nil)\n\t}\n", New: "",
		Test: "activities.TestTouchInFlight",
	},
	{
		Rule: "A run that lives marks its row", File: "store/checkpoint.go",
		Old: "        checked_at = clock_timestamp(), checkpoint = c.number", New: "        checked_at = r.checked_at, checkpoint = c.number",
		Test: "activities.TestTouchInFlight",
	},

	{
		Rule: "Slots make room", File: "activities/deliver.go",
		Old: "\tif a.pressed() {\n", New: "\tif a.pressed() && began.IsZero() {\n",
		Test: "activities.TestBudget/pressed later",
	},
	{
		Rule: "Slots make room", File: "activities/reading.go",
		Old: "\tif r.a.pressed() {\n\t\tlinger = 0\n\t}\n", New: "",
		Test: "activities.TestBudget/pressed while lingering",
	},
	{
		Rule: "Slots make room", File: "activities/registry.go",
		Old: "\t\ta.runs.each((*run).wake)\n", New: "",
		Test: "activities.TestBudget/pressed while lingering",
	},
	{
		Rule: "Slots make room", File: "worker/slots.go",
		Old: "min(max(memoryBytes/2/slotBytes, slotsMin), slotsMax)", New: "max(memoryBytes/2/slotBytes, slotsMin)",
		Test: "worker.TestSlots",
	},

	{
		Rule: "Look before parking", File: "activities/reading.go",
		Old: "if left <= 0 && !looking &&", New: "if left <= 0 && (looking || !looking) &&",
		Test: "activities.TestNoMatch",
	},
	{
		Rule: "Look again after parking", File: "activities/rest.go",
		Old: "\tmatch, err := r.lookAgain()\n", New: "\tmatch, err := int64(0), error(nil)\n",
		Test: "activities.TestUnpark",
	},
	{
		Rule: "A parking is announced", File: "activities/rest.go",
		Old: "return r.a.cfg.Store.AnnounceParked(ctx, r.id) })", New: "return ctx.Err() })",
		Test: "activities.TestParkAnnounced",
	},
	{
		Rule: "Unpark compares", File: "store/park.go",
		Old: "AND lease = $2 AND generation = $3 AND parked", New: "AND $2::uuid IS NOT NULL AND generation = $3 AND parked",
		Test: "store.TestUnpark/another lease",
	},
	{
		Rule: "Unpark compares", File: "store/park.go",
		Old: "AND lease = $2 AND generation = $3 AND parked", New: "AND lease = $2 AND $3::bigint IS NOT NULL AND parked",
		Test: "store.TestUnpark/another parking",
	},
	{
		Rule: "Unpark compares", File: "store/park.go",
		Old: "AND desired_version = $4 AND moves = 0 AND `+runnable", New: "AND $4::bigint IS NOT NULL AND `+runnable",
		Test: "store.TestUnpark/a control",
	},
	{
		Rule: "Unpark compares", File: "store/park.go",
		Old: "AND desired_version = $4 AND moves = 0 AND `+runnable,", New: "AND desired_version = $4`,",
		Test: "store.TestUnpark/a hold",
	},
	{
		Rule: "Unpark compares", File: "activities/rest.go",
		Old: "\tif !ok {\n", New: "\tif !ok && match < 0 {\n",
		Test: "activities.TestUnparkTaken",
	},

	{
		Rule: "Out of reach is as good as dead", File: "activities/rest.go",
		Old: "if until <= 0 && !r.lost {", New: "if false {",
		Test: "activities.TestGateLost/another worker goes on",
	},
	{
		Rule: "Drain has contexts of its own", File: "activities/deliver.go",
		Old: "base := context.WithoutCancel(ctx)", New: "base := ctx",
		Test: "activities.TestDrain/cancelled by Temporal",
	},
	{
		Rule: "Drain has contexts of its own", File: "activities/activities.go",
		Old: "context.WithCancelCause(context.WithoutCancel(ctx))", New: "context.WithCancelCause(ctx)",
		Test: "activities.TestDrain/while lingering",
	},
	{
		Rule: "Drain has contexts of its own", File: "activities/run.go",
		Old: "stopWatching := context.AfterFunc(ctx, r.drain)", New: "stopWatching := context.AfterFunc(ctx, r.cancel)",
		Test: "activities.TestDrain/cancelled by Temporal",
	},
	{
		Rule: "Drain has contexts of its own", File: "activities/gate.go",
		Old: "time.AfterFunc(r.a.cfg.DrainRequests, r.cancel)", New: "time.AfterFunc(0, r.cancel)",
		Test: "activities.TestDrain/finishes what is in flight",
	},
	{
		Rule: "A drain is bounded", File: "activities/gate.go",
		Old: "time.AfterFunc(r.a.cfg.DrainRequests, r.cancel)", New: "time.AfterFunc(time.Hour, r.cancel)",
		Test: "activities.TestDrain/gives up what hangs",
	},
	{
		Rule: "A drain is bounded", File: "activities/rest.go",
		Old: "\t\t\tbound = time.After(r.a.cfg.ReleaseTimeout)\n", New: "\t\t\tbound = time.After(time.Hour)\n",
		Test: "activities.TestDrain/without PostgreSQL",
	},
	{
		Rule: "A drain is bounded", File: "activities/deliver.go",
		Old: "\tcase <-a.draining:\n\tcase <-ctx.Done():\n\t}\n\treturn func", New: "\t}\n\treturn func",
		Test: "activities.TestDrainBeforeTheFirstHeartbeat",
	},
	{
		Rule: "Every return gives the lease back", File: "activities/rest.go",
		Old: "c.Release, c.InFlight = true, 0", New: "c.InFlight = 0",
		Test: "activities.TestBudget/used up",
	},
	{
		Rule: "Every return gives the lease back", File: "store/checkpoint.go",
		Old: "lease = CASE WHEN c.release OR c.park AND r.pull THEN NULL ELSE r.lease END", New: "lease = r.lease",
		Test: "store.TestWriteCheckpoints/never ends a hold",
	},
	{
		Rule: "Every return gives the lease back", File: "activities/run.go",
		Old: "if end != endParked && end != endFenced", New: "if end != endDrained && end != endParked && end != endFenced",
		Test: "activities.TestDrain/while lingering",
	},
	{
		Rule: "Every return gives the lease back", File: "activities/run.go",
		Old: "if end != endParked && end != endFenced", New: "if end != endBudget && end != endParked && end != endFenced",
		Test: "activities.TestBudget/used up",
	},
	{
		Rule: "Every return gives the lease back", File: "activities/run.go",
		Old: "if end != endParked && end != endFenced", New: "if end != endControl && end != endParked && end != endFenced",
		Test: "activities.TestControlInFlight/pause and resume",
	},
}

package mutants

// leaseMutants take out the rules of the lease, the checkpoint and controls.
var leaseMutants = []Mutant{
	{
		Rule: "One lease", File: "store/runs.go",
		Old: "UPDATE runs r SET lease = $2,", New: "UPDATE runs r SET lease = coalesce(r.lease, $2),",
		Test: "store.TestTakeLease/fences whoever held it",
	},
	{
		Rule: "One lease", File: "activities/gate.go",
		Old: "\tcase !s.Held:\n\t\tr.fenced = true\n", New: "",
		Test: "activities.TestZombie",
	},

	{
		Rule: "A lease only where runnable", File: "store/runs.go",
		Old: "NOT deleted AND NOT disabled AND", New: "NOT disabled AND",
		Test: "store.TestTakeLease/not while deleted",
	},
	{
		Rule: "A lease only where runnable", File: "store/runs.go",
		Old: "NOT deleted AND NOT disabled AND", New: "NOT deleted AND",
		Test: "store.TestTakeLease/not while disabled",
	},
	{
		Rule: "A lease only where runnable", File: "store/runs.go",
		Old: "AND halted_reason IS NULL\n", New: "\n",
		Test: "store.TestTakeLease/not while halted",
	},
	{
		Rule: "A lease only where runnable", File: "store/runs.go",
		Old: "\tAND (NOT paused OR coalesce(paused_until <= clock_timestamp(), false))\n", New: "",
		Test: "store.TestTakeLease/not while paused",
	},
	{
		Rule: "A lease only where runnable", File: "store/runs.go",
		Old: "coalesce(paused_until <= clock_timestamp(), false)", New: "paused_until IS NOT NULL",
		Test: "store.TestTakeLease/not while for long",
	},
	{
		Rule: "A lease only where runnable", File: "store/runs.go",
		Old: "(NOT paused OR coalesce(paused_until <= clock_timestamp(), false))", New: "NOT paused",
		Test: "store.TestTakeLease/ends a pause whose time has come",
	},
	{
		Rule: "A lease only where runnable", File: "store/runs.go",
		Old: "\n\tAND (not_before IS NULL OR not_before <= clock_timestamp())`", New: "`",
		Test: "store.TestTakeLease/not while waiting",
	},
	{
		Rule: "A lease only where runnable", File: "store/runs.go",
		Old: `WHERE id = $1 FOR UPDATE
		), taken AS (
		    UPDATE runs r SET lease = $2, checkpoint = 0, parked = false, applied_version = desired_version, checked_at = clock_timestamp(),
		           paused = false, paused_until = NULL, pause_reason = NULL, wake_at = NULL
		      FROM old
		     WHERE r.id = old.id AND moves = 0 AND ` + "`+runnable+`",
		New: "WHERE id = $1 AND `+runnable+`" + `
		), taken AS (
		    UPDATE runs r SET lease = $2, checkpoint = 0, parked = false, applied_version = desired_version, checked_at = clock_timestamp(),
		           paused = false, paused_until = NULL, pause_reason = NULL, wake_at = NULL
		      FROM old
		     WHERE r.id = old.id`,
		Test: "store.TestTakeLease/sees a hold that commits while it waits for the row",
	},

	{
		Rule: "A taker waits", File: "activities/deliver.go",
		Old: "\t\ta.outwait() // its last request may just be starting\n", New: "",
		Test: "activities.TestZombie",
	},
	{
		Rule: "A taker waits", File: "store/runs.go",
		Old: "WHERE id = $1 FOR UPDATE\n", New: "WHERE id = $1\n",
		Test: "store.TestTakeLease/finds a lease that commits while it waits for the row",
	},
	{
		Rule: "A taker waits", File: "store/runs.go",
		Old: "old_lease IS NOT NULL AND NOT old_parked AS stale", New: "old_lease IS NOT NULL AS stale",
		Test: "store.TestTakeLease/a lease kept by a parked row is not stale",
	},

	{
		Rule: "Checkpoints rise", File: "store/checkpoint.go",
		Old: " AND (r.checkpoint < c.number OR c.number = 0)", New: "",
		Test: "store.TestWriteCheckpoints/a try that arrives after a later one",
	},
	{
		Rule: "Checkpoints name their lease", File: "store/checkpoint.go",
		Old: "WHERE r.id = c.id AND r.lease = c.lease AND (", New: "WHERE r.id = c.id AND (",
		Test: "store.TestTakeLease/fences whoever held it",
	},
	{
		Rule: "Checkpoints name their lease", File: "store/checkpoint.go",
		Old: "FROM input c JOIN runs r ON r.id = c.id AND r.lease = c.lease\n WHERE NOT EXISTS", New: "FROM input c JOIN runs r ON r.id = c.id\n WHERE NOT EXISTS",
		Test: "store.TestTakeLease/fences whoever held it",
	},

	{
		Rule: "The wait is committed before the return", File: "activities/run.go",
		Old: "if end != endParked && end != endFenced", New: "if end != endStopped && end != endParked && end != endFenced",
		Test: "activities.TestWaitWritten",
	},
	{
		Rule: "The wait is committed before the return", File: "activities/rest.go",
		Old: "\tvar bound <-chan time.Time\n", New: "\tif change != nil {\n\t\treturn saved{}, true\n\t}\n\tvar bound <-chan time.Time\n",
		Test: "activities.TestWaitWritten",
	},
	{
		Rule: "The wait is committed before the return", File: "store/checkpoint.go",
		Old:  "not_before = CASE WHEN c.wait_us > 0 THEN clock_timestamp() + c.wait_us * interval '1 microsecond' END",
		New:  "not_before = CASE WHEN c.wait_us > 0 THEN r.not_before END",
		Test: "activities.TestWaitWritten",
	},
	{
		Rule: "The wait is committed before the return", File: "activities/convert.go",
		Old: "\t\tlater.Wait = shorten(c.Wait)\n", New: "",
		Test: "activities.TestPostgresKilledBehindRetryAfter",
	},

	{
		Rule: "A checkpoint is tried again", File: "activities/checkpointer.go",
		Old: "\t\tc.logger.Warn(\"checkpoints delayed\"", New: "\t\tif err != nil {\n\t\t\tc.fail(group, err)\n\t\t\treturn\n\t\t}\n\t\tc.logger.Warn(\"checkpoints delayed\"",
		Test: "activities.TestPostgresKilledBehindRetryAfter",
	},
	{
		Rule: "A checkpoint is tried again", File: "activities/checkpointer.go",
		Old: "\tif newer := c.pending[s.lease]; newer != nil {", New: "\tif newer := c.pending[s.lease]; newer != nil && s == nil {",
		Test: "activities.TestNewestCheckpoint",
	},

	{
		Rule: "A locked row holds up no other", File: "store/checkpoint.go",
		Old: "FOR UPDATE OF r SKIP LOCKED", New: "FOR UPDATE OF r",
		Test: "store.TestWriteCheckpoints/a locked row holds up no other",
	},
	{
		Rule: "A locked row holds up no other", File: "store/checkpoint.go",
		Old: "WHERE NOT EXISTS (SELECT FROM locked l", New: "WHERE false AND NOT EXISTS (SELECT FROM locked l",
		Test: "store.TestWriteCheckpoints/a locked row holds up no other",
	},
	{
		Rule: "A locked row holds up no other", File: "activities/checkpointer.go",
		Old: "if results[i].Busy {\n\t\t\t\t\tc.again(s)\n\t\t\t\t} else {", New: "{",
		Test: "activities.TestWaitWritten",
	},
	{
		Rule: "A refused checkpoint fails alone", File: "activities/checkpointer.go",
		Old: "\t\tcase store.DataRefused(err) && len(group) > 1:", New: "\t\tcase store.DataRefused(err) && len(group) < 1:",
		Test: "activities.TestMany",
	},

	{
		Rule: "A control is one transaction", File: "store/controls.go",
		Old: "\t\tresult, err = insertControl(ctx, tx, c)\n", New: "\t\tif _, err := tx.Exec(ctx, `COMMIT AND CHAIN`); err != nil {\n\t\t\treturn err\n\t\t}\n\t\tresult, err = insertControl(ctx, tx, c)\n",
		Test: "store.TestControl/one that is not recorded changes nothing",
	},
	{
		Rule: "A control is one transaction", File: "store/controls.go",
		Old: "WHERE id = $1 FOR UPDATE`, subscriber).Scan(&deleted)", New: "WHERE id = $1`, subscriber).Scan(&deleted)",
		Test: "store.TestControl/the same request twice at once is one control",
	},
	{
		Rule: "A control is one transaction", File: "store/controls.go",
		Old: "repeat, found, err := findControl(ctx, tx, c)", New: "repeat, found, err := findControl(ctx, tx, control{})",
		Test: "store.TestControl/the same request is one control",
	},

	{
		Rule: "In force at once without a holder", File: "store/controls.go",
		Old: "CASE WHEN lease IS NULL OR parked THEN desired_version + 1", New: "CASE WHEN parked THEN desired_version + 1",
		Test: "store.TestControl/in force at once where nobody sends",
	},
	{
		Rule: "In force at once without a holder", File: "store/controls.go",
		Old: "CASE WHEN lease IS NULL OR parked THEN desired_version + 1", New: "CASE WHEN lease IS NULL THEN desired_version + 1",
		Test: "store.TestControl/in force at once where nobody sends",
	},
	{
		Rule: "In force at once without a holder", File: "store/controls.go",
		Old: "CASE WHEN lease IS NULL OR parked THEN desired_version + 1", New: "CASE WHEN true THEN desired_version + 1",
		Test: "store.TestControl/put in force by the holder",
	},

	{
		Rule: "A control reaches its holder", File: "activities/registry.go",
		Old: "\t\t\t\t\t\tpoke()\n", New: "",
		Test: "activities.TestControlSeen/notification",
	},
	{
		Rule: "A control reaches its holder", File: "store/controls.go",
		Old: "return result, notify(ctx, tx, ControlsChannel, c.subscriber)", New: "return result, nil",
		Test: "activities.TestControlSeen/notification",
	},
	{
		Rule: "A control reaches its holder", File: "activities/registry.go",
		Old: "\t\tcase <-ticker.C:\n", New: "",
		Test: "activities.TestControlSeen/poll",
	},
	{
		Rule: "A control reaches its holder", File: "activities/gate.go",
		Old: "\t\tr.controlSeenLocked(s.Desired)\n", New: "",
		Test: "activities.TestControlSeen/checkpoint",
	},
	{
		Rule: "A control reaches its holder", File: "activities/gate.go",
		Old: "\tr.controlSeenLocked(desired)\n", New: "\t_ = desired\n",
		Test: "activities.TestControlSeen/confirmation",
	},

	{
		Rule: "The holder applies at once", File: "activities/gate.go",
		Old: "\tif !r.parking {\n\t\tr.saveLocked(nil, nil)\n\t}\n\tr.wake()\n", New: "\tr.wake()\n",
		Test: "activities.TestControlInFlight/pause and resume",
	},
	{
		Rule: "The holder applies at once", File: "activities/gate.go",
		Old: "if version <= max(r.desired, r.applied) {", New: "if version <= max(r.desired, r.applied) || r.closed {",
		Test: "activities.TestControlInFlight/both before the answer",
	},
	{
		Rule: "The holder applies at once", File: "store/checkpoint.go",
		Old: "ELSE greatest(r.applied_version, least(c.applied, r.desired_version)) END", New: "ELSE r.applied_version END",
		Test: "store.TestControl/put in force by the holder",
	},
	{
		Rule: "The holder applies at once", File: "store/checkpoint.go",
		Old: "ELSE greatest(r.applied_version, least(c.applied, r.desired_version)) END", New: "ELSE r.desired_version END",
		Test: "store.TestControl/put in force by the holder",
	},
	{
		Rule: "Whoever takes or leaves the row applies", File: "store/checkpoint.go",
		Old: "CASE WHEN c.park OR c.release THEN r.desired_version", New: "CASE WHEN c.park THEN r.desired_version",
		Test: "store.TestControl/put in force when the lease is given back",
	},
	{
		Rule: "Whoever takes or leaves the row applies", File: "store/checkpoint.go",
		Old: "CASE WHEN c.park OR c.release THEN r.desired_version", New: "CASE WHEN c.release THEN r.desired_version",
		Test: "store.TestControl/put in force when the lease is parked",
	},
	{
		Rule: "Whoever takes or leaves the row applies", File: "store/runs.go",
		Old: "parked = false, applied_version = desired_version, checked_at", New: "parked = false, checked_at",
		Test: "store.TestControl/put in force when the lease is taken",
	},

	{
		Rule: "A fenced holder gets a second", File: "activities/deliver.go",
		Old: "\tif stale {\n\t\ta.outwait()\n\t}\n", New: "",
		Test: "activities.TestControlInFlight/pause of a holder that died",
	},
	{
		Rule: "A fenced holder gets a second", File: "activities/deliver.go",
		Old: "return a.cfg.Store.ForceUnheld(ctx, id, true) })", New: "return ctx.Err() })",
		Test: "activities.TestControlInFlight/pause of a holder that died",
	},
	{
		Rule: "A fenced holder gets a second", File: "store/runs.go",
		Old: "applied_version = CASE WHEN $2 THEN desired_version ELSE applied_version END", New: "applied_version = desired_version",
		Test: "store.TestControl/put in force when the holder is gone",
	},
	{
		Rule: "A fenced holder gets a second", File: "store/runs.go",
		Old: "SET lease = CASE WHEN $2 THEN NULL ELSE $3::uuid END", New: "SET lease = CASE WHEN $3::uuid IS NULL THEN lease END",
		Test: "store.TestControl/a fenced holder's second is waited for, whatever comes meanwhile",
	},
	{
		Rule: "A fenced holder gets a second", File: "store/runs.go",
		Old: "CASE WHEN $2 THEN lease = $3 ELSE", New: "CASE WHEN $2 THEN true ELSE",
		Test: "store.TestControl/a fenced holder's second is waited for, whatever comes meanwhile",
	},
	{
		Rule: "A fenced holder gets a second", File: "store/runs.go",
		Old: "ELSE NOT (`+runnable+`) END", New: "ELSE true END",
		Test: "store.TestControl/a holder that may send is not fenced",
	},
	{
		Rule: "A task read late takes no lease", File: "activities/deliver.go",
		Old: "\tcase <-first:\n\tcase <-time.After(a.cfg.HeartbeatEvery):\n", New: "\tdefault:\n",
		Test: "activities.TestUnreadTask",
	},
}

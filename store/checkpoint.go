package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Checkpoint is the whole position of one run, to be written over the row as
// long as Lease holds it. It is absolute: writing it twice, or a newer one
// instead, does no harm.
type Checkpoint struct {
	ID    string
	Lease uuid.UUID
	// Number rises with every try to write a checkpoint under a lease. A try that
	// was given up may arrive after later ones, and writes nothing then. 0: it is
	// the only one.
	Number int64

	// Cursor: every matching event up to it is dealt with. Settled are ranges of
	// what is dealt with above it (from, to, from, to), up to Scanned; 0: nothing
	// above it was looked at.
	Cursor           int64
	Settled          []int64
	Scanned          int64
	PreviousSequence int64
	// FailingEvents are refused events above the cursor, each on its own schedule.
	FailingEvents []FailingEvent

	// Wait is how long nothing may be sent, from now; 0: no wait is in force.
	// PostgreSQL's clock makes the deadline of it.
	Wait       time.Duration
	WaitReason string
	WaitClass  string
	// Failing says that the endpoint fails, FailingFor since how long.
	Failing      bool
	FailingFor   time.Duration
	Failures     int
	Asked        int
	EventAttempt int
	RangeFirst   int64
	RangeLast    int64
	RangeAttempt int
	Probe        bool
	BatchLimit   int

	InFlight  int
	LastError string
	// Delivered stamps last_delivered_at.
	Delivered bool

	// Disable and Halt put the subscriber on hold; they never end a hold.
	Disable bool
	Halt    string
	// HaltedEvent is the event at which Halt stopped; 0: at none.
	HaltedEvent int64
	// LearnedBatch and LearnedLanes are what was learned about the consumer; 0:
	// nothing yet.
	LearnedBatch, LearnedLanes int
	// Applied puts the controls up to that version in force.
	Applied int64
	// Release gives the lease back; Park parks the row under a new generation.
	Release bool
	Park    bool
	// WakeAfter is when a parked row has something to do that no event tells of;
	// 0: never.
	WakeAfter time.Duration

	// Replay is the replay that the position (Cursor, Settled, Scanned,
	// PreviousSequence, EventAttempt, FailingEvents) is one of; the row's own
	// stays then. 0: it is the row's.
	Replay int64
	// ReplayDone is how many events of the replay are dealt with, ReplayFinished
	// that all are.
	ReplayDone     int64
	ReplayFinished bool
	// Aside changes what is set aside, together with the position; nil: nothing.
	Aside *AsideChanges
}

// CheckpointResult is what a checkpoint found.
type CheckpointResult struct {
	// Held reports that the lease held the row when the checkpoint was written;
	// false: another run took it, and nothing was written.
	Held bool
	// Busy reports that somebody else had the row locked: nothing was written,
	// and it may be tried again.
	Busy bool
	// Desired is the version of the last control accepted.
	Desired int64
	// Generation is the parking's number, where Park was asked.
	Generation int64
}

// changeRuns locks its rows in the order of their ids and passes over
// those that somebody else has locked: groups of several processes cannot
// deadlock on each other, and one row that is held for long, by a client that
// died in the middle of a control, holds up nobody else's.
//
// What a checkpoint changes for the people who run Postroad is told by the same
// statement; nothing of that is computed for one that changes nothing. $27 is
// announceRetrying. A number that is not above the row's is that of a try that
// was given up: who sent it has written since, and hears no answer.
const changeRuns = `
WITH input AS (
    SELECT * FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::text[],
        $9::bool[], $10::int[], $11::int[], $12::int[], $13::bigint[], $14::bigint[], $15::int[], $16::bool[], $17::int[],
        $18::int[], $19::text[], $20::bool[], $21::bool[], $22::text[], $23::bigint[], $24::bool[], $25::bool[], $26::bigint[], $28::bigint[],
        $29::bigint[], $30::text[], $31::bigint[], $32::bigint[], $33::int[], $34::int[], $35::bigint[])
      AS c (id, lease, cursor, settled, previous_sequence, wait_us, wait_reason, wait_class,
        failing, failures, asked, event_attempt, range_first, range_last, range_attempt, probe, batch_limit,
        in_flight, last_error, delivered, disable, halt, applied, release, park, failing_us, number,
        scanned, refused, wake_us, halted_event, learned_batch, learned_lanes, replay)
), locked AS MATERIALIZED (
    SELECT r.id, r.trouble, CASE
        WHEN c.disable AND NOT r.disabled THEN 'disabled'
        WHEN c.halt <> '' AND r.halted_reason IS NULL THEN 'halted'
        WHEN c.failing AND r.trouble IS NULL AND c.failing_us >= $27::bigint THEN 'retrying'
        WHEN c.delivered AND r.trouble IS NOT NULL AND NOT (c.failing OR c.disable OR c.halt <> '') THEN 'recovered' END AS turn
      FROM runs r JOIN input c ON r.id = c.id AND r.lease = c.lease ORDER BY r.id FOR UPDATE OF r SKIP LOCKED
), written AS (
    UPDATE runs r SET
        cursor = CASE WHEN c.replay = 0 THEN c.cursor ELSE r.cursor END,
        settled = CASE WHEN c.replay = 0 THEN c.settled::bigint[] ELSE r.settled END,
        scanned = CASE WHEN c.replay = 0 THEN c.scanned ELSE r.scanned END,
        previous_sequence = CASE WHEN c.replay = 0 THEN c.previous_sequence ELSE r.previous_sequence END,
        event_attempt = CASE WHEN c.replay = 0 THEN c.event_attempt ELSE r.event_attempt END,
        failing = CASE WHEN c.replay = 0 THEN c.refused::jsonb ELSE r.failing END,
        failing_at = CASE WHEN c.replay <> 0 THEN r.failing_at WHEN c.refused IS NOT NULL THEN clock_timestamp() END,
        not_before = CASE WHEN c.wait_us > 0 THEN clock_timestamp() + c.wait_us * interval '1 microsecond' END,
        wait_reason = nullif(c.wait_reason, ''), wait_class = nullif(c.wait_class, ''),
        failing_since = CASE WHEN c.failing THEN clock_timestamp() - c.failing_us * interval '1 microsecond' END,
        failures = c.failures, asked = c.asked,
        range_first = c.range_first, range_last = c.range_last, range_attempt = c.range_attempt,
        probe = c.probe, batch_limit = c.batch_limit, in_flight = c.in_flight, last_error = nullif(c.last_error, ''),
        last_delivered_at = CASE WHEN c.delivered THEN clock_timestamp() ELSE r.last_delivered_at END,
        disabled = r.disabled OR c.disable, halted_reason = coalesce(nullif(c.halt, ''), r.halted_reason),
        halted_event = CASE WHEN c.halt <> '' THEN nullif(c.halted_event, 0) ELSE r.halted_event END,
        halted_replay = CASE WHEN c.halt = '' THEN r.halted_replay WHEN c.halted_event <> 0 THEN nullif(c.replay, 0) END,
        learned_batch = c.learned_batch, learned_lanes = c.learned_lanes,
        applied_version = CASE WHEN c.park OR c.release THEN r.desired_version
                               ELSE greatest(r.applied_version, least(c.applied, r.desired_version)) END,
        lease = CASE WHEN c.release OR c.park AND r.pull THEN NULL ELSE r.lease END,
        parked = c.park AND NOT r.pull,
        wake_at = CASE WHEN c.park AND NOT r.pull AND c.wake_us > 0 THEN clock_timestamp() + c.wake_us * interval '1 microsecond' END,
        generation = CASE WHEN c.park THEN nextval('park_generations') ELSE r.generation END,
        trouble = CASE WHEN l.turn = 'recovered' THEN NULL ELSE coalesce(l.turn, r.trouble) END,
        checked_at = clock_timestamp(), checkpoint = c.number
      FROM input c JOIN locked l ON l.id = c.id
     WHERE r.id = c.id AND r.lease = c.lease AND (r.checkpoint < c.number OR c.number = 0)
    RETURNING r.id, c.lease, r.desired_version, r.applied_version, r.generation, c.applied > 0 OR c.park OR c.release AS controls,
        r.feed_id, l.turn, l.trouble AS was, NULL::numeric AS lag, CASE WHEN l.turn IS NOT NULL AND NOT r.deleted THEN ` + noticeRun + ` END AS run
), told AS (` + insertNotices + `
), applied AS (
    UPDATE controls SET applied_at = clock_timestamp() FROM written w
     WHERE w.controls AND controls.subscriber = w.id AND controls.applied_at IS NULL AND controls.version <= w.applied_version
       AND NOT ` + moving + `
)`

const foundByCheckpoints = `
SELECT lease, desired_version, generation, false FROM written
UNION ALL
SELECT c.lease, 0, 0, true FROM input c JOIN runs r ON r.id = c.id AND r.lease = c.lease
 WHERE NOT EXISTS (SELECT FROM locked l WHERE l.id = c.id)`

// WriteCheckpoints writes the checkpoints of many runs in one commit: in one
// statement, and in a second one those that also change a replay or what is set
// aside. The results stand in the order of the batch, which holds a lease at most
// once.
func (s *Store) WriteCheckpoints(ctx context.Context, batch []*Checkpoint) ([]CheckpointResult, error) {
	var plain, rich []*Checkpoint
	for _, c := range batch {
		if c.Replay != 0 || c.Aside != nil {
			rich = append(rich, c)
		} else {
			plain = append(plain, c)
		}
	}
	found := make(checkpointResults, len(batch))
	var statements pgx.Batch // one implicit transaction
	if len(plain) > 0 {
		statements.Queue(changeRuns+foundByCheckpoints, s.checkpointArguments(plain)...).Query(found.read)
	}
	if len(rich) > 0 {
		aside, err := asideArguments(rich)
		if err != nil {
			return nil, err
		}
		statements.Queue(changeRuns+changeAside+foundByCheckpoints, append(s.checkpointArguments(rich), aside...)...).Query(found.read)
	}
	if err := s.pool.SendBatch(ctx, &statements).Close(); err != nil {
		return nil, fmt.Errorf("write checkpoints: %w", err)
	}
	results := make([]CheckpointResult, len(batch))
	for i, c := range batch {
		results[i] = found[c.Lease]
		if !c.Park {
			results[i].Generation = 0
		}
	}
	return results, nil
}

// checkpointResults are what checkpoints found, by their leases.
type checkpointResults map[uuid.UUID]CheckpointResult

func (found checkpointResults) read(rows pgx.Rows) error {
	var lease uuid.UUID
	var desired, generation int64
	var busy bool
	_, err := pgx.ForEachRow(rows, []any{&lease, &desired, &generation, &busy}, func() error {
		found[lease] = CheckpointResult{Held: !busy, Busy: busy, Desired: desired, Generation: generation}
		return nil
	})
	return err
}

// column gathers one member of every checkpoint: the statement takes a column
// at a time.
func column[T any](batch []*Checkpoint, member func(*Checkpoint) T) []T {
	values := make([]T, len(batch))
	for i, c := range batch {
		values[i] = member(c)
	}
	return values
}

func (s *Store) checkpointArguments(batch []*Checkpoint) []any {
	return []any{
		column(batch, func(c *Checkpoint) string { return c.ID }),
		column(batch, func(c *Checkpoint) uuid.UUID { return c.Lease }),
		column(batch, func(c *Checkpoint) int64 { return c.Cursor }),
		column(batch, func(c *Checkpoint) string { return arrayLiteral(c.Settled) }),
		column(batch, func(c *Checkpoint) int64 { return c.PreviousSequence }),
		column(batch, func(c *Checkpoint) int64 { return c.Wait.Microseconds() }),
		column(batch, func(c *Checkpoint) string { return c.WaitReason }),
		column(batch, func(c *Checkpoint) string { return c.WaitClass }),
		column(batch, func(c *Checkpoint) bool { return c.Failing }),
		column(batch, func(c *Checkpoint) int { return c.Failures }),
		column(batch, func(c *Checkpoint) int { return c.Asked }),
		column(batch, func(c *Checkpoint) int { return c.EventAttempt }),
		column(batch, func(c *Checkpoint) int64 { return c.RangeFirst }),
		column(batch, func(c *Checkpoint) int64 { return c.RangeLast }),
		column(batch, func(c *Checkpoint) int { return c.RangeAttempt }),
		column(batch, func(c *Checkpoint) bool { return c.Probe }),
		column(batch, func(c *Checkpoint) int { return c.BatchLimit }),
		column(batch, func(c *Checkpoint) int { return c.InFlight }),
		column(batch, func(c *Checkpoint) string { return c.LastError }),
		column(batch, func(c *Checkpoint) bool { return c.Delivered }),
		column(batch, func(c *Checkpoint) bool { return c.Disable }),
		column(batch, func(c *Checkpoint) string { return c.Halt }),
		column(batch, func(c *Checkpoint) int64 { return c.Applied }),
		column(batch, func(c *Checkpoint) bool { return c.Release }),
		column(batch, func(c *Checkpoint) bool { return c.Park }),
		column(batch, func(c *Checkpoint) int64 { return c.FailingFor.Microseconds() }),
		s.announceRetrying.Microseconds(),
		column(batch, func(c *Checkpoint) int64 { return c.Number }),
		column(batch, func(c *Checkpoint) int64 { return c.Scanned }),
		column(batch, func(c *Checkpoint) *string { return failingText(c.FailingEvents) }),
		column(batch, func(c *Checkpoint) int64 { return c.WakeAfter.Microseconds() }),
		column(batch, func(c *Checkpoint) int64 { return c.HaltedEvent }),
		column(batch, func(c *Checkpoint) int { return c.LearnedBatch }),
		column(batch, func(c *Checkpoint) int { return c.LearnedLanes }),
		column(batch, func(c *Checkpoint) int64 { return c.Replay }),
	}
}

// arrayLiteral writes numbers as PostgreSQL's array literal: rows of arrays of
// different lengths have no other form.
func arrayLiteral(numbers []int64) string {
	b := []byte{'{'}
	for i, n := range numbers {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Append(b, n)
	}
	return string(append(b, '}'))
}

// DataRefused reports whether PostgreSQL refused the data of a statement
// (SQLSTATE classes 22 and 23): trying again cannot help.
func DataRefused(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && len(pg.Code) == 5 && (pg.Code[:2] == "22" || pg.Code[:2] == "23")
}

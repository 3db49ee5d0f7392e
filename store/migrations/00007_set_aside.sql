-- +goose Up

ALTER TABLE runs
    -- settled holds the events above the cursor that are dealt with, as ranges:
    -- from, to, from, to. Everything up to scanned has been looked at, where that
    -- is above the cursor.
    ADD COLUMN scanned        bigint NOT NULL DEFAULT 0,
    -- Refused events above the cursor, each on its own schedule, as of failing_at.
    ADD COLUMN failing        jsonb,
    ADD COLUMN failing_at     timestamptz,
    -- When a parked row has something to do that no event tells of.
    ADD COLUMN wake_at        timestamptz,
    -- Controls that move the position, or what is set aside, and that whoever
    -- takes the row next has to apply first.
    ADD COLUMN moves          integer NOT NULL DEFAULT 0,
    -- The event at which the subscriber halted, and the replay that it was sent
    -- for; NULL: it halted at none, and for none.
    ADD COLUMN halted_event   bigint,
    ADD COLUMN halted_replay  bigint,
    -- What was learned about the consumer; 0: nothing yet.
    ADD COLUMN learned_batch  integer NOT NULL DEFAULT 0,
    ADD COLUMN learned_lanes  integer NOT NULL DEFAULT 0,
    -- The first event owed is the first above it; NULL: not known, as the
    -- subscriber is older than this column.
    ADD COLUMN start_sequence bigint;
CREATE INDEX runs_wake ON runs (wake_at) WHERE wake_at IS NOT NULL;

-- Keys whose events wait because the consumer refuses the first of them.
CREATE TABLE held_keys (
    subscriber    text NOT NULL REFERENCES subscribers (id) ON DELETE CASCADE,
    resource_name text NOT NULL,
    resource_key  text NOT NULL,
    since         timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Of the first event that waits.
    attempts      integer NOT NULL DEFAULT 0,
    not_before    timestamptz,
    last_status   integer,
    last_error    text,
    PRIMARY KEY (subscriber, resource_name, resource_key)
);

-- The events that wait behind them; the log has what they say.
CREATE TABLE held_events (
    subscriber    text NOT NULL REFERENCES subscribers (id) ON DELETE CASCADE,
    sequence      bigint NOT NULL,
    resource_name text NOT NULL,
    resource_key  text NOT NULL,
    -- The replay that the event was sent for; NULL: none.
    replay        bigint,
    PRIMARY KEY (subscriber, sequence)
);
CREATE INDEX held_events_key ON held_events (subscriber, resource_name, resource_key, sequence);

-- Events that were given up, until they are sent again or dismissed.
CREATE TABLE dead_letters (
    subscriber    text NOT NULL REFERENCES subscribers (id) ON DELETE CASCADE,
    sequence      bigint NOT NULL,
    resource_name text NOT NULL,
    resource_key  text NOT NULL,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- exhausted, skipped or released.
    reason        text NOT NULL,
    -- Who asked, where somebody did.
    source        text,
    attempts      integer NOT NULL DEFAULT 0,
    last_status   integer,
    last_error    text,
    -- The replay of missed events that has taken it up; NULL: none.
    replay        bigint,
    PRIMARY KEY (subscriber, sequence)
);

-- Replays of a subscriber, numbered from 1. Their bounds are fixed when they are
-- accepted: (after_sequence, through_sequence] and what selection says.
CREATE TABLE replays (
    subscriber        text NOT NULL REFERENCES subscribers (id) ON DELETE CASCADE,
    id                bigint NOT NULL,
    state             text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'paused', 'done', 'cancelled')),
    selection         jsonb NOT NULL,
    after_sequence    bigint NOT NULL,
    through_sequence  bigint NOT NULL,
    total             bigint NOT NULL,
    done              bigint NOT NULL DEFAULT 0,
    source            text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at        timestamptz,
    finished_at       timestamptz,
    -- The position, as in runs.
    cursor            bigint NOT NULL,
    settled           bigint[] NOT NULL DEFAULT '{}',
    previous_sequence bigint NOT NULL DEFAULT 0,
    event_attempt     integer NOT NULL DEFAULT 0,
    failing           jsonb,
    failing_at        timestamptz,
    PRIMARY KEY (subscriber, id)
) WITH (fillfactor = 50);
CREATE INDEX replays_open ON replays (subscriber, id) WHERE state IN ('queued', 'running', 'paused');

ALTER TABLE attempts
    -- The events of a request that are not all that matched from first_sequence
    -- to last_sequence.
    ADD COLUMN sequences bigint[],
    -- The replay that the request was made for.
    ADD COLUMN replay    bigint,
    -- How many older events of the same records were left out for its events.
    ADD COLUMN compacted integer;

-- +goose Down
ALTER TABLE attempts DROP COLUMN sequences, DROP COLUMN replay, DROP COLUMN compacted;
DROP TABLE replays, dead_letters, held_events, held_keys;
DROP INDEX runs_wake;
ALTER TABLE runs DROP COLUMN scanned, DROP COLUMN failing, DROP COLUMN failing_at, DROP COLUMN wake_at, DROP COLUMN moves,
    DROP COLUMN halted_event, DROP COLUMN halted_replay, DROP COLUMN learned_batch, DROP COLUMN learned_lanes, DROP COLUMN start_sequence;

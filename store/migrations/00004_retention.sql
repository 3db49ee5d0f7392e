-- +goose NO TRANSACTION
-- Every statement may run again: what is not in one transaction may stop in the
-- middle.

-- +goose Up

-- How long events are kept, in milliseconds; NULL: for ever. At age they go once
-- no subscriber is owed them, at hard_age in any case.
ALTER TABLE feeds
    ADD COLUMN IF NOT EXISTS retention_age_ms      bigint,
    ADD COLUMN IF NOT EXISTS retention_hard_age_ms bigint,
    -- How often events of the feed were erased: whoever read some before a count
    -- rose must not hand them out any more.
    ADD COLUMN IF NOT EXISTS erasures bigint NOT NULL DEFAULT 0,
    -- The transaction that last raised the floor or erased, for "what has changed
    -- since", as in events.
    ADD COLUMN IF NOT EXISTS changed xid8;
ALTER TABLE feeds DROP CONSTRAINT IF EXISTS feeds_retention;
ALTER TABLE feeds ADD CONSTRAINT feeds_retention
    CHECK (retention_age_ms >= 60000 AND retention_hard_age_ms >= 60000 AND retention_hard_age_ms >= retention_age_ms);
CREATE INDEX IF NOT EXISTS feeds_changed ON feeds (changed) WHERE changed IS NOT NULL;
CREATE INDEX IF NOT EXISTS feeds_retained ON feeds (id) WHERE retention_age_ms IS NOT NULL OR retention_hard_age_ms IS NOT NULL;

-- When the event's data and labels were erased; what it is an event of stays.
ALTER TABLE events ADD COLUMN IF NOT EXISTS erased_at timestamptz;

-- Matching events that were removed at hard_age before the subscriber settled
-- them: how many in all, the last one, and when it was noted.
ALTER TABLE runs
    ADD COLUMN IF NOT EXISTS lost_events  bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS lost_through bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS lost_at      timestamptz;

-- The events of one record. Every event pays for this index when it is stored,
-- so it is as small as it can be: one number, equal ones kept together. One left
-- over by a build that stopped is invalid. It waits for those who use the table
-- without holding up anybody, so as long as it takes.
SET lock_timeout = 0;
DROP INDEX CONCURRENTLY IF EXISTS events_record;
CREATE INDEX CONCURRENTLY events_record ON events (hashtextextended(resource_key, feed_id));
SET lock_timeout = '2s';

-- record_sequences returns the numbers of a record's events, in no order. The
-- feed is no condition that an index knows: the hash is the better one, whatever
-- statistics say.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION record_sequences(p_feed bigint, p_name text, p_key text) RETURNS SETOF bigint
LANGUAGE sql STABLE ROWS 100 AS $$
    SELECT e.sequence FROM events e
    WHERE hashtextextended(e.resource_key, e.feed_id) = hashtextextended(p_key, p_feed)
      AND e.resource_key = p_key AND e.resource_name = p_name AND e.feed_id + 0 = p_feed
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION record_sequences(bigint, text, text);
DROP INDEX IF EXISTS events_record;
ALTER TABLE runs DROP COLUMN lost_events, DROP COLUMN lost_through, DROP COLUMN lost_at;
ALTER TABLE events DROP COLUMN erased_at;
DROP INDEX IF EXISTS feeds_changed, feeds_retained;
ALTER TABLE feeds DROP CONSTRAINT feeds_retention,
    DROP COLUMN retention_age_ms, DROP COLUMN retention_hard_age_ms, DROP COLUMN erasures, DROP COLUMN changed;

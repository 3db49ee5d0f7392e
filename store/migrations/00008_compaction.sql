-- +goose Up

ALTER TABLE feeds
    -- Events older than this, in milliseconds, go where a newer one of the same
    -- record is old enough as well and no subscriber is owed them; NULL: none do.
    ADD COLUMN compact_after_ms bigint CONSTRAINT feeds_compaction CHECK (compact_after_ms >= 60000),
    -- Of the events up to here each record has its newest one only. Counts where it
    -- is above the floor.
    ADD COLUMN compacted_through bigint NOT NULL DEFAULT 0;
CREATE INDEX feeds_compacted ON feeds (id) WHERE compact_after_ms IS NOT NULL;

-- As before, but for one thing: a condition that a caller puts on the numbers is
-- none that an index knows either. Without statistics a range of them looked
-- better than the hash, and the feed was read from one end of it to the other.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION record_sequences(p_feed bigint, p_name text, p_key text) RETURNS SETOF bigint
LANGUAGE sql STABLE ROWS 100 AS $$
    SELECT e.sequence + 0 FROM events e
    WHERE hashtextextended(e.resource_key, e.feed_id) = hashtextextended(p_key, p_feed)
      AND e.resource_key = p_key AND e.resource_name = p_name AND e.feed_id + 0 = p_feed
$$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION record_sequences(p_feed bigint, p_name text, p_key text) RETURNS SETOF bigint
LANGUAGE sql STABLE ROWS 100 AS $$
    SELECT e.sequence FROM events e
    WHERE hashtextextended(e.resource_key, e.feed_id) = hashtextextended(p_key, p_feed)
      AND e.resource_key = p_key AND e.resource_name = p_name AND e.feed_id + 0 = p_feed
$$;
-- +goose StatementEnd

DROP INDEX feeds_compacted;
ALTER TABLE feeds DROP COLUMN compact_after_ms, DROP COLUMN compacted_through;

-- +goose Up

ALTER TABLE feeds
    -- Events older than this, in milliseconds, go where a newer one of the same
    -- record is old enough as well and no subscriber is owed them; NULL: none do.
    ADD COLUMN compact_after_ms bigint CONSTRAINT feeds_compaction CHECK (compact_after_ms >= 60000),
    -- Of the events up to here each record has its newest one only. Counts where it
    -- is above the floor.
    ADD COLUMN compacted_through bigint NOT NULL DEFAULT 0;
CREATE INDEX feeds_compacted ON feeds (id) WHERE compact_after_ms IS NOT NULL;

-- +goose Down
DROP INDEX feeds_compacted;
ALTER TABLE feeds DROP COLUMN compact_after_ms, DROP COLUMN compacted_through;

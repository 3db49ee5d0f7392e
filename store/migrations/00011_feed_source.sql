-- +goose Up

-- The RESO server that a feed follows (RCP-27), and what became of it. One row for
-- each feed that has one, so that all others cost nothing.
CREATE TABLE feed_sources (
    feed_id        bigint PRIMARY KEY REFERENCES feeds (id),
    -- event.Source as JSON, without secrets ...
    config         text NOT NULL,
    -- ... which are sealed.
    secrets        bytea NOT NULL,
    -- From here on what the worker wrote that follows it: the highest sequence it
    -- saw, and when it last read to the end or as far as it may.
    source_head    bigint NOT NULL DEFAULT 0,
    read_at        timestamptz,
    -- The fault that is there now, since when, and when it is tried again.
    error          text NOT NULL DEFAULT '',
    failing_since  timestamptz,
    retry_at       timestamptz,
    -- Events that came too late to be taken: how many, when the last one was found,
    -- and the latest of their sequences.
    late           bigint NOT NULL DEFAULT 0,
    late_at        timestamptz,
    late_sequences bigint[] NOT NULL DEFAULT '{}'
);

-- +goose Down
DROP TABLE feed_sources;

-- +goose Up

-- The wide row: what a subscriber is configured to be. It changes only when
-- somebody changes the configuration.
CREATE TABLE subscribers (
    id          text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$'),
    feed_id     bigint NOT NULL REFERENCES feeds (id),
    -- The configuration without secrets, as the API returns it.
    config      jsonb NOT NULL,
    -- The secrets, sealed with the master key; the subscriber's id is bound in.
    secrets     bytea NOT NULL,
    -- The configuration's version, the ETag.
    version     bigint NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX subscribers_feed ON subscribers (feed_id);

-- One number for every parking of any subscriber: a wake that carries it can
-- only mean that one parking.
CREATE SEQUENCE park_generations;

-- The narrow row: holds, versions, lease and position. Its lock orders
-- controls against leases. No index on what checkpoints change, and room on
-- each page, so that checkpoints are HOT updates.
CREATE TABLE runs (
    id                text PRIMARY KEY REFERENCES subscribers (id),
    feed_id           bigint NOT NULL REFERENCES feeds (id),
    -- Holds.
    paused            boolean NOT NULL DEFAULT false,
    paused_until      timestamptz,
    pause_reason      text,
    halted_reason     text,
    disabled          boolean NOT NULL DEFAULT false,
    deleted           boolean NOT NULL DEFAULT false,
    -- Controls: the last one accepted and the last one in force.
    desired_version   bigint NOT NULL DEFAULT 0,
    applied_version   bigint NOT NULL DEFAULT 0,
    -- The one sender.
    lease             uuid,
    parked            boolean NOT NULL DEFAULT false,
    generation        bigint NOT NULL DEFAULT 0,
    -- The position: every matching event up to cursor is settled, and so are
    -- those in settled.
    cursor            bigint NOT NULL CHECK (cursor >= 0),
    settled           bigint[] NOT NULL DEFAULT '{}',
    previous_sequence bigint NOT NULL DEFAULT 0,
    -- What a rebuilt run needs to go on politely.
    not_before        timestamptz,
    wait_reason       text,
    wait_class        text,
    failing_since     timestamptz,
    failures          integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    asked             integer NOT NULL DEFAULT 0 CHECK (asked >= 0),
    event_attempt     integer NOT NULL DEFAULT 0 CHECK (event_attempt >= 0),
    range_first       bigint NOT NULL DEFAULT 0,
    range_last        bigint NOT NULL DEFAULT 0,
    range_attempt     integer NOT NULL DEFAULT 0 CHECK (range_attempt >= 0),
    probe             boolean NOT NULL DEFAULT false,
    batch_limit       integer NOT NULL DEFAULT 0 CHECK (batch_limit >= 0),
    -- What status shows.
    in_flight         integer NOT NULL DEFAULT 0,
    last_error        text,
    last_delivered_at timestamptz,
    checked_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (applied_version <= desired_version)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX runs_control_pending ON runs (id) WHERE desired_version > applied_version;

-- Every control ever accepted, once, whoever asked.
CREATE TABLE controls (
    subscriber  text NOT NULL REFERENCES subscribers (id),
    version     bigint NOT NULL,
    request_id  text NOT NULL,
    kind        text NOT NULL,
    args        jsonb NOT NULL DEFAULT '{}',
    source      text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_at  timestamptz,
    result      text,
    PRIMARY KEY (subscriber, version),
    UNIQUE (request_id)
);

-- What happened to each request: one row a request, a partition a day (UTC).
CREATE TABLE attempts (
    -- Drawn one by one, so that it follows the order of insertion over all
    -- sessions: pages go by it.
    id             bigint GENERATED ALWAYS AS IDENTITY,
    subscriber     text NOT NULL,
    started_at     timestamptz NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence  bigint NOT NULL,
    event_count    integer NOT NULL,
    attempt        integer NOT NULL,
    class          text NOT NULL,
    status         integer,
    duration_us    bigint NOT NULL,
    request_bytes  integer NOT NULL,
    error          text,
    response       text,
    retry_after    text
) PARTITION BY RANGE (started_at);
CREATE INDEX attempts_subscriber ON attempts (subscriber, id);
-- Failures are rare and looked for among many.
CREATE INDEX attempts_failures ON attempts (subscriber, id) WHERE status IS NULL OR status NOT BETWEEN 200 AND 299;
CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;

-- Facts about this database: which Temporal drives it, the check value of the
-- master key.
CREATE TABLE settings (
    name  text PRIMARY KEY,
    value jsonb NOT NULL
);

-- +goose Down
DROP TABLE settings, attempts, controls, runs, subscribers;
DROP SEQUENCE park_generations;

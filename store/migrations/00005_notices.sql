-- +goose Up

-- _system is the feed that Postroad itself publishes to. Nobody looks after its
-- length, so that it has an age from the start.
ALTER TABLE feeds DROP CONSTRAINT feeds_name_check;
ALTER TABLE feeds ADD CONSTRAINT feeds_name_check CHECK (name = '_system' OR name ~ '^[a-z0-9][a-z0-9-]{0,62}$');
INSERT INTO feeds (name, description, retention_hard_age_ms)
VALUES ('_system', 'What Postroad has to tell the people who run it', 7776000000);

-- What has to be told on _system and is not in it yet. A row is written by the
-- statement that makes the change, so that neither is there without the other.
CREATE TABLE notices (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    type          text NOT NULL,
    resource_name text NOT NULL,
    resource_key  text NOT NULL,
    data          json NOT NULL
);

-- What lasts and was told: it is not told again as long as it lasts.
CREATE TABLE told (
    type text NOT NULL,
    key  text NOT NULL,
    at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (type, key)
);

ALTER TABLE runs
    -- What was told of the endpoint last; NULL: that it works, or nothing yet.
    ADD COLUMN trouble text CHECK (trouble IN ('retrying', 'halted', 'disabled')),
    -- It was told that the subscriber is further behind than its alert allows.
    ADD COLUMN behind  boolean NOT NULL DEFAULT false;
CREATE INDEX subscribers_alert ON subscribers (id) WHERE config ? 'alert';

-- +goose Down
DROP INDEX subscribers_alert;
ALTER TABLE runs DROP COLUMN trouble, DROP COLUMN behind;
DROP TABLE told, notices;
DELETE FROM events WHERE feed_id = (SELECT id FROM feeds WHERE name = '_system');
DELETE FROM feeds WHERE name = '_system';
ALTER TABLE feeds DROP CONSTRAINT feeds_name_check;
ALTER TABLE feeds ADD CONSTRAINT feeds_name_check CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$');

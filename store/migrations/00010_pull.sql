-- +goose Up

-- The consumer fetches what it is owed: nobody delivers, and the row is never
-- parked. Controls order it against leases as they do holds.
ALTER TABLE runs ADD COLUMN pull boolean NOT NULL DEFAULT false;

-- What was handed out and is not committed. All of it lies above the cursor. One
-- that is over goes back with the next handing out.
CREATE TABLE pull_leases (
    subscriber text NOT NULL REFERENCES subscribers (id) ON DELETE CASCADE,
    id         uuid NOT NULL,
    -- The events of it that are not committed, rising.
    sequences  bigint[] NOT NULL CHECK (cardinality(sequences) > 0),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (subscriber, id)
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE pull_leases;
ALTER TABLE runs DROP COLUMN pull;

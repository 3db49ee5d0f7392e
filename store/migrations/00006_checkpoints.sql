-- +goose Up

-- The number of the last checkpoint under the row's lease. One that was given up,
-- because its connection died, may reach PostgreSQL after later ones: it is void.
ALTER TABLE runs ADD COLUMN checkpoint bigint NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE runs DROP COLUMN checkpoint;

-- +goose Up

-- Finds the requests of a subscriber that carried an event. Their ranges are
-- sorted by how many hexadecimal digits their width has, so that of each width
-- only those that begin shortly before the event have to be looked at.
--
-- ON ONLY, as building it for partitions that are there would hold up who
-- inserts: partitions made from now on have it from the start, housekeeping
-- builds the others beside the inserts.
CREATE INDEX attempts_event ON ONLY attempts
    (subscriber, (length(to_hex(last_sequence - first_sequence))::smallint), first_sequence);

-- +goose Down
DROP INDEX attempts_event;

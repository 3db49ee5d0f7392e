-- +goose Up

-- Finds the requests of a subscriber that carried an event. The sequences from
-- first to last of a request share all but the last so many hexadecimal digits;
-- what they share, how many digits they do not, and a hash of the subscriber make
-- one number. Whoever looks for an event asks for each number of digits. Every
-- attempt pays for this index when it is stored: it is one number, equal ones are
-- kept together, and those of one time are near each other.
--
-- ON ONLY, as building it for partitions that are there would hold up who
-- inserts: partitions made from now on have it from the start, housekeeping
-- builds the others beside the inserts.
CREATE INDEX attempts_event ON ONLY attempts
    (((((first_sequence >> 1) >> (4 * length(to_hex(first_sequence # last_sequence)) - 1)) << 28)
        # ((hashtext(subscriber) & 16777215)::bigint << 4) # (length(to_hex(first_sequence # last_sequence)) & 15)));

-- +goose Down
DROP INDEX attempts_event;

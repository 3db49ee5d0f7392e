-- +goose Up

-- A feed is one log. A deleted feed's row stays: it keeps the name's highest
-- number, so that a feed made again under the name goes on above it.
CREATE TABLE feeds (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name             text COLLATE "C" NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    -- How often the name was made; 2 and up tell consumers of a new log.
    epoch            integer NOT NULL DEFAULT 1 CHECK (epoch > 0),
    -- Who numbers the events: this log, or the producer.
    sequences        text NOT NULL DEFAULT 'assigned' CHECK (sequences IN ('assigned', 'supplied')),
    description      text NOT NULL DEFAULT '',
    -- Events at or below the floor are hidden from every read at once ...
    floor_sequence   bigint NOT NULL DEFAULT 0 CHECK (floor_sequence >= 0),
    -- ... and removed in the background, up to here so far.
    removed_sequence bigint NOT NULL DEFAULT 0 CHECK (removed_sequence BETWEEN 0 AND floor_sequence),
    deleted_at       timestamptz,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    version          bigint NOT NULL DEFAULT 1 CHECK (version > 0)
);
CREATE INDEX feeds_removal ON feeds (id) WHERE removed_sequence < floor_sequence;

-- default always exists and is never deleted.
INSERT INTO feeds (name) VALUES ('default');

-- The log. Rows are written by append_events alone and never change. There is
-- no foreign key to feeds: append_events looks at the feed under its lock, and
-- a feed's row is never removed.
CREATE TABLE events (
    feed_id       bigint NOT NULL,
    sequence      bigint NOT NULL CHECK (sequence > 0),
    recorded_at   timestamptz NOT NULL,
    -- The transaction that stored the row, on the last row of what it stored
    -- at once: "what has changed since" asks for the highest number only.
    xid           xid8,
    resource_name text NOT NULL,
    resource_key  text NOT NULL,
    resource_url  text,
    event_type    text,
    -- RFC 3339 as it was sent.
    occurred_at   text,
    -- The rare members as one JSON object: feedTypes, attributes, related, bulk.
    extras        text,
    -- Any JSON, byte for byte as it was sent: text, as json and jsonb refuse or
    -- rewrite some of it.
    data          text,
    PRIMARY KEY (feed_id, sequence)
);
CREATE INDEX events_changed ON events (xid) INCLUDE (feed_id, sequence) WHERE xid IS NOT NULL;

-- Keys under which events were published, for as long as they count.
CREATE TABLE idempotency_keys (
    feed_id    bigint NOT NULL,
    key        text NOT NULL,
    -- A key counts within the epoch of the feed it was used in.
    epoch      integer NOT NULL,
    -- SHA-256 of the content.
    hash       bytea NOT NULL CHECK (length(hash) = 32),
    sequence   bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (feed_id, key)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

-- lock_feed makes the rest of the transaction the only writer of a feed's log.
-- The lock is advisory: a row lock on a counter would leave a dead row version
-- per append, which one old snapshot anywhere in the database makes pile up.
-- +goose StatementBegin
CREATE FUNCTION lock_feed(p_feed bigint) RETURNS void
LANGUAGE sql VOLATILE AS $$
    SELECT pg_advisory_xact_lock(1886352244, (p_feed % 2147483647)::integer)
$$;
-- +goose StatementEnd

-- append_events stores the events of many requests to one feed, in order, and
-- judges each request. The arrays hold the events of all requests in a row,
-- p_counts how many each request has; an array that is NULL is NULL for every
-- event.
--
-- Results: one row with r_request 0 where every event was stored under the
-- numbers that follow r_head (assigned) or its own (supplied), or where the feed
-- refuses all (feed_gone, feed_mode). Else one row per request, from 1: stored,
-- with the number of each event, or idempotency or sequence, with the place of
-- the offending event counted from 0; such a request stores nothing.
-- +goose StatementBegin
CREATE FUNCTION append_events(
    p_feed        bigint,
    p_supplied    boolean,
    p_keep        interval,
    p_counts      integer[],
    p_sequences   bigint[],
    p_keys        text[],
    p_hashes      bytea[],
    p_names       text[],
    p_record_keys text[],
    p_urls        text[],
    p_types       text[],
    p_occurred    text[],
    p_extras      text[],
    p_data        text[]
) RETURNS TABLE (r_request integer, r_verdict text, r_at integer, r_head bigint, r_accepted integer, r_sequences bigint[])
LANGUAGE plpgsql VOLATILE
-- A plan made while the tables were small must not read them whole once they
-- are big; LATERAL with LIMIT below makes it look each row up by its full key.
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
    v_feed     feeds%ROWTYPE;
    v_head     bigint;
    v_previous timestamptz;
    v_now      timestamptz;
    v_plain    boolean;
    v_from     integer := 1;
    v_to       integer;
    v_numbers  bigint[];
    v_new      boolean[];
    v_last     bigint;
    v_stored   integer;
    v_at       integer;
    v_verdict  text;
BEGIN
    -- Under any other level the statements below the lock would still see what
    -- was there before it.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'append_events needs read committed, not %', current_setting('transaction_isolation')
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    -- An answered event survives a crash, whatever the role or database say.
    IF current_setting('synchronous_commit') IN ('off', 'local') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;

    PERFORM lock_feed(p_feed);

    SELECT * INTO v_feed FROM feeds WHERE id = p_feed;
    IF NOT FOUND OR v_feed.deleted_at IS NOT NULL THEN
        RETURN QUERY SELECT 0, 'feed_gone', 0, 0::bigint, 0, NULL::bigint[];
        RETURN;
    END IF;
    IF (v_feed.sequences = 'supplied') <> p_supplied THEN
        RETURN QUERY SELECT 0, 'feed_mode', 0, 0::bigint, 0, NULL::bigint[];
        RETURN;
    END IF;
    SELECT e.sequence, e.recorded_at INTO v_head, v_previous
        FROM events e WHERE e.feed_id = p_feed ORDER BY e.sequence DESC LIMIT 1;
    v_head := greatest(v_head, v_feed.floor_sequence);
    v_now := greatest(clock_timestamp(), v_previous, v_feed.created_at);

    -- Nothing can be a repeat: all keys are new and differ, all numbers rise.
    v_plain := true;
    IF p_supplied THEN
        SELECT p_sequences[1] > v_head AND bool_and(u.number > u.previous) INTO v_plain
            FROM (SELECT number, lag(number, 1, 0::bigint) OVER (ORDER BY ord) AS previous
                  FROM unnest(p_sequences) WITH ORDINALITY AS n (number, ord)) u;
    END IF;
    IF v_plain AND p_keys IS NOT NULL THEN
        SELECT count(u.key) = count(DISTINCT u.key) INTO v_plain FROM unnest(p_keys) AS u (key);
        v_plain := v_plain AND NOT EXISTS (
            SELECT FROM unnest(p_keys) AS u (key) CROSS JOIN LATERAL (
                SELECT FROM idempotency_keys k
                WHERE k.feed_id = p_feed AND k.key = u.key AND k.epoch = v_feed.epoch AND k.expires_at > v_now
                LIMIT 1) known);
    END IF;
    IF v_plain THEN
        INSERT INTO events (feed_id, sequence, recorded_at, xid, resource_name, resource_key, resource_url,
                            event_type, occurred_at, extras, data)
        SELECT p_feed, coalesce(u.number, v_head + u.ord), v_now,
               CASE WHEN u.ord = cardinality(p_names) THEN pg_current_xact_id() END,
               u.name, u.record_key, u.url, u.type, u.occurred, u.extras, u.data
        FROM unnest(p_sequences, p_names, p_record_keys, p_urls, p_types, p_occurred, p_extras, p_data)
            WITH ORDINALITY AS u (number, name, record_key, url, type, occurred, extras, data, ord);
        IF p_keys IS NOT NULL THEN
            INSERT INTO idempotency_keys AS k (feed_id, key, epoch, hash, sequence, expires_at)
            SELECT p_feed, u.key, v_feed.epoch, u.hash, coalesce(u.number, v_head + u.ord), v_now + p_keep
            FROM unnest(p_sequences, p_keys, p_hashes) WITH ORDINALITY AS u (number, key, hash, ord)
            WHERE u.key IS NOT NULL
            ON CONFLICT (feed_id, key) DO UPDATE
                SET epoch = excluded.epoch, hash = excluded.hash,
                    sequence = excluded.sequence, expires_at = excluded.expires_at;
        END IF;
        RETURN QUERY SELECT 0, 'stored', 0, v_head, cardinality(p_names), NULL::bigint[];
        RETURN;
    END IF;

    -- Something may be a repeat: request by request, each seeing what those
    -- before it stored.
    FOR v_request IN 1 .. cardinality(p_counts) LOOP
        v_to := v_from + p_counts[v_request] - 1;

        WITH sent AS (
            SELECT u.ord::integer AS ord, u.key, u.hash, u.number, u.name, u.record_key,
                   -- Events without a key are each alone.
                   first_value(u.ord) OVER alike = u.ord AS leads,
                   first_value(u.hash) OVER alike AS leading_hash
            FROM unnest(p_keys[v_from:v_to], p_hashes[v_from:v_to], p_sequences[v_from:v_to],
                        p_names[v_from:v_to], p_record_keys[v_from:v_to])
                WITH ORDINALITY AS u (key, hash, number, name, record_key, ord)
            WINDOW alike AS (PARTITION BY u.key, CASE WHEN u.key IS NULL THEN u.ord END ORDER BY u.ord)
        ), judged AS (
            SELECT s.ord, s.key, s.number, s.leads,
                   CASE WHEN k.hash <> s.hash OR s.leading_hash <> s.hash THEN 'idempotency'
                        WHEN k.sequence IS NULL AND s.number <= v_head
                             AND (e.resource_name, e.resource_key) IS DISTINCT FROM (s.name, s.record_key) THEN 'sequence'
                   END AS conflict,
                   coalesce(k.sequence, CASE WHEN s.number <= v_head THEN s.number END) AS known
            FROM sent s
            LEFT JOIN LATERAL (
                SELECT i.hash, i.sequence FROM idempotency_keys i
                WHERE i.feed_id = p_feed AND i.key = s.key AND i.epoch = v_feed.epoch AND i.expires_at > v_now
                LIMIT 1) k ON true
            LEFT JOIN LATERAL (
                SELECT n.resource_name, n.resource_key FROM events n
                WHERE n.feed_id = p_feed AND n.sequence = s.number AND n.sequence > v_feed.floor_sequence
                LIMIT 1) e ON true
        ), numbered AS (
            SELECT j.*, j.known IS NULL AND j.leads AS fresh,
                   coalesce(j.known, j.number,
                            v_head + count(*) FILTER (WHERE j.known IS NULL AND j.leads) OVER (ORDER BY j.ord)) AS own
            FROM judged j
        ), settled AS (
            SELECT n.ord, n.conflict, n.fresh,
                   first_value(n.own) OVER (PARTITION BY n.key, CASE WHEN n.key IS NULL THEN n.ord END ORDER BY n.ord) AS number
            FROM numbered n
        )
        SELECT array_agg(t.number ORDER BY t.ord), array_agg(t.fresh ORDER BY t.ord),
               max(t.number) FILTER (WHERE t.fresh), min(t.ord) FILTER (WHERE t.conflict IS NOT NULL),
               (array_agg(t.conflict ORDER BY t.ord) FILTER (WHERE t.conflict IS NOT NULL))[1]
        INTO v_numbers, v_new, v_last, v_at, v_verdict
        FROM settled t;

        IF v_verdict IS NULL THEN
            INSERT INTO events (feed_id, sequence, recorded_at, xid, resource_name, resource_key, resource_url,
                                event_type, occurred_at, extras, data)
            SELECT p_feed, u.number, v_now, CASE WHEN u.number = v_last THEN pg_current_xact_id() END,
                   u.name, u.record_key, u.url, u.type, u.occurred, u.extras, u.data
            FROM unnest(v_numbers, v_new, p_names[v_from:v_to], p_record_keys[v_from:v_to], p_urls[v_from:v_to],
                        p_types[v_from:v_to], p_occurred[v_from:v_to], p_extras[v_from:v_to], p_data[v_from:v_to])
                AS u (number, fresh, name, record_key, url, type, occurred, extras, data)
            WHERE u.fresh;
            GET DIAGNOSTICS v_stored = ROW_COUNT;
            -- A key that still counts keeps its number and its expiry.
            INSERT INTO idempotency_keys AS k (feed_id, key, epoch, hash, sequence, expires_at)
            SELECT DISTINCT ON (u.key) p_feed, u.key, v_feed.epoch, u.hash, u.number, v_now + p_keep
            FROM unnest(v_numbers, p_keys[v_from:v_to], p_hashes[v_from:v_to])
                WITH ORDINALITY AS u (number, key, hash, ord)
            WHERE u.key IS NOT NULL
            ORDER BY u.key, u.ord
            ON CONFLICT (feed_id, key) DO UPDATE
                SET epoch = excluded.epoch, hash = excluded.hash,
                    sequence = excluded.sequence, expires_at = excluded.expires_at
                WHERE k.epoch <> excluded.epoch OR k.expires_at <= v_now;
            v_head := greatest(v_head, v_last);
            RETURN QUERY SELECT v_request, 'stored', 0, v_head, v_stored, v_numbers;
        ELSE
            RETURN QUERY SELECT v_request, v_verdict, v_at - 1, v_head, 0, NULL::bigint[];
        END IF;
        v_from := v_to + 1;
    END LOOP;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION append_events(bigint, boolean, interval, integer[], bigint[], text[], bytea[], text[], text[], text[], text[], text[], text[], text[]);
DROP FUNCTION lock_feed(bigint);
DROP TABLE idempotency_keys, events, feeds;

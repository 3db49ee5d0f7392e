-- +goose Up

-- append_events as in 00001, with the same arguments, results and promises, and
-- fewer statements where nothing can be a repeat: one reads the feed and its
-- last event, one stores.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION append_events(
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
    v_feed     record;
    v_head     bigint;
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

    SELECT f.sequences, f.epoch, f.floor_sequence, f.deleted_at, f.created_at, last.sequence, last.recorded_at
    INTO v_feed
    FROM feeds f LEFT JOIN LATERAL (
        SELECT e.sequence, e.recorded_at FROM events e WHERE e.feed_id = f.id ORDER BY e.sequence DESC LIMIT 1) last ON true
    WHERE f.id = p_feed;
    IF NOT FOUND OR v_feed.deleted_at IS NOT NULL THEN
        RETURN QUERY SELECT 0, 'feed_gone', 0, 0::bigint, 0, NULL::bigint[];
        RETURN;
    END IF;
    IF (v_feed.sequences = 'supplied') <> p_supplied THEN
        RETURN QUERY SELECT 0, 'feed_mode', 0, 0::bigint, 0, NULL::bigint[];
        RETURN;
    END IF;
    v_head := greatest(v_feed.sequence, v_feed.floor_sequence);
    v_now := greatest(clock_timestamp(), v_feed.recorded_at, v_feed.created_at);

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
        -- Taken apart in the select list, arrays need no store of rows each; one that
        -- is NULL gives NULLs. The planner takes subscripts for as many rows whatever
        -- the arrays, and so keeps its plan.
        FROM (SELECT generate_subscripts(p_names, 1) AS ord, unnest(p_sequences) AS number, unnest(p_names) AS name,
                     unnest(p_record_keys) AS record_key, unnest(p_urls) AS url, unnest(p_types) AS type,
                     unnest(p_occurred) AS occurred, unnest(p_extras) AS extras, unnest(p_data) AS data) u;
        IF p_keys IS NOT NULL THEN
            INSERT INTO idempotency_keys AS k (feed_id, key, epoch, hash, sequence, expires_at)
            SELECT p_feed, u.key, v_feed.epoch, u.hash, coalesce(u.number, v_head + u.ord), v_now + p_keep
            FROM unnest(p_sequences, p_keys, p_hashes) WITH ORDINALITY AS u (number, key, hash, ord)
            WHERE u.key IS NOT NULL
            ON CONFLICT (feed_id, key) DO UPDATE
                SET epoch = excluded.epoch, hash = excluded.hash,
                    sequence = excluded.sequence, expires_at = excluded.expires_at;
        END IF;
        r_request := 0;
        r_verdict := 'stored';
        r_at := 0;
        r_head := v_head;
        r_accepted := cardinality(p_names);
        RETURN NEXT;
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
-- Nothing to undo: the function of 00001 takes and answers the same.
SELECT 1;

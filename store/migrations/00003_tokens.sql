-- +goose Up

-- Bearer tokens of the API. Only a hash of the secret is kept: who reads this
-- table cannot call the API with it.
CREATE TABLE tokens (
    id           text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[a-z2-7]{10}$'),
    -- SHA-256 of the token. Its secret is 256 random bits, so that a slow hash
    -- would protect nothing more and cost each look-up.
    hash         bytea NOT NULL CHECK (length(hash) = 32),
    role         text NOT NULL CHECK (role IN ('admin', 'publisher', 'reader', 'subscriber')),
    -- A subscriber's tokens go with its row, and are refused as soon as the row
    -- is a tombstone: whoever gets the id next is somebody else.
    subscriber   text REFERENCES subscribers (id) ON DELETE CASCADE,
    description  text NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- admin (the one of the environment) or token:<id>.
    created_by   text NOT NULL,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    -- Written in the background; a minute late at most.
    last_used_at timestamptz,
    CHECK ((role = 'subscriber') = (subscriber IS NOT NULL))
);
CREATE INDEX tokens_subscriber ON tokens (subscriber) WHERE subscriber IS NOT NULL;
CREATE INDEX tokens_expiry ON tokens (expires_at) WHERE expires_at IS NOT NULL AND revoked_at IS NULL;

-- The feeds that a publisher or reader may use. A name alone would open a feed
-- that was deleted and made again by somebody else to the tokens of the old
-- one. The row's id alone would too, as it outlives deletion; the epoch counts
-- how often the name was made.
CREATE TABLE token_feeds (
    token   text COLLATE "C" NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    feed_id bigint NOT NULL REFERENCES feeds (id),
    epoch   integer NOT NULL,
    PRIMARY KEY (token, feed_id)
);

-- +goose Down
DROP TABLE token_feeds, tokens;

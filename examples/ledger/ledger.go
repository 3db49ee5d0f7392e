// Package ledger is a whole consumer: it keeps the newest event of each record
// in a database of its own, each event once, however often it comes. It shows
// the one thing every consumer has to do: save the position in the transaction
// that applies the events.
package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"

	"postroad/consumer"
)

// Schema is what the ledger needs of a PostgreSQL.
const Schema = `
CREATE TABLE records (
    resource_name text, resource_key text, sequence bigint NOT NULL,
    PRIMARY KEY (resource_name, resource_key));
CREATE TABLE positions (
    subscriber text PRIMARY KEY, epoch bigint NOT NULL, sequence bigint NOT NULL)`

// Ledger receives the deliveries of one subscriber.
type Ledger struct {
	db         *sql.DB
	subscriber string
}

// NewHandler returns the handler of POST requests.
func NewHandler(db *sql.DB, subscriber, secret string) (http.Handler, error) {
	l := &Ledger{db, subscriber}
	return consumer.New(consumer.Config{Secrets: []string{secret}, Store: l, Handle: l.handle})
}

// LastSequence implements consumer.Store.
func (l *Ledger) LastSequence(ctx context.Context) (at consumer.Position, err error) {
	err = l.db.QueryRowContext(ctx, `SELECT epoch, sequence FROM positions WHERE subscriber = $1`, l.subscriber).Scan(&at.Epoch, &at.Sequence)
	if errors.Is(err, sql.ErrNoRows) {
		return at, nil // nothing has come yet
	}
	return at, err
}

// handle applies what is new of a batch and saves the position, or neither.
func (l *Ledger) handle(ctx context.Context, b consumer.Batch) error {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	if b, err = l.lock(ctx, tx, b); err != nil {
		return err
	}
	if b.Gap != nil {
		return fmt.Errorf("events after %d up to %d never came", b.Gap.After, b.Gap.Through)
	}
	for _, e := range b.Events {
		_, err := tx.ExecContext(ctx, `INSERT INTO records VALUES ($1, $2, $3)
			ON CONFLICT (resource_name, resource_key) DO UPDATE SET sequence = excluded.sequence`,
			e.ResourceName, e.ResourceRecordKey, e.Sequence)
		if err != nil {
			return fmt.Errorf("apply event %d: %w", e.Sequence, err)
		}
	}
	at := b.Position()
	_, err = tx.ExecContext(ctx, `UPDATE positions SET epoch = $2, sequence = $3 WHERE subscriber = $1`, l.subscriber, at.Epoch, at.Sequence)
	if err != nil {
		return fmt.Errorf("save position: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// lock makes the transaction the only one to move the position, and takes out
// of the batch what another process has applied meanwhile.
func (l *Ledger) lock(ctx context.Context, tx *sql.Tx, b consumer.Batch) (consumer.Batch, error) {
	_, err := tx.ExecContext(ctx, `INSERT INTO positions VALUES ($1, 0, 0) ON CONFLICT DO NOTHING`, l.subscriber)
	if err != nil {
		return b, fmt.Errorf("lock position: %w", err)
	}
	var at consumer.Position
	err = tx.QueryRowContext(ctx, `SELECT epoch, sequence FROM positions WHERE subscriber = $1 FOR UPDATE`, l.subscriber).Scan(&at.Epoch, &at.Sequence)
	if err != nil {
		return b, fmt.Errorf("lock position: %w", err)
	}
	return b.After(at), nil
}

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Names of settings.
const (
	// SettingInstallation says which Temporal drives this database: Installation.
	SettingInstallation = "installation"
	// SettingKeyCheck holds a known text sealed with the master key.
	SettingKeyCheck = "key_check"
)

// Installation names the one Temporal cluster and namespace whose workflows may
// drive the subscribers of this database.
type Installation struct {
	ClusterID string `json:"clusterId"`
	Namespace string `json:"namespace"`
}

// Setting reads a setting into value; false when it was never put.
func (s *Store) Setting(ctx context.Context, name string, value any) (bool, error) {
	return readSetting(ctx, s.pool, name, value)
}

// PutSetting stores a setting, in place of the one there was.
func (s *Store) PutSetting(ctx context.Context, name string, value any) error {
	const query = `INSERT INTO settings (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`
	if _, err := s.pool.Exec(ctx, query, name, value); err != nil {
		return fmt.Errorf("put setting %s: %w", name, err)
	}
	return nil
}

// SettingOnce stores value under name unless there is one, and reads the one
// that is then in force into value, which is a pointer. Of several processes
// that call it at once one wins and all get the winner's.
func (s *Store) SettingOnce(ctx context.Context, name string, value any) error {
	return settingOnce(ctx, s.pool, name, value)
}

// querier is a pool or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func readSetting(ctx context.Context, q querier, name string, value any) (bool, error) {
	var raw []byte
	err := q.QueryRow(ctx, `SELECT value FROM settings WHERE name = $1`, name).Scan(&raw)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read setting %s: %w", name, err)
	}
	if err := json.Unmarshal(raw, value); err != nil {
		return false, fmt.Errorf("read setting %s: %w", name, err)
	}
	return true, nil
}

func settingOnce(ctx context.Context, q querier, name string, value any) error {
	// The update that changes nothing returns the row there was, also one that a
	// concurrent transaction has just committed.
	const query = `INSERT INTO settings (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = settings.value RETURNING value`
	var raw []byte
	if err := q.QueryRow(ctx, query, name, value).Scan(&raw); err != nil {
		return fmt.Errorf("put setting %s: %w", name, err)
	}
	if err := json.Unmarshal(raw, value); err != nil {
		return fmt.Errorf("read setting %s: %w", name, err)
	}
	return nil
}

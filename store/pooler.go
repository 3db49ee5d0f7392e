package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrTransactionPooler says that a URL leads through a pooler that gives every
// transaction another session: what a session listens to and locks is lost.
var ErrTransactionPooler = errors.New("it leads through a pooler in transaction mode")

// poolerTurns is who of two clients asks for its session next. Each one asks twice
// in a row somewhere, or a pooler that serves by turns would look like sessions.
const poolerTurns = "ABBAAB"

// TransactionPooler reports whether url leads through a pooler that shares
// sessions between its clients: two of them, connected at once, are then served
// by one session, or one of them by several.
func TransactionPooler(ctx context.Context, url string) (bool, error) {
	cfg, err := PoolConfig(url)
	if err != nil {
		return false, err
	}
	clients, pids := map[rune]*pgx.Conn{}, map[rune]string{}
	for _, name := range "AB" {
		conn, err := pgx.ConnectConfig(ctx, cfg.ConnConfig)
		if err != nil {
			return false, fmt.Errorf("connect to the database: %w", err)
		}
		defer conn.Close(context.WithoutCancel(ctx))
		clients[name] = conn
	}
	for _, name := range poolerTurns {
		// The simple protocol, which every pooler understands.
		results, err := clients[name].PgConn().Exec(ctx, "SELECT pg_backend_pid()").ReadAll()
		if err != nil {
			return false, fmt.Errorf("ask the database for the session: %w", err)
		}
		pid := string(results[0].Rows[0][0])
		if known := pids[name]; known != "" && known != pid {
			return true, nil
		}
		if pids[name] = pid; pids['A'] == pids['B'] {
			return true, nil
		}
	}
	return false, nil
}

// ThroughPooler makes a pool's configuration fit for a pooler in transaction mode:
// no statement is prepared for longer than it takes to run.
func ThroughPooler(cfg *pgxpool.Config) {
	cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	cfg.ConnConfig.StatementCacheCapacity = 0
	// What a session is told would be told to any one of the pooler's, and
	// overheard by its other clients: CheckPooled looks at the role's settings.
	cfg.AfterConnect = nil
}

// PooledSettingsError says that a role's own settings do not fit, where a pooler
// keeps us from making them for each session.
type PooledSettingsError struct {
	Role, Database string
	// Wrong are the names of the settings.
	Wrong []string
}

// Error implements error.
func (e *PooledSettingsError) Error() string {
	return fmt.Sprintf("through a pooler in transaction mode sessions have the role's settings, and %s of role %s would lose what was confirmed: run `%s`",
		strings.Join(e.Wrong, ", "), e.Role, strings.Join(e.Statements(), "; "))
}

// Statements are what mends it.
func (e *PooledSettingsError) Statements() []string {
	statements := make([]string, 0, len(e.Wrong))
	for _, name := range e.Wrong {
		i := slices.IndexFunc(pooledSettings, func(s pooledSetting) bool { return s.name == name })
		statements = append(statements, fmt.Sprintf("ALTER ROLE %s IN DATABASE %s SET %s = '%s'",
			pgx.Identifier{e.Role}.Sanitize(), pgx.Identifier{e.Database}.Sanitize(), name, pooledSettings[i].value))
	}
	return statements
}

type pooledSetting struct {
	name, value string
	needed      bool     // else only faster with it
	good        []string // other values that will do
}

// pooledSettings are those that sessionSettings makes where it can.
var pooledSettings = []pooledSetting{
	{"default_transaction_isolation", "read committed", true, nil},
	{"synchronous_commit", "on", true, []string{"remote_write", "remote_apply"}},
	{"enable_seqscan", "off", false, nil},
	{"enable_bitmapscan", "off", false, nil},
	{"jit", "off", false, nil},
}

// CheckPooled looks at the settings that the role of url, a direct connection,
// begins its sessions with. Needed ones that do not fit give a
// *PooledSettingsError; advised holds what would make it faster, nil if nothing.
func CheckPooled(ctx context.Context, url string) (advised *PooledSettingsError, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	needed, advice := &PooledSettingsError{}, &PooledSettingsError{}
	if err := conn.QueryRow(ctx, `SELECT current_user, current_database()`).Scan(&needed.Role, &needed.Database); err != nil {
		return nil, fmt.Errorf("read role: %w", err)
	}
	advice.Role, advice.Database = needed.Role, needed.Database
	for _, s := range pooledSettings {
		var value string
		if err := conn.QueryRow(ctx, `SELECT current_setting($1)`, s.name).Scan(&value); err != nil {
			return nil, fmt.Errorf("read setting %s: %w", s.name, err)
		}
		switch {
		case value == s.value || slices.Contains(s.good, value):
		case s.needed:
			needed.Wrong = append(needed.Wrong, s.name)
		default:
			advice.Wrong = append(advice.Wrong, s.name)
		}
	}
	if len(needed.Wrong) > 0 {
		return nil, needed
	}
	if len(advice.Wrong) == 0 {
		return nil, nil
	}
	return advice, nil
}

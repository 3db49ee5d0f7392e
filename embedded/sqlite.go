//go:build !slim

package embedded

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/headers"
	"go.temporal.io/server/common/persistence/sql/sqlplugin"
	sqliteplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/schema/sqlite"
)

const (
	busyTimeoutMs = 5000
	// temporalConnsMax is one, as SQLite has one writer: others wait for it in
	// sleeps of up to 100 ms, and start three times fewer workflows a second.
	temporalConnsMax = 1
	// cacheKiB is SQLite's page cache: the rows of some thousand open workflows.
	cacheKiB = 32 << 10
	// quickCheckBytesMax bounds the file that is read through at each start.
	quickCheckBytesMax = 32 << 20
)

// starts counts the stores opened in this process.
var starts atomic.Int64

// storeConfig is Temporal's store: one SQLite file. Its name holds the server's
// version, since files of other versions are not migrated; all that is in them is
// rebuilt from the database.
func storeConfig(dir *dataDir, noSync bool) *config.SQL {
	synchronous := "normal" // survives our death; the machine's may cost the last commits
	if noSync {
		synchronous = "off"
	}
	return &config.SQL{
		PluginName:   sqliteplugin.PluginName,
		DatabaseName: dir.file("temporal-" + headers.ServerVersion + ".db"),
		MaxConns:     temporalConnsMax,
		MaxIdleConns: temporalConnsMax,
		ConnectAttributes: map[string]string{
			"mode":         "rwc",
			"journal_mode": "wal",
			"synchronous":  synchronous,
			"cache_size":   strconv.Itoa(-cacheKiB),
			// Temporal never closes a connection pool and finds it again by these attributes.
			// Each stack needs its own: the file may have been replaced meanwhile.
			"busy_timeout": strconv.FormatInt(busyTimeoutMs+starts.Add(1), 10),
		},
	}
}

// prepareStore makes the file with Temporal's schema unless it is there and can
// be opened. One that cannot is renamed, never deleted.
func prepareStore(ctx context.Context, store *config.SQL, logger *slog.Logger) error {
	path := store.DatabaseName
	err := checkStore(ctx, path)
	if err == nil {
		return dropListIndexes(ctx, path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		aside := fmt.Sprintf("%s.broken-%d", path, time.Now().UnixMilli())
		logger.Warn("Temporal's file cannot be opened: it is set aside and rebuilt", "file", path, "set_aside", aside, "error", err)
		if err := setAsideStore(path, aside); err != nil {
			return fmt.Errorf("set %s aside: %w", path, err)
		}
	}
	if err := createStore(ctx, path); err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	return dropListIndexes(ctx, path)
}

// listIndexesKept are the indexes of the list of workflows that its page and its
// look-up by id read.
var listIndexesKept = []string{"default_idx", "by_workflow_id"}

// dropListIndexes drops all other indexes of the list of workflows: of 61, one for
// each attribute that somebody might search by, each is written at each start of a
// workflow and each change of its attributes. Without them a search reads the list
// in the order in which it is shown, and finds the same.
func dropListIndexes(ctx context.Context, path string) error {
	db, err := openStore(path)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'executions_visibility' AND sql IS NOT NULL")
	if err != nil {
		return fmt.Errorf("list indexes of %s: %w", path, err)
	}
	defer rows.Close()
	var drops []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return fmt.Errorf("list indexes of %s: %w", path, err)
		}
		if !slices.Contains(listIndexesKept, name) {
			drops = append(drops, "DROP INDEX "+name)
		}
	}
	if err := rows.Err(); err != nil || len(drops) == 0 {
		return err
	}
	if _, err := db.ExecContext(ctx, strings.Join(append(drops, ""), ";\n")); err != nil {
		return fmt.Errorf("drop indexes of %s: %w", path, err)
	}
	return nil
}

// checkStore says whether the file is a whole store.
func checkStore(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	db, err := openStore(path)
	if err != nil {
		return err
	}
	defer db.Close()
	for _, table := range []string{"namespaces", "cluster_metadata_info", "executions", "executions_visibility"} {
		var rows int
		if err := db.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1 FROM "+table+" LIMIT 1)").Scan(&rows); err != nil {
			return err
		}
	}
	if info.Size() > quickCheckBytesMax {
		return nil
	}
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return errors.New(verdict)
	}
	return nil
}

// setAsideStore renames a file together with its log, without which it is another one.
func setAsideStore(path, aside string) error {
	for _, suffix := range []string{"-wal", "-shm", ""} {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// createStore applies the schema in one transaction: an interrupted start leaves
// none of it.
func createStore(ctx context.Context, path string) error {
	db, err := openStore(path)
	if err != nil {
		return err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it has nothing to do
	if err := sqlite.SetupSchemaOnDB(schemaTx{ctx: ctx, tx: tx}); err != nil {
		return err
	}
	return tx.Commit()
}

func openStore(path string) (*sql.DB, error) {
	source := url.URL{Scheme: "file", Opaque: path, RawQuery: "mode=rwc&_pragma=journal_mode=wal&_pragma=busy_timeout=" + strconv.Itoa(busyTimeoutMs)}
	return sql.Open("sqlite", source.String()) // the driver that Temporal's plugin registers
}

// schemaTx lets Temporal's schema be applied within a transaction of ours, of
// which it uses Exec alone.
type schemaTx struct {
	sqlplugin.AdminDB
	ctx context.Context //nolint:containedctx // lives for one call
	tx  *sql.Tx
}

func (s schemaTx) Exec(statement string, args ...any) error {
	_, err := s.tx.ExecContext(s.ctx, statement, args...)
	return err
}

package bench

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"postroad/internal/apiclient"
)

// Statement is one that PostgreSQL ran, by its text without constants.
type Statement struct {
	Text  string  `json:"text"`
	Calls int64   `json:"calls"`
	Rows  int64   `json:"rows"`
	Ms    float64 `json:"ms"`
}

// databaseCounts is what the database has counted so far.
type databaseCounts struct {
	transactions, walBytes int64
}

func (r *run) databaseCounts(ctx context.Context) (c databaseCounts, err error) {
	if r.countsStatements {
		if _, err := r.database.Exec(ctx, "SELECT pg_stat_statements_reset()"); err != nil {
			return c, fmt.Errorf("reset the count of statements: %w", err)
		}
	}
	return r.readCounts(ctx)
}

func (r *run) readCounts(ctx context.Context) (c databaseCounts, err error) {
	err = r.database.QueryRow(ctx, `SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint, (pg_current_wal_insert_lsn() - '0/0')::bigint`).
		Scan(&c.transactions, &c.walBytes)
	if err != nil {
		return c, fmt.Errorf("read the database's counts: %w", err)
	}
	return c, nil
}

// statementsShown is how many statements a result names.
const statementsShown = 8

// countSince says in the resources what the database did since before.
func (r *run) countSince(ctx context.Context, u *Resources, before databaseCounts) error {
	now, err := r.readCounts(ctx)
	if err != nil {
		return err
	}
	u.Transactions, u.WALBytes = u.per(float64(now.transactions-before.transactions)), u.per(float64(now.walBytes-before.walBytes))
	if !r.countsStatements {
		return nil
	}
	const ours = "FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
	var calls float64
	if err := r.database.QueryRow(ctx, "SELECT coalesce(sum(calls), 0)::float8 "+ours).Scan(&calls); err != nil {
		return fmt.Errorf("count statements: %w", err)
	}
	u.Statements = u.per(calls)
	rows, err := r.database.Query(ctx, "SELECT query AS text, calls, rows, total_exec_time AS ms "+ours+" ORDER BY ms DESC LIMIT $1", statementsShown)
	if err == nil {
		u.MostTime, err = pgx.CollectRows(rows, pgx.RowToStructByName[Statement])
	}
	if err != nil {
		return fmt.Errorf("list statements: %w", err)
	}
	return nil
}

// historiesMax is how many workflows there may be to ask each how long its
// history is.
const (
	historiesMax      = 600
	historiesMaxQuick = 100
)

// historyEvents is how long the histories of Temporal's workflows are, all
// together; known is false where they are too many to ask.
func (r *run) historyEvents(ctx context.Context) (all int64, known bool, err error) {
	temporal := &apiclient.Client{URL: r.ready.UIURL + "/api/v1/namespaces/postroad"}
	var list struct {
		Executions []struct {
			Execution struct{ WorkflowID, RunID string }
		}
	}
	most := historiesMax
	if r.cfg.Quick {
		most = historiesMaxQuick
	}
	path := fmt.Sprintf("/workflows?pageSize=%d", most+1)
	if _, err := temporal.Do(ctx, apiclient.Request{Method: http.MethodGet, Path: path}, &list); err != nil {
		return 0, false, fmt.Errorf("list workflows: %w", err)
	}
	if len(list.Executions) > most {
		return 0, false, nil
	}
	var events atomic.Int64
	asking, ctx := errgroup.WithContext(ctx)
	asking.SetLimit(8)
	for _, e := range list.Executions {
		asking.Go(func() error {
			var described struct {
				WorkflowExecutionInfo struct{ HistoryLength string }
			}
			path := "/workflows/" + url.PathEscape(e.Execution.WorkflowID) + "?execution.runId=" + e.Execution.RunID
			if _, err := temporal.Do(ctx, apiclient.Request{Method: http.MethodGet, Path: path}, &described); err != nil {
				return fmt.Errorf("describe workflow: %w", err)
			}
			n, err := strconv.ParseInt(described.WorkflowExecutionInfo.HistoryLength, 10, 64)
			events.Add(n)
			return err
		})
	}
	err = asking.Wait()
	return events.Load(), true, err
}

// startProfile starts a CPU profile of the product, where one is wanted.
func (m *measurement) startProfile(ctx context.Context) error {
	if m.cfg.ProfileDir == "" {
		return nil
	}
	profiler := &apiclient.Client{URL: m.ready.ProfileURL}
	if _, err := profiler.Do(ctx, apiclient.Request{Method: http.MethodPost, Path: "/debug/cpu/start"}, nil); err != nil {
		return fmt.Errorf("start the profile: %w", err)
	}
	return nil
}

// stopProfile ends it and writes it: the last run's replaces earlier ones.
func (m *measurement) stopProfile(ctx context.Context) error {
	if m.cfg.ProfileDir == "" {
		return nil
	}
	profiler := &apiclient.Client{URL: m.ready.ProfileURL}
	answer, err := profiler.Do(ctx, apiclient.Request{Method: http.MethodPost, Path: "/debug/cpu/stop"}, nil)
	if err == nil {
		err = os.WriteFile(filepath.Join(m.cfg.ProfileDir, m.scenario.Name+".pprof"), answer.Body, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write the profile: %w", err)
	}
	return nil
}

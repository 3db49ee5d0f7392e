//go:build !slim

package embedded_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"

	"postroad/embedded"
	"postroad/internal/dirlock"
	"postroad/internal/testkit"
)

const waitMax = 60 * time.Second

// ownerDirEnv makes this test binary a process that runs a stack until it is killed.
const ownerDirEnv = "POSTROAD_TEST_STACK_OWNER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerDirEnv); dir != "" {
		own(dir)
	}
	os.Exit(testkit.Run(m))
}

func own(dir string) {
	s, err := embedded.Start(context.Background(), config(dir))
	if err != nil {
		os.Stdout.WriteString("error " + err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdout.WriteString(strings.Join([]string{s.DatabaseURL, s.TemporalAddress, s.ClusterID}, " ") + "\n")
	select {}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func config(dir string) embedded.Config {
	return embedded.Config{
		DataDir: dir, TemporalListen: "127.0.0.1:0", UIListen: "127.0.0.1:0", NoSync: true, Logger: quiet(),
		SearchAttributes: map[string]string{"PostroadFeed": "Keyword", "PostroadState": "Keyword"},
	}
}

// temporalAlone is a stack without PostgreSQL and UI.
func temporalAlone(dir string) embedded.Config {
	cfg := config(dir)
	cfg.WithoutDatabase = true
	cfg.WithoutUI = true
	return cfg
}

func start(t *testing.T, cfg embedded.Config) *embedded.Stack {
	t.Helper()
	t.Cleanup(func() {
		if err := embedded.Remove(cfg.DataDir); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), waitMax)
	defer cancel()
	s, err := embedded.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func stop(t *testing.T, s *embedded.Stack) {
	t.Helper()
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, s *embedded.Stack) client.Client {
	t.Helper()
	c, err := client.DialContext(t.Context(), client.Options{
		HostPort: s.TemporalAddress, Namespace: s.Namespace, Logger: sdklog.NewStructuredLogger(quiet()),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// startWorkflow leaves a run that no worker takes up.
func startWorkflow(t *testing.T, s *embedded.Stack, id string) {
	t.Helper()
	_, err := dial(t, s).ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: id, TaskQueue: "nobody", WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
	}, "Nothing")
	if err != nil {
		t.Fatal(err)
	}
}

func workflowRuns(t *testing.T, s *embedded.Stack, id string) bool {
	t.Helper()
	_, err := dial(t, s).DescribeWorkflowExecution(t.Context(), id, "")
	return err == nil
}

func execute(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func databaseAnswers(t *testing.T, url, sql string) bool {
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		return false
	}
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), sql)
	return err == nil
}

func TestStack(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	first := start(t, config(dir))

	t.Run("serves the UI, which reaches Temporal", func(t *testing.T) {
		response, err := http.Get(first.UIURL + "/api/v1/namespaces/" + first.Namespace)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		var answer struct{ NamespaceInfo struct{ Name string } }
		err = json.NewDecoder(response.Body).Decode(&answer)
		if err != nil || answer.NamespaceInfo.Name != first.Namespace {
			t.Errorf("%s, error %v: %+v", response.Status, err, answer)
		}
	})

	t.Run("registers namespace and search attributes", func(t *testing.T) {
		response, err := dial(t, first).OperatorService().ListSearchAttributes(t.Context(),
			&operatorservice.ListSearchAttributesRequest{Namespace: first.Namespace})
		if err != nil {
			t.Fatal(err)
		}
		for name := range config(dir).SearchAttributes {
			if got := response.GetCustomAttributes()[name]; got != enumspb.INDEXED_VALUE_TYPE_KEYWORD {
				t.Errorf("%s is %s, want Keyword", name, got)
			}
		}
	})

	t.Run("refuses a second start and names the holder", func(t *testing.T) {
		_, err := embedded.Start(t.Context(), config(dir))
		var held *dirlock.HeldError
		if !errors.As(err, &held) || held.PID != os.Getpid() || held.Dir != dir {
			t.Errorf("error %v, want one that names process %d and %s", err, os.Getpid(), dir)
		}
	})

	t.Run("gets a killed PostgreSQL back at the same address", func(t *testing.T) {
		execute(t, first.DatabaseURL, "CREATE TABLE kept AS SELECT 1")
		pid := first.DatabasePID()
		if err := first.KillDatabase(); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, waitMax, func() bool {
			return databaseAnswers(t, first.DatabaseURL, "SELECT * FROM kept")
		}, "PostgreSQL did not come back")
		if now := first.DatabasePID(); now == pid {
			t.Errorf("process %d was not replaced", pid)
		}
	})

	t.Run("stops in order, once, and leaves nothing running", func(t *testing.T) {
		startWorkflow(t, first, "kept")
		pid := first.DatabasePID()
		stop(t, first)
		stop(t, first)
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("PostgreSQL %d is still running", pid)
		}
		for _, address := range []string{first.TemporalAddress, strings.TrimPrefix(first.UIURL, "http://")} {
			if conn, err := net.Dial("tcp", address); err == nil {
				conn.Close()
				t.Errorf("something still listens on %s", address)
			}
		}
	})

	t.Run("keeps rows, workflows and cluster id over a restart", func(t *testing.T) {
		cfg := config(dir)
		cfg.SearchAttributes["PostroadLater"] = "Int"
		second := start(t, cfg)
		if second.ClusterID != first.ClusterID {
			t.Errorf("cluster id changed from %s to %s", first.ClusterID, second.ClusterID)
		}
		if !databaseAnswers(t, second.DatabaseURL, "SELECT * FROM kept") {
			t.Error("the table is gone")
		}
		if !workflowRuns(t, second, "kept") {
			t.Error("the workflow is gone")
		}
		response, err := dial(t, second).OperatorService().ListSearchAttributes(t.Context(),
			&operatorservice.ListSearchAttributesRequest{Namespace: second.Namespace})
		if err != nil || response.GetCustomAttributes()["PostroadLater"] != enumspb.INDEXED_VALUE_TYPE_INT {
			t.Errorf("the new search attribute is missing, error %v", err)
		}
	})
}

func TestStackAfterKill(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), ownerDirEnv+"="+dir)
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(line)
	if len(fields) != 3 {
		t.Fatalf("the other process says %q", line)
	}
	databaseURL, address, clusterID := fields[0], fields[1], fields[2]
	execute(t, databaseURL, "CREATE TABLE kept AS SELECT 1")
	startWorkflow(t, &embedded.Stack{TemporalAddress: address, Namespace: embedded.DefaultNamespace}, "kept")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()

	s := start(t, config(dir))
	if s.DatabaseURL != databaseURL || s.ClusterID != clusterID {
		t.Errorf("database %s, cluster %s; before %s, %s", s.DatabaseURL, s.ClusterID, databaseURL, clusterID)
	}
	if !databaseAnswers(t, s.DatabaseURL, "SELECT * FROM kept") {
		t.Error("the table is gone")
	}
	if !workflowRuns(t, s, "kept") {
		t.Error("the workflow is gone")
	}
}

func TestTemporalAlone(t *testing.T) {
	t.Parallel()
	s := start(t, temporalAlone(t.TempDir()))
	if s.DatabaseURL != "" || s.UIURL != "" {
		t.Errorf("database %q and UI %q, want neither", s.DatabaseURL, s.UIURL)
	}
	info, err := dial(t, s).WorkflowService().GetClusterInfo(t.Context(), &workflowservice.GetClusterInfoRequest{})
	if err != nil || info.GetClusterId() != s.ClusterID {
		t.Errorf("the server's cluster id is %s, the stack's %s, error %v", info.GetClusterId(), s.ClusterID, err)
	}

	t.Run("survives an outage at the same address", func(t *testing.T) {
		startWorkflow(t, s, "kept")
		for range 2 {
			if err := s.StopTemporal(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if conn, err := net.Dial("tcp", s.TemporalAddress); err == nil {
			conn.Close()
			t.Error("Temporal still listens")
		}
		for range 2 {
			if err := s.StartTemporal(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if !workflowRuns(t, s, "kept") {
			t.Error("the workflow is gone")
		}
	})
}

func TestBrokenTemporalFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, temporalAlone(dir))
	clusterID := s.ClusterID
	stop(t, s)
	files, err := filepath.Glob(filepath.Join(dir, "temporal-*.db"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, error %v", files, err)
	}
	if err := os.WriteFile(files[0], []byte(strings.Repeat("not a database", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	again := start(t, temporalAlone(dir))
	startWorkflow(t, again, "works")
	if again.ClusterID != clusterID {
		t.Errorf("cluster id changed from %s to %s", clusterID, again.ClusterID)
	}
	aside, err := filepath.Glob(filepath.Join(dir, "temporal-*.db.broken-*"))
	if err != nil || len(aside) == 0 {
		t.Errorf("the broken file was not kept: %v, error %v", aside, err)
	}
}

// TestListIndexes: the list of workflows has two indexes, also in a file that an
// earlier release made, and is searched by what no index is of.
func TestListIndexes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stop(t, start(t, temporalAlone(dir)))
	files, err := filepath.Glob(filepath.Join(dir, "temporal-*.db"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, error %v", files, err)
	}
	db, err := sql.Open("sqlite", "file:"+files[0]) // registered by the server
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), "CREATE INDEX by_status ON executions_visibility (namespace_id, status)")
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s := start(t, temporalAlone(dir))
	startWorkflow(t, s, "listed")
	c := dial(t, s)
	for _, query := range []string{"WorkflowType = 'Nothing'", "ExecutionStatus = 'Running'", "WorkflowId STARTS_WITH 'list'", "PostroadState IS NULL"} {
		testkit.Eventually(t, waitMax, func() bool {
			page, err := c.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: query})
			return err == nil && len(page.GetExecutions()) == 1 && page.GetExecutions()[0].GetExecution().GetWorkflowId() == "listed"
		}, "the list does not show the workflow for: "+query)
	}
	stop(t, s)
	if db, err = sql.Open("sqlite", "file:"+files[0]); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var names string
	err = db.QueryRowContext(t.Context(), `SELECT group_concat(name, ' ' ORDER BY name) FROM sqlite_master
		WHERE type = 'index' AND tbl_name = 'executions_visibility' AND sql IS NOT NULL`).Scan(&names)
	if want := "by_workflow_id default_idx"; err != nil || names != want {
		t.Errorf("indexes %q, want %q, error %v", names, want, err)
	}
}

func TestStart(t *testing.T) {
	t.Parallel()

	t.Run("refuses a taken address and gives the directory up", func(t *testing.T) {
		t.Parallel()
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		dir := t.TempDir()
		for name, change := range map[string]func(*embedded.Config){
			"Temporal":        func(cfg *embedded.Config) { cfg.TemporalListen = taken.Addr().String() },
			"the Temporal UI": func(cfg *embedded.Config) { cfg.UIListen, cfg.WithoutUI = taken.Addr().String(), false },
		} {
			cfg := temporalAlone(dir)
			change(&cfg)
			_, err := embedded.Start(t.Context(), cfg)
			if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), name+" on "+taken.Addr().String()) {
				t.Errorf("%s: error %v", name, err)
			}
		}
		if err := embedded.Remove(dir); err != nil {
			t.Error(err)
		}
	})

	t.Run("refuses a broken configuration", func(t *testing.T) {
		t.Parallel()
		for want, change := range map[string]func(*embedded.Config){
			"DataDir":        func(cfg *embedded.Config) { cfg.DataDir = "" },
			"DatabaseURL":    func(cfg *embedded.Config) { cfg.DatabaseURL = "postgres://127.0.0.1/x" },
			"Retention":      func(cfg *embedded.Config) { cfg.Retention = time.Hour },
			"TemporalListen": func(cfg *embedded.Config) { cfg.TemporalListen = "7233" },
			"Color":          func(cfg *embedded.Config) { cfg.SearchAttributes = map[string]string{"Color": "Paint"} },
		} {
			cfg := temporalAlone(t.TempDir())
			change(&cfg)
			if _, err := embedded.Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want one about %s", err, want)
			}
		}
	})
}

package arch_test

import (
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"postroad/internal/arch"
)

const root = "../.."

// TestImports is the rule itself; the two tables below show what it refuses.
func TestImports(t *testing.T) {
	t.Parallel()
	violations, err := arch.Check(os.DirFS(root), "postroad")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		t.Error(v)
	}
}

func TestImportsForbidden(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ file, pkg, imported string }{
		"api knows no workflows":               {"api/pause.go", "api", "postroad/workflows"},
		"api knows no activities":              {"api/pause.go", "api", "postroad/activities"},
		"api in its tests neither":             {"api/pause_test.go", "api_test", "postroad/workflows"},
		"cmd reaches delivery through others":  {"cmd/postroad/main.go", "main", "postroad/delivery"},
		"worker has no HTTP of its own":        {"worker/worker.go", "worker", "postroad/delivery"},
		"workflows do no I/O":                  {"workflows/subscriber.go", "workflows", "postroad/store"},
		"workflows use no internal":            {"workflows/subscriber.go", "workflows", "postroad/internal/config"},
		"workflows draw no lots":               {"workflows/subscriber.go", "workflows", "math/rand/v2"},
		"workflows open no connections":        {"workflows/subscriber.go", "workflows", "net/http"},
		"no arrow up to workflows":             {"activities/deliver.go", "activities", "postroad/workflows"},
		"no arrow up to the worker":            {"activities/deliver.go", "activities", "postroad/worker"},
		"siblings: delivery and store":         {"delivery/client.go", "delivery", "postroad/store"},
		"siblings: eventlog and store":         {"eventlog/append.go", "eventlog", "postroad/store"},
		"siblings: store and eventlog":         {"store/runs.go", "store", "postroad/eventlog"},
		"siblings in tests: store, eventlog":   {"store/runs_test.go", "store_test", "postroad/eventlog"},
		"in-package tests follow the source":   {"eventlog/append_test.go", "eventlog", "postroad/store"},
		"contract is a leaf":                   {"contract/contract.go", "contract", "postroad/store"},
		"event uses nothing of ours":           {"event/event.go", "event", "postroad/internal/config"},
		"event is standard library":            {"event/event.go", "event", "github.com/google/uuid"},
		"consumer is standard library":         {"consumer/consumer.go", "consumer", "github.com/google/uuid"},
		"consumer does not know event":         {"consumer/consumer.go", "consumer", "postroad/event"},
		"embedded knows nothing of ours":       {"embedded/stack.go", "embedded", "postroad/contract"},
		"bench is a user":                      {"bench/run.go", "bench", "postroad/api"},
		"an example is a user":                 {"examples/verify/verify.go", "verify", "postroad/delivery"},
		"internal is support":                  {"internal/config/config.go", "config", "postroad/event"},
		"testkit imports nothing of ours":      {"internal/testkit/database.go", "testkit", "postroad/store"},
		"siblings: mirror and eventlog":        {"mirror/mirror.go", "mirror", "postroad/eventlog"},
		"siblings: mirror and delivery":        {"mirror/mirror.go", "mirror", "postroad/delivery"},
		"the API runs no mirror":               {"api/feeds.go", "api", "postroad/mirror"},
		"testkit stays out of the product":     {"api/server.go", "api", "postroad/internal/testkit"},
		"testkit stays out of cmd":             {"cmd/postroad/demo.go", "main", "postroad/internal/testkit"},
		"testkit in an in-package test":        {"internal/postgres/x_test.go", "postgres", "postroad/internal/testkit"},
		"a Temporal server in the worker":      {"worker/worker.go", "worker", "go.temporal.io/server/temporal"},
		"a Temporal server in cmd":             {"cmd/postroad/dev.go", "main", "go.temporal.io/server"},
		"a Temporal server in tests of api":    {"api/pause_test.go", "api_test", "go.temporal.io/server/temporal"},
		"the stack in tests of api":            {"api/pause_test.go", "api_test", "postroad/embedded"},
		"the stack in tests of activities":     {"activities/deliver_test.go", "activities_test", "postroad/embedded"},
		"the stack in the worker":              {"worker/worker.go", "worker", "postroad/embedded"},
		"the Temporal UI in cmd":               {"cmd/postroad/dev.go", "main", "github.com/temporalio/ui-server/v2/server"},
		"Temporal's SDK in the store":          {"store/runs.go", "store", "go.temporal.io/sdk/client"},
		"gin outside the API":                  {"delivery/client.go", "delivery", "github.com/gin-gonic/gin"},
		"PostgreSQL in delivery":               {"delivery/client.go", "delivery", "github.com/jackc/pgx/v5/pgxpool"},
		"testify":                              {"api/pause_test.go", "api_test", "github.com/stretchr/testify/require"},
		"mocks":                                {"activities/deliver_test.go", "activities_test", "github.com/stretchr/testify/mock"},
		"a folder nobody entered in the table": {"util/strings.go", "util", "postroad/event"},
		"a folder nobody may import":           {"api/server.go", "api", "postroad/util"},
		"a file behind a build tag":            {"api/slim.go", "api", "postroad/workflows"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := arch.Check(tree(row.file, row.pkg, row.imported), "postroad")
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 1 || got[0].File != row.file || got[0].Import != row.imported || got[0].Reason == "" {
				t.Errorf("import of %s in %s was not refused: %v", row.imported, row.file, got)
			}
		})
	}
}

func TestImportsAllowed(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ file, pkg, imported string }{
		"cmd puts the API together":            {"cmd/postroad/api.go", "main", "postroad/api"},
		"cmd starts the stack":                 {"cmd/postroad/dev.go", "main", "postroad/embedded"},
		"api sends test requests":              {"api/test.go", "api", "postroad/delivery"},
		"worker registers workflows":           {"worker/worker.go", "worker", "postroad/workflows"},
		"workflows use the SDK":                {"workflows/subscriber.go", "workflows", "go.temporal.io/sdk/workflow"},
		"workflows use the contract":           {"workflows/subscriber.go", "workflows", "postroad/contract"},
		"worker runs mirrors":                  {"worker/sources.go", "worker", "postroad/mirror"},
		"tests of mirror write a log":          {"mirror/mirror_test.go", "mirror_test", "postroad/eventlog"},
		"tests may migrate":                    {"eventlog/append_test.go", "eventlog_test", "postroad/store"},
		"tests may use testkit":                {"eventlog/append_test.go", "eventlog_test", "postroad/internal/testkit"},
		"tests of consumer may use testkit":    {"consumer/consumer_test.go", "consumer_test", "postroad/internal/testkit"},
		"tests of event use other modules":     {"event/event_test.go", "event_test", "pgregory.net/rapid"},
		"tests of the worker start the stack":  {"worker/worker_test.go", "worker_test", "postroad/embedded"},
		"tests of the worker name the server":  {"worker/worker_test.go", "worker_test", "go.temporal.io/server/temporal"},
		"the SDK's test environment":           {"workflows/subscriber_test.go", "workflows_test", "github.com/stretchr/testify/mock"},
		"embedded links the server":            {"embedded/temporal.go", "embedded", "go.temporal.io/server/temporal"},
		"internal uses internal":               {"internal/testkit/database.go", "testkit", "postroad/internal/postgres"},
		"a package imports its own subpackage": {"store/migrate.go", "store", "postroad/store/migrations"},
		"testdata is nobody's code":            {"workflows/testdata/old.go", "old", "postroad/store"},
		"another module follows its own rules": {"tools/tools.go", "tools", "postroad/store"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := arch.Check(tree(row.file, row.pkg, row.imported), "postroad")
			if err != nil || len(got) > 0 {
				t.Errorf("import of %s in %s was refused: %v %v", row.imported, row.file, got, err)
			}
		})
	}
}

// tree is a module with one file that has one import, behind a build tag that
// no build sets: rules hold for every file.
func tree(file, pkg, imported string) fs.FS {
	return fstest.MapFS{
		"tools/go.mod": {Data: []byte("module postroad/tools\n")},
		file:           {Data: []byte("//go:build never\n\npackage " + pkg + "\n\nimport _ \"" + imported + "\"\n")},
	}
}

func TestFileLength(t *testing.T) {
	t.Parallel()
	long, err := arch.LongFiles(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range long {
		t.Errorf("%s: split it, files stay under %d", file, arch.FileLinesMax)
	}
}

func TestFileLengthCounts(t *testing.T) {
	t.Parallel()
	lines := func(n int) []byte { return []byte("package a\n" + strings.Repeat("\n", n-1)) }
	got, err := arch.LongFiles(fstest.MapFS{
		"a/short.go": {Data: lines(499)},
		"a/long.go":  {Data: lines(500)},
		"a/made.go":  {Data: append([]byte("// Code generated by a tool. DO NOT EDIT.\n"), lines(500)...)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a/long.go: 500 lines"}, got); diff != "" {
		t.Errorf("long files (-want +got):\n%s", diff)
	}
}

// TestSlim asks the go command what the production binary is built from.
func TestSlim(t *testing.T) {
	t.Parallel()
	full := dependencies(t, "-tags=")
	slim := dependencies(t, "-tags=slim")
	for _, module := range []string{"go.temporal.io/server", "github.com/temporalio/ui-server"} {
		from := func(p string) bool { return p == module || strings.HasPrefix(p, module+"/") }
		if !slices.ContainsFunc(full, from) {
			t.Errorf("the full build does not link %s: this test looks for the wrong name", module)
		}
		if i := slices.IndexFunc(slim, from); i >= 0 {
			t.Errorf("the slim build links %s", slim[i])
		}
	}
}

// dependencies lists the packages that cmd/postroad is built from.
func dependencies(t *testing.T, tags string) []string {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", tags, "./cmd/postroad")
	list.Dir = root
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("list the packages of cmd/postroad: %v", err)
	}
	return strings.Fields(string(out))
}

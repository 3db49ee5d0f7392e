package main_test

import (
	"context"
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/sdk/client"

	main "postroad/cmd/postroad"
	"postroad/contract"
	"postroad/internal/apiclient"
	"postroad/internal/testkit"
	"postroad/store"
)

// clinic is an installation that a doctor examines.
type clinic struct {
	t       *testing.T
	house   *house
	conn    *pgx.Conn
	environ []string
}

func newClinic(t *testing.T) *clinic {
	t.Helper()
	h := newHouse(t)
	conn, err := pgx.Connect(t.Context(), h.database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return &clinic{t: t, house: h, conn: conn, environ: []string{
		"POSTROAD_DATABASE_URL=" + h.database, "TEMPORAL_ADDRESS=" + h.temporal, "POSTROAD_KEY_FILE=" + filepath.Join(h.keys, "key"),
		"POSTROAD_ADMIN_TOKEN=a-token-that-is-long-enough", "POSTROAD_LISTEN=127.0.0.1:0", "POSTROAD_METRICS_LISTEN=127.0.0.1:0",
	}}
}

func (c *clinic) run(environ []string, args ...string) result {
	c.t.Helper()
	return invoke(c.t, main.Invocation{Args: args, Environ: append(slices.Clone(c.environ), environ...), WorkDir: c.t.TempDir()})
}

// examine returns the worst level of each check, and the whole text.
func (c *clinic) examine(code int, environ []string, args ...string) (worst map[string]string, text string) {
	c.t.Helper()
	r := c.run(environ, append([]string{"doctor", "--json"}, args...)...).want(c.t, code)
	var document struct {
		Findings []struct{ Check, Level, Text, Do string }
	}
	if err := json.Unmarshal([]byte(r.stdout), &document); err != nil {
		c.t.Fatalf("%v: %s", err, r.stdout)
	}
	rank := map[string]int{"ok": 0, "warn": 1, "fail": 2}
	worst = map[string]string{}
	for _, f := range document.Findings {
		if old, there := worst[f.Check]; !there || rank[f.Level] > rank[old] {
			worst[f.Check] = f.Level
		}
		if f.Level != "ok" {
			text += f.Text + " " + f.Do + "\n"
		}
	}
	return worst, text
}

func (c *clinic) exec(sql string) {
	c.t.Helper()
	if _, err := c.conn.Exec(c.t.Context(), sql); err != nil {
		c.t.Fatal(err)
	}
}

// serve starts a server of ours and returns its URL.
func (c *clinic) serve(command, told string) string {
	c.t.Helper()
	return await(c.t, background(c.t, c.environ, command, "--allow-loopback-endpoints"), told)
}

// TestDoctor breaks one thing after the other: the check that is for it says so,
// and what to do; the others stay well.
func TestDoctor(t *testing.T) {
	t.Parallel()
	c := newClinic(t)
	if worst, text := c.examine(failed, nil); worst["schema"] != "fail" || !strings.Contains(text, "postroad migrate") {
		t.Errorf("without a schema: %v\n%s", worst, text)
	}
	c.run(nil, "migrate").want(t, ok)
	apiURL := c.serve("api", `the API is running" url=(\S+)`)
	worst, text := c.examine(failed, nil)
	for check, want := range map[string]string{"waker": "fail", "pollers": "fail", "search-attributes": "warn"} {
		if worst[check] != want {
			t.Errorf("without a worker %s is %s, want %s", check, worst[check], want)
		}
	}
	for _, command := range []string{
		"temporal operator search-attribute create --namespace postroad --name PostroadFeed --type Keyword --name PostroadState --type Keyword",
		"tcld namespace search-attributes add --namespace postroad --sa PostroadFeed=Keyword --sa PostroadState=Keyword",
	} {
		if !strings.Contains(text, command) {
			t.Errorf("no %q in\n%s", command, text)
		}
	}
	c.serve("worker", `the worker is running" health_url=(\S+)`)
	testkit.Eventually(t, startMax, func() bool {
		worst, text = c.examine(failed, nil) // the test's PostgreSQL runs without fsync
		return !slices.Contains(slices.Collect(maps.Values(worst)), "warn") && strings.Count(text, "\n") == 1
	}, "all is well but what the test's own PostgreSQL is told")
	if worst["durability"] != "fail" {
		t.Errorf("without fsync: %v\n%s", worst, text)
	}

	api := &apiclient.Client{URL: apiURL, Token: "a-token-that-is-long-enough"}
	newRoad(t, api, "patient", nil, nil)
	otherKey := filepath.Join(t.TempDir(), "other")
	makeKey(t, otherKey)
	for name, test := range map[string]struct {
		harm, mend   string
		environ      []string
		args         []string
		check, level string
		text         string
	}{
		"attempts": {
			harm: `INSERT INTO attempts (subscriber, started_at, first_sequence, last_sequence, event_count, attempt, class, duration_us, request_bytes)
				VALUES ('x', '2020-01-01', 1, 1, 1, 1, 'endpoint', 1, 1)`,
			mend: `DELETE FROM attempts_default`, check: "attempts", level: "warn", text: "default partition",
		},
		"pinned": {
			harm: `UPDATE feeds SET retention_age_ms = 60000, retention_hard_age_ms = NULL WHERE name = 'patient';
				INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key)
				SELECT id, 1, clock_timestamp() - interval '1 day', 'Property', '1' FROM feeds WHERE name = 'patient';
				UPDATE runs SET cursor = 0, parked = false, paused = true WHERE id = 'patient'`,
			mend: `UPDATE feeds SET retention_age_ms = NULL WHERE name = 'patient'`, check: "pinned", level: "warn", text: "because patient is at 0",
		},
		"installation": {
			harm:  `UPDATE settings SET value = jsonb_set(value, '{namespace}', '"another"') WHERE name = 'installation'`,
			mend:  `UPDATE settings SET value = jsonb_set(value, '{namespace}', '"postroad"') WHERE name = 'installation'`,
			check: "installation", level: "fail", text: "--adopt-cluster",
		},
		"long transaction": {args: []string{"--long-transaction", "-1h"}, check: "vacuum", level: "warn", text: "pg_terminate_backend"},
		"key":              {environ: []string{"POSTROAD_KEY_FILE=" + otherKey}, check: "key", level: "fail", text: "first used with"},
		"namespace":        {environ: []string{"TEMPORAL_NAMESPACE=nowhere"}, check: "namespace", level: "fail", text: "temporal operator namespace create --namespace nowhere"},
		"no Temporal":      {environ: []string{"TEMPORAL_ADDRESS=127.0.0.1:1"}, check: "temporal", level: "fail", text: "TEMPORAL_ADDRESS"},
		"no PostgreSQL":    {environ: []string{"POSTROAD_DATABASE_URL=postgres://nobody@127.0.0.1:1/none"}, check: "database", level: "fail", text: "127.0.0.1:1"},
	} {
		if test.harm != "" {
			c.exec(test.harm)
		}
		if name == "long transaction" {
			c.exec(`BEGIN`)
		}
		worst, text := c.examine(failed, test.environ, test.args...)
		if worst[test.check] != test.level || !strings.Contains(text, test.text) {
			t.Errorf("%s: %s is %q, want %q with %q:\n%s", name, test.check, worst[test.check], test.level, test.text, text)
		}
		if name == "long transaction" {
			c.exec(`ROLLBACK`)
		}
		if test.mend != "" {
			c.exec(test.mend)
		}
	}
}

// makeKey makes a key file, as a first start over another database does.
func makeKey(t *testing.T, file string) {
	t.Helper()
	if _, err := store.GenerateKeyFile(file); err != nil {
		t.Fatal(err)
	}
}

// TestDoctorRebuild finds a subscriber whose workflow is stuck, and heals it.
func TestDoctorRebuild(t *testing.T) {
	t.Parallel()
	c := newClinic(t)
	c.run(nil, "migrate").want(t, ok)
	temporal := dialTemporal(t, c.house.temporal)
	// Nobody polls the queue of this one, and what it should run does not exist.
	stuck, err := temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: contract.SubscriberWorkflowID("patient"), TaskQueue: "nowhere",
	}, "Nonsense")
	if err != nil {
		t.Fatal(err)
	}
	api := &apiclient.Client{URL: c.serve("api", `the API is running" url=(\S+)`), Token: "a-token-that-is-long-enough"}
	r := newRoad(t, api, "patient", nil, nil)
	r.publish(numbered(3))
	c.serve("worker", `the worker is running" health_url=(\S+)`)
	c.exec(`UPDATE runs SET checked_at = clock_timestamp() - interval '1 hour'`)
	worst, text := c.examine(failed, nil)
	if worst["subscribers"] != "fail" || !strings.Contains(text, "postroad doctor --rebuild patient") || !strings.Contains(text, "waits for a worker") {
		t.Fatalf("a stuck workflow: %v\n%s", worst, text)
	}
	r.stays(0, time.Second)
	c.run(nil, "doctor", "--rebuild", "nobody").want(t, failed).contains(t, "there is no subscriber nobody")
	c.run(nil, "doctor", "--rebuild", "patient").want(t, ok)
	r.awaitCursor(waitMax, 3)
	onceInOrder(t, r.consumer.Requests(), 3)
	if err := stuck.Get(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("the old run ended with %v", err)
	}
	// One that does nothing wrong is rebuilt, too.
	c.run(nil, "doctor", "--rebuild", "patient").want(t, ok)
	r.publish(numbered(2))
	r.awaitCursor(waitMax, 5)
	if worst, text := c.examine(failed, nil); worst["subscribers"] != "ok" {
		t.Errorf("once healed: %v\n%s", worst, text)
	}
}

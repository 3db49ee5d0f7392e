package main_test

import (
	"context"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	main "postroad/cmd/postroad"
	"postroad/embedded"
	"postroad/internal/testkit"
)

// TestSplitProcesses runs `api` and `worker` against a Temporal and a PostgreSQL
// that they did not start.
func TestSplitProcesses(t *testing.T) {
	t.Parallel()
	temporal := startTemporal(t, t.TempDir(), "127.0.0.1:0")
	database := testkit.Database(t, nil)
	const token = "a-token-that-is-long-enough"
	environ := []string{
		"POSTROAD_DATABASE_URL=" + database, "POSTROAD_KEY_FILE=" + filepath.Join(t.TempDir(), "key"), "POSTROAD_ADMIN_TOKEN=" + token,
		"TEMPORAL_ADDRESS=" + temporal.TemporalAddress,
	}
	serve := func(args ...string) *lockedBuffer {
		return background(t, environ, append(args, "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--allow-loopback-endpoints")...)
	}
	run := func(stdin string, args ...string) result {
		return invoke(t, main.Invocation{Args: args, Stdin: strings.NewReader(stdin), Environ: environ, WorkDir: t.TempDir()})
	}

	run("", "api", "--listen", "127.0.0.1:0", "--metrics-listen", "").want(t, failed).contains(t, "postroad migrate")
	run("", "migrate").want(t, ok)
	apiLog := serve("api", "--idempotency-keep", "2h")
	apiURL := await(t, apiLog, `the API is running" url=(\S+)`)
	environ = append(environ, "POSTROAD_URL="+apiURL, "POSTROAD_TOKEN="+token)
	consumer, heard := listenTo(t)
	run("", "subscriber", "create", "split", "--endpoint", consumer, "--start", "beginning").want(t, ok)
	run(`{"resourceName":"A","resourceRecordKey":"1"}`, "publish", "-", "--idempotency-key", "k").want(t, ok)
	pool, err := pgxpool.New(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	value := func(query string) (n int) {
		if err := pool.QueryRow(t.Context(), query).Scan(&n); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		return n
	}
	if keys := value(`SELECT count(*) FROM idempotency_keys WHERE expires_at BETWEEN now() + interval '1 hour' AND now() + interval '2 hours'`); keys != 1 {
		t.Errorf("%d keys are kept for 2 hours, want 1", keys)
	}
	value(`WITH old AS (INSERT INTO attempts (subscriber, started_at, first_sequence, last_sequence, event_count, attempt, class, duration_us, request_bytes)
		SELECT 'gone', now() - day * interval '1 day', 1, 1, 1, 1, 'success', 1, 1 FROM unnest(ARRAY[2, 4]) day RETURNING *) SELECT count(*) FROM old`)
	// Nobody delivers yet, and the API is ready all the same.
	if status := get(t, apiURL+"/readyz"); status != http.StatusOK {
		t.Errorf("the API without a worker is not ready: %d", status)
	}
	workerLog := serve("worker", "--attempts-keep", "3")
	health := await(t, workerLog, `the worker is running" health_url=(\S+)`)
	testkit.Eventually(t, waitMax, func() bool { return get(t, health+"/readyz") == http.StatusOK }, "the worker is ready")
	testkit.Eventually(t, waitMax, func() bool { return value(`SELECT count(*) FROM attempts WHERE subscriber = 'gone'`) == 1 },
		"the attempt of 4 days ago is removed, and that of 2 days ago is not")
	run("", "wait", "split", "--until", "idle", "--timeout", "1m").want(t, ok)
	if text := heard(); !strings.Contains(text, `"ResourceRecordKey":"1"`) {
		t.Errorf("the consumer heard %q", text)
	}
	for _, log := range []*lockedBuffer{apiLog, workerLog} {
		if text := log.String(); !strings.Contains(text, "msg=configuration") || strings.Contains(text, token) {
			t.Errorf("the log shows the token, or no configuration:\n%s", text)
		}
	}
}

// startTemporal starts a Temporal with what dir holds.
func startTemporal(t *testing.T, dir, listen string) *embedded.Stack {
	t.Helper()
	temporal, err := embedded.Start(t.Context(), embedded.Config{
		DataDir: dir, WithoutDatabase: true, WithoutUI: true, TemporalListen: listen, NoSync: true,
	})
	if err != nil {
		t.Fatalf("start Temporal: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopMax)
		defer cancel()
		if err := temporal.Stop(ctx); err != nil {
			t.Errorf("stop Temporal: %v", err)
		}
	})
	return temporal
}

// background runs a server until the end of the test and returns its log.
func background(t *testing.T, environ []string, args ...string) *lockedBuffer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log := &lockedBuffer{}
	ended := make(chan int, 1)
	go func() {
		ended <- main.Invocation{Args: args, Stdin: strings.NewReader(""), Stdout: log, Stderr: log, Environ: environ, WorkDir: t.TempDir()}.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case code := <-ended:
			if code != ok {
				t.Errorf("%s ended with code %d:\n%s", args[0], code, log.String())
			}
		case <-time.After(stopMax):
			t.Errorf("%s did not stop:\n%s", args[0], log.String())
		}
	})
	return log
}

// await waits for a line of a log and returns what the pattern's group holds.
func await(t *testing.T, log *lockedBuffer, pattern string) string {
	t.Helper()
	compiled := regexp.MustCompile(pattern)
	var match []string
	testkit.Eventually(t, waitMax, func() bool {
		match = compiled.FindStringSubmatch(log.String())
		return match != nil
	}, pattern)
	return match[1]
}

func get(t *testing.T, url string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	_ = response.Body.Close()
	return response.StatusCode
}

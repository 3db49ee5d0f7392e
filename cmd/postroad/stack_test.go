package main_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	main "postroad/cmd/postroad"
	"postroad/internal/config"
	"postroad/internal/testkit"
)

func TestFeedCommands(t *testing.T) {
	t.Parallel()
	on(t, "feed", "create", "feeds-a", "--description", "first").want(t, ok).contains(t, "created feed feeds-a")
	on(t, "feed", "create", "feeds-a").want(t, conflict).contains(t, "/name")
	on(t, "feed", "create", "Feeds_A").want(t, failed).contains(t, "/name: must be")
	on(t, "feed", "update", "feeds-a", "--description", "second").want(t, ok)
	on(t, "feed", "get", "feeds-a").want(t, ok).contains(t, "second", "assigned")
	on(t, "feed", "list").want(t, ok).contains(t, "FEED", "feeds-a", "default")
	var list struct{ Feeds []struct{ Name string } }
	if err := json.Unmarshal([]byte(on(t, "feed", "list", "--json").want(t, ok).stdout), &list); err != nil || len(list.Feeds) < 2 {
		t.Errorf("feeds: %+v, %v", list, err)
	}
	on(t, "feed", "delete", "feeds-a").want(t, ok)
	on(t, "feed", "get", "feeds-a").want(t, notFound).contains(t, `no feed is named "feeds-a"`)
}

func TestPublishCommand(t *testing.T) {
	t.Parallel()
	on(t, "feed", "create", "publish-a").want(t, ok)
	file := filepath.Join(t.TempDir(), "events.ndjson")
	if err := os.WriteFile(file, main.DemoEvents(), 0o644); err != nil {
		t.Fatal(err)
	}
	publish := func(input string, args ...string) result {
		return invoke(t, main.Invocation{
			Args: append([]string{"publish", "--feed", "publish-a", "--data-dir", stack(t)}, args...), Stdin: strings.NewReader(input), WorkDir: t.TempDir(),
		})
	}
	publish("", file, "--idempotency-key", "k").want(t, ok).contains(t, "published 298 events to feed publish-a", "sequences 1 to 298")
	publish("", file, "--idempotency-key", "k").want(t, ok).contains(t, "nothing new", "298 events")
	publish(`{"resourceName":"A","resourceRecordKey":"1"}`, "-").want(t, ok).contains(t, "published 1 event ", "sequences 299\n")
	publish("\n [\n"+`{"resourceName":"A","resourceRecordKey":"1"},`+"\n"+`{"resourceName":"A","resourceRecordKey":"2"}]`, "-").want(t, ok).contains(t, "300 to 301")
	var result struct{ FirstSequence, Accepted int64 }
	r := publish(`{"resourceName":"A","resourceRecordKey":"1"}`, "-", "--json").want(t, ok)
	if err := json.Unmarshal([]byte(r.stdout), &result); err != nil || result.FirstSequence != 302 || result.Accepted != 1 {
		t.Errorf("result: %+v, %v", result, err)
	}

	good := `{"resourceName":"A","resourceRecordKey":"1"}` + "\n"
	publish(good+good+"{broken\n"+good, "-").want(t, failed).contains(t, "line 3", "2 events before it were stored")
	publish("", "-").want(t, usage).contains(t, "empty")
	publish("", "no-such-file").want(t, failed).contains(t, "no-such-file")
	publish(good, "-", "--feed", "no-such-feed").want(t, notFound)
	on(t, "feed", "get", "publish-a").contains(t, "304")
}

// TestRoundTrip has a subscriber deliver to `listen`, with everything a person
// does to it on the way.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	on(t, "feed", "create", "round").want(t, ok)
	secretFile := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secretFile, []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	url, heard := listenTo(t, "--secret-file", secretFile, "--status", "503", "--every", "40")
	created := on(t, "subscriber", "create", "round", "--feed", "round", "--endpoint", url, "--start", "beginning", "--signing-secret-file", secretFile,
		"--schedule", "1ms,2ms", "--type", "record.*,made", "--header", "X-Own: a b", "--label", "L", "--batch-size", "3", "--file", "-").want(t, usage)
	created.contains(t, "not a JSON object") // standard input is empty
	on(t, "subscriber", "create", "round", "--feed", "round", "--endpoint", url, "--start", "beginning", "--signing-secret-file", secretFile,
		"--schedule", "1ms,2ms", "--type", "record.*,made", "--header", "X-Own: a b", "--label", "L").want(t, ok).contains(t, "created subscriber round")
	on(t, "subscriber", "create", "round", "--endpoint", url).want(t, conflict)
	on(t, "subscriber", "get", "round").want(t, ok).contains(t, `"X-Own"`, `"secretSet": true`, `"1ms"`)
	on(t, "subscriber", "list", "--feed", "round").want(t, ok).contains(t, "round", url)
	on(t, "subscriber", "test", "round").want(t, ok).contains(t, "HTTP 200")

	on(t, "subscriber", "pause", "round", "--reason", "to look").want(t, ok).contains(t, "paused", "to look")
	on(t, "wait", "round", "--until", "paused", "--timeout", "10s").want(t, ok)
	invoke(t, main.Invocation{
		Args: []string{"publish", "-", "--feed", "round", "--data-dir", stack(t)}, Stdin: strings.NewReader(string(main.DemoEvents())), WorkDir: t.TempDir(),
	}).want(t, ok)
	on(t, "wait", "round", "--timeout", "300ms").want(t, failed).contains(t, "not idle after 300ms", "round is paused")
	on(t, "status", "round").want(t, ok).contains(t, "0 of 298", "subscriber:round", "to look")
	on(t, "subscriber", "resume", "round").want(t, ok)
	on(t, "wait", "round", "--until", "idle", "--timeout", "1m").want(t, ok)
	on(t, "status").want(t, ok).contains(t, "SUBSCRIBER", "round", "caught up")
	var overview struct {
		Statuses []struct{ Subscriber, State string }
	}
	if err := json.Unmarshal([]byte(on(t, "status", "--json").want(t, ok).stdout), &overview); err != nil || len(overview.Statuses) == 0 {
		t.Errorf("overview: %+v, %v", overview, err)
	}
	on(t, "attempts", "round", "--failures").want(t, ok).contains(t, "503")
	var attempts struct{ Attempts []struct{ Class string } }
	if err := json.Unmarshal([]byte(on(t, "attempts", "round", "--limit", "5", "--json").want(t, ok).stdout), &attempts); err != nil || len(attempts.Attempts) != 5 {
		t.Errorf("attempts: %+v, %v", attempts, err)
	}

	sequences := regexp.MustCompile(`(?m)^\S+  (\d+)  \w+ .*  record\.`).FindAllStringSubmatch(heard(), -1)
	if len(sequences) != 298 {
		t.Fatalf("%d events were printed, want 298", len(sequences))
	}
	for i, match := range sequences {
		if match[1] != strconv.Itoa(i+1) {
			t.Fatalf("event %d is number %s", i+1, match[1])
		}
	}

	on(t, "subscriber", "update", "round", "--label", "M", "--if-version", "99").want(t, conflict)
	on(t, "subscriber", "update", "round", "--label", "M").want(t, ok)
	on(t, "subscriber", "rotate-secret", "round", "--overlap", "1h").want(t, ok).contains(t, "whsec_")
	on(t, "subscriber", "update", "round", "--endpoint", "http://10.0.0.1/").want(t, failed).contains(t, "/endpoint/url")
	on(t, "subscriber", "delete", "round").want(t, ok)
	on(t, "subscriber", "get", "round").want(t, notFound)
	on(t, "status", "round").want(t, notFound)
}

// listenTo runs `listen` and returns its URL and what it printed so far.
func listenTo(t *testing.T, args ...string) (url string, heard func() string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var stdout, stderr lockedBuffer
	ended := make(chan int, 1)
	go func() {
		ended <- main.Invocation{
			Args: append([]string{"listen", "--listen", "127.0.0.1:0"}, args...), Stdout: &stdout, Stderr: &stderr, WorkDir: t.TempDir(),
		}.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		if code := <-ended; code != ok {
			t.Errorf("listen ended with code %d: %s", code, stderr.String())
		}
	})
	pattern := regexp.MustCompile(`listening on (\S+);`)
	testkit.Eventually(t, waitMax, func() bool { return pattern.MatchString(stdout.String()) }, "listen tells its URL")
	return pattern.FindStringSubmatch(stdout.String())[1], stdout.String
}

// TestListenUnsigned takes what comes, and answers as told.
func TestListenUnsigned(t *testing.T) {
	t.Parallel()
	url, heard := listenTo(t, "--status", "429", "--retry-after", "5", "--every", "2")
	for i, want := range []int{200, 429, 200} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"a":"`+"\x1b"+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Postroad-Sequence", "7")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != want || (want == 429) != (response.Header.Get("Retry-After") == "5") {
			t.Errorf("request %d: %s %v", i+1, response.Status, response.Header)
		}
	}
	if text := heard(); strings.Contains(text, "\x1b") || strings.Count(text, `7  {"a":`) != 2 || !strings.Contains(text, "HTTP 429") {
		t.Errorf("it printed %q", text)
	}
}

func TestDataDirectoryOfStack(t *testing.T) {
	t.Parallel()
	dir := stack(t)
	for name, mode := range map[string]os.FileMode{config.TokenFile(dir): 0o600, config.KeyFile(dir): 0o600, config.AddressFile(dir): 0o644} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want mode %v", name, info, err, mode)
		}
	}
	// A second start on the same directory is refused, and the first is none the worse.
	cli(t, devArgs(dir)...).want(t, failed).contains(t, "in use by process")
	on(t, "feed", "get", "default").want(t, ok)
	cli(t, "demo", "--data-dir", dir).want(t, failed).contains(t, "in use by process")
	on(t, "feed", "get", "default").want(t, ok)
}

func TestReadyAndDocs(t *testing.T) {
	t.Parallel()
	target, err := config.Search{DataDir: stack(t)}.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/healthz", "/readyz", "/openapi.json", "/docs"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK || len(body) == 0 {
			t.Errorf("%s: %s %s", path, response.Status, body)
		}
	}
}

// awaitMetric waits until the process shows that line at its metrics address.
func (c *child) awaitMetric(line string) {
	c.t.Helper()
	testkit.Eventually(c.t, waitMax, func() bool { return strings.Contains(c.metricsText(), line) }, "the metrics show "+line)
}

// metricsText is what the process shows at its metrics address; empty: it did not
// answer.
func (c *child) metricsText() string {
	c.t.Helper()
	_, rest, _ := strings.Cut(c.stdout.String()+c.stderr.String(), "  metrics ")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		c.t.Fatal("it names no metrics address")
	}
	return textAt(c.t, fields[0])
}

// textAt is what a URL answers; empty: it did not, as a busy process may not.
func textAt(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return ""
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return ""
	}
	return string(body)
}

// TestDevStops: SIGTERM ends long polls at once and the process soon, and what
// was stored is there at the next start.
func TestDevStops(t *testing.T) {
	t.Parallel()
	dir := devDir(t)
	c, api := startDev(t, dir, "--metrics-listen", "127.0.0.1:0")
	published := invoke(t, main.Invocation{
		Args: []string{"publish", "-", "--data-dir", dir}, Stdin: strings.NewReader(`{"resourceName":"A","resourceRecordKey":"1"}`), WorkDir: t.TempDir(),
	})
	published.want(t, ok)
	polled := make(chan error, 1)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api.URL+"/v1/feeds/default/events?after=1&wait=60s", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+api.Token)
	go func() {
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
		polled <- err
	}()
	c.awaitMetric("postroad_http_long_polls 1")
	if took := c.terminate(); took > 30*time.Second {
		t.Errorf("it took %s to stop", took)
	}
	if err := <-polled; err != nil {
		t.Errorf("the long poll was cut: %v", err)
	}
	if _, err := os.Stat(config.AddressFile(dir)); err == nil {
		t.Error("it left its address behind")
	}
	again, _ := startDev(t, dir)
	cli(t, "feed", "get", "default", "--data-dir", dir).want(t, ok).contains(t, "head        1\n")
	again.terminate()
}

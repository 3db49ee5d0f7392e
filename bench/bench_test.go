package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postroad/internal/apiclient"
)

func TestEventsAreWhatTheFloorSends(t *testing.T) {
	t.Parallel()
	text, err := io.ReadAll(&stream{n: 1000, line: appendEvent})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) != 1000 {
		t.Fatalf("%d lines, want 1000", len(lines))
	}
	keys := map[string]bool{}
	for i, line := range lines {
		var event struct {
			ResourceRecordKey string          `json:"resourceRecordKey"`
			Data              json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		if !bytes.Equal(event.Data, eventData(i)) || len(event.Data) != bodyBytes {
			t.Fatalf("line %d has data of %d bytes: %s", i+1, len(event.Data), event.Data)
		}
		keys[event.ResourceRecordKey] = true
	}
	if len(keys) < 100 {
		t.Errorf("only %d records", len(keys))
	}
}

// TestReceiver sends what must be noticed.
func TestReceiver(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(NewReceiver())
	defer server.Close()
	for name, c := range map[string]struct {
		sequences []string
		want      LaneReport
	}{
		"in order":      {[]string{"1", "2", "3"}, LaneReport{Requests: 3, Events: 3, Last: 3}},
		"a repeat":      {[]string{"1", "2", "2", "3"}, LaneReport{Requests: 4, Events: 3, Repeats: 1, Last: 3}},
		"a gap":         {[]string{"1", "3", "4"}, LaneReport{Requests: 3, Events: 3, Gaps: 1, Last: 4}},
		"out of order":  {[]string{"2", "1"}, LaneReport{Requests: 2, Events: 1, Gaps: 1, Repeats: 1, Last: 2}},
		"no sequence":   {[]string{"", "x", "-1"}, LaneReport{Requests: 3, Malformed: 3}},
		"a lane of its": {[]string{"1"}, LaneReport{Requests: 1, Events: 1, Last: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			lane := strconv.Itoa(len(name)) + strings.ReplaceAll(name, " ", "-")
			for _, sequence := range c.sequences {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/in/"+lane, strings.NewReader("body"))
				if err != nil {
					t.Fatal(err)
				}
				request.Header.Set("Postroad-Sequence", sequence)
				response, err := server.Client().Do(request)
				if err != nil {
					t.Fatal(err)
				}
				_ = response.Body.Close()
				if response.StatusCode != http.StatusNoContent {
					t.Fatalf("answered %s", response.Status)
				}
			}
			got := bookOf[LaneReport](t, server.URL, "/report/"+lane)
			if got.BodyBytes != int64(4*len(c.sequences)) || got.FirstAt == 0 || got.LastAt < got.FirstAt {
				t.Errorf("book: %+v", got)
			}
			got.BodyBytes, got.FirstAt, got.LastAt = 0, 0, 0
			if got != c.want {
				t.Errorf("book %+v, want %+v", got, c.want)
			}
		})
	}
}

func bookOf[T any](t *testing.T, url, path string) T {
	t.Helper()
	report, err := book[T](t.Context(), &run{sink: &apiclient.Client{URL: url}}, path)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// TestServeReceiver is the receiver as a process would run it, with the floor
// as its client.
func TestServeReceiver(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- ServeReceiver(ctx, "127.0.0.1:0", writer) }()
	address, err := bufio.NewReader(reader).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + strings.TrimSpace(address)
	rate, err := floor(ctx, url+"/in/floor", 500)
	if err != nil {
		t.Fatal(err)
	}
	got := bookOf[LaneReport](t, url, "/report/floor")
	if rate.Requests != 500 || rate.PerSecond <= 0 || got.Events != 500 || got.Gaps+got.Repeats > 0 || got.BodyBytes != 500*bodyBytes {
		t.Errorf("rate %+v, book %+v", rate, got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// TestJudge: each fault that a book can show is one of the report's.
func TestJudge(t *testing.T) {
	t.Parallel()
	good := LaneReport{Requests: 10, Events: 10, Last: 10, BodyBytes: 10 * bodyBytes}
	for name, c := range map[string]struct {
		change func(*LaneReport)
		want   string
	}{
		"good":      {func(*LaneReport) {}, ""},
		"lost":      {func(r *LaneReport) { r.Events-- }, "9 of 10"},
		"skipped":   {func(r *LaneReport) { r.Gaps++ }, "skipped"},
		"repeated":  {func(r *LaneReport) { r.Repeats++ }, "repeated"},
		"malformed": {func(r *LaneReport) { r.Malformed++ }, "no sequence"},
		"changed":   {func(r *LaneReport) { r.BodyBytes-- }, "not delivered as it was published"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := good
			c.change(&got)
			var r Result
			r.judgeOrder(got, 10)
			wantFault(t, r, c.want)
		})
	}
}

// wantFault wants a fault of the result, or none for "", and the table to show it.
func wantFault(t *testing.T, r Result, want string) {
	t.Helper()
	if text := strings.Join(r.Faults, "; "); (want == "") != (text == "") || !strings.Contains(text, want) {
		t.Errorf("faults %q, want %q", text, want)
	}
	report := Report{Results: []Result{{}, r}}
	var table bytes.Buffer
	if err := report.WriteTable(&table); err != nil || report.Failed() != (want != "") || strings.Contains(table.String(), "FAILED") != (want != "") {
		t.Errorf("table: %v\n%s", err, table.String())
	}
}

func TestMergeRates(t *testing.T) {
	t.Parallel()
	got := merge([]Rate{rateOf(100, 1, time.Second), rateOf(100, 3, 3*time.Second)})
	if got.Requests != 200 || got.Seconds != 4 || got.PerSecond != 50 || got.CPUSecondsPer1000 != 20 {
		t.Errorf("merged: %+v", got)
	}
}

// TestUsage: it is known where the system has /proc, for processes that are.
func TestUsage(t *testing.T) {
	t.Parallel()
	used, known := usageOf(os.Getpid())
	_, err := os.Stat("/proc/self/stat") // not every system has one
	if known != (err == nil) || used.cpu < 0 || used.cpu > time.Hour || known && (used.memory < 1<<20 || used.memory > 1<<34) {
		t.Errorf("usage %+v, known: %v, /proc: %v", used, known, err)
	}
	if _, known := usageOf(1 << 30); known {
		t.Error("a process that does not exist has used something")
	}
	if err == nil && !slices.Contains(children(os.Getppid()), os.Getpid()) {
		t.Error("we do not descend from our parent")
	}
}

// TestRunSaysWhatDied: a product that cannot start is shown with its own words.
func TestRunSaysWhatDied(t *testing.T) {
	t.Parallel()
	_, err := Run(t.Context(), Config{Command: []string{"/bin/sh", "-c", "echo it is broken >&2; exit 3", "sh"}, Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "it is broken") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error %v", err)
	}
}

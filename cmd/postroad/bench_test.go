package main_test

import (
	"io"
	"os"
	"testing"
	"time"

	"postroad/bench"
	"postroad/internal/config"
)

// TestBench runs the benchmark as it is, but small: it starts this test binary
// as the product.
func TestBench(t *testing.T) {
	t.Parallel()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	report, err := bench.Run(t.Context(), bench.Config{
		Command: []string{executable}, Env: append(config.ParseEnv(os.Environ()).WithoutOurs().Environ(), childVariable+"=1"),
		Dir: t.TempDir(), Quick: true, Events: 300, Delay: 5 * time.Millisecond, Progress: io.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Results) != len(bench.Scenarios()) {
		t.Errorf("%d results", len(report.Results))
	}
	for _, r := range report.Results {
		if len(r.Faults) > 0 || r.Ratio <= 0 || r.Floor <= 0 || r.Publish.PerSecond <= 0 || r.Verdict != "" {
			t.Errorf("%s: %+v", r.Scenario, r)
		}
		if r.Received != nil && r.Received.Events != 300 || r.ByKey != nil && r.ByKey.Events != 300 || r.Received == nil && r.ByKey == nil {
			t.Errorf("%s received %+v %+v", r.Scenario, r.Received, r.ByKey)
		}
		if r.Scenario == "lanes16" && r.ByKey.MostInFlight < 8 {
			t.Errorf("%s: at most %d requests at once", r.Scenario, r.ByKey.MostInFlight)
		}
	}
}

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
		if len(r.Faults) > 0 || len(r.Figures) == 0 || len(r.Resources.Processes) != 4 {
			t.Errorf("%s: %+v", r.Scenario, r)
		}
		for _, f := range r.Figures {
			if f.Value <= 0 || f.Verdict != "" {
				t.Errorf("%s: figure %+v", r.Scenario, f)
			}
		}
		if book, ok := r.Book.(bench.KeyReport); r.Scenario == "lanes16" && (!ok || book.MostInFlight < 8) {
			t.Errorf("%s: %+v", r.Scenario, r.Book)
		}
	}
}

package main_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
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
	profiles := t.TempDir()
	report, err := bench.Run(t.Context(), bench.Config{
		Command: []string{executable}, Env: append(config.ParseEnv(os.Environ()).WithoutOurs().Environ(), childVariable+"=1"),
		Dir: t.TempDir(), Quick: true, Events: 300, Delay: 5 * time.Millisecond, Progress: io.Discard,
		ProfileDir: profiles,
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
		if profile, err := os.ReadFile(filepath.Join(profiles, r.Scenario+".pprof")); err != nil || !bytes.HasPrefix(profile, []byte("\x1f\x8b")) {
			t.Errorf("%s: a profile of %d bytes, %v", r.Scenario, len(profile), err)
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

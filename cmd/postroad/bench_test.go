package main_test

import (
	"io"
	"os"
	"testing"

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
		Dir: t.TempDir(), Events: 300, Progress: io.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Faults) > 0 || report.Received.Events != 300 || report.Ratio <= 0 || report.Floor.PerSecond <= 0 || report.Publish.PerSecond <= 0 {
		t.Errorf("report: %+v", report)
	}
}

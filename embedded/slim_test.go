//go:build slim

package embedded_test

import (
	"errors"
	"os"
	"testing"

	"postroad/embedded"
)

func TestSlim(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := embedded.Start(t.Context(), embedded.Config{DataDir: dir}); !errors.Is(err, embedded.ErrSlim) {
		t.Fatalf("error %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("it left %v, error %v", entries, err)
	}
}

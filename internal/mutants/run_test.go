//go:build mutants

package mutants_test

import (
	"context"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postroad/internal/mutants"
)

// mostEach is how long a mutant may run: one that hangs is caught, too.
const mostEach = 3 * time.Minute

// triesMax is how often a mutant may run before it counts as survived: some
// rules are about races, which a test wins nearly always.
const triesMax = 3

// TestMutants takes out one rule after the other; the rule's test must fail.
func TestMutants(t *testing.T) {
	var caught atomic.Int32
	all := mutants.All()
	t.Cleanup(func() { t.Logf("%d of %d mutants were caught", caught.Load(), len(all)) })
	for _, m := range all {
		t.Run(m.Rule+"/"+m.Test, func(t *testing.T) {
			t.Parallel()
			tries := 1
			for tries < triesMax && survives(t, m) {
				tries++
			}
			if tries == triesMax && survives(t, m) {
				t.Errorf("%s passes without the rule (%s: %q instead of %q)", m.Test, m.File, m.New, m.Old)
				return
			}
			if tries > 1 {
				t.Logf("caught at try %d", tries)
			}
			caught.Add(1)
		})
	}
}

// survives reports whether the test passes with the rule taken out.
func survives(t *testing.T, m mutants.Mutant) bool {
	t.Helper()
	overlay, err := m.Overlay(root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*mostEach)
	defer cancel()
	began := time.Now()
	tags := "slim"
	if m.Temporal {
		tags = ""
	}
	command := exec.CommandContext(ctx, "go", "test", "-vet", "off", "-overlay", overlay, "-tags", tags, "-count", "1", "-failfast",
		"-timeout", mostEach.String(), "-run", m.Name(), "./"+m.Folder())
	command.Dir = root
	raw, err := command.CombinedOutput()
	output := string(raw)
	switch {
	case strings.Contains(output, "[build failed]"), strings.Contains(output, "[setup failed]"):
		t.Fatalf("the mutant does not build:\n%s", output)
	case strings.Contains(output, "no tests to run"), strings.Contains(output, "no test files"):
		t.Fatalf("there is no test %s", m.Test)
	case err == nil:
		return true
	case !strings.Contains(output, "--- FAIL") && !strings.Contains(output, "panic: "):
		t.Fatalf("neither passed nor failed: %v\n%s", err, output)
	}
	t.Logf("caught in %.1f s", time.Since(began).Seconds())
	return false
}

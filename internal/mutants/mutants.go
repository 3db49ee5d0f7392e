// Package mutants shows that the tests of the rules can fail. Each rule of the
// log and of the subscriber protocol stands in the table of
// docs/ARCHITECTURE.md with the tests that show it; each is taken out here, in
// a mutated copy of one source file, and one of those tests must fail then.
//
// The list is kept fresh by the tests of this package. The mutants themselves
// are built and run, some minutes long, by `make mutants`.
package mutants

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Mutant is one rule taken out of one file.
type Mutant struct {
	// Rule is the rule's name in the table of docs/ARCHITECTURE.md.
	Rule string
	// File is the source file, relative to the root; Go or embedded SQL.
	File string
	// Old stands in the file exactly once; New stands in its place in the copy.
	Old, New string
	// Test is the test that must fail, as the table names it: its package's
	// folder and its name, "store.TestX"; with a subtest "store.TestX/reason".
	Test string
	// Temporal says that the test starts a Temporal server. The others are built
	// without one, which saves ten seconds of linking each.
	Temporal bool
}

// All are all mutants.
func All() []Mutant {
	var all []Mutant
	for _, list := range [][]Mutant{
		logMutants, retentionMutants, leaseMutants, runMutants, planMutants, asideMutants, pullMutants, wakerMutants, noticeMutants, workflowMutants, mirrorMutants,
	} {
		all = append(all, list...)
	}
	return all
}

// Folder is the folder of the test's package, Name the test's name.
func (m Mutant) Folder() string { return m.Test[:strings.IndexByte(m.Test, '.')] }

// Name is what `go test -run` selects the test by, anchored.
func (m Mutant) Name() string {
	parts := strings.Split(m.Test[len(m.Folder())+1:], "/")
	for i, part := range parts {
		parts[i] = "^" + part + "$"
	}
	return strings.Join(parts, "/")
}

// Mutate returns the file's text with the rule taken out.
//
// Errors: Old does not stand in it exactly once, or New changes nothing.
func (m Mutant) Mutate(text string) (string, error) {
	if n := strings.Count(text, m.Old); n != 1 {
		return "", fmt.Errorf("%s: the text to replace stands there %d times, want once: %q", m.File, n, m.Old)
	}
	if m.Old == m.New {
		return "", errors.New("the mutant is no other than the original")
	}
	return strings.Replace(text, m.Old, m.New, 1), nil
}

// Overlay writes the mutated copy and the file that makes the go command build
// it in place of the original, both into dir, and returns the latter's path.
func (m Mutant) Overlay(root, dir string) (string, error) {
	original, err := filepath.Abs(filepath.Join(root, m.File))
	if err != nil {
		return "", fmt.Errorf("locate %s: %w", m.File, err)
	}
	text, err := os.ReadFile(original)
	if err != nil {
		return "", fmt.Errorf("read the original: %w", err)
	}
	mutated, err := m.Mutate(string(text))
	if err != nil {
		return "", err
	}
	replacement := filepath.Join(dir, filepath.Base(m.File))
	if err := os.WriteFile(replacement, []byte(mutated), 0o600); err != nil {
		return "", fmt.Errorf("write the mutant: %w", err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: replacement}})
	if err != nil {
		return "", fmt.Errorf("encode the overlay: %w", err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, overlay, 0o600); err != nil {
		return "", fmt.Errorf("write the overlay: %w", err)
	}
	return path, nil
}

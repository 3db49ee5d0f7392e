package mutants_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postroad/internal/mutants"
)

const (
	root  = "../.."
	table = "docs/ARCHITECTURE.md"
)

// row is a line of the table: | **Rule** | what goes wrong without it | `pkg.TestX` |.
var (
	row   = regexp.MustCompile("(?m)^\\| \\*\\*(.+?)\\*\\* \\|.*\\| (.*`.*) \\|$")
	named = regexp.MustCompile("`([a-z/]+\\.Test[A-Za-z0-9_]+)`")
)

// rules are the rows of the table: the tests that show each rule, by its name.
func rules(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, table))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for _, match := range row.FindAllStringSubmatch(string(text), -1) {
		for _, test := range named.FindAllStringSubmatch(match[2], -1) {
			found[match[1]] = append(found[match[1]], test[1])
		}
	}
	return found
}

// TestTable holds the list and the table to each other: each rule has a mutant
// that its own test has to catch, and no mutant is without a rule.
func TestTable(t *testing.T) {
	t.Parallel()
	left := rules(t)
	tests := maps.Clone(left)
	for _, m := range mutants.All() {
		name, _, _ := strings.Cut(m.Test[len(m.Folder())+1:], "/")
		test := m.Folder() + "." + name
		switch shown, known := tests[m.Rule]; {
		case !known:
			t.Errorf("the rule %q of a mutant of %s does not stand in %s", m.Rule, m.File, table)
		case !slices.Contains(shown, test):
			t.Errorf("the rule %q is proved with %s, which its row in %s does not name", m.Rule, test, table)
		}
		delete(left, m.Rule)
	}
	for rule := range left {
		t.Errorf("the rule %q in %s has no mutant", rule, table)
	}
}

// TestApply shows that each mutant can still be made.
func TestApply(t *testing.T) {
	t.Parallel()
	for _, m := range mutants.All() {
		text, err := os.ReadFile(filepath.Join(root, m.File))
		if err != nil {
			t.Errorf("%s: %v", m.Rule, err)
			continue
		}
		if _, err := m.Mutate(string(text)); err != nil {
			t.Errorf("%s: %v", m.Rule, err)
		}
	}
}

package store_test

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// released are the migrations that releases have run, as they were: what a
// database has run is never written anew. A release adds its own.
var released = map[string]string{
	"00001_log.sql":         "015723eafa14e580ab836b239257465265201c7e393c439481699adcc8b7a522",
	"00002_subscribers.sql": "be934f386ad2619fe0dcced3afefb7d8c2281f927071d62c4e787c81d9bb99d6",
}

// contracting is what would take something from under the release before, which
// goes on while this one's migrations run.
var contracting = regexp.MustCompile(`(?i)\b(DROP\s+(TABLE|COLUMN|SCHEMA|FUNCTION|SEQUENCE)|RENAME|TRUNCATE|ALTER\s+COLUMN\s+\S+\s+(TYPE|SET\s+NOT\s+NULL)|ADD\s+COLUMN\s+(IF NOT EXISTS\s+)?\S+\s+\S+\s+NOT\s+NULL\s*[,;])`)

func TestMigrationsOnlyAdd(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("migrations/*.sql")
	check(t, err)
	for name, want := range released {
		text, err := os.ReadFile(filepath.Join("migrations", name))
		check(t, err)
		sum := sha256.Sum256(text)
		if hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s was released and has changed: put the change into a migration of its own", name)
		}
	}
	last := slices.Max(slices.Collect(maps.Keys(released)))
	for _, file := range files {
		name := filepath.Base(file)
		if _, ok := released[name]; ok {
			continue
		}
		if name < last {
			t.Errorf("%s comes before %s, which was released", name, last)
		}
		text, err := os.ReadFile(file)
		check(t, err)
		up, _, _ := strings.Cut(string(text), "-- +goose Down")
		for _, found := range contracting.FindAllString(up, -1) {
			t.Errorf("%s: %q takes something from the release before: leave it to the release after the one that stops using it", name, found)
		}
	}
}

package worker

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestFilterIndex compares the index with a look at every filter.
func TestFilterIndex(t *testing.T) {
	t.Parallel()
	entry := rapid.SampledFrom([]string{"*", "a", "ab", "abc", "b", "a*", "ab*", "abc*", "b*", "ä*", "ä"})
	name := rapid.SampledFrom([]string{"", "a", "ab", "abc", "abcd", "b", "ba", "c", "ä", "ää"})
	list := rapid.Custom(func(t *rapid.T) []string {
		if rapid.Bool().Draw(t, "absent") {
			return nil
		}
		return rapid.SliceOfN(entry, 1, 3).Draw(t, "entries")
	})
	rapid.Check(t, func(t *rapid.T) {
		var index filterIndex
		var rows []*row
		for range rapid.IntRange(0, 12).Draw(t, "steps") {
			if len(rows) > 0 && rapid.Bool().Draw(t, "remove") {
				at := rapid.IntRange(0, len(rows)-1).Draw(t, "which")
				index.remove(rows[at])
				rows = slices.Delete(rows, at, at+1)
				continue
			}
			r := &row{}
			r.Filter.ResourceNames, r.Filter.EventTypes = list.Draw(t, "names"), list.Draw(t, "types")
			if rapid.IntRange(0, 9).Draw(t, "many types") == 0 {
				r.Filter.EventTypes = slices.Repeat([]string{"a", "b*"}, typePatternsMax)
			}
			index.add(r)
			rows = append(rows, r)
		}
		resourceName, eventType := name.Draw(t, "resource name"), name.Draw(t, "event type")
		found := index.candidates(resourceName, eventType)
		for _, r := range found {
			if !slices.Contains(rows, r) {
				t.Fatalf("%+v was removed and is found", r.Filter)
			}
			if len(r.Filter.EventTypes) <= typePatternsMax && !r.Filter.Match(resourceName, eventType) {
				t.Fatalf("%+v is looked at for %q, %q", r.Filter, resourceName, eventType)
			}
		}
		for _, r := range rows {
			if r.Filter.Match(resourceName, eventType) && !slices.Contains(found, r) {
				t.Fatalf("%+v is not found for %q, %q", r.Filter, resourceName, eventType)
			}
		}
		if index.size != len(rows) {
			t.Fatalf("size %d, want %d", index.size, len(rows))
		}
		for _, r := range rows {
			index.remove(r)
		}
		if !index.names.empty() || len(index.names.lengths) > 0 {
			t.Fatalf("something is left of an empty index: %+v", index.names)
		}
	})
}

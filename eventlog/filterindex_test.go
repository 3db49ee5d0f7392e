package eventlog_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"postroad/event"
	"postroad/eventlog"
)

func TestFilterIndexFindsWhatFiltersMatch(t *testing.T) {
	t.Parallel()
	words := []string{"", "a", "ab", "abc", "b", "ü"}
	patterns := rapid.SliceOfN(rapid.SampledFrom([]string{"*", "a", "a*", "ab*", "abc", "b*", "ü*", "c"}), 1, 3)
	filters := rapid.Custom(func(t *rapid.T) event.Filter {
		var f event.Filter
		if rapid.Bool().Draw(t, "names") {
			f.ResourceNames = patterns.Draw(t, "resourceNames")
		}
		if rapid.Bool().Draw(t, "types") {
			f.EventTypes = patterns.Draw(t, "eventTypes")
		}
		return f
	})
	rapid.Check(t, func(t *rapid.T) {
		var index eventlog.FilterIndex[int]
		model := map[int]event.Filter{}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			value := rapid.IntRange(0, 9).Draw(t, "value")
			if rapid.IntRange(0, 3).Draw(t, "step") == 0 {
				index.Remove(value)
				delete(model, value)
			} else {
				model[value] = filters.Draw(t, "filter")
				index.Add(value, model[value])
			}
			name, kind := rapid.SampledFrom(words).Draw(t, "name"), rapid.SampledFrom(words).Draw(t, "type")
			var want, got []int
			for value, filter := range model {
				if filter.Match(name, kind) {
					want = append(want, value)
				}
			}
			index.Match(name, kind, func(value int) { got = append(got, value) })
			slices.Sort(want)
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("(%q, %q) among %v (-want +got):\n%s", name, kind, model, diff)
			}
		}
		for value := range model {
			index.Remove(value)
		}
		if index.Len() != 0 {
			t.Fatalf("%d values are left", index.Len())
		}
	})
}

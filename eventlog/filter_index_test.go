package eventlog_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"postroad/event"
	"postroad/eventlog"
)

// TestFilterIndex compares the index with a look at every filter.
func TestFilterIndex(t *testing.T) {
	t.Parallel()
	word := rapid.SampledFrom([]string{"", "a", "ab", "abc", "abcd", "b", "ba", "c", "ä", "ää"})
	entry := rapid.SampledFrom([]string{"*", "a", "ab", "abc", "b", "c", "a*", "ab*", "abc*", "b*", "ä*", "ä"})
	list := rapid.Custom(func(t *rapid.T) []string {
		if rapid.Bool().Draw(t, "absent") {
			return nil
		}
		return rapid.SliceOfN(entry, 0, 3).Draw(t, "entries")
	})
	filters := rapid.Custom(func(t *rapid.T) event.Filter {
		f := event.Filter{ResourceNames: list.Draw(t, "names"), EventTypes: list.Draw(t, "types")}
		if rapid.IntRange(0, 9).Draw(t, "long list") == 0 {
			f.EventTypes = slices.Repeat([]string{"a", "b*"}, eventlog.PairsMax)
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
			name, typ := word.Draw(t, "name"), word.Draw(t, "type")
			var want []int
			long := 0
			for value, filter := range model {
				if filter.Match(name, typ) {
					want = append(want, value)
				} else if len(filter.EventTypes) > 3 {
					long++
				}
			}
			got, tried := index.Match(name, typ)
			slices.Sort(want)
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("(%q, %q) among %v (-want +got):\n%s", name, typ, model, diff)
			}
			if tried < len(want) || tried > len(want)+long {
				t.Fatalf("(%q, %q): %d filters of %v were tried, %d match", name, typ, tried, model, len(want))
			}
			if index.Len() != len(model) {
				t.Fatalf("%d values, want %d", index.Len(), len(model))
			}
		}
		for value := range model {
			index.Remove(value)
		}
		if !index.Empty() {
			t.Fatalf("something is left of an empty index: %+v", index)
		}
	})
}

// BenchmarkFilterIndex matches an event beside ten thousand filters that it does
// not concern, and puts in and takes out a filter, as a follower does that waits.
func BenchmarkFilterIndex(b *testing.B) {
	var index eventlog.FilterIndex[int]
	for i := range 10_000 {
		index.Add(i, event.Filter{ResourceNames: []string{"Property"}, EventTypes: []string{string(rune(0x4e00 + i))}})
	}
	b.Run("match", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if values, tried := index.Match("Property", "price"); values != nil || tried > 0 {
				b.Fatalf("%v of %d", values, tried)
			}
		}
	})
	var long event.Filter
	for i := range event.FilterEntriesMax {
		long.ResourceNames = append(long.ResourceNames, string(rune('a'+i)))
	}
	long.EventTypes = long.ResourceNames[:1]
	for name, filter := range map[string]event.Filter{"none": {}, "100 pairs": long} {
		b.Run("add and remove/"+name, func(b *testing.B) {
			for b.Loop() {
				index.Add(-1, filter)
				index.Remove(-1)
			}
		})
	}
}

package event_test

import (
	"math/rand/v2"
	"testing"

	"postroad/event"
)

// TestWithin: what a filter lets pass within names is what both let pass.
func TestWithin(t *testing.T) {
	t.Parallel()
	draw := rand.New(rand.NewPCG(1, 1))
	list := func() []string {
		entries := []string{"*", "P*", "Property", "Prop*", "Property*", "Member", "Me*", "Media"}
		if draw.IntN(8) == 0 {
			return nil
		}
		some := []string{}
		for range draw.IntN(4) {
			some = append(some, entries[draw.IntN(len(entries))])
		}
		return some
	}
	for range 2_000 {
		f, names := event.Filter{ResourceNames: list(), EventTypes: []string{"a"}}, list()
		within := f.Within(names)
		for _, name := range []string{"Property", "PropertyUnit", "Pro", "Member", "Media", "Me", "Office"} {
			want := f.Match(name, "a") && event.Filter{ResourceNames: names}.Match(name, "a")
			if got := within.Match(name, "a"); got != want {
				t.Fatalf("%q within %q is %q: %s passes %t, want %t", f.ResourceNames, names, within.ResourceNames, name, got, want)
			}
		}
		if len(within.EventTypes) != 1 {
			t.Fatalf("the event types are %q", within.EventTypes)
		}
	}
}

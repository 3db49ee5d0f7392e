package event_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"postroad/event"
)

func TestFilterMatch(t *testing.T) {
	t.Parallel()
	for reason, row := range map[string]struct {
		filter             event.Filter
		resourceName, kind string
		want               bool
	}{
		"absent lists match all":            {event.Filter{}, "Property", "New", true},
		"absent lists match no type":        {event.Filter{}, "Property", "", true},
		"an exact name":                     {event.Filter{ResourceNames: []string{"Property"}}, "Property", "", true},
		"another name":                      {event.Filter{ResourceNames: []string{"Property"}}, "Member", "", false},
		"case counts":                       {event.Filter{ResourceNames: []string{"property"}}, "Property", "", false},
		"a name is not a prefix":            {event.Filter{ResourceNames: []string{"Prop"}}, "Property", "", false},
		"a star at the end":                 {event.Filter{ResourceNames: []string{"Prop*"}}, "Property", "", true},
		"a star matches nothing more":       {event.Filter{ResourceNames: []string{"Property*"}}, "Property", "", true},
		"a star after another beginning":    {event.Filter{ResourceNames: []string{"Mem*"}}, "Property", "", false},
		"a star elsewhere is itself":        {event.Filter{ResourceNames: []string{"P*y"}}, "Property", "", false},
		"one of several":                    {event.Filter{ResourceNames: []string{"Media", "Property"}}, "Property", "", true},
		"both lists must match":             {event.Filter{ResourceNames: []string{"Property"}, EventTypes: []string{"New"}}, "Property", "Sold", false},
		"both lists match":                  {event.Filter{ResourceNames: []string{"Property"}, EventTypes: []string{"Ne*"}}, "Property", "New", true},
		"no type, the star":                 {event.Filter{EventTypes: []string{"*"}}, "Property", "", true},
		"no type, the star among others":    {event.Filter{EventTypes: []string{"New", "*"}}, "Property", "", true},
		"no type, a pattern":                {event.Filter{EventTypes: []string{"N*"}}, "Property", "", false},
		"no type, a type":                   {event.Filter{EventTypes: []string{"New"}}, "Property", "", false},
		"an empty list matches nothing":     {event.Filter{EventTypes: []string{}}, "Property", "New", false},
		"letters of any script, in a start": {event.Filter{EventTypes: []string{"geä*"}}, "Property", "geändert", true},
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			if got := row.filter.Match(row.resourceName, row.kind); got != row.want {
				t.Errorf("%+v on (%q, %q) = %t", row.filter, row.resourceName, row.kind, got)
			}
		})
	}
}

// TestFilterModel compares with regular expressions over a small alphabet, in
// which near misses are frequent.
func TestFilterModel(t *testing.T) {
	t.Parallel()
	pattern := rapid.StringMatching(`[ab.]{0,3}\*?`).Filter(func(s string) bool { return s != "" })
	list := rapid.OneOf(rapid.Just[[]string](nil), rapid.SliceOfN(pattern, 1, 3))
	name := rapid.StringMatching(`[ab.*]{1,4}`)
	kind := rapid.StringMatching(`[ab.*]{0,4}`)
	matches := func(list []string, s string) bool {
		if list == nil || slices.Contains(list, "*") {
			return true
		}
		return s != "" && slices.ContainsFunc(list, func(p string) bool {
			expression := regexp.QuoteMeta(p)
			if strings.HasSuffix(p, "*") {
				expression = strings.TrimSuffix(expression, `\*`) + ".*"
			}
			return regexp.MustCompile(`(?s)\A` + expression + `\z`).MatchString(s)
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		f := event.Filter{ResourceNames: list.Draw(t, "resourceNames"), EventTypes: list.Draw(t, "eventTypes")}
		n, k := name.Draw(t, "name"), kind.Draw(t, "type")
		want := matches(f.ResourceNames, n) && matches(f.EventTypes, k)
		if got := f.Match(n, k); got != want {
			t.Fatalf("%+v on (%q, %q) = %t, want %t", f, n, k, got, want)
		}
		if f.MatchesAll() && !want {
			t.Fatalf("%+v says it matches all, but not (%q, %q)", f, n, k)
		}
	})
}

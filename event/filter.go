package event

import "strings"

// Filter selects the events a subscriber is owed. Both lists must match; an
// absent list matches everything. Names are case-sensitive; `*` is a wildcard
// at the end of an entry only. An event without an event type matches only the
// entry `*` or an absent list.
type Filter struct {
	ResourceNames []string `json:"resourceNames,omitempty"`
	EventTypes    []string `json:"eventTypes,omitempty"`
}

// MatchesAll reports whether the filter lets every event pass.
func (f Filter) MatchesAll() bool { return f.ResourceNames == nil && f.EventTypes == nil }

// Match reports whether an event of that resource name and event type passes.
func (f Filter) Match(resourceName, eventType string) bool {
	return matchList(f.ResourceNames, resourceName) && matchList(f.EventTypes, eventType)
}

// Within returns the filter that lets pass what f does of the resource names
// given, which are as in a filter; nil gives f itself. Where the two have nothing
// in common it lets nothing pass.
func (f Filter) Within(resourceNames []string) Filter {
	if resourceNames == nil {
		return f
	}
	if f.ResourceNames == nil {
		f.ResourceNames = resourceNames
		return f
	}
	common := []string{}
	for _, a := range f.ResourceNames {
		for _, b := range resourceNames {
			switch {
			case matchPattern(a, b): // all that b matches, a does: b may be a prefix itself
				common = append(common, b)
			case matchPattern(b, a):
				common = append(common, a)
			}
		}
	}
	f.ResourceNames = common
	return f
}

func matchList(patterns []string, s string) bool {
	if patterns == nil {
		return true
	}
	for _, p := range patterns {
		if p == "*" || (s != "" && matchPattern(p, s)) {
			return true
		}
	}
	return false
}

func matchPattern(pattern, s string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(s, prefix)
	}
	return pattern == s
}

package eventlog

import (
	"slices"
	"strings"

	"postroad/event"
)

// FilterIndex finds, among many filters, those that match an event, without
// looking at each. A value is kept under one of its filter's lists; only the
// values found there are matched in full. The zero value is ready to use; it is
// not safe for concurrent use.
type FilterIndex[T comparable] struct {
	filters map[T]event.Filter
	names   patternIndex[T] // filters that name resources
	types   patternIndex[T] // filters that name event types only
	any     map[T]struct{}  // filters that name neither
}

// Len is the number of values in the index.
func (x *FilterIndex[T]) Len() int { return len(x.filters) }

// Add puts a value into the index, in place of what was there under it.
func (x *FilterIndex[T]) Add(value T, filter event.Filter) {
	x.Remove(value)
	if x.filters == nil {
		x.filters, x.any = map[T]event.Filter{}, map[T]struct{}{}
	}
	x.filters[value] = filter
	switch {
	case selective(filter.ResourceNames):
		x.names.add(filter.ResourceNames, value)
	case selective(filter.EventTypes):
		x.types.add(filter.EventTypes, value)
	default:
		x.any[value] = struct{}{}
	}
}

// Remove takes a value out of the index; one that is not in it is ignored.
func (x *FilterIndex[T]) Remove(value T) {
	filter, ok := x.filters[value]
	if !ok {
		return
	}
	delete(x.filters, value)
	switch {
	case selective(filter.ResourceNames):
		x.names.remove(filter.ResourceNames, value)
	case selective(filter.EventTypes):
		x.types.remove(filter.EventTypes, value)
	default:
		delete(x.any, value)
	}
}

// Match calls fn once for each value whose filter matches an event of that
// resource name and event type. fn must not change the index.
func (x *FilterIndex[T]) Match(resourceName, eventType string, fn func(T)) {
	// A value whose list names the event twice, exactly and by a prefix, is
	// found twice.
	var seen map[T]struct{}
	visit := func(value T) {
		filter := x.filters[value]
		if !filter.Match(resourceName, eventType) {
			return
		}
		if len(filter.ResourceNames)+len(filter.EventTypes) > 1 {
			if _, twice := seen[value]; twice {
				return
			}
			if seen == nil {
				seen = map[T]struct{}{}
			}
			seen[value] = struct{}{}
		}
		fn(value)
	}
	for value := range x.any {
		visit(value)
	}
	x.names.match(resourceName, visit)
	x.types.match(eventType, visit)
}

// selective reports whether a list refuses anything.
func selective(patterns []string) bool {
	return patterns != nil && !slices.Contains(patterns, "*")
}

// patternIndex keeps values under the entries of their lists.
type patternIndex[T comparable] struct {
	exact    map[string]map[T]struct{}
	prefixes map[string]map[T]struct{}
	lengths  map[int]int // how many entries of prefixes have that length
}

func (x *patternIndex[T]) add(patterns []string, value T) {
	if x.exact == nil {
		x.exact, x.prefixes, x.lengths = map[string]map[T]struct{}{}, map[string]map[T]struct{}{}, map[int]int{}
	}
	for _, pattern := range patterns {
		table := x.exact
		prefix, wild := strings.CutSuffix(pattern, "*")
		if wild {
			table = x.prefixes
		}
		values := table[prefix]
		if values == nil {
			values = map[T]struct{}{}
			table[prefix] = values
			if wild {
				x.lengths[len(prefix)]++
			}
		}
		values[value] = struct{}{}
	}
}

func (x *patternIndex[T]) remove(patterns []string, value T) {
	for _, pattern := range patterns {
		table := x.exact
		prefix, wild := strings.CutSuffix(pattern, "*")
		if wild {
			table = x.prefixes
		}
		values, ok := table[prefix]
		delete(values, value)
		if !ok || len(values) > 0 {
			continue
		}
		delete(table, prefix)
		if wild {
			if x.lengths[len(prefix)]--; x.lengths[len(prefix)] == 0 {
				delete(x.lengths, len(prefix))
			}
		}
	}
}

func (x *patternIndex[T]) match(s string, fn func(T)) {
	for value := range x.exact[s] {
		fn(value)
	}
	for length := range x.lengths {
		if length <= len(s) {
			for value := range x.prefixes[s[:length]] {
				fn(value)
			}
		}
	}
}

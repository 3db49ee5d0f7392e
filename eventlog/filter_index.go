package eventlog

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"postroad/event"
)

// pairsMax bounds under how many pairs of a resource name and an event type a
// filter is kept. A filter with more is looked up by its resource names alone;
// one that has only one of the lists is never that long.
const pairsMax = 128

// anything stands for a list that refuses nothing.
var anything = []string{"*"}

// FilterIndex finds, among many filters, those that match an event, by resource
// name and then by event type, without a look at the others: ten thousand
// filters that an event does not concern cost it a few map look-ups. The zero
// value is ready to use; it is not safe for concurrent use.
type FilterIndex[T comparable] struct {
	entries map[T]*filterEntry[T]
	names   patterns[*patterns[entrySet[T]]] // by resource name, then by event type
	matches uint64                           // how often Match was called
}

// filterEntry is one value with its filter.
type filterEntry[T comparable] struct {
	value  T
	filter event.Filter
	// seen is the last Match that came by: a filter whose list names an event
	// twice, exactly and by a prefix, is found twice.
	seen uint64
}

type entrySet[T comparable] map[*filterEntry[T]]struct{}

// Len is the number of values in the index.
func (x *FilterIndex[T]) Len() int { return len(x.entries) }

// All goes through the values in the index, in no order; they may be removed
// meanwhile.
func (x *FilterIndex[T]) All() iter.Seq[T] { return maps.Keys(x.entries) }

// Add puts a value into the index, in place of what was there under it. The
// filter's lists must not be changed as long as it is there.
func (x *FilterIndex[T]) Add(value T, filter event.Filter) {
	x.Remove(value)
	if x.entries == nil {
		x.entries = map[T]*filterEntry[T]{}
	}
	entry := &filterEntry[T]{value: value, filter: filter}
	x.entries[value] = entry
	nameList, typeList := indexLists(filter)
	for _, name := range nameList {
		types, ok := x.names.get(name)
		if !ok {
			types = &patterns[entrySet[T]]{}
			x.names.put(name, types)
		}
		for _, typ := range typeList {
			entries, ok := types.get(typ)
			if !ok {
				entries = entrySet[T]{}
				types.put(typ, entries)
			}
			entries[entry] = struct{}{}
		}
	}
}

// Remove takes a value out of the index; one that is not in it is ignored.
func (x *FilterIndex[T]) Remove(value T) {
	entry, ok := x.entries[value]
	if !ok {
		return
	}
	delete(x.entries, value)
	nameList, typeList := indexLists(entry.filter)
	for _, name := range nameList {
		types, ok := x.names.get(name)
		if !ok {
			continue // the list names it twice
		}
		for _, typ := range typeList {
			entries, _ := types.get(typ)
			if delete(entries, entry); len(entries) == 0 {
				types.remove(typ)
			}
		}
		if types.empty() {
			x.names.remove(name)
		}
	}
}

// Match returns the values whose filter matches an event of that resource name
// and event type, each once, in no order, and how many filters it tried.
func (x *FilterIndex[T]) Match(resourceName, eventType string) (values []T, tried int) {
	x.matches++
	for types := range x.names.matching(resourceName) {
		for entries := range types.matching(eventType) {
			for entry := range entries {
				if entry.seen == x.matches {
					continue
				}
				entry.seen = x.matches
				tried++
				if entry.filter.Match(resourceName, eventType) {
					values = append(values, entry.value)
				}
			}
		}
	}
	return values, tried
}

// indexLists returns the entries that a filter is kept under. A list that is
// there and has none is kept under none: it matches nothing.
func indexLists(filter event.Filter) (names, types []string) {
	names, types = anything, anything
	if selective(filter.ResourceNames) {
		names = filter.ResourceNames
	}
	if selective(filter.EventTypes) && len(names)*len(filter.EventTypes) <= pairsMax {
		types = filter.EventTypes
	}
	return names, types
}

// selective reports whether a list refuses anything.
func selective(list []string) bool {
	return list != nil && !slices.Contains(list, "*")
}

// patterns maps entries of lists to values: exact names, and prefixes by their
// length, of which few are in use.
type patterns[V any] struct {
	exact, prefixes map[string]V
	lengths         []prefixLength // ascending
}

// prefixLength says how many prefixes are that long.
type prefixLength struct{ bytes, prefixes int }

func (p *patterns[V]) empty() bool { return len(p.exact) == 0 && len(p.prefixes) == 0 }

// table returns the map that is for a pattern, and the key that it has there.
func (p *patterns[V]) table(pattern string) (table *map[string]V, key string, wild bool) {
	if prefix, wild := strings.CutSuffix(pattern, "*"); wild {
		return &p.prefixes, prefix, true
	}
	return &p.exact, pattern, false
}

func (p *patterns[V]) get(pattern string) (V, bool) {
	table, key, _ := p.table(pattern)
	v, ok := (*table)[key]
	return v, ok
}

// put adds a pattern that get does not find.
func (p *patterns[V]) put(pattern string, v V) {
	table, key, wild := p.table(pattern)
	if *table == nil {
		*table = map[string]V{}
	}
	(*table)[key] = v
	if !wild {
		return
	}
	at, ok := p.length(key)
	if !ok {
		p.lengths = slices.Insert(p.lengths, at, prefixLength{bytes: len(key)})
	}
	p.lengths[at].prefixes++
}

// remove takes a pattern out; one that is not there is ignored.
func (p *patterns[V]) remove(pattern string) {
	table, key, wild := p.table(pattern)
	if _, ok := (*table)[key]; !ok {
		return
	}
	delete(*table, key)
	if !wild {
		return
	}
	at, _ := p.length(key)
	if p.lengths[at].prefixes--; p.lengths[at].prefixes == 0 {
		p.lengths = slices.Delete(p.lengths, at, at+1)
	}
}

// length returns the place in lengths of prefixes as long as this one.
func (p *patterns[V]) length(prefix string) (at int, ok bool) {
	return slices.BinarySearchFunc(p.lengths, len(prefix), func(l prefixLength, n int) int { return l.bytes - n })
}

// matching yields the value of every pattern that s matches.
func (p *patterns[V]) matching(s string) iter.Seq[V] {
	return func(yield func(V) bool) {
		if v, ok := p.exact[s]; ok && !yield(v) {
			return
		}
		for _, l := range p.lengths {
			if l.bytes > len(s) {
				return
			}
			if v, ok := p.prefixes[s[:l.bytes]]; ok && !yield(v) {
				return
			}
		}
	}
}

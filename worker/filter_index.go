package worker

import (
	"maps"
	"slices"
	"strings"
)

const (
	// everything is the pattern that an absent list of a filter means.
	everything = "*"
	// typePatternsMax bounds how many event types of a filter are indexed; a
	// filter with more is looked up by resource name alone.
	typePatternsMax = 16
)

// filterIndex finds the parked rows of a feed that may match an event, by
// resource name and then by event type, without a look at the others: ten
// thousand rows that an event does not concern cost it a few map look-ups.
type filterIndex struct {
	names patterns[*patterns[rowSet]]
	size  int
}

type rowSet map[*row]struct{}

func (x *filterIndex) add(r *row) {
	x.size++
	for _, name := range namePatterns(r) {
		types, ok := x.names.get(name)
		if !ok {
			types = &patterns[rowSet]{}
			x.names.put(name, types)
		}
		for _, typ := range typePatterns(r) {
			rows, ok := types.get(typ)
			if !ok {
				rows = rowSet{}
				types.put(typ, rows)
			}
			rows[r] = struct{}{}
		}
	}
}

func (x *filterIndex) remove(r *row) {
	x.size--
	for _, name := range namePatterns(r) {
		types, ok := x.names.get(name)
		if !ok {
			continue
		}
		for _, typ := range typePatterns(r) {
			rows, _ := types.get(typ)
			if delete(rows, r); len(rows) == 0 {
				types.remove(typ)
			}
		}
		if types.empty() {
			x.names.remove(name)
		}
	}
}

// candidates returns rows that an event may match, some perhaps twice.
func (x *filterIndex) candidates(resourceName, eventType string) []*row {
	var found []*row
	x.names.each(resourceName, func(types *patterns[rowSet]) {
		types.each(eventType, func(rows rowSet) {
			found = slices.AppendSeq(found, maps.Keys(rows))
		})
	})
	return found
}

func namePatterns(r *row) []string {
	if r.Filter.ResourceNames == nil {
		return []string{everything}
	}
	return r.Filter.ResourceNames
}

func typePatterns(r *row) []string {
	if r.Filter.EventTypes == nil || len(r.Filter.EventTypes) > typePatternsMax {
		return []string{everything}
	}
	return r.Filter.EventTypes
}

// patterns maps the entries of filters to values: exact names, and prefixes by
// their length, of which few are in use.
type patterns[V any] struct {
	exact    map[string]V
	prefixes map[string]V
	lengths  []int // of prefixes, ascending
}

func (p *patterns[V]) empty() bool { return len(p.exact) == 0 && len(p.prefixes) == 0 }

func (p *patterns[V]) get(pattern string) (V, bool) {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		v, found := p.prefixes[prefix]
		return v, found
	}
	v, found := p.exact[pattern]
	return v, found
}

func (p *patterns[V]) put(pattern string, v V) {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		if p.prefixes == nil {
			p.prefixes = map[string]V{}
		}
		p.prefixes[prefix] = v
		if at, found := slices.BinarySearch(p.lengths, len(prefix)); !found {
			p.lengths = slices.Insert(p.lengths, at, len(prefix))
		}
		return
	}
	if p.exact == nil {
		p.exact = map[string]V{}
	}
	p.exact[pattern] = v
}

func (p *patterns[V]) remove(pattern string) {
	prefix, ok := strings.CutSuffix(pattern, "*")
	if !ok {
		delete(p.exact, pattern)
		return
	}
	delete(p.prefixes, prefix)
	for other := range p.prefixes {
		if len(other) == len(prefix) {
			return
		}
	}
	p.lengths = slices.DeleteFunc(p.lengths, func(n int) bool { return n == len(prefix) })
}

// each calls f with the value of every pattern that s matches.
func (p *patterns[V]) each(s string, f func(V)) {
	if v, ok := p.exact[s]; ok {
		f(v)
	}
	for _, n := range p.lengths {
		if n > len(s) {
			return
		}
		if v, ok := p.prefixes[s[:n]]; ok {
			f(v)
		}
	}
}

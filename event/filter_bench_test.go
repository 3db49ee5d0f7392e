package event_test

import (
	"testing"

	"postroad/event"
)

// BenchmarkFilterMatch asks one filter about one event.
func BenchmarkFilterMatch(b *testing.B) {
	for name, filter := range map[string]event.Filter{
		"all": {}, "two names": {ResourceNames: []string{"Media", "Property"}},
		"a wildcard": {ResourceNames: []string{"Property"}, EventTypes: []string{"record.created", "record.*"}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !filter.Match("Property", "record.updated") {
					b.Fatal("it does not match")
				}
			}
		})
	}
}

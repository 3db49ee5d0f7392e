package api

import (
	"strings"
	"testing"
)

// BenchmarkDecode is what a body costs before it can be stored.
func BenchmarkDecode(b *testing.B) {
	event := `{"resourceName":"File","resourceRecordKey":"internal/client_1.go","eventType":"record.updated","occurredAt":"2021-08-09T00:54:19-07:00",` +
		`"data":{"commit":"6de7873cf7734de3794e3f8c4f7b9bd0c2778f41","message":"` + strings.Repeat("word ", 86) + `"}}`
	array := "[" + strings.TrimSuffix(strings.Repeat(event+",", 1000), ",") + "]"
	for name, text := range map[string]string{"1 event": event, "1000 events": array} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			var d eventDecoder
			for b.Loop() {
				if _, err := d.decodeBody([]byte(text), false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

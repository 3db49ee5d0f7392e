package api_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// BenchmarkPublish compares publishing with what the same server does without
// gin, decoding and a database ("floor"): read the body, answer.
func BenchmarkPublish(b *testing.B) {
	single := []byte(one("README.md", `"eventType":"record.updated"`, `"occurredAt":"2021-08-09T00:54:19-07:00"`,
		`"data":{"commit":"6de7873cf7734de3794e3f8c4f7b9bd0c2778f41","path":"README.md"}`))
	array := []byte("[" + strings.TrimSuffix(strings.Repeat(string(single)+",", 1000), ",") + "]")
	floor := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"firstSequence":1,"lastSequence":1,"accepted":1,"duplicates":0}`)
	}))
	defer floor.Close()
	bundle := setup(b, options{})
	_, publisher := bundle.newToken(`{"role":"publisher","feeds":["default"]}`)
	admin := "Bearer " + token
	for _, c := range []struct {
		name, url, authorization string
		body                     []byte
		events                   int
	}{
		{"floor", floor.URL, admin, single, 1},
		{"single", bundle.url, admin, single, 1},
		{"single by a publisher", bundle.url, publisher, single, 1},
		{"floor of arrays", floor.URL, admin, array, 1000},
		{"arrays of 1000", bundle.url, admin, array, 1000},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetParallelism(8) // 16 clients on two cores
			transport := &http.Transport{MaxIdleConnsPerHost: 64}
			defer transport.CloseIdleConnections()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, c.url+"/v1/feeds/default/events", bytes.NewReader(c.body))
					if err != nil {
						b.Error(err)
						return
					}
					r.Header.Set("Authorization", c.authorization)
					r.Header.Set("Content-Type", "application/json")
					response, err := transport.RoundTrip(r)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, response.Body)
					_ = response.Body.Close()
					if response.StatusCode != http.StatusCreated {
						b.Errorf("status %d", response.StatusCode)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N*c.events)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkIdentify is what a request pays to have its token known.
func BenchmarkIdentify(b *testing.B) {
	bundle := setup(b, options{})
	_, publisher := bundle.newToken(`{"role":"publisher","feeds":["default"]}`)
	for name, authorization := range map[string]string{"environment": "Bearer " + token, "publisher": publisher} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := bundle.server.Identify(b.Context(), authorization); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

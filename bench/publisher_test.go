package bench

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// TestLoad publishes to a server that numbers as told.
func TestLoad(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		array   int
		number  func(request int64) (first int64)
		missing int64
		repeats int64
		fails   string
	}{
		"as it should be":  {array: 1, number: func(n int64) int64 { return n }},
		"arrays":           {array: 4, number: func(n int64) int64 { return 4*n - 3 }},
		"one given twice":  {array: 1, number: func(n int64) int64 { return max(n, 2) - 1 }, repeats: 1},
		"one left out":     {array: 1, number: func(n int64) int64 { return n + n/3 }, missing: 1},
		"arrays that meet": {array: 4, number: func(n int64) int64 { return 3 * n }, repeats: 4},
		"refused":          {array: 1, number: func(int64) int64 { return 0 }, fails: "the server answered 503"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if n := strings.Count(string(body), `"resourceName"`); n != c.array || r.Header.Get("Authorization") != "Bearer secret" || r.URL.Path != "/v1/feeds/f/events" {
					t.Errorf("%d events in %s with %q to %s", n, body, r.Header.Get("Authorization"), r.URL.Path)
				}
				first := c.number(requests.Add(1))
				if first == 0 {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				w.WriteHeader(http.StatusCreated)
				_, _ = io.WriteString(w, `{"firstSequence":`+strconv.FormatInt(first, 10)+`,"lastSequence":`+strconv.FormatInt(first+int64(c.array)-1, 10)+`}`)
			}))
			defer server.Close()
			load := Load{URL: server.URL, Token: "secret", Feed: "f", Clients: 2, Events: 5 * c.array, Array: c.array}
			r, err := load.Run(t.Context())
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if r.Requests != 5 || r.Events != load.Events || r.Missing != c.missing || r.Repeats != c.repeats || r.P99 <= 0 || r.Seconds <= 0 {
				t.Errorf("report %+v", r)
			}
		})
	}
}

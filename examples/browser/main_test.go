package main

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// TestHandler: an event gets through before the stream ends, and the token stays on
// this side.
func TestHandler(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: %s %s %s cookie=%q\n\n", r.URL, r.Header.Get("Authorization"), r.Header.Get("Last-Event-ID"), r.Header.Get("Cookie"))
		_ = http.NewResponseController(w).Flush()
		<-release
	}))
	defer api.Close()
	defer close(release)
	get := func(base, path string) string {
		to, err := url.Parse(api.URL + base)
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(handler(to, "orders", "secret"))
		t.Cleanup(server.Close)
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header = http.Header{"Cookie": {"a=b"}, "Last-Event-Id": {"7"}, "Authorization": {"Bearer own"}}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		line, err := bufio.NewReader(answer.Body).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	for path, want := range map[string]string{
		"/events?after=3": "data: BASE/v1/feeds/orders/stream?after=3 Bearer secret 7 cookie=\"\"\n",
		"/own-events":     "data: BASE/v1/feeds/orders/stream Bearer own 7 cookie=\"\"\n",
		"/":               "<!doctype html>\n",
		"/fetch":          "<!doctype html>\n",
	} {
		for _, base := range []string{"", "/", "/base"} {
			want := strings.Replace(want, "BASE", strings.TrimSuffix(base, "/"), 1)
			if got := get(base, path); got != want {
				t.Errorf("%s behind %q: %q, want %q", path, base, got, want)
			}
		}
	}
}

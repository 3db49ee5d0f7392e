package main_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	main "postroad/cmd/postroad"
)

func TestHealthcheck(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/ready", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/busy", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no database", http.StatusServiceUnavailable)
	})
	mux.Handle("/moved", http.RedirectHandler("/ready", http.StatusFound))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	for path, test := range map[string]struct {
		code int
		says string
	}{
		"/ready": {ok, ""},
		"/busy":  {failed, "503 Service Unavailable: no database"},
		"/moved": {failed, "302 Found"},
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			run := invoke(t, main.Invocation{Args: []string{"healthcheck", server.URL + path}, Environ: []string{"HTTP_PROXY=http://127.0.0.1:1"}})
			run.want(t, test.code).contains(t, test.says)
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		away := httptest.NewServer(mux)
		away.Close()
		invoke(t, main.Invocation{Args: []string{"healthcheck", away.URL}}).want(t, failed).contains(t, "refused")
	})
}

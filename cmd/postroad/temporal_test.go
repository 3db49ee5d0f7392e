package main_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"

	"postroad/contract"
	"postroad/internal/apiclient"
	"postroad/internal/config"
)

// sharedAPI is a client of the shared stack.
func sharedAPI(t *testing.T) *apiclient.Client {
	t.Helper()
	target, err := config.Search{DataDir: stack(t)}.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &apiclient.Client{URL: target.URL, Token: target.Token}
}

// sharedTemporal is Temporal's own client, for the shared stack.
func sharedTemporal(t *testing.T) client.Client {
	t.Helper()
	stack(t)
	return dialTemporal(t, temporalAddress(t, &shared.stdout))
}

// temporalAddress is where Temporal is, as `dev --json` tells.
func temporalAddress(t *testing.T, stdout *lockedBuffer) string {
	t.Helper()
	var where struct{ TemporalAddress string }
	if err := json.NewDecoder(strings.NewReader(stdout.String())).Decode(&where); err != nil {
		t.Fatalf("read where Temporal is: %v", err)
	}
	return where.TemporalAddress
}

func dialTemporal(t *testing.T, address string) client.Client {
	t.Helper()
	c, err := client.DialContext(t.Context(), client.Options{
		HostPort: address, Namespace: contract.Namespace, Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		t.Fatalf("connect to Temporal: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// temporalUI is the HTTP API that Temporal's UI calls when a person clicks.
type temporalUI struct {
	t       *testing.T
	base    string // of the namespace
	cookies []*http.Cookie
	token   string
}

// openUI gets the cookie without which the UI takes no POST.
func openUI(t *testing.T, r *road) *temporalUI {
	t.Helper()
	root, _, found := strings.Cut(r.status().TemporalURL, "/namespaces/")
	if !found {
		t.Fatal("the status names no Temporal UI")
	}
	ui := &temporalUI{t: t, base: root + "/api/v1/namespaces/" + contract.Namespace}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, root+"/api/v1/namespaces", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatalf("open the Temporal UI: %v", err)
	}
	_ = response.Body.Close()
	for _, cookie := range response.Cookies() {
		ui.cookies = append(ui.cookies, cookie)
		if cookie.Name == "_csrf" {
			ui.token = cookie.Value
		}
	}
	if ui.token == "" {
		t.Fatalf("the Temporal UI gave no _csrf cookie: %s %v", response.Status, response.Header)
	}
	return ui
}

// post does something to a subscriber's workflow and returns when that was
// accepted.
func (ui *temporalUI) post(subscriber, what string, body any) time.Time {
	ui.t.Helper()
	url := ui.base + "/workflows/" + contract.SubscriberWorkflowID(subscriber) + "/" + what
	request, err := http.NewRequestWithContext(ui.t.Context(), http.MethodPost, url, bytes.NewReader(encode(ui.t, body)))
	if err != nil {
		ui.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-CSRF-TOKEN", ui.token)
	for _, cookie := range ui.cookies {
		request.AddCookie(cookie)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		ui.t.Fatalf("post %s: %v", what, err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		ui.t.Fatalf("the Temporal UI answers %s with %s: %s", what, response.Status, text)
	}
	return time.Now()
}

// signal sends a signal as the UI's dialog does where its field is left empty.
func (ui *temporalUI) signal(subscriber, name string) time.Time {
	ui.t.Helper()
	return ui.post(subscriber, "signal/"+name, struct{}{})
}

// signalWith sends a signal with a payload as it is; []byte is base64 in JSON.
func (ui *temporalUI) signalWith(subscriber, name, encoding string, data []byte) {
	ui.t.Helper()
	ui.post(subscriber, "signal/"+name, map[string]any{"input": map[string]any{"payloads": []any{
		map[string]any{"metadata": map[string]any{"encoding": []byte(encoding)}, "data": data},
	}}})
}

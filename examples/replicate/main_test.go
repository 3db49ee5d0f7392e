package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// producer serves the events 3, 6, 9 and so on up to its head, by pages of 10 whose
// links pin the head; every seventh answer breaks off.
type producer struct {
	t        *testing.T
	head     atomic.Int64
	requests atomic.Int64
}

func (p *producer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer secret" {
		p.t.Errorf("token %q", r.Header.Get("Authorization"))
	}
	query := r.URL.Query()
	after, err := strconv.ParseInt(strings.TrimPrefix(query.Get("$filter"), "EntityEventSequence gt "), 10, 64)
	head := p.head.Load()
	if link := query.Get("$skiptoken"); link != "" {
		_, err = fmt.Sscanf(link, "%d-%d", &after, &head)
	} else if query.Get("$orderby") != "EntityEventSequence" {
		p.t.Errorf("asked for %s", r.URL)
	}
	if err != nil || r.URL.Path != "/odata/default/EntityEvent" {
		p.t.Errorf("asked for %s: %v", r.URL, err)
	}
	var page struct {
		Value    []map[string]any `json:"value"`
		NextLink string           `json:"@odata.nextLink,omitempty"`
	}
	for n := after/3*3 + 3; n <= head; n += 3 {
		if len(page.Value) == 10 {
			page.NextLink = fmt.Sprintf("EntityEvent?$skiptoken=%d-%d", n-3, head)
			break
		}
		page.Value = append(page.Value, map[string]any{"EntityEventSequence": n, "ResourceName": "Property", "ResourceRecordKey": fmt.Sprint(n)})
	}
	text, err := json.Marshal(page)
	if err != nil {
		p.t.Error(err)
	}
	if p.requests.Add(1)%7 == 0 {
		text = text[:len(text)/2]
	}
	_, _ = w.Write(text)
}

// TestReplica: killed at any moment, and with half a line at the end of its file,
// it ends up with every event once, in order.
func TestReplica(t *testing.T) {
	t.Parallel()
	p := &producer{t: t}
	server := httptest.NewServer(p)
	defer server.Close()
	name := filepath.Join(t.TempDir(), "copy.ndjson")
	run := func(ctx context.Context, every time.Duration) error {
		r := replica{root: server.URL + "/odata/default/", token: "secret"}
		return r.run(ctx, name, every)
	}
	for i := range int64(20) {
		p.head.Store(150 * (i + 1))
		ctx, kill := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
		_ = run(ctx, time.Millisecond)
		kill()
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(`{"EntityEventSequence":9`); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	for run(t.Context(), 0) != nil {
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want := int64(0)
	for line := range bytes.Lines(text) {
		want += 3
		if got, err := sequence(line); err != nil || got != want {
			t.Fatalf("event %d (%v) where %d should be", got, err, want)
		}
	}
	if want != p.head.Load() {
		t.Errorf("the copy ends at %d", want)
	}
}

func TestReplica_refuses(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"events out of order": `{"value":[{"EntityEventSequence":2},{"EntityEventSequence":1}]}`,
		"another server":      `{"value":[],"@odata.nextLink":"http://elsewhere.example/"}`,
		"no sequence":         `{"value":[{}]}`,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
		r := replica{root: server.URL + "/"}
		if err := r.run(t.Context(), filepath.Join(t.TempDir(), "copy"), time.Hour); err == nil {
			t.Errorf("%s: taken", name)
		}
		server.Close()
	}
}

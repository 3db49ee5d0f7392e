package api_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"

	"github.com/tmaxmax/go-sse"

	"postroad/event"
	"postroad/internal/testkit"
)

// TestStream_replicates: whoever follows, in whatever way, ends with the same
// events in the same order, also those that are published meanwhile.
func TestStream_replicates(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	real := testkit.Lines(t, "sdk-go")
	b.publishReal(real[:len(real)/2])
	const path = "/v1/feeds/default/stream?after=0"
	ways := map[string]func(t *testing.T) []string{
		"sse":     func(t *testing.T) []string { return b.follow(t, len(real), path) },
		"sse cut": func(t *testing.T) []string { return b.followCut(t, len(real), path, 20) },
		"ndjson":  func(t *testing.T) []string { return b.follow(t, len(real), path+"&format=ndjson") },
		"ndjson gzip": func(t *testing.T) []string {
			return b.follow(t, len(real), path+"&format=ndjson", "Accept-Encoding", "gzip")
		},
		"websocket": func(t *testing.T) []string { return b.followSocket(t, len(real), path) },
		"go-sse":    func(t *testing.T) []string { return b.followThirdParty(t, len(real), path) },
	}
	followed := map[string]chan []string{}
	for name, way := range ways {
		result := make(chan []string, 1)
		followed[name] = result
		go func() { result <- way(t) }()
	}
	parts := make(chan []string, 8)
	for i := range 8 {
		go func() { parts <- b.followPart(t, path, event.Partition{Index: i, Count: 8}, real) }()
	}
	b.publishReal(real[len(real)/2:])
	want := b.logged("default")
	if len(want) != len(real) {
		t.Fatalf("the log has %d events, want %d", len(want), len(real))
	}
	for name, result := range followed {
		same(t, name, <-result, want)
	}
	union := map[string]bool{}
	for range 8 {
		for _, text := range <-parts {
			if union[text] {
				t.Fatalf("%s is in two parts", text)
			}
			union[text] = true
		}
	}
	for _, text := range want {
		if !union[text] {
			t.Fatalf("%s is in no part", text)
		}
	}
	if len(union) != len(want) {
		t.Errorf("the parts have %d events, want %d", len(union), len(want))
	}
}

// follow reads n items.
func (b *bundle) follow(t *testing.T, n int, path string, headers ...string) []string {
	o, err := b.tryOpen(path, headers...)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer o.cancel()
	if coding := o.response.Header.Get("Content-Encoding"); len(headers) == 0 && coding != "" {
		t.Errorf("Content-Encoding %q", coding)
	}
	if len(headers) > 0 {
		if coding := o.response.Header.Get("Content-Encoding"); coding != "gzip" {
			t.Errorf("Content-Encoding %q", coding)
			return nil
		}
		o.body = bufio.NewReader(gunzipping(t, o.response.Body))
	}
	return o.read(t, n)
}

func (o *opened) read(t *testing.T, n int) (texts []string) {
	for len(texts) < n {
		i, err := o.next()
		if err != nil {
			t.Errorf("after %d items: %v", len(texts), err)
			return texts
		}
		texts = append(texts, i.text)
	}
	return texts
}

// followCut reads n items over connections of which each is cut somewhere, in the
// middle of a line too, and goes on from what it has seen.
func (b *bundle) followCut(t *testing.T, n int, path string, cuts int) (texts []string) {
	draw := rand.New(rand.NewPCG(7, 7))
	var lastID string
	for cut := 0; ; cut++ {
		var headers []string
		if lastID != "" {
			headers = []string{"Last-Event-ID", lastID}
		}
		o, err := b.tryOpen(path, headers...)
		if err != nil {
			t.Error(err)
			return texts
		}
		if cut < cuts {
			o.body = bufio.NewReader(io.LimitReader(o.response.Body, 1+draw.Int64N(200_000)))
		}
		for len(texts) < n {
			i, err := o.next()
			if err != nil {
				break
			}
			texts = append(texts, i.text)
		}
		lastID = o.lastID
		o.cancel()
		if len(texts) == n || cut == cuts {
			if cut < cuts {
				t.Errorf("cut %d times, want %d", cut, cuts)
			}
			return texts
		}
	}
}

func (b *bundle) followSocket(t *testing.T, n int, path string) (texts []string) {
	conn := b.dial(path)
	for len(texts) < n {
		_, text, err := conn.Read(t.Context())
		if err != nil {
			t.Errorf("after %d messages: %v", len(texts), err)
			return texts
		}
		texts = append(texts, string(text))
	}
	return texts
}

// followThirdParty follows with a client that others wrote.
func (b *bundle) followThirdParty(t *testing.T, n int, path string) (texts []string) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+path, nil)
	if err != nil {
		t.Error(err)
		return nil
	}
	r.Header.Set("Authorization", "Bearer "+token)
	connection := sse.DefaultClient.NewConnection(r)
	connection.SubscribeMessages(func(e sse.Event) {
		if e.Data == "" {
			return // this client hands out retry: alone too, where the standard has no event
		}
		texts = append(texts, e.Data)
		if want := fmt.Sprint(readItem(t, e.Data).Sequence); e.LastEventID != want {
			t.Errorf("id %s, want %s", e.LastEventID, want)
		}
		if len(texts) == n {
			cancel()
		}
	})
	if err := connection.Connect(); !errors.Is(err, context.Canceled) {
		t.Errorf("connect: %v", err)
	}
	return texts
}

// followPart reads all of a part that there is to come.
func (b *bundle) followPart(t *testing.T, path string, p event.Partition, real [][]byte) []string {
	n := 0
	for _, line := range real {
		if i := readItem(t, string(line)); p.Has(i.ResourceName, i.ResourceRecordKey) {
			n++
		}
	}
	texts := b.follow(t, n, path+"&partition="+p.String())
	last := int64(0)
	for _, text := range texts {
		i := readItem(t, text)
		if i.Sequence <= last || !p.Has(i.ResourceName, i.ResourceRecordKey) {
			t.Errorf("part %s: %d after %d, of %s %s", p, i.Sequence, last, i.ResourceName, i.ResourceRecordKey)
		}
		last = i.Sequence
	}
	return texts
}

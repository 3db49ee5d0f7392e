package api_test

import (
	"compress/gzip"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"postroad/api"
	"postroad/internal/testkit"
)

// gunzipping reads gzip as it comes.
func gunzipping(t testing.TB, r io.Reader) io.Reader {
	reader, err := gzip.NewReader(r)
	if err != nil {
		t.Error(err)
	}
	return reader
}

// TestGzipStream: pieces of any length come out as they went in, each as soon as it
// was written, in a fifth of the room.
func TestGzipStream(t *testing.T) {
	t.Parallel()
	draw := rand.New(rand.NewPCG(3, 3))
	pipe, into := io.Pipe()
	var pieces []string
	packed := 0
	lines := testkit.Lines(t, "sdk-go")
	for len(lines) > 0 {
		n := min(len(lines), 1+draw.IntN(3))
		if draw.IntN(100) == 0 {
			n = min(len(lines), 200)
		}
		var piece strings.Builder
		for _, line := range lines[:n] {
			piece.Write(line)
		}
		lines, pieces = lines[n:], append(pieces, piece.String())
	}
	write, closed := api.NewGzipStream(writerFunc(func(p []byte) (int, error) { packed += len(p); return into.Write(p) }))
	go func() {
		for _, piece := range pieces {
			if err := write([]byte(piece)); err != nil {
				t.Error(err)
			}
		}
		if err := closed(); err != nil {
			t.Error(err)
		}
		_ = into.Close()
	}()
	unpacked := gunzipping(t, pipe)
	total := 0
	for i, want := range pieces {
		got := make([]byte, len(want))
		if _, err := io.ReadFull(unpacked, got); err != nil || string(got) != want {
			t.Fatalf("piece %d: %v", i, err)
		}
		total += len(want)
	}
	if rest, err := io.ReadAll(unpacked); err != nil || len(rest) > 0 {
		t.Fatalf("after the end: %d bytes, %v", len(rest), err)
	}
	t.Logf("%d pieces: %d bytes in %d", len(pieces), total, packed)
	if packed > total*2/5 {
		t.Errorf("%d bytes in %d", total, packed)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestAcceptsGzip(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]bool{
		"": false, "gzip": true, "br, gzip": true, "GZIP;q=0.5": true, "gzip;q=0": false, "gzip; q=0.0, br": false,
		"x-gzip": true, "identity": false, "*": false, "gzipped": false, "gzip;q=x": false,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Accept-Encoding", header)
		if got := api.AcceptsGzip(r); got != want {
			t.Errorf("%q: %t, want %t", header, got, want)
		}
	}
}

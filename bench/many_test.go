package bench

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
)

// TestManyBook sends what must be noticed.
func TestManyBook(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(NewReceiver())
	defer server.Close()
	type arrival struct{ end, sequence int }
	for name, c := range map[string]struct {
		arrivals []arrival
		want     ManyReport
		same     bool // as the book of 1, 2, 3 at subscriber 0 and 2 at 1
	}{
		"as owed":       {[]arrival{{0, 1}, {1, 2}, {0, 3}}, ManyReport{Events: 3, Ends: 2, Most: 2}, true},
		"another time":  {[]arrival{{1, 2}, {0, 1}, {0, 3}}, ManyReport{Events: 3, Ends: 2, Most: 2}, true},
		"a repeat":      {[]arrival{{0, 1}, {1, 2}, {0, 3}, {0, 3}}, ManyReport{Events: 3, Ends: 2, Most: 2, Repeats: 1}, true},
		"out of order":  {[]arrival{{0, 3}, {1, 2}, {0, 1}}, ManyReport{Events: 2, Ends: 2, Most: 1, Repeats: 1}, false},
		"another's":     {[]arrival{{0, 1}, {1, 3}, {0, 2}}, ManyReport{Events: 3, Ends: 2, Most: 2}, false},
		"each other's":  {[]arrival{{1, 1}, {0, 2}, {1, 3}}, ManyReport{Events: 3, Ends: 2, Most: 2}, false},
		"no sequence":   {[]arrival{{0, 1}, {1, 2}, {0, 3}, {1, 0}}, ManyReport{Events: 3, Ends: 2, Most: 2, Malformed: 1}, true},
		"one is missed": {[]arrival{{0, 1}, {0, 3}}, ManyReport{Events: 2, Ends: 1, Most: 2}, false},
	} {
		t.Run(name, func(t *testing.T) {
			book := "book-" + strconv.Itoa(len(name)) + name[:1]
			post := func(path string, sequence int) {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/many/"+book+path, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				request.Header.Set(headerSequence, strconv.Itoa(sequence))
				response, err := server.Client().Do(request)
				if err != nil {
					t.Fatal(err)
				}
				_ = response.Body.Close()
				if response.StatusCode != http.StatusNoContent {
					t.Fatalf("answered %s", response.Status)
				}
			}
			post("/7", 9) // belongs to the stretch before
			post("/mark", 0)
			for _, a := range c.arrivals {
				post("/"+strconv.Itoa(a.end), a.sequence)
			}
			owed := newManyBook()
			for _, a := range []arrival{{0, 1}, {1, 2}, {0, 3}} {
				owed.end(a.end).take(int64(a.sequence))
			}
			got := bookOf[ManyReport](t, server.URL, "/many/"+book)
			if same := got.Digest == owed.read().Digest; same != c.same {
				t.Errorf("it is as owed: %t, want %t", same, c.same)
			}
			if got.FirstAt == 0 || got.LastAt < got.FirstAt {
				t.Errorf("book: %+v", got)
			}
			got.FirstAt, got.LastAt, got.Digest = 0, 0, 0
			if got != c.want {
				t.Errorf("book %+v, want %+v", got, c.want)
			}
		})
	}
}

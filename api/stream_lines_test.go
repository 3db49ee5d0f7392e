package api

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"
)

// deadWriter is a connection that takes nothing within its deadline.
type deadWriter struct {
	http.ResponseWriter
	failing func()
}

func (w deadWriter) Write([]byte) (int, error) {
	w.failing()
	return 0, os.ErrDeadlineExceeded
}

// TestLineWire_slow: net/http ends the request's context when a write fails, which
// hurries the stream. A reader that is too slow is still told from one that could
// not be told the end in time.
func TestLineWire_slow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		failing func(l *lineWire)
		slow    bool
	}{
		"nothing else":             {func(*lineWire) {}, true},
		"its request ends with it": {(*lineWire).hurry, true},
		"the stream had to end": {func(l *lineWire) {
			l.hurry()
			l.hurried = l.hurried.Add(-endMax)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var l *lineWire
			w := deadWriter{httptest.NewRecorder(), func() { c.failing(l) }}
			l = &lineWire{form: ndjsonLines{}, w: w, control: http.NewResponseController(w), writeMax: time.Second}
			if err := l.begin(1, false); errors.Is(err, errSlowReader) != c.slow {
				t.Errorf("%v", err)
			}
		})
	}
}

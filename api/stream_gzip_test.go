package api_test

import (
	"compress/gzip"
	"io"
	"testing"
)

// gunzipping reads gzip as it comes.
func gunzipping(t testing.TB, r io.Reader) io.Reader {
	reader, err := gzip.NewReader(r)
	if err != nil {
		t.Error(err)
	}
	return reader
}

package mirror_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"postroad/mirror"
)

// tokens is an OAuth2 token endpoint, and the source's door.
type tokens struct {
	*httptest.Server
	given    atomic.Int64
	inBody   bool   // it does not know HTTP Basic
	lifetime string // expires_in
}

func newTokens(t *testing.T, odd func(*tokens)) *tokens {
	k := &tokens{lifetime: "3600"}
	odd(k)
	k.Server = httptest.NewServer(http.HandlerFunc(k.serve))
	t.Cleanup(k.Close)
	return k
}

func (k *tokens) serve(w http.ResponseWriter, r *http.Request) {
	id, secret, basic := r.BasicAuth()
	if k.inBody {
		id, secret, basic = r.PostFormValue("client_id"), r.PostFormValue("client_secret"), r.PostFormValue("client_id") != ""
	}
	if !basic || id != "me%26you" && id != "me&you" || secret != "s" || r.PostFormValue("grant_type") != "client_credentials" || r.PostFormValue("scope") != "api" {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":"invalid_client"}`)
		return
	}
	fmt.Fprintf(w, `{"access_token":"t%d","token_type":"Bearer","expires_in":%s}`, k.given.Add(1), k.lifetime)
}

func (k *tokens) auth() mirror.Auth {
	return mirror.Auth{TokenURL: k.URL, ClientID: "me&you", ClientSecret: "s", Scope: "api"}
}

func TestMirrorAuth(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		odd   func(*tokens)
		wants func(n int, given int64) string // the token that request n must show
		given int64
	}{
		"one token for all":      {func(*tokens) {}, func(int, int64) string { return "t1" }, 1},
		"id and secret in body":  {func(k *tokens) { k.inBody = true }, func(int, int64) string { return "t1" }, 1},
		"a lifetime in a string": {func(k *tokens) { k.lifetime = `"3600"` }, func(int, int64) string { return "t1" }, 1},
		"revoked before its end": {func(*tokens) {}, func(n int, given int64) string { return fmt.Sprintf("t%d", min(given, 1)+int64(min(n/3, 1))) }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, s, feed := newTokens(t, c.odd), newSource(t, numbered(upTo(100)...)), newFeed(t)
			s.pageMax = 20
			s.answer = func(n int, w http.ResponseWriter, r *http.Request) bool {
				if want := "Bearer " + c.wants(n, k.given.Load()); r.Header.Get("Authorization") != want {
					w.WriteHeader(http.StatusUnauthorized)
					return true
				}
				return false
			}
			must(t, once(t, s, feed, mirror.Config{Auth: k.auth()}))
			same(t, feed, s.events)
			if given := k.given.Load(); given != c.given {
				t.Errorf("%d access tokens were asked for, want %d", given, c.given)
			}
		})
	}
}

func TestMirrorAuthRefused(t *testing.T) {
	t.Parallel()
	k := newTokens(t, func(*tokens) {})
	for name, c := range map[string]struct {
		auth mirror.Auth
		text string
	}{
		"a wrong secret":       {mirror.Auth{TokenURL: k.URL, ClientID: "me&you", ClientSecret: "wrong"}, k.URL + ": HTTP 401"},
		"a wrong token":        {mirror.Auth{Token: "wrong"}, "/EntityEvent?"},
		"a token of no avail":  {k.auth(), "HTTP 401"},
		"no token at all":      {mirror.Auth{}, "HTTP 401"},
		"an endpoint of files": {mirror.Auth{TokenURL: k.URL + "/", ClientID: "x", ClientSecret: "y"}, "HTTP 401"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, feed := newSource(t, numbered(1)), newFeed(t)
			s.answer = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			err := once(t, s, feed, mirror.Config{Auth: c.auth})
			if err == nil || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "wrong") {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}

// TestMirrorTokenStays: a nextLink to another host is not asked for, with the
// token or without.
func TestMirrorTokenStays(t *testing.T) {
	t.Parallel()
	elsewhere := newSource(t, numbered(upTo(100)...))
	s, feed := newSource(t, numbered(upTo(100)...)), newFeed(t)
	s.pageMax, s.links = 20, elsewhere.absolute
	must(t, once(t, s, feed, mirror.Config{Auth: mirror.Auth{Token: "of-the-source"}}))
	same(t, feed, s.events)
	if asked := elsewhere.queries(); len(asked) > 0 {
		t.Errorf("another host was asked %q", asked)
	}
}

package api_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"postroad/api"
	"postroad/internal/testkit"
)

type accessToken struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int64  `json:"expires_in"`
	Scope       string `json:"scope"`
}

const formType = "application/x-www-form-urlencoded"

// exchange asks for an access token with a form.
func (b *bundle) exchange(form string, headers ...string) answer {
	b.t.Helper()
	return b.call("POST", "/oauth/token", form, append([]string{"Content-Type", formType, "Authorization", ""}, headers...)...)
}

// access makes an access token of a token.
func (b *bundle) access(made tokenAnswer) (got accessToken, authorization string) {
	b.t.Helper()
	a := b.exchange("grant_type=client_credentials&client_id=" + made.ID + "&client_secret=" + made.Token)
	a.want(200, &got)
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Pragma") != "no-cache" || got.TokenType != "Bearer" {
		b.t.Errorf("%v: %+v", a.header, got)
	}
	return got, "Bearer " + got.AccessToken
}

// TestOAuth_client: a client that others wrote gets its tokens and reads, with
// its credentials in the header and in the form.
func TestOAuth_client(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	made, _ := b.newToken(`{"role":"reader","feeds":["default"]}`)
	b.publish(one("a")).want(201, nil)
	for name, style := range map[string]oauth2.AuthStyle{"header": oauth2.AuthStyleInHeader, "form": oauth2.AuthStyleInParams} {
		config := clientcredentials.Config{
			ClientID: made.ID, ClientSecret: made.Token, TokenURL: b.url + "/oauth/token", Scopes: []string{"api"}, AuthStyle: style,
		}
		token, err := config.Token(t.Context())
		must(t, err)
		if left := time.Until(token.Expiry); left < 59*time.Minute || left > time.Hour || token.Extra("scope") != "reader" {
			t.Errorf("%s: lasts %s, scope %v", name, left, token.Extra("scope"))
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/v1/feeds/default/events", http.NoBody)
		must(t, err)
		response, err := config.Client(t.Context()).Do(request)
		must(t, err)
		text, err := io.ReadAll(response.Body)
		must(t, errors.Join(err, response.Body.Close()))
		if response.StatusCode != 200 || !strings.Contains(string(text), `"resourceRecordKey":"a"`) {
			t.Errorf("%s: %d %s", name, response.StatusCode, text)
		}
	}
	wrong := clientcredentials.Config{ClientID: made.ID, ClientSecret: made.Token + "a", TokenURL: b.url + "/oauth/token"}
	_, err := wrong.Token(t.Context())
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) || refused.ErrorCode != "invalid_client" || refused.Response.StatusCode != 401 {
		t.Errorf("a wrong secret: %v", err)
	}
}

func TestOAuth_refused(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	made, _ := b.newToken(`{"role":"reader","feeds":["default"]}`)
	other, _ := b.newToken(`{"role":"admin"}`)
	revoked, _ := b.newToken(`{"role":"admin"}`)
	b.call("DELETE", "/v1/tokens/"+revoked.ID, "").want(204, nil)
	got, _ := b.access(made)
	const grant = "grant_type=client_credentials"
	basic := func(id, secret string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
	}
	whole := grant + "&client_id=" + made.ID + "&client_secret=" + made.Token
	for name, c := range map[string]struct {
		form, query, header, contentType string
		status                           int
		code                             string
	}{
		"no grant":                {form: "client_id=" + made.ID, status: 400, code: "invalid_request"},
		"another grant":           {form: "grant_type=password&username=a&password=b", status: 400, code: "unsupported_grant_type"},
		"a grant twice":           {form: grant + "&" + grant, status: 400, code: "invalid_request"},
		"a secret twice":          {form: whole + "&client_secret=a", status: 400, code: "invalid_request"},
		"a broken form":           {form: whole + "&scope=%zz", status: 400, code: "invalid_request"},
		"no scope that can be":    {form: whole + "&scope=%22", status: 400, code: "invalid_scope"},
		"JSON":                    {form: `{"grant_type":"client_credentials"}`, contentType: "application/json", status: 400, code: "invalid_request"},
		"another character set":   {form: whole, contentType: formType + "; charset=latin1", status: 400, code: "invalid_request"},
		"in the URL":              {form: grant, query: "?" + whole, status: 400, code: "invalid_request"},
		"a long form":             {form: whole + "&x=" + strings.Repeat("x", 8<<10), status: 413, code: "invalid_request"},
		"no credentials":          {form: grant, status: 401, code: "invalid_client"},
		"no secret":               {form: grant + "&client_id=" + made.ID, status: 401, code: "invalid_client"},
		"another's secret":        {form: grant + "&client_id=" + made.ID + "&client_secret=" + other.Token, status: 401, code: "invalid_client"},
		"a revoked token":         {form: grant + "&client_id=" + revoked.ID + "&client_secret=" + revoked.Token, status: 401, code: "invalid_client"},
		"nobody's id":             {form: grant + "&client_id=aaaaaaaaaa&client_secret=pr_aaaaaaaaaa_" + strings.Repeat("a", 52), status: 401, code: "invalid_client"},
		"the environment's":       {form: grant + "&client_id=admin&client_secret=" + token, status: 401, code: "invalid_client"},
		"the environment's alone": {form: grant, header: basic("", token), status: 401, code: "invalid_client"},
		"an access token":         {form: grant + "&client_id=" + made.ID + "&client_secret=" + got.AccessToken, status: 401, code: "invalid_client"},
		"header and form":         {form: whole, header: basic(made.ID, made.Token), status: 400, code: "invalid_request"},
		"two clients":             {form: grant + "&client_id=" + other.ID, header: basic(made.ID, made.Token), status: 400, code: "invalid_request"},
		"another scheme":          {form: grant, header: "Bearer " + made.Token, status: 401, code: "invalid_client"},
		"a header without colon":  {form: grant, header: "Basic " + base64.StdEncoding.EncodeToString([]byte(made.Token)), status: 401, code: "invalid_client"},
		"a header that is broken": {form: grant, header: "Basic ####", status: 401, code: "invalid_client"},
		"a name that is broken":   {form: grant, header: basic("%zz", made.Token), status: 401, code: "invalid_client"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.contentType == "" {
				c.contentType = formType
			}
			a := b.call("POST", "/oauth/token"+c.query, c.form, "Content-Type", c.contentType, "Authorization", c.header)
			a.t = t
			var body map[string]string
			a.want(c.status, &body)
			if len(body) != 2 || body["error"] != c.code || !regexp.MustCompile(`^[\x20\x21\x23-\x5B\x5D-\x7E]+$`).MatchString(body["error_description"]) {
				t.Errorf("%s", a.body)
			}
			if challenge := a.header.Get("WWW-Authenticate"); (challenge != "") != (c.status == 401) || a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%v", a.header)
			}
		})
	}
	for name, c := range map[string][]string{
		"the header":              {grant, basic(made.ID, made.Token)},
		"the header, in capitals": {grant, strings.Replace(basic(made.ID, made.Token), "Basic", "BASIC", 1)},
		"the header, encoded":     {grant, basic("%"+strings.ToUpper(hexOf(made.ID[0]))+made.ID[1:], url.QueryEscape(made.Token))},
		"and its id in the form":  {grant + "&client_id=" + made.ID, basic(made.ID, made.Token)},
		"more than is known":      {whole + "&audience=x&audience=y&scope=", ""},
	} {
		if a := b.exchange(c[0], "Authorization", c[1]); a.status != 200 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if logs := b.logs.String(); strings.Contains(logs, made.Token[14:]) || strings.Contains(logs, got.AccessToken[25:]) {
		t.Error("the log has a secret")
	}
}

func hexOf(c byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[c>>4], digits[c&15]})
}

// TestOAuth_rights: an access token opens what the token behind it does, by its
// name, and the use is that token's.
func TestOAuth_rights(t *testing.T) {
	t.Parallel()
	b := setup(t, options{api: func(c *api.Config) { c.TokenUsePeriod = 20 * time.Millisecond }})
	b.call("POST", "/v1/subscribers", `{"id":"acme","endpoint":{"url":"http://127.0.0.1:1/"}}`).want(201, nil)
	made, _ := b.newToken(`{"role":"subscriber","subscriber":"acme"}`)
	_, header := b.access(made)
	used := func() bool {
		var read tokenAnswer
		b.call("GET", "/v1/tokens/"+made.ID, "").want(200, &read)
		return read.LastUsedAt != nil
	}
	if used() {
		t.Error("used before it was")
	}
	b.call("POST", "/v1/subscribers/acme/pause", "", "Authorization", header).want(200, nil)
	b.call("GET", "/v1/subscribers/other", "", "Authorization", header).refused(403, "forbidden", "")
	b.call("GET", "/v1/feeds/default/events", "", "Authorization", header).refused(403, "forbidden", "")
	if got := b.controls("acme"); len(got) != 1 || got[0] != "pause token:"+made.ID {
		t.Errorf("recorded as %v", got)
	}
	testkit.Eventually(t, soon, used, "the use is recorded")
}

// TestOAuth_forged: nothing of an access token can be changed, and whoever makes
// one up costs no look-up.
func TestOAuth_forged(t *testing.T) {
	t.Parallel()
	b := setup(t, options{api: func(c *api.Config) { c.TokenFresh = time.Hour }})
	made, _ := b.newToken(`{"role":"reader","feeds":["default"]}`)
	admin, _ := b.newToken(`{"role":"admin"}`)
	got, header := b.access(made)
	b.call("GET", "/v1/feeds/default/events", "", "Authorization", header).want(200, nil)
	b.exec(`ALTER TABLE tokens RENAME TO hidden_tokens`)
	b.call("GET", "/v1/feeds/default/events", "", "Authorization", header).want(200, nil)
	parts := strings.Split(got.AccessToken, "_")
	later := strings.Join([]string{parts[0], parts[1], "9" + parts[2][1:], parts[3]}, "_")
	forged := []string{later, strings.Replace(got.AccessToken, made.ID, admin.ID, 1), got.AccessToken + "a", got.AccessToken[1:], "pa_", "x" + got.AccessToken}
	for i := range got.AccessToken {
		changed := []byte(got.AccessToken)
		changed[i] = "ab"[btoi(changed[i] == 'a')]
		forged = append(forged, string(changed))
	}
	for _, text := range forged {
		b.call("GET", "/v1/feeds/default/events", "", "Authorization", "Bearer "+text).refused(401, "unauthorized", "")
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestOAuth_ends: an access token is refused once its hour is over, and never
// lasts longer than the token behind it.
func TestOAuth_ends(t *testing.T) {
	t.Parallel()
	t.Run("after its time", func(t *testing.T) {
		t.Parallel()
		b := setup(t, options{api: func(c *api.Config) { c.AccessTokenLasts, c.TokenFresh = 2*time.Second, time.Hour }})
		made, own := b.newToken(`{"role":"reader","feeds":["default"]}`)
		got, header := b.access(made)
		if got.ExpiresIn < 1 || got.ExpiresIn > 2 {
			t.Errorf("expires in %d s", got.ExpiresIn)
		}
		b.call("GET", "/v1/feeds/default", "", "Authorization", header).want(200, nil)
		testkit.Eventually(t, soon, func() bool { return b.call("GET", "/v1/feeds/default", "", "Authorization", header).status == 401 }, "it ends")
		b.call("GET", "/v1/feeds/default", "", "Authorization", own).want(200, nil)
	})
	t.Run("with the token behind it", func(t *testing.T) {
		t.Parallel()
		b := setup(t, options{api: func(c *api.Config) { c.TokenFresh = time.Hour }})
		made, _ := b.newToken(`{"role":"reader","feeds":["default"],"expiresAt":"` + time.Now().Add(3*time.Second).Format(time.RFC3339Nano) + `"}`)
		got, header := b.access(made)
		if got.ExpiresIn > 3 {
			t.Errorf("expires in %d s", got.ExpiresIn)
		}
		b.call("GET", "/v1/feeds/default", "", "Authorization", header).want(200, nil)
		testkit.Eventually(t, soon, func() bool { return b.call("GET", "/v1/feeds/default", "", "Authorization", header).status == 401 }, "it ends")
	})
}

// TestOAuth_revokedEverywhere: an access token works in every process of an
// installation, and ends in each within 5 s after the token behind it was
// revoked in one; what waits there ends.
func TestOAuth_revokedEverywhere(t *testing.T) {
	t.Parallel()
	here := setup(t, options{})
	there := setup(t, options{dbURL: here.dbURL})
	made, _ := here.newToken(`{"role":"reader","feeds":["default"]}`)
	_, header := here.access(made)
	read := func(b *bundle) int {
		return b.call("GET", "/v1/feeds/default/events", "", "Authorization", header).status
	}
	if status := read(there); status != 200 {
		t.Fatalf("status %d", status)
	}
	polled := make(chan answer, 1)
	go func() {
		polled <- there.call("GET", "/v1/feeds/default/events?wait=60s", "", "Authorization", header)
	}()
	there.awaitPolls(1)
	read(there) // the worst moment: what the other process knows has just been read
	here.call("DELETE", "/v1/tokens/"+made.ID, "").want(204, nil)
	revoked := time.Now()
	if status := read(here); status != 401 {
		t.Errorf("where it was revoked: status %d", status)
	}
	testkit.Eventually(t, soon, func() bool { return read(there) == 401 }, "the other process refuses it")
	refused := time.Since(revoked)
	(<-polled).refused(401, "unauthorized", "")
	ended := time.Since(revoked)
	t.Logf("refused after %s, the long poll ended after %s", refused.Round(time.Millisecond), ended.Round(time.Millisecond))
	if max(refused, ended) > 5*time.Second {
		t.Errorf("refused after %s, the long poll ended after %s", refused, ended)
	}
	var body map[string]string
	there.exchange("grant_type=client_credentials&client_id="+made.ID+"&client_secret="+made.Token).want(401, &body)
}

// TestOAuth_withoutDatabase: whether a client may have an access token cannot be
// known then, which is not a refusal.
func TestOAuth_withoutDatabase(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	made, _ := b.newToken(`{"role":"reader","feeds":["default"]}`)
	tx, err := b.pool.Begin(t.Context())
	must(t, err)
	defer func() { must(t, tx.Rollback(context.WithoutCancel(t.Context()))) }()
	_, err = tx.Exec(t.Context(), `LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE`)
	must(t, err)
	a := b.exchange("grant_type=client_credentials&client_id=" + made.ID + "&client_secret=" + made.Token)
	if a.refused(503, "unavailable", ""); a.header.Get("Retry-After") == "" || !json.Valid(a.body) {
		t.Errorf("%v %s", a.header, a.body)
	}
}

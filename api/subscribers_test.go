package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"postroad/api"
	"postroad/event"
)

const hook = `"endpoint":{"url":"https://consumer.example/hook"}`

// sub is a subscriber document; more are members to add.
func sub(id string, more ...string) string {
	return `{"id":"` + id + `",` + strings.Join(append([]string{hook}, more...), ",") + `}`
}

type subscriberDocument struct {
	event.Subscriber
	Version int64
	Links   map[string]string
}

func (b *bundle) create(body string) answer {
	b.t.Helper()
	return b.call("POST", "/v1/subscribers", body)
}

// snapshot is all that a refused request must leave alone.
func (b *bundle) snapshot() string {
	b.t.Helper()
	var text string
	must(b.t, b.pool.QueryRow(b.t.Context(), `SELECT concat(
		(SELECT jsonb_agg(to_jsonb(s) ORDER BY s.id) FROM subscribers s), (SELECT jsonb_agg(to_jsonb(r) - 'checked_at' ORDER BY r.id) FROM runs r),
		(SELECT jsonb_agg(to_jsonb(c) ORDER BY c.subscriber, c.version) FROM controls c), (SELECT jsonb_agg(to_jsonb(f)) FROM feeds f),
		(SELECT jsonb_agg(to_jsonb(k) ORDER BY k.subscriber, k.resource_key) FROM held_keys k),
		(SELECT jsonb_agg(to_jsonb(e) ORDER BY e.subscriber, e.sequence) FROM held_events e),
		(SELECT jsonb_agg(to_jsonb(d) ORDER BY d.subscriber, d.sequence) FROM dead_letters d),
		(SELECT jsonb_agg(to_jsonb(p) ORDER BY p.subscriber, p.id) FROM replays p))`).Scan(&text))
	return text
}

func TestCreate_defaultsAndSecretShownOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	var got subscriberDocument
	a := b.create(sub("acme")).want(201, &got)
	if a.header.Get("Location") != "/v1/subscribers/acme" || a.header.Get("ETag") != `"1"` || got.Version != 1 {
		t.Errorf("Location %q, ETag %q, version %d", a.header.Get("Location"), a.header.Get("ETag"), got.Version)
	}
	if _, err := standardwebhooks.NewWebhook(got.Signing.Secret); err != nil || !strings.HasPrefix(got.Signing.Secret, "whsec_") {
		t.Errorf("signing secret %q: %v", got.Signing.Secret, err)
	}
	want := event.Subscriber{ID: "acme", Endpoint: event.Endpoint{URL: "https://consumer.example/hook"}}.Defaulted()
	want.Signing.SecretSet, want.Signing.Secret = true, got.Signing.Secret
	if diff := cmp.Diff(want, got.Subscriber); diff != "" {
		t.Error(diff)
	}
	a = b.call("GET", "/v1/subscribers/acme", "").want(200, nil)
	if strings.Contains(string(a.body), "whsec_") {
		t.Errorf("the secret is shown again: %s", a.body)
	}
	b.awaitWakes("acme", 1)
	got = subscriberDocument{}
	b.create(sub("unsigned", `"signing":{"scheme":"none"}`)).want(201, &got)
	if got.Signing.Secret != "" || got.Signing.SecretSet {
		t.Errorf("%+v", got.Signing)
	}
}

func TestCreate_secretsAreWriteOnly(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	imported := "whsec_" + strings.Repeat("QUJD", 10)
	b.create(`{"id":"acme","endpoint":{"url":"https://consumer.example/hook","headers":{"X-Key":"secret-1","X-Other":"secret-2"}},
		"auth":{"type":"bearer","token":"secret-3"},"signing":{"scheme":"standard","secret":"`+imported+`"}}`).want(201, nil)
	a := b.call("GET", "/v1/subscribers/acme", "").want(200, nil)
	for _, secret := range []string{"secret-", imported} {
		if strings.Contains(string(a.body), secret) || strings.Contains(b.logs.String(), secret) {
			t.Errorf("%s is shown: %s", secret, a.body)
		}
	}
	// What was read can be put back: secrets stay, and nothing is a change.
	again := b.call("PUT", "/v1/subscribers/acme", string(a.body), "If-Match", a.header.Get("ETag")).want(200, nil)
	if diff := cmp.Diff(string(a.body), string(again.body)); diff != "" {
		t.Error(diff)
	}
	want := event.Secrets{
		Token: "secret-3", Headers: map[string]string{"X-Key": "secret-1", "X-Other": "secret-2"}, Signing: []event.SigningSecret{{Secret: imported}},
	}
	got, err := b.store.Secrets(t.Context(), "acme")
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestCreate_badInput: each is a problem that names the member, and nothing is
// stored.
func TestCreate_badInput(t *testing.T) {
	t.Parallel()
	b := setup(t, options{api: func(c *api.Config) { c.AllowLoopback, c.AllowHTTPEndpoints = false, false }})
	endpoint := func(url string) string { return `{"id":"x","endpoint":{"url":"` + url + `"}}` }
	before := b.snapshot()
	for name, row := range map[string]struct {
		body, code, places string
		status             int
	}{
		"unknown member":              {sub("x", `"colour":"red"`), "invalid", "/colour", 422},
		"unknown member within":       {sub("x", `"retry":{"attempts":3}`), "invalid", "/retry/attempts", 422},
		"wrong case":                  {sub("x", `"BatchSize":3`), "invalid", "/BatchSize", 422},
		"repeated member":             {sub("x", `"label":"a","label":"b"`), "invalid", "/label", 422},
		"wrong type":                  {sub("x", `"batchSize":"3"`), "invalid", "/batchSize", 422},
		"a fraction":                  {sub("x", `"batchSize":1.5`), "invalid", "/batchSize", 422},
		"wrong type of object":        {sub("x", `"auth":"none"`), "invalid", "/auth", 422},
		"userinfo":                    {endpoint("https://u:p@consumer.example/"), "invalid", "/endpoint/url", 422},
		"fragment":                    {endpoint("https://consumer.example/#x"), "invalid", "/endpoint/url", 422},
		"ftp":                         {endpoint("ftp://consumer.example/"), "invalid", "/endpoint/url", 422},
		"http":                        {endpoint("http://consumer.example/"), "invalid", "/endpoint/url", 422},
		"a private address":           {endpoint("https://10.1.2.3/"), "invalid", "/endpoint/url", 422},
		"a loopback address":          {endpoint("https://127.0.0.1/"), "invalid", "/endpoint/url", 422},
		"metadata service":            {endpoint("https://169.254.169.254/"), "invalid", "/endpoint/url", 422},
		"private IPv6":                {endpoint("https://[fd00::1]/"), "invalid", "/endpoint/url", 422},
		"this host":                   {endpoint("https://localhost/"), "invalid", "/endpoint/url", 422},
		"an address in disguise":      {endpoint("https://2130706433/"), "invalid", "/endpoint/url", 422},
		"no endpoint":                 {`{"id":"x"}`, "invalid", "/endpoint/url", 422},
		"a label of 256 characters":   {sub("x", `"label":"`+strings.Repeat("é", 256)+`"`), "invalid", "/label", 422},
		"schedule soon":               {sub("x", `"retry":{"schedule":["1s","soon"]}`), "invalid", "/retry/schedule/1", 422},
		"schedule not a list":         {sub("x", `"retry":{"schedule":"soon"}`), "invalid", "/retry/schedule", 422},
		"schedule of nothing":         {sub("x", `"retry":{"schedule":[]}`), "invalid", "/retry/schedule", 422},
		"65 lanes":                    {sub("x", `"lanes":65`), "invalid", "/lanes", 422},
		"lanes -1, which is not auto": {sub("x", `"lanes":-1`), "invalid", "/lanes", 422},
		"lanes x batchSize":           {sub("x", `"lanes":11,"batchSize":1000`), "invalid", "/lanes", 422},
		"another compaction":          {sub("x", `"compact":"log"`), "invalid", "/compact", 422},
		"batchSize 1,001":             {sub("x", `"batchSize":1001`), "invalid", "/batchSize", 422},
		"batchBytes above 8 MiB":      {sub("x", `"batchBytes":8388609`), "invalid", "/batchBytes", 422},
		"header Host":                 {`{"id":"x","endpoint":{"url":"https://consumer.example/","headers":{"Host":"other"}}}`, "invalid", "/endpoint/headers/Host", 422},
		"CR/LF in a header":           {`{"id":"x","endpoint":{"url":"https://consumer.example/","headers":{"X-A":"a\r\nHost: b"}}}`, "invalid", "/endpoint/headers/X-A", 422},
		"a header of ours":            {`{"id":"x","endpoint":{"url":"https://consumer.example/","headers":{"Postroad-Sequence":"1"}}}`, "invalid", "/endpoint/headers/Postroad-Sequence", 422},
		"tokenSet without a token":    {sub("x", `"auth":{"type":"bearer","tokenSet":true}`), "invalid", "/auth/tokenSet", 422},
		"headersSet without values":   {`{"id":"x","endpoint":{"url":"https://consumer.example/","headersSet":["X-A"]}}`, "invalid", "/endpoint/headersSet/0", 422},
		"a token that is not used":    {sub("x", `"auth":{"type":"none","token":"t"}`), "invalid", "/auth/token", 422},
		"an id with a slash":          {sub("a/b"), "invalid", "/id", 422},
		"an id with a dot":            {sub("a.b"), "invalid", "/id", 422},
		"no id":                       {`{` + hook + `}`, "invalid", "/id", 422},
		"unknown feed":                {sub("x", `"feed":"nowhere"`), "invalid", "/feed", 422},
		"start above the head":        {sub("x", `"start":{"sequence":5}`), "invalid", "/start/sequence", 422},
		"start of another kind":       {sub("x", `"start":"yesterday"`), "invalid", "/start", 422},
		"an empty filter list":        {sub("x", `"filter":{"eventTypes":[]}`), "invalid", "/filter/eventTypes", 422},
		"a star in the middle":        {sub("x", `"filter":{"resourceNames":["a*b"]}`), "invalid", "/filter/resourceNames/0", 422},
		"a signing secret too short":  {sub("x", `"signing":{"scheme":"standard","secret":"whsec_AAAA"}`), "invalid", "/signing/secret", 422},
		"timeout above a minute":      {`{"id":"x","endpoint":{"url":"https://consumer.example/","timeout":"61s"}}`, "invalid", "/endpoint/timeout", 422},
		"NUL":                         {sub("x", `"description":"a\u0000"`), "invalid", "/description", 422},
		"a lone surrogate":            {sub("x", `"description":"a\ud800"`), "invalid", "/description", 422},
		"broken JSON":                 {`{"id":"x",`, "malformed", "", 400},
		"no object":                   {`[]`, "invalid", "", 422},
		"nothing":                     {``, "malformed", "", 400},
		"two values":                  {sub("x") + sub("y"), "malformed", "", 400},
		"several faults, each named":  {sub("x", `"lanes":65,"batchSize":0,"format":"xml","onExhausted":"drop"`), "invalid", "/lanes /format /onExhausted", 422},
		"a body of more than a MiB":   {sub("x", `"description":"`+strings.Repeat("x", 1<<20)+`"`), "too-large", "", 413},
	} {
		t.Run(name, func(t *testing.T) {
			a := b.create(row.body)
			a.t = t
			if row.places == "/lanes /format /onExhausted" {
				var p problem
				a.want(row.status, &p)
				for _, place := range strings.Fields(row.places) {
					if !strings.Contains(p.places(), place) {
						t.Errorf("%s is not among %s", place, p.places())
					}
				}
				return
			}
			a.refused(row.status, row.code, row.places)
		})
	}
	b.call("POST", "/v1/subscribers", sub("x"), "Content-Type", "text/yaml").refused(415, "unsupported-media-type", "Content-Type:")
	if after := b.snapshot(); after != before {
		t.Errorf("something changed: %s", cmp.Diff(before, after))
	}
}

func TestCreate_sameIDTwice(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	var all sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for range 8 {
		all.Go(func() {
			a := b.create(sub("acme"))
			mu.Lock()
			defer mu.Unlock()
			statuses[a.status]++
		})
	}
	all.Wait()
	if diff := cmp.Diff(map[int]int{201: 1, 409: 7}, statuses); diff != "" {
		t.Error(diff)
	}
	b.create(sub("acme")).refused(409, "exists", "/id")
}

func TestSubscriber_idsThatNobodyHas(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	for path, shown := range map[string]string{"a.b": "a.b", "a%2Fb": "a/b", "nobody": "nobody", "..%2f..%2fetc": "../../etc", "%00": `\x00`} {
		for _, route := range []string{"GET ", "PATCH ", "DELETE ", "GET /status", "GET /attempts", "POST /pause", "POST /resume", "POST /test", "POST /signing-secret/rotate"} {
			method, suffix, _ := strings.Cut(route, " ")
			body := ""
			if method == "PATCH" {
				body = "{}"
			}
			p := b.call(method, "/v1/subscribers/"+path+suffix, body).refused(404, "not-found", "?id")
			if !strings.Contains(p.Detail, shown) {
				t.Errorf("%s %s: the id is not told: %s", method, path, p.Detail)
			}
		}
	}
	if p := b.call("PUT", "/v1/subscribers/a.b", sub("a.b")).refused(422, "invalid", "/id"); !strings.Contains(p.Detail, "a.b") {
		t.Error(p.Detail)
	}
	b.call("PUT", "/v1/subscribers/one", sub("two")).refused(422, "invalid", "/id")
}

func TestPut_createsThenReplaces(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	var got subscriberDocument
	b.call("PUT", "/v1/subscribers/acme", `{`+hook+`,"label":"one","start":"beginning","auth":{"type":"bearer","token":"t1"}}`).want(201, &got)
	if got.Signing.Secret == "" {
		t.Error("no signing secret")
	}
	got = subscriberDocument{}
	a := b.call("PUT", "/v1/subscribers/acme", `{`+hook+`,"batchSize":7}`).want(200, &got)
	if got.BatchSize != 7 || got.Label != "" || got.Start.Where != "beginning" || got.Auth.Type != "none" || got.Auth.TokenSet || got.Version != 2 ||
		a.header.Get("ETag") != `"2"` || got.Signing.Secret != "" {
		t.Errorf("%+v", got)
	}
	secrets, err := b.store.Secrets(t.Context(), "acme")
	must(t, err)
	if secrets.Token != "" || len(secrets.Signing) != 1 {
		t.Errorf("%d signing secrets, token %q", len(secrets.Signing), secrets.Token)
	}
	// Back to a scheme that signs: the stored secret serves, no new one.
	b.call("PATCH", "/v1/subscribers/acme", `{"signing":{"scheme":"none"}}`).want(200, nil)
	got = subscriberDocument{}
	b.call("PATCH", "/v1/subscribers/acme", `{"signing":{"scheme":"svix"}}`).want(200, &got)
	if got.Signing.Scheme != "svix" || got.Signing.Secret != "" {
		t.Errorf("%+v", got.Signing)
	}
	b.create(sub("plain", `"signing":{"scheme":"none"}`)).want(201, nil)
	got = subscriberDocument{}
	b.call("PATCH", "/v1/subscribers/plain", `{"signing":null}`).want(200, &got)
	if got.Signing.Scheme != "standard" || !strings.HasPrefix(got.Signing.Secret, "whsec_") {
		t.Errorf("a secret had to be made and shown: %+v", got.Signing)
	}
}

func TestIfMatch(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.create(sub("acme")).want(201, nil)
	b.call("PATCH", "/v1/subscribers/acme", `{"label":"a"}`, "If-Match", `"1"`).want(200, nil)
	before := b.snapshot()
	for _, method := range []string{"PATCH", "PUT", "DELETE"} {
		body := map[string]string{"PATCH": `{"label":"b"}`, "PUT": sub("acme", `"label":"b"`)}[method]
		for _, stale := range []string{`"1"`, `"99"`, `"abc"`, `W/"2"`} {
			b.call(method, "/v1/subscribers/acme", body, "If-Match", stale).refused(412, "version-mismatch", "")
		}
		for _, broken := range []string{`2`, `"1", "2"`, `abc`} {
			b.call(method, "/v1/subscribers/acme", body, "If-Match", broken).refused(400, "invalid-header", "If-Match:")
		}
	}
	b.call("PUT", "/v1/subscribers/other", sub("other"), "If-Match", "*").refused(412, "version-mismatch", "")
	if after := b.snapshot(); after != before {
		t.Errorf("something changed: %s", cmp.Diff(before, after))
	}
	b.call("PATCH", "/v1/subscribers/acme", `{"label":"c"}`, "If-Match", "*").want(200, nil)
	b.call("DELETE", "/v1/subscribers/acme", "", "If-Match", `"3"`).want(204, nil)
}

func TestPatch_isAMergePatch(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.create(`{"id":"acme","endpoint":{"url":"https://consumer.example/hook","timeout":"5s","headers":{"X-A":"1","X-B":"2"}},"label":"l","batchSize":9,
		"auth":{"type":"basic","username":"u","password":"p"},"filter":{"resourceNames":["Property"],"eventTypes":["a.*"]},
		"retry":{"schedule":["1s","2s"],"eventAttempts":3}}`).want(201, nil)
	for _, step := range []struct {
		patch   string
		check   func(event.Subscriber) any
		want    any
		secrets string
	}{
		{`{}`, func(s event.Subscriber) any { return s.Label }, "l", "p map[X-A:1 X-B:2]"},
		{`{"label":"m","retry":{"eventAttempts":4}}`, func(s event.Subscriber) any { return fmt.Sprint(s.Label, s.Retry.EventAttempts, s.Retry.Schedule) }, "m4 [1s 2s]", ""},
		{`{"label":null,"batchSize":null,"retry":{"schedule":null}}`, func(s event.Subscriber) any { return fmt.Sprint(s.Label, s.BatchSize, len(s.Retry.Schedule)) }, "1 8", ""},
		{`{"endpoint":{"headers":{"X-A":null,"X-C":"3"},"timeout":null}}`, func(s event.Subscriber) any { return fmt.Sprint(s.Endpoint.Timeout, s.Endpoint.HeadersSet) }, "15s [X-B X-C]", "p map[X-B:2 X-C:3]"},
		{`{"filter":{"eventTypes":null}}`, func(s event.Subscriber) any { return fmt.Sprint(s.Filter) }, "{[Property] []}", ""},
		{`{"filter":null}`, func(s event.Subscriber) any { return s.Filter.MatchesAll() }, true, ""},
		{`{"auth":{"password":"q"}}`, func(s event.Subscriber) any { return s.Auth.Username }, "u", "q map[X-B:2 X-C:3]"},
		{`{"endpoint":{"headers":null}}`, func(s event.Subscriber) any { return len(s.Endpoint.HeadersSet) }, 0, "q map[]"},
		{`{"auth":{"password":null}}`, func(s event.Subscriber) any { return s.Auth.PasswordSet }, false, " map[]"},
		{`{"auth":{"type":"bearer","token":"t"}}`, func(s event.Subscriber) any { return s.Auth.Username + fmt.Sprint(s.Auth.TokenSet) }, "true", ""},
		{`{"auth":null}`, func(s event.Subscriber) any { return s.Auth }, event.Auth{Type: "none"}, ""},
		{`{"lanes":64,"batchSize":"auto","onExhausted":"hold","compact":"catchUp"}`, func(s event.Subscriber) any { return fmt.Sprint(s.Lanes, s.BatchSize, s.OnExhausted, s.Compact) }, "64 autoholdcatchUp", ""},
		{`{"lanes":"auto","batchSize":1000,"compact":""}`, func(s event.Subscriber) any { return fmt.Sprint(s.Lanes, s.BatchSize, s.OnExhausted, s.Compact) }, "auto 1000hold", ""},
		{`{"lanes":null,"onExhausted":null}`, func(s event.Subscriber) any { return fmt.Sprint(s.Lanes, s.BatchSize, s.OnExhausted) }, "1 1000halt", ""},
		{`{"id":"acme","feed":"default","start":"now","createdAt":"x","version":7}`, func(s event.Subscriber) any { return s.ID }, "acme", ""},
	} {
		var got subscriberDocument
		b.call("PATCH", "/v1/subscribers/acme", step.patch, "Content-Type", "application/merge-patch+json").want(200, &got)
		if diff := cmp.Diff(step.want, step.check(got.Subscriber)); diff != "" {
			t.Errorf("%s: %s", step.patch, diff)
		}
		if step.secrets == "" {
			continue
		}
		secrets, err := b.store.Secrets(t.Context(), "acme")
		must(t, err)
		if got := fmt.Sprint(secrets.Password, " ", secrets.Headers); got != step.secrets {
			t.Errorf("%s: secrets %s, want %s", step.patch, got, step.secrets)
		}
	}
}

func TestPatch_badInput(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.call("POST", "/v1/feeds", `{"name":"other"}`).want(201, nil)
	b.create(sub("acme", `"batchSize":157`)).want(201, nil)
	before := b.snapshot()
	for patch, places := range map[string]string{
		`{"lanes":64}`: "/lanes", `{"lanes":"many"}`: "/lanes", `{"lanes":-1}`: "/lanes", `{"onExhausted":"drop"}`: "/onExhausted",
		`{"feed":"other"}`: "/feed", `{"feed":null}`: "/feed", `{"start":"beginning"}`: "/start", `{"start":null}`: "/start", `{"id":"b"}`: "/id",
		`{"lable":null}`: "/lable", `{"batchSize":"x"}`: "/batchSize", `{"endpoint":null}`: "/endpoint/url", `{"endpoint":{"url":null}}`: "/endpoint/url",
		`{"auth":{"type":"bearer"}}`: "/auth/token", `{"auth":{"type":"bearer","tokenSet":true}}`: "/auth/tokenSet", `{"signing":{"secret":null}}`: "/signing/secret",
		`{"retry":{"schedule":["soon"]}}`: "/retry/schedule/0", `[]`: "",
	} {
		p := b.call("PATCH", "/v1/subscribers/acme", patch).refused(422, "invalid", places)
		if places == "/start" && !strings.Contains(p.Detail, "seek") {
			t.Errorf("%s: %s", patch, p.Detail)
		}
	}
	b.call("PUT", "/v1/subscribers/acme", sub("acme", `"feed":"other"`)).refused(422, "invalid", "/feed")
	if after := b.snapshot(); after != before {
		t.Errorf("something changed: %s", cmp.Diff(before, after))
	}
}

// TestPatch_concurrent: without If-Match every patch counts.
func TestPatch_concurrent(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.create(sub("acme")).want(201, nil)
	patches := []string{`{"label":"l"}`, `{"owner":"o"}`, `{"description":"d"}`, `{"batchSize":5}`}
	var all sync.WaitGroup
	for _, patch := range patches {
		all.Go(func() { b.call("PATCH", "/v1/subscribers/acme", patch).want(200, nil) })
	}
	all.Wait()
	var got subscriberDocument
	b.call("GET", "/v1/subscribers/acme", "").want(200, &got)
	if got.Label != "l" || got.Owner != "o" || got.Description != "d" || got.BatchSize != 5 || got.Version != 5 {
		t.Errorf("%+v", got)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.create(sub("acme")).want(201, nil)
	b.call("DELETE", "/v1/subscribers/acme", "").want(204, nil)
	b.call("GET", "/v1/subscribers/acme", "").refused(404, "not-found", "?id")
	b.call("DELETE", "/v1/subscribers/acme", "").refused(404, "not-found", "?id")
	// The id is taken while the workflow is open, or Temporal does not answer.
	if a := b.create(sub("acme")); a.refused(409, "deleting", "/id").Detail == "" || a.header.Get("Retry-After") == "" {
		t.Errorf("%s", a.body)
	}
	b.awaitWakes("acme", 3)
	b.waker.set(func() { b.waker.err, b.waker.closed["acme"] = errors.New("no Temporal"), true })
	b.create(sub("acme")).refused(409, "deleting", "/id")
	b.waker.set(func() { b.waker.err = nil })
	b.create(sub("acme")).want(201, nil)
	b.call("GET", "/v1/subscribers/acme", "").want(200, nil)
}

func TestRotate(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	var first, second, third subscriberDocument
	b.create(sub("acme")).want(201, &first)
	b.call("POST", "/v1/subscribers/acme/signing-secret/rotate", "").want(200, &second)
	if second.Signing.Secret == first.Signing.Secret || second.Signing.Secret == "" || second.Version != 2 {
		t.Errorf("%+v", second)
	}
	imported := "whsec_" + strings.Repeat("QUJD", 10)
	b.call("POST", "/v1/subscribers/acme/signing-secret/rotate", `{"secret":"`+imported+`","overlap":"1h"}`).want(200, &third)
	if third.Signing.Secret != "" {
		t.Error("an imported secret is shown")
	}
	secrets, err := b.store.Secrets(t.Context(), "acme")
	must(t, err)
	got := make([]string, len(secrets.Signing))
	for i, s := range secrets.Signing {
		got[i] = s.Secret
	}
	if diff := cmp.Diff([]string{imported, second.Signing.Secret, first.Signing.Secret}, got); diff != "" {
		t.Error(diff)
	}
	for body, place := range map[string]string{
		`{"secret":"x"}`: "/secret", `{"overlap":"31d"}`: "/overlap", `{"overlap":"soon"}`: "/overlap", `{"key":"x"}`: "/key",
	} {
		b.call("POST", "/v1/subscribers/acme/signing-secret/rotate", body).refused(422, "invalid", place)
	}
}

func TestList_pages(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.call("POST", "/v1/feeds", `{"name":"other"}`).want(201, nil)
	for i := range 7 {
		feed := map[bool]string{true: "other", false: "default"}[i%2 == 1]
		_, err := b.store.Create(t.Context(), event.Subscriber{
			ID: fmt.Sprintf("s%d", i), Feed: feed, Owner: "me", Endpoint: event.Endpoint{URL: "https://consumer.example/"},
		}.Defaulted(), event.Secrets{})
		must(t, err)
	}
	list := func(query string) (ids []string) {
		for token := ""; ; {
			var part struct {
				Subscribers   []subscriberDocument
				NextPageToken string
			}
			b.call("GET", "/v1/subscribers?limit=3&"+query+token, "").want(200, &part)
			for _, s := range part.Subscribers {
				ids = append(ids, s.ID)
			}
			if part.NextPageToken == "" {
				return ids
			}
			token = "&pageToken=" + part.NextPageToken
		}
	}
	if diff := cmp.Diff([]string{"s0", "s1", "s2", "s3", "s4", "s5", "s6"}, list("")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"s1", "s3", "s5"}, list("feed=other&owner=me")); diff != "" {
		t.Error(diff)
	}
}

// TestLinks: every link of a document leads somewhere.
func TestLinks(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	var got subscriberDocument
	b.create(sub("acme")).want(201, &got)
	for _, path := range got.Links {
		b.call("GET", path, "").want(200, nil)
	}
	if len(got.Links) != 4 {
		t.Errorf("%v", got.Links)
	}
}

func decode[T any](t *testing.T, a answer) T {
	t.Helper()
	var v T
	must(t, json.Unmarshal(a.body, &v))
	return v
}

// TestPut_nullIsAbsent: of a member that may be left out.
func TestPut_nullIsAbsent(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	var got subscriberDocument
	b.call("PUT", "/v1/subscribers/acme", `{`+hook+`,"id":null,"feed":null,"auth":null,"signing":null,"label":null,"format":null,"batchSize":null,
		"start":null,"filter":null,"retry":null,"lanes":null,"createdAt":null}`).want(201, &got)
	want := event.Subscriber{ID: "acme", Endpoint: event.Endpoint{URL: "https://consumer.example/hook"}}.Defaulted()
	want.Signing = got.Signing
	if diff := cmp.Diff(want, got.Subscriber); diff != "" {
		t.Error(diff)
	}
}

package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postroad/event"
	"postroad/eventlog"
)

// sourced is a feed with what the API shows of its source.
type sourced struct {
	Sequences string
	Version   int64
	Source    *struct {
		URL     string
		Horizon string
		Poll    string
		Auth    map[string]any
		Status  map[string]any
	}
}

const withSource = `{"name":"mls","source":{"url":"https://reso.example.org/odata","horizon":"0s",
	"auth":{"type":"clientCredentials","tokenUrl":"https://reso.example.org/token","clientId":"me","clientSecret":"hush","scope":"api"}}}`

func TestFeedSource(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	var f sourced
	b.call("POST", "/v1/feeds", withSource).want(201, &f)
	auth := map[string]any{
		"type": "clientCredentials", "tokenUrl": "https://reso.example.org/token", "clientId": "me", "clientSecretSet": true, "scope": "api",
	}
	if f.Sequences != "supplied" || f.Source == nil || f.Source.URL != "https://reso.example.org/odata" || f.Source.Horizon != "0ms" || f.Source.Poll != "2s" {
		t.Fatalf("%+v", f)
	}
	if diff := cmp.Diff(auth, f.Source.Auth); diff != "" {
		t.Error(diff)
	}
	if f.Source.Status["state"] != "waiting" {
		t.Errorf("status is %v", f.Source.Status)
	}
	stored := func() event.SourceSecrets {
		t.Helper()
		feed, err := b.log.Feed(t.Context(), "mls")
		must(t, err)
		secrets, err := b.store.OpenSource("mls", feed.Source.Sealed)
		must(t, err)
		return secrets
	}
	if got := stored(); got.ClientSecret != "hush" {
		t.Errorf("stored is %+v", got)
	}

	// Nobody else publishes to it.
	b.call("POST", "/v1/feeds/mls/events", `{"sequence":1,"resourceName":"A","resourceRecordKey":"1"}`).refused(409, "has-source", "")
	b.call("POST", "/v1/feeds/mls/events", `{"sequence":1,"resourceName":"A","resourceRecordKey":"1"}`, "Content-Type", "application/x-ndjson").refused(409, "has-source", "")

	// A patch leaves the rest, the secret too; what was read may be sent back.
	b.call("PATCH", "/v1/feeds/mls", `{"source":{"poll":"1m","auth":{"scope":null}}}`).want(200, &f)
	if f.Source.Poll != "1m" || f.Source.Horizon != "0ms" || f.Version != 2 || stored().ClientSecret != "hush" {
		t.Errorf("%+v, %+v", f.Source, stored())
	}
	got := b.call("GET", "/v1/feeds/mls", "").want(200, nil)
	if strings.Contains(string(got.body), "hush") {
		t.Errorf("the secret is shown: %s", got.body)
	}
	b.call("PATCH", "/v1/feeds/mls", string(got.body)).want(200, nil)
	b.call("PATCH", "/v1/feeds/mls", `{"source":{"auth":{"type":"bearer","token":"new"}}}`).want(200, nil)
	if got := stored(); got != (event.SourceSecrets{Token: "new"}) {
		t.Errorf("stored is %+v", got)
	}
	f = sourced{}
	b.call("GET", "/v1/feeds/mls", "").want(200, &f)
	if diff := cmp.Diff(map[string]any{"type": "bearer", "tokenSet": true}, f.Source.Auth); diff != "" {
		t.Error(diff)
	}
	f = sourced{}
	b.call("PATCH", "/v1/feeds/mls", `{"source":null}`).want(200, &f)
	if f.Source != nil {
		t.Errorf("%+v", f.Source)
	}
	b.call("POST", "/v1/feeds/mls/events", `{"sequence":1,"resourceName":"A","resourceRecordKey":"1"}`).want(201, nil)
	b.call("PATCH", "/v1/feeds/mls", `{"source":{"url":"https://reso.example.org/odata"}}`).want(200, nil)
	b.call("POST", "/v1/feeds/mls/events", `{"sequence":2,"resourceName":"A","resourceRecordKey":"1"}`).refused(409, "has-source", "")
	b.call("DELETE", "/v1/feeds/mls", "").want(204, nil)
	f = sourced{}
	b.call("POST", "/v1/feeds", `{"name":"mls","sequences":"supplied"}`).want(201, &f)
	if f.Source != nil {
		t.Errorf("a feed made again has the source of the one before: %+v", f.Source)
	}
}

// TestFeedSourceStatus: what the worker wrote is shown, and to a reader without
// where the source is.
func TestFeedSourceStatus(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.call("POST", "/v1/feeds", withSource).want(201, nil)
	feed, err := b.log.Feed(t.Context(), "mls")
	must(t, err)
	at := time.Date(2026, 3, 1, 14, 2, 10, 0, time.UTC)
	must(t, b.log.NoteSource(t.Context(), feed, eventlog.SourceState{
		SourceHead: 120, ReadAt: at, Error: "read https://reso.example.org/odata/EntityEvent: HTTP 502", FailingSince: at, RetryAt: at.Add(time.Minute),
		Late: 2, LateAt: at, LateSequences: []int64{7, 9},
	}))
	want := map[string]any{
		"state": "failing", "reason": "The source could not be read; it is tried again at 14:03:10 UTC. 2 events came too late to be taken.",
		"lastSequence": 0.0, "sourceHead": 120.0, "lag": 120.0, "late": 2.0, "lateSequences": []any{7.0, 9.0}, "lateAt": "2026-03-01T14:02:10Z",
		"lastReadAt": "2026-03-01T14:02:10Z", "lastError": "read https://reso.example.org/odata/EntityEvent: HTTP 502",
		"failingSince": "2026-03-01T14:02:10Z", "retryAt": "2026-03-01T14:03:10Z",
	}
	var f sourced
	b.call("GET", "/v1/feeds/mls", "").want(200, &f)
	if diff := cmp.Diff(want, f.Source.Status); diff != "" {
		t.Error(diff)
	}
	var made struct{ Token string }
	b.call("POST", "/v1/tokens", `{"role":"reader","feeds":["mls"]}`).want(201, &made)
	var shown struct{ Source map[string]any }
	read := b.call("GET", "/v1/feeds/mls", "", "Authorization", "Bearer "+made.Token).want(200, nil)
	must(t, json.Unmarshal(read.body, &shown))
	delete(want, "lastError")
	if diff := cmp.Diff(map[string]any{"status": any(want)}, shown.Source); diff != "" {
		t.Error(diff)
	}
	// A configuration of another version is none of the run's that wrote this.
	b.call("PATCH", "/v1/feeds/mls", `{"source":{"poll":"1m"}}`).want(200, nil)
	must(t, b.log.NoteSource(t.Context(), feed, eventlog.SourceState{SourceHead: 500}))
	f = sourced{}
	b.call("GET", "/v1/feeds/mls", "").want(200, &f)
	if f.Source.Status["state"] != "waiting" || f.Source.Status["sourceHead"] != 0.0 || f.Source.Status["late"] != 2.0 {
		t.Errorf("after a change the status is %v", f.Source.Status)
	}
}

func TestFeedSourceBadInput(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.call("POST", "/v1/feeds", `{"name":"own"}`).want(201, nil)
	b.call("POST", "/v1/feeds", `{"name":"other","sequences":"supplied"}`).want(201, nil)
	before := b.snapshot()
	for source, place := range map[string]string{
		`{}`:                                                                "/source/url",
		`{"url":"reso.example.org"}`:                                        "/source/url",
		`{"url":"https://a.org/?x=1"}`:                                      "/source/url",
		`{"url":"https://a:b@a.org/"}`:                                      "/source/url",
		`{"url":"https://10.0.0.1/"}`:                                       "/source/url",
		`{"url":"https://a.org/","horizon":"2h"}`:                           "/source/horizon",
		`{"url":"https://a.org/","poll":"1ms"}`:                             "/source/poll",
		`{"url":"https://a.org/","auth":{"type":"basic"}}`:                  "/source/auth/type",
		`{"url":"https://a.org/","auth":{"type":"bearer"}}`:                 "/source/auth/token",
		`{"url":"https://a.org/","auth":{"type":"bearer","tokenSet":true}}`: "/source/auth/tokenSet",
		`{"url":"https://a.org/","auth":{"type":"bearer","token":"a\nb"}}`:  "/source/auth/token",
		`{"url":"https://a.org/","auth":{"type":"clientCredentials","clientId":"a","clientSecret":"b","tokenUrl":"https://169.254.169.254/"}}`: "/source/auth/tokenUrl",
		`{"url":"https://a.org/","auth":{"type":"clientCredentials","clientId":"a","tokenUrl":"https://a.org/"}}`:                              "/source/auth/clientSecret",
		`{"url":"https://a.org/","nonsense":1}`: "/source/nonsense",
		`"https://a.org/"`:                      "/source",
	} {
		b.call("POST", "/v1/feeds", `{"name":"bad","source":`+source+`}`).refused(422, "invalid", place)
		b.call("PATCH", "/v1/feeds/other", `{"source":`+source+`}`).refused(422, "invalid", place)
	}
	b.call("POST", "/v1/feeds", `{"name":"bad","sequences":"assigned","source":{"url":"https://a.org/"}}`).refused(422, "invalid", "/source")
	b.call("PATCH", "/v1/feeds/own", `{"source":{"url":"https://a.org/"}}`).refused(422, "invalid", "/source")
	if diff := cmp.Diff(before, b.snapshot()); diff != "" {
		t.Errorf("something was stored:\n%s", diff)
	}
}

// TestFeedSource_changedAtOnce: changes of a source that are made at once are all
// in it; none brings back what another one replaced.
func TestFeedSource_changedAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.call("POST", "/v1/feeds", withSource).want(201, nil)
	for round := range 10 {
		var patching sync.WaitGroup
		for _, patch := range []string{`"poll":"%dm"`, `"horizon":"%dm"`, `"auth":{"scope":"s%d"}`, `"auth":{"clientSecret":"secret-%d"}`} {
			patching.Go(func() {
				b.call("PATCH", "/v1/feeds/mls", fmt.Sprintf(`{"source":{`+patch+`}}`, round+1)).want(200, nil)
			})
		}
		patching.Wait()
		feed, err := b.log.Feed(t.Context(), "mls")
		must(t, err)
		secrets, err := b.store.OpenSource("mls", feed.Source.Sealed)
		must(t, err)
		minutes, c := event.Duration(time.Duration(round+1)*time.Minute), feed.Source.Config
		if c.Poll != minutes || *c.Horizon != minutes || c.Auth.Scope != fmt.Sprint("s", round+1) || secrets.ClientSecret != fmt.Sprint("secret-", round+1) {
			t.Fatalf("round %d: a change was lost: %+v, %+v", round, c, secrets)
		}
	}
}

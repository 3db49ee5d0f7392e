package api_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"

	"postroad/api"
	"postroad/internal/testkit"
	"postroad/store"
)

type tokenAnswer struct {
	ID, Role, Subscriber, Description, State, CreatedBy, Token string
	Feeds                                                      []string
	CreatedAt                                                  time.Time
	ExpiresAt, RevokedAt, LastUsedAt                           *time.Time
}

// newToken makes a token and returns it with its header.
func (b *bundle) newToken(body string) (made tokenAnswer, authorization string) {
	b.t.Helper()
	a := b.call("POST", "/v1/tokens", body).want(201, &made)
	if location := a.header.Get("Location"); location != "/v1/tokens/"+made.ID || a.header.Get("Cache-Control") != "no-store" {
		b.t.Errorf("Location %q, Cache-Control %q", location, a.header.Get("Cache-Control"))
	}
	return made, "Bearer " + made.Token
}

func TestToken_lifecycle(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	made, header := b.newToken(`{"role":"reader","feeds":["default"],"description":"the dashboard","expiresAt":"` + expires.Format(time.RFC3339) + `"}`)
	want := tokenAnswer{Role: "reader", Feeds: []string{"default"}, Description: "the dashboard", State: "active", CreatedBy: "admin", ExpiresAt: &expires}
	if diff := cmp.Diff(want, made, cmpopts.IgnoreFields(tokenAnswer{}, "ID", "Token", "CreatedAt")); diff != "" || made.Token == "" {
		t.Errorf("made: %s", diff)
	}
	b.call("GET", "/v1/feeds/default/events", "", "Authorization", header).want(200, nil)

	var read tokenAnswer
	b.call("GET", "/v1/tokens/"+made.ID, "").want(200, &read)
	if read.Token != "" || read.ID != made.ID {
		t.Errorf("read: %+v", read)
	}
	_, admin := b.newToken(`{"role":"admin"}`)
	var byToken tokenAnswer
	b.call("POST", "/v1/tokens", `{"role":"admin"}`, "Authorization", admin).want(201, &byToken)
	if !strings.HasPrefix(byToken.CreatedBy, "token:") {
		t.Errorf("created by %q", byToken.CreatedBy)
	}

	b.call("DELETE", "/v1/tokens/"+made.ID, "").want(204, nil)
	b.call("DELETE", "/v1/tokens/"+made.ID, "").want(204, nil)
	b.call("GET", "/v1/feeds/default/events", "", "Authorization", header).refused(401, "unauthorized", "") // at once, by this process
	b.call("GET", "/v1/tokens/"+made.ID, "").want(200, &read)
	if read.State != "revoked" || read.RevokedAt == nil {
		t.Errorf("revoked: %+v", read)
	}
	var first, second struct {
		Tokens        []tokenAnswer
		NextPageToken string
	}
	b.call("GET", "/v1/tokens?limit=2", "").want(200, &first)
	b.call("GET", "/v1/tokens?limit=2&pageToken="+first.NextPageToken, "").want(200, &second)
	if len(first.Tokens) != 2 || len(second.Tokens) != 1 || second.NextPageToken != "" {
		t.Errorf("%d and %d tokens are listed", len(first.Tokens), len(second.Tokens))
	}
	for _, listed := range append(first.Tokens, second.Tokens...) {
		if listed.Token != "" {
			t.Errorf("the list shows a token: %+v", listed)
		}
	}
	if secret := made.Token[len("pr_")+10:]; strings.Contains(b.logs.String(), secret) {
		t.Error("the log has a token's secret")
	}
}

func TestToken_refused(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	for name, c := range map[string]struct{ body, places string }{
		"no role":                   {`{}`, "/role"},
		"an unknown role":           {`{"role":"root"}`, "/role"},
		"a feed that is not there":  {`{"role":"publisher","feeds":["default","nowhere"]}`, "/feeds/1"},
		"no feed":                   {`{"role":"reader","feeds":[]}`, "/feeds"},
		"a feed twice":              {`{"role":"reader","feeds":["default","default"]}`, "/feeds/1"},
		"no such subscriber":        {`{"role":"subscriber","subscriber":"nobody"}`, "/subscriber"},
		"no subscriber":             {`{"role":"subscriber"}`, "/subscriber"},
		"an admin of a feed":        {`{"role":"admin","feeds":["default"]}`, "/feeds"},
		"an admin of a subscriber":  {`{"role":"admin","subscriber":"a"}`, "/subscriber"},
		"an end in the past":        {`{"role":"admin","expiresAt":"2020-01-01T00:00:00Z"}`, "/expiresAt"},
		"an end that is no time":    {`{"role":"admin","expiresAt":"90d"}`, "/expiresAt"},
		"an end out of all reason":  {`{"role":"admin","expiresAt":"0000-01-01T00:00:00Z"}`, "/expiresAt"},
		"a member that nobody sets": {`{"role":"admin","id":"x"}`, "/id"},
		"a long description":        {`{"role":"admin","description":"` + strings.Repeat("x", 1001) + `"}`, "/description"},
	} {
		t.Run(name, func(t *testing.T) {
			a := b.call("POST", "/v1/tokens", c.body)
			a.t = t
			a.refused(422, "invalid", c.places)
		})
	}
	b.call("POST", "/v1/tokens", `{"role":"admin","description":"\u0000"}`).refused(422, "invalid", "/description")
	b.call("GET", "/v1/tokens/aaaaaaaaaa", "").refused(404, "not-found", "?token")
	b.call("DELETE", "/v1/tokens/aaaaaaaaaa", "").refused(404, "not-found", "?token")
	made, _ := b.newToken(`{"role":"admin"}`)
	a := b.call("DELETE", "/v1/tokens/"+made.Token, "")
	a.refused(404, "not-found", "?token")
	if strings.Contains(string(a.body), made.Token) {
		t.Error("the answer repeats a token")
	}
}

// TestToken_revokedEverywhere is at the periods of production: another process
// is not told, and refuses the token within 5 s all the same; what waits there
// ends.
func TestToken_revokedEverywhere(t *testing.T) {
	t.Parallel()
	here := setup(t, options{})
	there := setup(t, options{dbURL: here.dbURL})
	made, header := here.newToken(`{"role":"reader","feeds":["default"]}`)
	read := func() int {
		return there.call("GET", "/v1/feeds/default/events", "", "Authorization", header).status
	}
	if status := read(); status != 200 {
		t.Fatalf("status %d", status)
	}
	polled := make(chan answer, 1)
	go func() {
		polled <- there.call("GET", "/v1/feeds/default/events?wait=60s", "", "Authorization", header)
	}()
	there.awaitPolls(1)
	// The worst moment: what the other process knows has just been read.
	read()
	here.call("DELETE", "/v1/tokens/"+made.ID, "").want(204, nil)
	revoked := time.Now()
	testkit.Eventually(t, soon, func() bool { return read() == 401 }, "the other process refuses the token")
	refused := time.Since(revoked)
	(<-polled).refused(401, "unauthorized", "")
	ended := time.Since(revoked)
	t.Logf("refused after %s, the long poll ended after %s", refused.Round(time.Millisecond), ended.Round(time.Millisecond))
	if refused > 5*time.Second || ended > 5*time.Second {
		t.Errorf("refused after %s, the long poll ended after %s", refused, ended)
	}
}

// TestToken_endsWhatLasts: an upload whose token ends stores nothing more.
func TestToken_endsWhatLasts(t *testing.T) {
	t.Parallel()
	b := setup(t, options{api: func(c *api.Config) { c.TokenFresh = 10 * time.Millisecond }})
	made, header := b.newToken(`{"role":"publisher","feeds":["default"]}`)
	reader, writer := io.Pipe()
	answered := make(chan answer, 1)
	go func() {
		answered <- b.send("POST", "/v1/feeds/default/events", reader, "Authorization", header, "Content-Type", "application/x-ndjson")
	}()
	_, err := io.WriteString(writer, lines(0, 1000))
	must(t, err)
	testkit.Eventually(t, soon, func() bool { return len(b.keys("default")) == 1000 }, "the first chunk is stored")
	b.call("DELETE", "/v1/tokens/"+made.ID, "").want(204, nil)
	_, _ = io.WriteString(writer, lines(1000, 1000))
	_ = writer.Close()
	p := (<-answered).refused(401, "unauthorized", "")
	if p.Accepted == nil || *p.Accepted != 1000 || p.Line != 1001 {
		t.Errorf("%+v", p)
	}
	if n := len(b.keys("default")); n != 1000 {
		t.Errorf("%d events are stored", n)
	}
}

func TestToken_expiresWhileItIsRemembered(t *testing.T) {
	t.Parallel()
	b := setup(t, options{api: func(c *api.Config) { c.TokenFresh = time.Hour }})
	_, header := b.newToken(`{"role":"reader","feeds":["default"],"expiresAt":"` + time.Now().Add(time.Second).Format(time.RFC3339Nano) + `"}`)
	read := func() int { return b.call("GET", "/v1/feeds/default", "", "Authorization", header).status }
	if status := read(); status != 200 {
		t.Fatalf("status %d", status)
	}
	testkit.Eventually(t, soon, func() bool { return read() == 401 }, "the token expires")
}

// TestToken_feedMadeAgain: a feed of the same name is another one.
func TestToken_feedMadeAgain(t *testing.T) {
	t.Parallel()
	b := setup(t, options{api: func(c *api.Config) { c.TokenFresh = 10 * time.Millisecond }})
	b.call("POST", "/v1/feeds", `{"name":"orders"}`).want(201, nil)
	made, header := b.newToken(`{"role":"publisher","feeds":["orders","default"]}`)
	publish := func() answer {
		return b.call("POST", "/v1/feeds/orders/events", one("a"), "Authorization", header)
	}
	publish().want(201, nil)
	b.call("DELETE", "/v1/feeds/orders", "").want(204, nil)
	b.call("POST", "/v1/feeds", `{"name":"orders"}`).want(201, nil)
	testkit.Eventually(t, soon, func() bool { return publish().status == 403 }, "the new feed is closed to the old token")
	var read tokenAnswer
	b.call("GET", "/v1/tokens/"+made.ID, "").want(200, &read)
	if !cmp.Equal(read.Feeds, []string{"default"}) {
		t.Errorf("feeds: %v", read.Feeds)
	}
}

// TestToken_remembered: a request costs no look-up, and without the database
// what is remembered does not hold for long.
func TestToken_remembered(t *testing.T) {
	t.Parallel()
	const hide, show = `ALTER TABLE tokens RENAME TO hidden_tokens`, `ALTER TABLE hidden_tokens RENAME TO tokens`
	t.Run("for a moment", func(t *testing.T) {
		t.Parallel()
		b := setup(t, options{api: func(c *api.Config) { c.TokenFresh = time.Hour }})
		_, header := b.newToken(`{"role":"publisher","feeds":["default"]}`)
		b.publish(one("a"), "Authorization", header).want(201, nil)
		b.exec(hide)
		for range 10 {
			b.publish(one("a"), "Authorization", header).want(201, nil)
		}
	})
	t.Run("and once more behind a request", func(t *testing.T) {
		t.Parallel()
		b := setup(t, options{api: func(c *api.Config) { c.TokenFresh = 2 * time.Second }})
		_, header := b.newToken(`{"role":"publisher","feeds":["default"]}`)
		b.publish(one("a"), "Authorization", header).want(201, nil)
		b.exec(hide)
		started := time.Now()
		testkit.Eventually(t, soon, func() bool {
			return strings.Contains(b.logs.String(), "token not looked up") || b.publish(one("a"), "Authorization", header).status == 500
		},
			"the token is looked up anew")
		if strings.Contains(b.logs.String(), "status=500") {
			t.Errorf("a request waited for the look-up, %s after it began", time.Since(started))
		}
		testkit.Eventually(t, soon, func() bool { return b.publish(one("a"), "Authorization", header).status == 500 }, "what is old is not used")
		b.exec(show)
		testkit.Eventually(t, soon, func() bool { return b.publish(one("a"), "Authorization", header).status == 201 }, "it is known again")
	})
	t.Run("not without the database", func(t *testing.T) {
		t.Parallel()
		b := setup(t, options{api: func(c *api.Config) { c.TokenFresh = 50 * time.Millisecond }})
		_, header := b.newToken(`{"role":"publisher","feeds":["default"]}`)
		b.publish(one("a"), "Authorization", header).want(201, nil)
		tx, err := b.pool.Begin(t.Context())
		must(t, err)
		defer func() { must(t, tx.Rollback(t.Context())) }()
		_, err = tx.Exec(t.Context(), `LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE`)
		must(t, err)
		testkit.Eventually(t, soon, func() bool { return b.publish(one("a"), "Authorization", header).status == 503 }, "the token cannot be known")
		started := time.Now()
		b.publish(one("a"), "Authorization", header).refused(503, "unavailable", "")
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("the answer took %s", took)
		}
		b.publish(one("a")).want(201, nil) // the token of the environment needs no look-up
	})
}

func TestToken_useIsRecorded(t *testing.T) {
	t.Parallel()
	b := setup(t, options{api: func(c *api.Config) { c.TokenUsePeriod = 20 * time.Millisecond }})
	made, header := b.newToken(`{"role":"reader","feeds":["default"]}`)
	idle, _ := b.newToken(`{"role":"reader","feeds":["default"]}`)
	b.call("GET", "/v1/feeds/default", "", "Authorization", header).want(200, nil)
	used := func(id string) *time.Time {
		var read tokenAnswer
		b.call("GET", "/v1/tokens/"+id, "").want(200, &read)
		return read.LastUsedAt
	}
	testkit.Eventually(t, soon, func() bool { return used(made.ID) != nil }, "the use is recorded")
	if at := used(idle.ID); at != nil {
		t.Errorf("an unused token was used at %s", at)
	}
}

// TestToken_useIsRecordedAtTheEnd: what the last minute saw is written when the
// server closes.
func TestToken_useIsRecordedAtTheEnd(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	made, header := b.newToken(`{"role":"reader","feeds":["default"]}`)
	b.call("GET", "/v1/feeds/default", "", "Authorization", header).want(200, nil)
	b.server.Close()
	read, err := b.store.Token(t.Context(), made.ID)
	must(t, err)
	if read.LastUsedAt == nil {
		t.Error("the use is not recorded")
	}
}

// controls are what was recorded of a subscriber's controls: kind and source.
func (b *bundle) controls(subscriber string) []string {
	b.t.Helper()
	rows, err := b.pool.Query(b.t.Context(), `SELECT kind || ' ' || source FROM controls WHERE subscriber = $1 ORDER BY version`, subscriber)
	must(b.t, err)
	controls, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(b.t, err)
	return controls
}

// TestToken_ofASubscriber pauses and resumes itself, which is recorded as its
// own doing, and sees no more than its own affairs.
func TestToken_ofASubscriber(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.call("POST", "/v1/subscribers", `{"id":"acme","endpoint":{"url":"http://127.0.0.1:1/"}}`).want(201, nil)
	made, header := b.newToken(`{"role":"subscriber","subscriber":"acme"}`)
	var status struct{ State, Reason, TemporalURL string }
	b.call("POST", "/v1/subscribers/acme/pause", `{"reason":"moving house"}`, "Authorization", header).want(200, &status)
	if status.State != "paused" || status.TemporalURL != "" {
		t.Errorf("%+v", status)
	}
	ownReason := status.Reason
	b.call("POST", "/v1/subscribers/acme/resume", "", "Authorization", header).want(200, nil)
	b.call("POST", "/v1/subscribers/acme/pause", "").want(200, &status)
	if status.TemporalURL == "" || status.Reason != "paused by an operator" {
		t.Errorf("an admin is shown %+v", status)
	}
	want := []string{"pause token:" + made.ID, "resume token:" + made.ID, "pause api"}
	if diff := cmp.Diff(want, b.controls("acme")); diff != "" {
		t.Error(diff)
	}
	if !strings.HasPrefix(ownReason, "paused through token "+made.ID+": moving house") {
		t.Errorf("its own pause reads %q", ownReason)
	}
	b.call("DELETE", "/v1/subscribers/acme", "").want(204, nil)
	testkit.Eventually(t, soon, func() bool {
		return b.call("GET", "/v1/subscribers/acme", "", "Authorization", header).status == 401
	}, "the token ends with its subscriber")
}

// TestToken_ofAnAdmin: every change of a subscriber is recorded with the token it
// was made with.
func TestToken_ofAnAdmin(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	made, header := b.newToken(`{"role":"admin"}`)
	change := func(method, path, body string) {
		b.call(method, "/v1/subscribers/acme"+path, body, "Authorization", header)
	}
	b.call("POST", "/v1/subscribers", `{"id":"acme","endpoint":{"url":"http://127.0.0.1:1/"}}`).want(201, nil)
	change("PUT", "", `{"endpoint":{"url":"http://127.0.0.1:2/"}}`)
	change("PATCH", "", `{"description":"new"}`)
	change("POST", "/signing-secret/rotate", "")
	b.call("PATCH", "/v1/subscribers/acme", `{"description":"newer"}`).want(200, nil)
	change("DELETE", "", "")
	by := "token:" + made.ID
	want := []string{"configure " + by, "configure " + by, "configure " + by, "configure api", "delete " + by}
	if diff := cmp.Diff(want, b.controls("acme")); diff != "" {
		t.Error(diff)
	}
}

// TestToken_attemptsOfAPredecessor: an id that is free again is somebody else's,
// who reads nothing of the one before.
func TestToken_attemptsOfAPredecessor(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.call("POST", "/v1/subscribers", `{"id":"acme","endpoint":{"url":"http://127.0.0.1:1/"}}`).want(201, nil)
	_, header := b.newToken(`{"role":"subscriber","subscriber":"acme"}`)
	attempt := store.Attempt{Subscriber: "acme", FirstSequence: 1, LastSequence: 1, EventCount: 1, Attempt: 1, Class: "endpoint"}
	before, after := attempt, attempt
	must(t, b.pool.QueryRow(t.Context(), `SELECT created_at - interval '1 millisecond', created_at FROM subscribers`).
		Scan(&before.StartedAt, &after.StartedAt))
	must(t, b.store.InsertAttempts(t.Context(), []store.Attempt{before, after}))
	seen := func(authorization string) int {
		var list struct{ Attempts []struct{ ID int64 } }
		b.call("GET", "/v1/subscribers/acme/attempts", "", "Authorization", authorization).want(200, &list)
		return len(list.Attempts)
	}
	if own := seen(header); own != 1 {
		t.Errorf("the subscriber reads %d attempts, want its own one", own)
	}
	if all := seen("Bearer " + token); all != 2 {
		t.Errorf("an admin reads %d attempts, want both", all)
	}
}

// TestToken_guesses: whoever guesses neither fills the memory nor pushes out what
// is in use.
func TestToken_guesses(t *testing.T) {
	t.Parallel()
	const most = 3
	b := setup(t, options{api: func(c *api.Config) { c.TokenFresh = time.Hour }})
	b.server.SetCachedTokensMax(most)
	made, header := b.newToken(`{"role":"reader","feeds":["default"]}`)
	b.call("GET", "/v1/feeds/default", "", "Authorization", header).want(200, nil)
	guess := func(id string, letter int) {
		text := fmt.Sprintf("Bearer pr_%s_%s", id, strings.Repeat(string(rune('a'+letter)), 52))
		b.call("GET", "/v1/feeds/default", "", "Authorization", text).refused(401, "unauthorized", "")
	}
	for i := range 3 * most {
		guess(strings.Repeat(string(rune('a'+i)), 10), i)
	}
	if valid, invalid := b.server.CachedTokens(); valid != 1 || invalid == 0 || invalid > most {
		t.Errorf("%d tokens and %d guesses are remembered", valid, invalid)
	}
	b.exec(`ALTER TABLE tokens RENAME TO hidden_tokens`)
	b.call("GET", "/v1/feeds/default", "", "Authorization", header).want(200, nil)
	for i := range most {
		guess(made.ID, i) // what is known of the id is enough to refuse it
	}
}

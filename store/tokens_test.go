package store_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postroad/event"
	"postroad/store"
)

func (b *bundle) token(spec store.TokenSpec) (store.Token, string) {
	b.t.Helper()
	if spec.CreatedBy == "" {
		spec.CreatedBy = "admin"
	}
	token, text, err := b.CreateToken(b.t.Context(), spec)
	check(b.t, err)
	return token, text
}

func (b *bundle) in(d time.Duration) *time.Time {
	at := value[time.Time](b, `SELECT clock_timestamp()`).Add(d)
	return &at
}

// authentic returns the token that a text opens with, nil for none.
func (b *bundle) authentic(text string) *store.Token {
	b.t.Helper()
	id, ok := store.ParseToken(text)
	if !ok {
		return nil
	}
	token, err := b.Token(b.t.Context(), id)
	if errors.Is(err, store.ErrTokenNotFound) {
		return nil
	}
	check(b.t, err)
	if !token.Opens(text) {
		return nil
	}
	return &token
}

func TestCreateToken(t *testing.T) {
	b := setup(t)
	b.exec(`INSERT INTO feeds (name) VALUES ('one'), ('two')`)
	made, text := b.token(store.TokenSpec{Role: store.RolePublisher, Feeds: []string{"two", "one"}, Description: "the importer", CreatedBy: "token:x"})
	if !regexp.MustCompile(`^` + store.TokenPattern + `$`).MatchString(text) {
		t.Errorf("the text %q has another form than scanners look for", text)
	}
	if made.State != store.TokenActive || made.Role != store.RolePublisher || made.CreatedBy != "token:x" || made.LastUsedAt != nil {
		t.Errorf("%+v", made)
	}
	got := b.authentic(text)
	if got == nil || got.ID != made.ID || !cmp.Equal(got.Feeds, []string{"one", "two"}) {
		t.Fatalf("authenticated as %+v", got)
	}
	if leaks := value[int](b, `SELECT count(*) FROM tokens t WHERE t::text LIKE '%' || $1 || '%'`, text[len("pr_")+len(made.ID)+1:]); leaks != 0 {
		t.Error("the secret is in the table")
	}
	_, other := b.token(store.TokenSpec{Role: store.RoleAdmin})
	forged := "pr_" + made.ID + other[len("pr_")+len(made.ID):]
	for name, wrong := range map[string]string{
		"another's secret": forged, "nobody's id": strings.Replace(text, made.ID, "aaaaaaaaaa", 1), "cut": text[:len(text)-1], "longer": text + "a", "empty": "",
	} {
		if b.authentic(wrong) != nil {
			t.Errorf("%s: authenticated", name)
		}
	}
}

func TestCreateToken_refuses(t *testing.T) {
	b := setup(t)
	b.create("acme", event.Start{})
	b.exec(`INSERT INTO feeds (name, deleted_at) VALUES ('gone', clock_timestamp())`)
	for places, spec := range map[string]store.TokenSpec{
		"/role":           {Role: "root"},
		"/feeds":          {Role: store.RoleReader},
		"/feeds /feeds/1": {Role: store.RoleAdmin, Feeds: []string{"default", "default"}},
		"/feeds/1":        {Role: store.RolePublisher, Feeds: []string{"default", "gone"}},
		"/feeds/0":        {Role: store.RolePublisher, Feeds: []string{"nowhere"}},
		"/subscriber":     {Role: store.RoleSubscriber, Subscriber: "nobody"},
		"/feeds /subscriber /description": {
			Role: store.RoleSubscriber, Feeds: []string{"default"}, Description: strings.Repeat("x", 1001),
		},
		"/expiresAt": {Role: store.RoleSubscriber, Subscriber: "acme", ExpiresAt: b.in(-time.Millisecond)},
	} {
		_, _, err := b.CreateToken(t.Context(), spec)
		var faults event.FieldErrors
		var pointers []string
		errors.As(err, &faults)
		for _, f := range faults {
			pointers = append(pointers, f.Pointer)
		}
		if got := strings.Join(pointers, " "); got != places {
			t.Errorf("%+v: refused at %q, want %q (%v)", spec, got, places, err)
		}
	}
	if n := value[int](b, `SELECT count(*) FROM tokens`); n != 0 {
		t.Errorf("%d tokens were stored", n)
	}
}

func TestReapTokens(t *testing.T) {
	b := setup(t)
	var ids []string
	for range 5 {
		token, _ := b.token(store.TokenSpec{Role: store.RoleReader, Feeds: []string{"default"}})
		ids = append(ids, token.ID)
	}
	b.exec(`UPDATE tokens SET revoked_at = clock_timestamp() - interval '30 days' WHERE id = $1`, ids[0])
	b.exec(`UPDATE tokens SET expires_at = clock_timestamp() - interval '30 days' WHERE id = $1`, ids[1])
	b.exec(`UPDATE tokens SET revoked_at = clock_timestamp() - interval '29 days' WHERE id = $1`, ids[2])
	b.exec(`UPDATE tokens SET expires_at = clock_timestamp() + interval '30 days' WHERE id = $1`, ids[3])
	for _, want := range []int{1, 1, 0} {
		if n, err := b.ReapTokens(t.Context(), 1); err != nil || n != want {
			t.Errorf("removed %d, %v, want %d", n, err, want)
		}
	}
	left, err := b.Tokens(t.Context(), "", 10)
	check(t, err)
	for _, token := range left {
		if token.ID == ids[0] || token.ID == ids[1] {
			t.Errorf("%s is still there", token.ID)
		}
	}
	if len(left) != 3 {
		t.Errorf("%d tokens are left, want 3", len(left))
	}
}

func TestToken_ends(t *testing.T) {
	t.Run("when it is revoked", func(t *testing.T) {
		b := setup(t)
		made, text := b.token(store.TokenSpec{Role: store.RoleAdmin})
		check(t, b.RevokeToken(t.Context(), made.ID))
		first, err := b.Token(t.Context(), made.ID)
		check(t, err)
		check(t, b.RevokeToken(t.Context(), made.ID))
		again, err := b.Token(t.Context(), made.ID)
		check(t, err)
		if b.authentic(text) != nil || again.State != store.TokenRevoked || !again.RevokedAt.Equal(*first.RevokedAt) {
			t.Errorf("%+v", again)
		}
		if err := b.RevokeToken(t.Context(), "aaaaaaaaaa"); !errors.Is(err, store.ErrTokenNotFound) {
			t.Errorf("revoking none: %v", err)
		}
	})
	t.Run("when it expires", func(t *testing.T) {
		b := setup(t)
		made, text := b.token(store.TokenSpec{Role: store.RoleAdmin, ExpiresAt: b.in(time.Hour)})
		if left, ok := made.Remaining(); !ok || left > time.Hour || left < 50*time.Minute {
			t.Errorf("remaining: %s, %t", left, ok)
		}
		b.exec(`UPDATE tokens SET expires_at = clock_timestamp()`)
		if expired, err := b.Token(t.Context(), made.ID); err != nil || expired.State != store.TokenExpired || b.authentic(text) != nil {
			t.Errorf("%+v, %v", expired, err)
		}
	})
	t.Run("for a feed that was deleted, also where one of that name is made again", func(t *testing.T) {
		b := setup(t)
		b.exec(`INSERT INTO feeds (name) VALUES ('one'), ('two')`)
		_, text := b.token(store.TokenSpec{Role: store.RoleReader, Feeds: []string{"one", "two"}})
		b.exec(`UPDATE feeds SET deleted_at = clock_timestamp() WHERE name = 'one'`)
		if got := b.authentic(text); !cmp.Equal(got.Feeds, []string{"two"}) {
			t.Errorf("deleted: %v", got.Feeds)
		}
		b.exec(`UPDATE feeds SET deleted_at = NULL, epoch = epoch + 1 WHERE name = 'one'`)
		if got := b.authentic(text); !cmp.Equal(got.Feeds, []string{"two"}) {
			t.Errorf("made again: %v", got.Feeds)
		}
	})
	t.Run("with its subscriber, also where one of that id is made again", func(t *testing.T) {
		b := setup(t)
		b.create("acme", event.Start{})
		made, text := b.token(store.TokenSpec{Role: store.RoleSubscriber, Subscriber: "acme"})
		if got := b.authentic(text); got == nil || got.Subscriber != "acme" {
			t.Fatalf("%+v", got)
		}
		_, err := b.Delete(t.Context(), "acme", store.Change{})
		check(t, err)
		if got, err := b.Token(t.Context(), made.ID); err != nil || got.State != store.TokenRevoked || b.authentic(text) != nil {
			t.Errorf("a tombstone's token: %+v, %v", got, err)
		}
		check(t, b.Purge(t.Context(), "acme"))
		b.create("acme", event.Start{})
		if b.authentic(text) != nil {
			t.Error("the token opens the new subscriber")
		}
	})
}

func TestTokens_pages(t *testing.T) {
	b := setup(t)
	var made []string
	for range 3 {
		token, _ := b.token(store.TokenSpec{Role: store.RoleAdmin})
		made = append(made, token.ID)
	}
	var listed []string
	for after := ""; ; {
		list, err := b.Tokens(t.Context(), after, 2)
		check(t, err)
		if len(list) == 0 {
			break
		}
		for _, token := range list {
			listed = append(listed, token.ID)
			if token.ID <= after {
				t.Errorf("%s comes after %s", token.ID, after)
			}
			after = token.ID
		}
	}
	if len(listed) != len(made) {
		t.Errorf("listed %v, made %v", listed, made)
	}
}

func TestExpiringTokens(t *testing.T) {
	b := setup(t)
	ending := map[string]string{}
	for name, left := range map[string]time.Duration{"week": 7 * 24 * time.Hour, "hour": time.Hour, "revoked": time.Hour, "year": 365 * 24 * time.Hour} {
		token, _ := b.token(store.TokenSpec{Role: store.RoleAdmin, ExpiresAt: b.in(left)})
		ending[token.ID] = name
		if name == "revoked" {
			check(t, b.RevokeToken(t.Context(), token.ID))
		}
	}
	b.token(store.TokenSpec{Role: store.RoleAdmin})
	list, err := b.ExpiringTokens(t.Context(), 14*24*time.Hour)
	check(t, err)
	var names []string
	for _, token := range list {
		names = append(names, ending[token.ID])
	}
	if !cmp.Equal(names, []string{"hour", "week"}) {
		t.Errorf("expiring: %v", names)
	}
}

func TestTouchTokens(t *testing.T) {
	b := setup(t)
	token, _ := b.token(store.TokenSpec{Role: store.RoleAdmin})
	idle, _ := b.token(store.TokenSpec{Role: store.RoleAdmin})
	ago := func() time.Duration {
		got, err := b.Token(t.Context(), token.ID)
		check(t, err)
		if got.LastUsedAt == nil {
			t.Fatal("no use was recorded")
		}
		return got.Now.Sub(*got.LastUsedAt).Round(time.Minute)
	}
	touch := func(d time.Duration) {
		check(t, b.TouchTokens(t.Context(), map[string]time.Duration{token.ID: d, "aaaaaaaaaa": 0}, 5*time.Minute))
	}
	touch(time.Hour)
	if got := ago(); got != time.Hour {
		t.Errorf("used %s ago, want 1 h", got)
	}
	touch(58 * time.Minute)
	if got := ago(); got != time.Hour {
		t.Errorf("within the period it was written again: %s ago", got)
	}
	touch(10 * time.Minute)
	if got := ago(); got != 10*time.Minute {
		t.Errorf("used %s ago, want 10 min", got)
	}
	touch(time.Hour) // a process that comes late
	if got := ago(); got != 10*time.Minute {
		t.Errorf("the time went back: %s ago", got)
	}
	if got, err := b.Token(t.Context(), idle.ID); err != nil || got.LastUsedAt != nil {
		t.Errorf("an unused token: %+v, %v", got, err)
	}
}

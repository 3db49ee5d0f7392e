package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTokenCommands(t *testing.T) {
	t.Parallel()
	on(t, "feed", "create", "tokens-a").want(t, ok)
	var made struct{ ID, Token, ExpiresAt string }
	r := on(t, "token", "create", "--role", "publisher", "--feed", "tokens-a", "--description", "the importer", "--expires", "90d", "--json").want(t, ok)
	if err := json.Unmarshal([]byte(r.stdout), &made); err != nil || made.Token == "" || made.ExpiresAt == "" {
		t.Fatalf("made %+v, %v", made, err)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(made.Token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	on(t, "feed", "get", "tokens-a", "--token-file", file).want(t, ok)
	on(t, "feed", "get", "default", "--token-file", file).want(t, failed).contains(t, "403 forbidden")
	if listed := on(t, "token", "list").want(t, ok).contains(t, made.ID, "publisher", "tokens-a", "active", "the importer"); strings.Contains(listed.stdout, made.Token) {
		t.Error("the list shows the token")
	}
	on(t, "token", "revoke", made.ID).want(t, ok).contains(t, "revoked token "+made.ID)
	on(t, "feed", "get", "tokens-a", "--token-file", file).want(t, failed).contains(t, "401 unauthorized")
	on(t, "token", "list").want(t, ok).contains(t, "revoked")
	on(t, "token", "revoke", "aaaaaaaaaa").want(t, notFound)

	on(t, "token", "create", "--role", "admin").want(t, ok).contains(t, "with the role admin\n", "token (shown once): pr_")
	on(t, "token", "create", "--role", "reader", "--feed", "nowhere").want(t, failed).contains(t, "/feeds/0: names no feed")
	on(t, "token", "create", "--role", "admin", "--expires", "soon").want(t, usage).contains(t, "90d")
	on(t, "token", "create").want(t, usage).contains(t, "role")
}

package main_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	main "postroad/cmd/postroad"
	"postroad/internal/config"
	"postroad/internal/testkit"
)

// Exit codes as `postroad --help` has them.
const (
	ok          = 0
	failed      = 1
	usage       = 2
	notFound    = 3
	conflict    = 4
	unavailable = 5
)

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		code int
		text string
	}{
		"help":                     {[]string{"--help"}, ok, "Exit codes"},
		"nothing":                  {nil, ok, "Usage:"},
		"unknown command":          {[]string{"nonsense"}, usage, "nonsense"},
		"unknown flag":             {[]string{"feed", "list", "--nonsense"}, usage, "--nonsense"},
		"too few arguments":        {[]string{"feed", "create"}, usage, "postroad feed create --help"},
		"too many arguments":       {[]string{"status", "a", "b"}, usage, "at most 1"},
		"a required flag":          {[]string{"feed", "update", "a"}, usage, "description"},
		"a flag's value":           {[]string{"wait", "--until", "happy"}, usage, "disabled, halted"},
		"a wrong URL":              {[]string{"feed", "list", "--server", "localhost:8080"}, usage, "http://127.0.0.1:8080"},
		"nothing runs":             {[]string{"feed", "list"}, unavailable, "postroad dev"},
		"nobody answers":           {[]string{"feed", "list", "--server", "http://127.0.0.1:1"}, unavailable, "cannot reach Postroad at http://127.0.0.1:1"},
		"an empty data directory":  {[]string{"feed", "list", "--data-dir", "/nonexistent"}, unavailable, "/nonexistent"},
		"migrate without database": {[]string{"migrate"}, usage, "POSTROAD_DATABASE_URL"},
		"api without database":     {[]string{"api"}, usage, "--database-url"},
		"worker without key":       {[]string{"worker", "--database-url", "postgres://x"}, usage, "--key-file"},
		"api without token":        {[]string{"api", "--database-url", "postgres://x", "--key-file", "k"}, usage, "POSTROAD_ADMIN_TOKEN"},
		"a network":                {[]string{"api", "--allow-networks", "10.0.0.1"}, usage, "10.1.0.0/16"},
		"days of attempts":         {[]string{"worker", "--database-url", "postgres://x", "--key-file", "k", "--attempts-keep", "0"}, usage, "--attempts-keep 0"},
		"a time of keys":           {[]string{"dev", "--idempotency-keep", "0s"}, usage, "--idempotency-keep 0s"},
		"a log level":              {[]string{"dev", "--log-level", "loud"}, usage, "loud"},
		"both --until and --for":   {[]string{"subscriber", "pause", "a", "--until", "x", "--for", "1m"}, usage, "exclude"},
		"a seek to nowhere":        {[]string{"subscriber", "seek", "a"}, usage, "to"},
		"a seek to a word":         {[]string{"subscriber", "seek", "a", "--to", "yesterday"}, usage, "2026-03-01T09:30:00Z"},
		"a key without a slash":    {[]string{"subscriber", "held-retry", "a", "235021"}, usage, "Property/235021"},
		"a skip of a word":         {[]string{"subscriber", "skip", "a", "first"}, usage, "no sequence"},
		"a replay of nothing":      {[]string{"subscriber", "replay", "a"}, usage, "--missed"},
		"a replay of too much":     {[]string{"subscriber", "replay", "a", "--missed", "--from", "1"}, usage, "nothing else"},
		"a dry run to wait for":    {[]string{"subscriber", "replay", "a", "--missed", "--dry-run", "--wait"}, usage, "--wait"},
		"a replay since a word":    {[]string{"subscriber", "replay", "a", "--since", "soon"}, usage, "such as 2h"},
		"a replay without number":  {[]string{"subscriber", "replay-pause", "a", "x"}, usage, "numbered from 1"},
		"lanes in words":           {[]string{"subscriber", "update", "a", "--lanes", "many"}, usage, "nor auto"},
		"an update of nothing":     {[]string{"subscriber", "update", "a"}, usage, "nothing to change"},
		"demo with --json":         {[]string{"demo", "--json"}, usage, "no --json"},
		"a status to listen with":  {[]string{"listen", "--status", "99"}, usage, "between 200 and 599"},
		"retry-after alone":        {[]string{"listen", "--retry-after", "5"}, usage, "--status"},
		"a secret":                 {[]string{"listen", "--secret", "%%%"}, usage, "secret"},
		"a subscriber alone":       {[]string{"listen", "--subscriber", "a"}, usage, "--forward"},
		"to forward nothing":       {[]string{"listen", "--forward", "http://127.0.0.1:1"}, usage, "--subscriber"},
		"to forward to nowhere":    {[]string{"listen", "--subscriber", "a", "--forward", "127.0.0.1:3000"}, usage, "http://127.0.0.1:3000"},
		"to forward and answer":    {[]string{"listen", "--subscriber", "a", "--forward", "http://127.0.0.1:1", "--status", "500"}, usage, "--status does not"},
		"to tail two":              {[]string{"tail", "orders", "--subscriber", "a"}, usage, "not both"},
		"a subscriber's filter":    {[]string{"tail", "--type", "x", "--subscriber", "a"}, usage, "own filter"},
		"a part of none":           {[]string{"tail", "--partition", "8/8"}, usage, "--partition must be"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cli(t, c.args...).want(t, c.code).contains(t, c.text)
		})
	}
}

// TestProblems: whatever the server answers, the exit code says which kind it
// is and the text names the fields.
func TestProblems(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		code   int
		texts  []string
	}{
		"not found": {404, `{"title":"T","type":"/problems/not-found","errors":[{"parameter":"id","detail":"no such subscriber"}]}`, notFound, []string{"no such subscriber"}},
		"conflict":  {409, `{"title":"The name is taken","type":"/problems/exists","detail":"D"}`, conflict, []string{"The name is taken (409 exists): D"}},
		"stale":     {412, `{"title":"Changed","type":"/problems/version-mismatch"}`, conflict, []string{"412"}},
		"invalid": {
			422, `{"title":"Invalid","type":"/problems/invalid","errors":[{"pointer":"/a","detail":"must be b"},{"pointer":"","detail":"must be c"}]}`,
			failed,
			[]string{"/a: must be b", "body: must be c"},
		},
		"unavailable":   {503, `{"title":"Away","type":"/problems/unavailable"}`, unavailable, []string{"try again in 7 s"}},
		"a proxy":       {502, `<html>`, unavailable, []string{"502 Bad Gateway"}},
		"not a problem": {500, `{"x":1}`, failed, []string{"500"}},
		"a redirect":    {302, ``, failed, []string{"302"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if c.status == 503 {
					w.Header().Set("Retry-After", "7")
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			defer server.Close()
			cli(t, "subscriber", "get", "a", "--server", server.URL).want(t, c.code).contains(t, c.texts...)
			r := cli(t, "subscriber", "get", "a", "--server", server.URL, "--json").want(t, c.code)
			var document map[string]any
			if err := json.Unmarshal([]byte(r.stderr), &document); err != nil || document["title"] == nil {
				t.Errorf("with --json standard error is %q (%v)", r.stderr, err)
			}
			if r.stdout != "" {
				t.Errorf("standard output has %q", r.stdout)
			}
		})
	}
}

// TestDiscovery asks a server that tells which token it was shown.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	server := func(t *testing.T) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			_ = json.NewEncoder(w).Encode(map[string]string{"title": "token=" + r.Header.Get("Authorization")})
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	leave := func(t *testing.T, dir, url, token string) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := config.WriteAddress(dir, url); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(config.TokenFile(dir), []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(t *testing.T, workDir string, environ []string, args ...string) result {
		return invoke(t, main.Invocation{Args: append([]string{"feed", "get", "a"}, args...), WorkDir: workDir, Environ: environ}).want(t, failed)
	}

	t.Run("upwards, the demo too", func(t *testing.T) {
		t.Parallel()
		root := t.TempDir()
		below := filepath.Join(root, "a", "b")
		if err := os.MkdirAll(below, 0o755); err != nil {
			t.Fatal(err)
		}
		leave(t, filepath.Join(root, ".postroad", "demo"), server(t), "of-the-demo")
		ask(t, below, nil).contains(t, "token=Bearer of-the-demo")
		leave(t, filepath.Join(root, ".postroad"), server(t), "of-dev")
		ask(t, below, nil).contains(t, "token=Bearer of-dev")
		leave(t, filepath.Join(below, ".postroad", "demo"), server(t), "nearest")
		ask(t, below, nil).contains(t, "token=Bearer nearest")
	})
	t.Run("past one that was killed", func(t *testing.T) {
		t.Parallel()
		root := t.TempDir()
		leave(t, filepath.Join(root, ".postroad"), "http://127.0.0.1:1", "killed")
		leave(t, filepath.Join(root, ".postroad", "demo"), server(t), "alive")
		ask(t, root, nil).contains(t, "token=Bearer alive")
	})
	t.Run("the environment goes before, flags before both", func(t *testing.T) {
		t.Parallel()
		root := t.TempDir()
		leave(t, filepath.Join(root, ".postroad"), server(t), "found")
		ask(t, root, []string{"POSTROAD_TOKEN=given"}).contains(t, "token=Bearer given")
		file := filepath.Join(root, "token")
		if err := os.WriteFile(file, []byte("of-the-file\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		ask(t, root, []string{"POSTROAD_TOKEN=given", "POSTROAD_TOKEN_FILE=" + file}).contains(t, "token=Bearer of-the-file")
		other := server(t)
		ask(t, root, []string{"POSTROAD_URL=http://127.0.0.1:1"}, "--server", other, "--token-file", file).contains(t, "token=Bearer of-the-file")
	})
	t.Run("a found token is for its own server", func(t *testing.T) {
		t.Parallel()
		root := t.TempDir()
		own, other := server(t), server(t)
		leave(t, filepath.Join(root, ".postroad"), own, "found")
		if r := ask(t, root, nil, "--server", other); strings.Contains(r.stderr, "found") {
			t.Errorf("another server was shown the token: %s", r.stderr)
		}
		ask(t, root, []string{"POSTROAD_URL=" + own + "/"}).contains(t, "token=Bearer found")
	})
}

func TestVersion(t *testing.T) {
	t.Parallel()
	cli(t, "version").want(t, ok).contains(t, "postroad 0.", "go1.")
	var v struct{ Version, Go string }
	if err := json.Unmarshal([]byte(cli(t, "version", "--json").want(t, ok).stdout), &v); err != nil || v.Version == "" || v.Go == "" {
		t.Errorf("version: %+v, %v", v, err)
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	url := testkit.Database(t, nil)
	for range 2 {
		r := cli(t, "migrate", "--database-url", url).want(t, ok).contains(t, "up to date")
		if password := strings.Split(strings.Split(url, "@")[0], ":"); len(password) == 3 && strings.Contains(r.stdout, password[2]) {
			t.Errorf("the password is shown: %s", r.stdout)
		}
	}
	cli(t, "migrate", "--database-url", "postgres://127.0.0.1:1/x?connect_timeout=1").want(t, unavailable)
}

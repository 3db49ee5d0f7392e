package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"postroad/internal/config"
)

func TestDatabaseURLShowsNoSecret(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"": "",
		"postgres://me:secret@db.example:5433/post?sslmode=disable":     "postgres://me@db.example:5433/post",
		"postgres://me@db.example/post?password=secret":                 "postgres://me@db.example:5432/post",
		"host=db.example user=me password=secret dbname=post port=6432": "postgres://me@db.example:6432/post",
		"postgres://me:sec%ret@db.example/post":                         "unreadable",
	} {
		got := config.DatabaseURL(raw)
		if got != want {
			t.Errorf("%q is shown as %q, want %q", raw, got, want)
		}
	}
}

func TestFill(t *testing.T) {
	t.Parallel()
	flags := func() (*pflag.FlagSet, *string, *int) {
		set := pflag.NewFlagSet("x", pflag.ContinueOnError)
		return set, set.String("data-dir", "default", ""), set.Int("slots", 1, "")
	}
	env := config.ParseEnv([]string{"POSTROAD_DATA_DIR=first", "POSTROAD_DATA_DIR=of=env", "POSTROAD_SLOTS=", "broken"})

	set, dir, slots := flags()
	if err := config.Fill(set, env, "data-dir", "slots", "no-such-flag"); err != nil || *dir != "of=env" || *slots != 1 {
		t.Errorf("filled %q, %d, %v", *dir, *slots, err)
	}
	set, dir, _ = flags()
	if err := set.Parse([]string{"--data-dir", "of-the-flag"}); err != nil {
		t.Fatal(err)
	}
	if err := config.Fill(set, env, "data-dir"); err != nil || *dir != "of-the-flag" {
		t.Errorf("the flag became %q, %v", *dir, err)
	}
	set, _, _ = flags()
	if err := config.Fill(set, config.Env{"POSTROAD_SLOTS": "many"}, "slots"); err == nil || !strings.Contains(err.Error(), "POSTROAD_SLOTS") {
		t.Errorf("a wrong variable: %v", err)
	}
}

func TestAdminToken(t *testing.T) {
	t.Parallel()
	const given, other = "given-at-the-first-start", "given-at-a-later-start"
	dir := t.TempDir()
	token, kept, err := config.AdminToken(dir, given)
	if err != nil || token != given || kept {
		t.Fatalf("first start: %q, %v, %v", token, kept, err)
	}
	if token, kept, err = config.AdminToken(dir, other); err != nil || token != given || !kept {
		t.Errorf("later start with another: %q, %v, %v", token, kept, err)
	}
	if token, kept, err = config.AdminToken(dir, ""); err != nil || token != given || kept {
		t.Errorf("later start without: %q, %v, %v", token, kept, err)
	}
	if info, err := os.Stat(config.TokenFile(dir)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	one, _, errOne := config.AdminToken(t.TempDir(), "")
	two, _, errTwo := config.AdminToken(t.TempDir(), "")
	if errOne != nil || errTwo != nil || one == two || config.CheckAdminToken(one) != nil {
		t.Errorf("made %q and %q, %v, %v", one, two, errOne, errTwo)
	}
	for _, bad := range []string{"short", "with a space in it", "with-a-line\nbreak-in-it", "nöt-visible-ascii-here"} {
		dir := t.TempDir()
		if _, _, err := config.AdminToken(dir, bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%q left %v behind, %v", bad, left, err)
		}
	}
}

func TestReadAdminToken(t *testing.T) {
	t.Parallel()
	const given, filed = "given-in-the-environment", "given-in-a-file-of-its-own"
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(filed+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ given, file, want string }{
		{given, "", given}, {given, file, given}, {"", file, filed},
	} {
		if got, err := config.ReadAdminToken(test.given, test.file); err != nil || got != test.want {
			t.Errorf("%q and %q: %q, %v", test.given, test.file, got, err)
		}
	}
	if _, err := config.ReadAdminToken("", file+"-none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := config.ReadAdminToken("", ""); err == nil {
		t.Error("no token at all was taken")
	}
}

func TestAddressIsReplacedWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, url := range []string{"http://127.0.0.1:1", "http://127.0.0.1:2"} {
		if err := config.WriteAddress(dir, url); err != nil {
			t.Fatal(err)
		}
		found, err := config.Search{DataDir: dir}.Find(t.Context())
		if err != nil || found.URL != url || found.Token != "" {
			t.Errorf("found %+v, %v", found, err)
		}
	}
	if err := errors.Join(config.RemoveAddress(dir), config.RemoveAddress(dir)); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := (config.Search{DataDir: dir}).Find(t.Context()); !errors.Is(err, config.ErrNoTarget) {
		t.Errorf("error %v", err)
	}
}

func TestSearchRefusesWhatIsNoURL(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"localhost:8080", "ftp://a", "http://", "/a", "http://a b"} {
		if _, err := (config.Search{WorkDir: t.TempDir(), URL: url}).Find(t.Context()); !errors.Is(err, config.ErrURL) {
			t.Errorf("%q: %v", url, err)
		}
	}
	found, err := config.Search{WorkDir: t.TempDir(), URL: "https://a.example/x/"}.Find(t.Context())
	if err != nil || found.URL != "https://a.example/x" {
		t.Errorf("found %+v, %v", found, err)
	}
	if _, err := (config.Search{WorkDir: t.TempDir(), URL: "http://a", TokenFile: filepath.Join(t.TempDir(), "none")}).Find(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a token file that is not there: %v", err)
	}
}

func TestEnv(t *testing.T) {
	t.Parallel()
	env := config.Env{"B": "2", "A": "1", "POSTROAD_URL": "x", "POSTROAD_TEST_X": "y"}
	if got := env.WithoutOurs().With("C", "3").Environ(); !slices.Equal(got, []string{"A=1", "B=2", "C=3", "POSTROAD_TEST_X=y"}) {
		t.Errorf("environment %v", got)
	}
	if env["C"] != "" || env["POSTROAD_URL"] == "" {
		t.Errorf("the original changed: %v", env)
	}
}

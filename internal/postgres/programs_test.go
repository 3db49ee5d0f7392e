package postgres

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakePrograms makes an installation that tells a version; it lacks what is left out.
func fakePrograms(t *testing.T, version string, leftOut ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"initdb", "postgres", "pg_ctl"} {
		script := "#!/bin/sh\necho '" + name + " (PostgreSQL) " + version + "'\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range leftOut {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestChoosePrograms(t *testing.T) {
	t.Parallel()
	v13, v15, v17, beta := fakePrograms(t, "13.9"), fakePrograms(t, "15.13 (Debian 15.13-0)"), fakePrograms(t, "17.5"), fakePrograms(t, "18beta1")
	client, broken := fakePrograms(t, "16.1", "initdb"), fakePrograms(t, "devel")
	for name, c := range map[string]struct {
		dirs  []string
		major int
		want  string
		found int
	}{
		"the first":                  {[]string{v15, v17}, 0, v15, 15},
		"none that is too old":       {[]string{v13, v17}, 0, v17, 17},
		"none without a server":      {[]string{client, v15}, 0, v15, 15},
		"none of an unknown version": {[]string{broken, v15}, 0, v15, 15},
		"a beta":                     {[]string{beta}, 0, beta, 18},
		"the version of the data":    {[]string{v17, v15}, 15, v15, 15},
		"nothing":                    {[]string{v13, client, "/nowhere"}, 0, "", 0},
		"nothing of another version": {[]string{v17}, 15, "", 0},
	} {
		got, ok := choosePrograms(t.Context(), c.dirs, nil, c.major)
		if got.dir != c.want || got.major != c.found || ok != (c.want != "") {
			t.Errorf("%s: got %+v, want %s of version %d", name, got, c.want, c.found)
		}
	}
}

func TestNewestFirst(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, name := range []string{"postgresql@9", "postgresql@15", "postgresql@100", "postgresql"} {
		if err := os.MkdirAll(filepath.Join(root, name, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, dir := range newestFirst(filepath.Join(root, "postgresql*", "bin")) {
		relative, err := filepath.Rel(root, dir)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, relative)
	}
	if want := "[postgresql@100/bin postgresql@15/bin postgresql@9/bin postgresql/bin]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestNotInstalledError(t *testing.T) {
	t.Parallel()
	offline := errors.New("no network")
	err := error(&NotInstalledError{Major: 16, Problem: offline})
	if !errors.Is(err, offline) {
		t.Error("the download's error is lost")
	}
	for _, part := range []string{"PostgreSQL 16", "apt install postgresql-16", "brew install postgresql@16", "no network"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

// repository serves testdata/server.txz as every build, with the checksum given
// or, if that is empty, the right one.
func repository(t *testing.T, checksum string) *httptest.Server {
	t.Helper()
	build, err := os.ReadFile("testdata/server.txz")
	if err != nil {
		t.Fatal(err)
	}
	var jar bytes.Buffer
	archive := zip.NewWriter(&jar)
	entry, err := archive.Create("server.txz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := entry.Write(build); err != nil {
		t.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if checksum == "" {
		checksum = fmt.Sprintf("%x", sha256.Sum256(jar.Bytes()))
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".sha256") {
			fmt.Fprint(w, checksum)
			return
		}
		if _, err := w.Write(jar.Bytes()); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func TestFetch(t *testing.T) {
	// The library leaves a log file behind, and its place is taken from the environment.
	t.Setenv("TMPDIR", t.TempDir())

	t.Run("unpacks a build that can be inspected", func(t *testing.T) {
		root := t.TempDir()
		target := filepath.Join(root, "server")
		if err := fetch(repository(t, "").URL, root, target, downloadVersions[downloadDefault]); err != nil {
			t.Fatal(err)
		}
		found, err := inspect(t.Context(), filepath.Join(target, "bin"), nil)
		if err != nil || found.major != 17 {
			t.Errorf("found %+v, error %v", found, err)
		}
		entries, err := os.ReadDir(root)
		if err != nil || len(entries) != 1 {
			t.Errorf("it left more than the build: %v, error %v", entries, err)
		}
	})

	t.Run("refuses a wrong checksum and a missing build", func(t *testing.T) {
		root := t.TempDir()
		missing := httptest.NewServer(http.NotFoundHandler())
		defer missing.Close()
		for _, url := range []string{repository(t, strings.Repeat("0", 64)).URL, missing.URL} {
			if err := fetch(url, root, filepath.Join(root, "server"), downloadVersions[downloadDefault]); err == nil {
				t.Error("no error")
			}
		}
		if entries, err := os.ReadDir(root); err != nil || len(entries) != 0 {
			t.Errorf("it left %v, error %v", entries, err)
		}
	})
}

package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// aliveMax is how long a stack found in a directory may take to accept a
// connection before it counts as gone. It is on this machine.
const aliveMax = 300 * time.Millisecond

// dataDirNames are looked for in the working directory and each one above it.
var dataDirNames = []string{".postroad", filepath.Join(".postroad", "demo")}

// ErrNoTarget says that nothing tells where Postroad is.
var ErrNoTarget = errors.New("no running Postroad found: start one with `postroad dev`, or say where it is with --server or " + Prefix + "URL")

// ErrURL says that what was given is not the URL of a server.
var ErrURL = errors.New("not the URL of a server: write it as http://127.0.0.1:8080")

// noStackError says that the data directory named has no running stack.
type noStackError struct{ dir string }

// Error implements error.
func (e noStackError) Error() string {
	return fmt.Sprintf("no Postroad runs in %s: it has no file named %s", e.dir, addressFile)
}

// Is makes it an ErrNoTarget.
func (e noStackError) Is(target error) bool { return target == ErrNoTarget }

// Target is the API that a client talks to.
type Target struct {
	// URL has no slash at its end.
	URL string
	// Token is the bearer token; empty: none is known.
	Token string
}

// Search says where to look for a Target. Empty members are not given.
type Search struct {
	Env Env
	// WorkDir is where the search upwards begins.
	WorkDir string
	// URL and TokenFile are given by the user, and so is DataDir, the data
	// directory of a stack.
	URL, TokenFile, DataDir string
}

// Find finds the API and the token for it. A token found in a data directory
// is used for that directory's own address only: it is never shown to a server
// that the user named otherwise.
func (s Search) Find(ctx context.Context) (Target, error) {
	found, err := s.find(ctx)
	if err != nil {
		return Target{}, err
	}
	if found.URL, err = cleanURL(found.URL); err != nil {
		return Target{}, err
	}
	switch {
	case s.TokenFile != "":
		text, err := os.ReadFile(s.TokenFile)
		if err != nil {
			return Target{}, fmt.Errorf("read token file: %w", err)
		}
		found.Token = strings.TrimSpace(string(text))
	case s.Env[EnvToken] != "":
		found.Token = s.Env[EnvToken]
	}
	return found, nil
}

func (s Search) find(ctx context.Context) (Target, error) {
	if s.DataDir != "" {
		found, ok, err := readDataDir(s.DataDir)
		if err == nil && !ok && s.URL == "" {
			err = noStackError{s.DataDir}
		}
		if err != nil || s.URL == "" {
			return found, err
		}
		return Target{URL: s.URL, Token: tokenFor(s.URL, found)}, nil
	}
	candidates, err := s.candidates()
	switch {
	case err != nil:
		return Target{}, err
	case s.URL != "":
		for _, c := range candidates {
			if token := tokenFor(s.URL, c); token != "" {
				return Target{URL: s.URL, Token: token}, nil
			}
		}
		return Target{URL: s.URL}, nil
	case len(candidates) == 0:
		return Target{}, ErrNoTarget
	}
	// A killed stack leaves its address behind: one that answers goes before it.
	for _, c := range candidates {
		if alive(ctx, c.URL) {
			return c, nil
		}
	}
	return candidates[0], nil
}

// candidates are the stacks of the data directories found upwards, the nearest
// first.
func (s Search) candidates() ([]Target, error) {
	var all []Target
	for dir := s.WorkDir; dir != ""; {
		for _, name := range dataDirNames {
			found, ok, err := readDataDir(filepath.Join(dir, name))
			if err != nil {
				return nil, err
			}
			if ok {
				all = append(all, found)
			}
		}
		above := filepath.Dir(dir)
		if above == dir {
			break
		}
		dir = above
	}
	return all, nil
}

// readDataDir reads what a stack left there. A token that this user may not
// read is left out: the server will say that one is needed.
func readDataDir(dir string) (found Target, ok bool, err error) {
	address, err := os.ReadFile(AddressFile(dir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return Target{}, false, nil
	}
	if err != nil {
		return Target{}, false, fmt.Errorf("read address: %w", err)
	}
	found.URL = strings.TrimSpace(string(address))
	if token, err := os.ReadFile(TokenFile(dir)); err == nil {
		found.Token = strings.TrimSpace(string(token))
	}
	return found, found.URL != "", nil
}

func tokenFor(url string, found Target) string {
	if strings.TrimRight(url, "/") == found.URL {
		return found.Token
	}
	return ""
}

func cleanURL(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("%q: %w", raw, ErrURL)
	}
	return strings.TrimRight(raw, "/"), nil
}

func alive(ctx context.Context, raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return false
	}
	conn, err := (&net.Dialer{Timeout: aliveMax}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

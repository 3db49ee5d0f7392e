package config

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Files of a data directory that programs outside read.
const (
	addressFile    = "address"
	adminTokenFile = "admin-token"
	keyFile        = "key"
)

// adminTokenCharactersMin keeps out what can be guessed.
const adminTokenCharactersMin = 16

// KeyFile is where a stack keeps its master key.
func KeyFile(dir string) string { return filepath.Join(dir, keyFile) }

// TokenFile is where a stack keeps its admin token.
func TokenFile(dir string) string { return filepath.Join(dir, adminTokenFile) }

// AddressFile is where a running stack says at which URL its API is.
func AddressFile(dir string) string { return filepath.Join(dir, addressFile) }

// WriteAddress says where the stack of dir serves its API.
func WriteAddress(dir, url string) error {
	if err := replaceFile(AddressFile(dir), url+"\n", 0o644); err != nil {
		return fmt.Errorf("write address: %w", err)
	}
	return nil
}

// RemoveAddress takes back WriteAddress. That nothing was written is no error.
func RemoveAddress(dir string) error {
	if err := os.Remove(AddressFile(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove address: %w", err)
	}
	return nil
}

// AdminToken returns the admin token of a data directory. At the first call it
// is made, or taken from given, and kept; later given is not looked at, and
// kept says so where it differs.
func AdminToken(dir, given string) (token string, kept bool, err error) {
	path := TokenFile(dir)
	text, err := os.ReadFile(path)
	if stored := strings.TrimSpace(string(text)); err == nil && stored != "" {
		return stored, given != "" && given != stored, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", false, fmt.Errorf("read admin token: %w", err)
	}
	if token = given; token == "" {
		token = rand.Text()
	}
	if err := CheckAdminToken(token); err != nil {
		return "", false, err
	}
	if err := replaceFile(path, token+"\n", 0o600); err != nil {
		return "", false, fmt.Errorf("write admin token: %w", err)
	}
	return token, false, nil
}

// ReadAdminToken returns the admin token that a server was given: itself, or
// else in a file, which may end in white space.
func ReadAdminToken(given, file string) (string, error) {
	if given == "" && file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("read admin token: %w", err)
		}
		given = strings.TrimSpace(string(text))
	}
	return given, CheckAdminToken(given)
}

// CheckAdminToken refuses a token that could not be sent in a header or that is
// short enough to be guessed.
func CheckAdminToken(token string) error {
	if len(token) < adminTokenCharactersMin || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return fmt.Errorf("%s must be at least %d visible ASCII characters without spaces", EnvAdminToken, adminTokenCharactersMin)
	}
	return nil
}

// replaceFile writes a file whole or not at all: others read it meanwhile.
func replaceFile(path, text string, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

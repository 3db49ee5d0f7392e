package store

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

// keyFileBytesMax bounds what LoadKey reads.
const keyFileBytesMax = 4096

// ErrKeyNeeded says that the database holds secrets and the key file is missing. A new
// key could not open them.
var ErrKeyNeeded = errors.New("the key file is missing, but this database holds secrets sealed with a key: restore the key file")

// LoadKey reads a master key: 32 bytes as base64 on one line. The error of a
// missing file matches fs.ErrNotExist.
func LoadKey(file string) (key [KeyBytes]byte, err error) {
	f, err := os.Open(file)
	if err != nil {
		return key, fmt.Errorf("read key file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, keyFileBytesMax))
	if err != nil {
		return key, fmt.Errorf("read key file: %w", err)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(raw) != KeyBytes {
		// The decoding error would quote the key.
		return key, fmt.Errorf("read key file %s: it must hold %d bytes as base64 on one line", file, KeyBytes)
	}
	copy(key[:], raw)
	return key, nil
}

// GenerateKeyFile makes a master key and writes it to path, readable by the
// owner only, whole or not at all. It never replaces a file: the error then
// matches fs.ErrExist.
func GenerateKeyFile(path string) (key [KeyBytes]byte, err error) {
	rand.Read(key[:])                                     // never fails: crypto/rand ends the process instead
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*") // made with mode 0600
	if err != nil {
		return key, fmt.Errorf("write key file: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key[:]) + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return key, fmt.Errorf("write key file: %w", err)
	}
	// A hard link, not a rename: it fails where the file exists, so that two
	// processes that start together end up with one key.
	if err := os.Link(f.Name(), path); err != nil {
		return key, fmt.Errorf("write key file: %w", err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return key, fmt.Errorf("write key file: %w", err)
	}
	return key, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// OpenSealer loads the master key from keyFile and checks that it is this
// database's. Where the file is missing and mayGenerate is set a key is made,
// but only while the database holds nothing sealed: ErrKeyNeeded else.
func OpenSealer(ctx context.Context, pool *pgxpool.Pool, keyFile string, mayGenerate bool) (*Sealer, error) {
	key, err := LoadKey(keyFile)
	if errors.Is(err, fs.ErrNotExist) && mayGenerate {
		key, err = generateForEmpty(ctx, pool, keyFile)
	}
	if err != nil {
		return nil, err
	}
	sealer, err := NewSealer(key)
	if err != nil {
		return nil, err
	}
	if err := New(pool, sealer).CheckKey(ctx); err != nil {
		return nil, err
	}
	return sealer, nil
}

func generateForEmpty(ctx context.Context, pool *pgxpool.Pool, keyFile string) ([KeyBytes]byte, error) {
	var sealed bool
	err := pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM settings WHERE name = $1) OR EXISTS (SELECT FROM subscribers)`,
		SettingKeyCheck).Scan(&sealed)
	if err != nil {
		return [KeyBytes]byte{}, fmt.Errorf("look for sealed secrets: %w", err)
	}
	if sealed {
		// Another process may have made the key since, and sealed with it.
		key, err := LoadKey(keyFile)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s: %w", keyFile, ErrKeyNeeded)
		}
		return key, err
	}
	key, err := GenerateKeyFile(keyFile)
	if errors.Is(err, fs.ErrExist) {
		return LoadKey(keyFile) // another process was faster
	}
	return key, err
}

// keyCheck is the value of SettingKeyCheck.
type keyCheck struct {
	KeyID  string `json:"keyId"`
	Sealed []byte `json:"sealed"`
}

const keyCheckText = "postroad key check"

// DeriveKey returns KeyBytes of key material for one purpose, the same in all
// processes of an installation: see Sealer.DeriveKey. Errors: ErrNoSealer.
func (s *Store) DeriveKey(purpose string) ([]byte, error) {
	if s.sealer == nil {
		return nil, ErrNoSealer
	}
	return s.sealer.DeriveKey(purpose)
}

// CheckKey compares the master key with the one this database was first used
// with, which it records at that first use. It returns ErrWrongKey, wrapped with
// both keys' ids, for another one.
func (s *Store) CheckKey(ctx context.Context) error {
	if s.sealer == nil {
		return ErrNoSealer
	}
	check := keyCheck{KeyID: s.sealer.KeyID(), Sealed: s.sealer.Seal(SettingKeyCheck, []byte(keyCheckText))}
	if err := settingOnce(ctx, s.pool, SettingKeyCheck, &check); err != nil {
		return fmt.Errorf("check master key: %w", err)
	}
	text, err := s.sealer.Open(SettingKeyCheck, check.Sealed)
	if err != nil {
		return fmt.Errorf("key %s loaded, key %s needed: %w", s.sealer.KeyID(), check.KeyID, err)
	}
	if string(text) != keyCheckText {
		return fmt.Errorf("check master key: %w", ErrSealBroken)
	}
	return nil
}

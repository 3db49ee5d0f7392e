package store_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"postroad/event"
	"postroad/internal/testkit"
	"postroad/store"
)

func TestSealer(t *testing.T) {
	t.Parallel()
	sealer, err := store.NewSealer(testKey)
	check(t, err)
	other, err := store.NewSealer([store.KeyBytes]byte{9})
	check(t, err)
	plain := []byte("a secret")
	blob := sealer.Seal("acme", plain)

	t.Run("opens under its name", func(t *testing.T) {
		got, err := sealer.Open("acme", blob)
		check(t, err)
		if !bytes.Equal(got, plain) {
			t.Errorf("got %q", got)
		}
	})
	t.Run("never seals alike", func(t *testing.T) {
		if bytes.Equal(blob, sealer.Seal("acme", plain)) {
			t.Error("two seals of one text are equal")
		}
	})
	t.Run("another subscriber's name", func(t *testing.T) {
		if _, err := sealer.Open("acme2", blob); !errors.Is(err, store.ErrSealBroken) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("another key", func(t *testing.T) {
		if _, err := other.Open("acme", blob); !errors.Is(err, store.ErrWrongKey) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("any bit changed or byte cut", func(t *testing.T) {
		for i := range blob {
			broken := bytes.Clone(blob)
			broken[i] ^= 1
			if _, err := sealer.Open("acme", broken); err == nil {
				t.Errorf("opened with byte %d changed", i)
			}
			if _, err := sealer.Open("acme", blob[:i]); err == nil {
				t.Errorf("opened with %d bytes left", i)
			}
		}
	})
}

func TestDeriveKey(t *testing.T) {
	t.Parallel()
	derive := func(master [store.KeyBytes]byte, purpose string) []byte {
		sealer, err := store.NewSealer(master)
		check(t, err)
		key, err := store.New(nil, sealer).DeriveKey(purpose)
		check(t, err)
		return key
	}
	// What a process derived once, every later release has to derive again:
	// computed apart from this code, by RFC 5869's two HMACs.
	const want = "120e814f757de8ecfa75d56a438e978d432777573f7d49ff72ed331d2180bd3a"
	got := derive([store.KeyBytes]byte{1}, "test")
	if hex.EncodeToString(got) != want {
		t.Errorf("got %x", got)
	}
	if bytes.Equal(got, derive([store.KeyBytes]byte{1}, "test2")) {
		t.Error("two purposes have one key")
	}
	if bytes.Equal(got, derive([store.KeyBytes]byte{2}, "test")) {
		t.Error("two master keys derive one key")
	}
	if _, err := store.New(nil, nil).DeriveKey("test"); !errors.Is(err, store.ErrNoSealer) {
		t.Errorf("without a master key: %v", err)
	}
}

func TestKeyFile(t *testing.T) {
	t.Parallel()
	t.Run("is the owner's only, loads again, is never replaced", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "key")
		key, err := store.GenerateKeyFile(file)
		check(t, err)
		info, err := os.Stat(file)
		check(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("mode is %v", info.Mode())
		}
		if _, err := store.GenerateKeyFile(file); !errors.Is(err, os.ErrExist) {
			t.Errorf("second generation: %v", err)
		}
		loaded, err := store.LoadKey(file)
		check(t, err)
		if loaded != key || key == [store.KeyBytes]byte{} {
			t.Error("the key loaded is not the one generated")
		}
		entries, err := os.ReadDir(filepath.Dir(file))
		check(t, err)
		if len(entries) != 1 {
			t.Errorf("left behind: %v", entries)
		}
	})
	t.Run("the error of a broken file does not quote it", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "key")
		check(t, os.WriteFile(file, []byte("c2hvcnQ=hunter2"), 0o600))
		_, err := store.LoadKey(file)
		if err == nil || bytes.Contains([]byte(err.Error()), []byte("hunter2")) {
			t.Errorf("got %v", err)
		}
	})
}

func TestOpenSealer(t *testing.T) {
	t.Parallel()
	t.Run("generates once for an empty database, also when many start at once", func(t *testing.T) {
		b := setup(t)
		file := filepath.Join(t.TempDir(), "key")
		ids := make([]string, 4)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				sealer, err := store.OpenSealer(t.Context(), b.pool, file, true)
				if err != nil {
					t.Errorf("open %d: %v", i, err)
					return
				}
				ids[i] = sealer.KeyID()
			})
		}
		wg.Wait()
		for _, id := range ids {
			if id != ids[0] {
				t.Errorf("several keys: %v", ids)
			}
		}
	})
	t.Run("a missing file is an error unless it may generate", func(t *testing.T) {
		b := setup(t)
		file := filepath.Join(t.TempDir(), "key")
		if _, err := store.OpenSealer(t.Context(), b.pool, file, false); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v", err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Error("a key was generated")
		}
	})
	t.Run("a lost key is not replaced", func(t *testing.T) {
		b := setup(t)
		file := filepath.Join(t.TempDir(), "key")
		_, err := b.Create(t.Context(), subscriber("acme"), event.Secrets{Token: "t"})
		check(t, err)
		if _, err := store.OpenSealer(t.Context(), b.pool, file, true); !errors.Is(err, store.ErrKeyNeeded) {
			t.Errorf("got %v", err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Error("a key was generated")
		}
	})
	t.Run("a wrong key is refused", func(t *testing.T) {
		b := setup(t)
		check(t, b.CheckKey(t.Context()))
		file := filepath.Join(t.TempDir(), "key")
		_, err := store.GenerateKeyFile(file)
		check(t, err)
		if _, err := store.OpenSealer(t.Context(), b.pool, file, true); !errors.Is(err, store.ErrWrongKey) {
			t.Errorf("got %v", err)
		}
		check(t, b.CheckKey(t.Context())) // the right one still is
	})
	t.Run("a database without a schema", func(t *testing.T) {
		pool := openPool(t, testkit.Database(t, nil))
		file := filepath.Join(t.TempDir(), "key")
		if _, err := store.OpenSealer(t.Context(), pool, file, true); err == nil {
			t.Error("no error")
		}
		if _, err := os.Stat(file); err == nil {
			t.Error("a key was generated")
		}
	})
}

func TestSetting(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	var got store.Installation
	if found, err := b.Setting(ctx, store.SettingInstallation, &got); err != nil || found {
		t.Fatalf("found %t, %v", found, err)
	}
	first := store.Installation{ClusterID: "a", Namespace: "postroad"}
	second := store.Installation{ClusterID: "b", Namespace: "postroad"}
	got = first
	check(t, b.SettingOnce(ctx, store.SettingInstallation, &got))
	got = second
	check(t, b.SettingOnce(ctx, store.SettingInstallation, &got))
	if got != first {
		t.Errorf("the first does not stand: %v", got)
	}
	check(t, b.PutSetting(ctx, store.SettingInstallation, second))
	if found, err := b.Setting(ctx, store.SettingInstallation, &got); err != nil || !found || got != second {
		t.Errorf("found %t %v, %v", found, got, err)
	}
}

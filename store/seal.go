package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
)

// KeyBytes is the size of the master key.
const KeyBytes = 32

// A sealed blob is: version byte, key id, nonce, AES-256-GCM ciphertext. The
// version byte and the key id are authenticated together with the name.
const (
	sealVersion   = 1
	sealIDBytes   = 8
	sealNonce     = 12
	sealHeader    = 1 + sealIDBytes
	sealBlobBytes = sealHeader + sealNonce
)

// ErrSealBroken says that a sealed blob is not what was stored under this name.
var ErrSealBroken = errors.New("sealed secrets are damaged or belong to another subscriber")

// Sealer seals secrets with a master key. It is safe for concurrent use.
type Sealer struct {
	aead cipher.AEAD
	id   [sealIDBytes]byte
	key  [KeyBytes]byte // what DeriveKey derives from
}

// NewSealer returns a Sealer for a master key of 32 random bytes.
func NewSealer(key [KeyBytes]byte) (*Sealer, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("use master key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("use master key: %w", err)
	}
	s := &Sealer{aead: aead, key: key}
	// The id tells keys apart and says nothing about them: a hash of 256 random
	// bits cannot be searched.
	sum := sha256.Sum256(append([]byte("postroad key id\x00"), key[:]...))
	copy(s.id[:], sum[:])
	return s, nil
}

// KeyID names the master key without revealing it.
func (s *Sealer) KeyID() string { return base64.RawURLEncoding.EncodeToString(s.id[:]) }

// DeriveKey returns KeyBytes of key material for one purpose (HKDF-SHA256, RFC
// 5869): the same for the same master key and purpose in every process and after
// every restart, and unrelated for another purpose. It tells nothing about the
// master key. Purposes are constants of the program, never input.
func (s *Sealer) DeriveKey(purpose string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, s.key[:], nil, "postroad derived key\x00"+purpose, KeyBytes)
	if err != nil {
		return nil, fmt.Errorf("derive key for %s: %w", purpose, err)
	}
	return key, nil
}

// Seal encrypts plain and binds it to name: it opens under that name only.
func (s *Sealer) Seal(name string, plain []byte) []byte {
	blob := make([]byte, sealBlobBytes, sealBlobBytes+len(plain)+s.aead.Overhead())
	blob[0] = sealVersion
	copy(blob[1:], s.id[:])
	nonce := blob[sealHeader:sealBlobBytes]
	rand.Read(nonce) // never fails: crypto/rand ends the process instead
	return s.aead.Seal(blob, nonce, plain, additionalData(blob[:sealHeader], name))
}

// Open decrypts what Seal made under the same name. It returns ErrWrongKey for
// a blob of another master key and ErrSealBroken for anything else it did not
// make.
func (s *Sealer) Open(name string, blob []byte) ([]byte, error) {
	if len(blob) < sealBlobBytes || blob[0] != sealVersion {
		return nil, ErrSealBroken
	}
	if [sealIDBytes]byte(blob[1:sealHeader]) != s.id {
		return nil, ErrWrongKey
	}
	plain, err := s.aead.Open(nil, blob[sealHeader:sealBlobBytes], blob[sealBlobBytes:], additionalData(blob[:sealHeader], name))
	if err != nil {
		return nil, ErrSealBroken
	}
	return plain, nil
}

func additionalData(header []byte, name string) []byte {
	return append(append(make([]byte, 0, len(header)+len(name)), header...), name...)
}

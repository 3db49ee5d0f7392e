package store

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"regexp"
)

// A token reads pr_<id>_<secret>: the id leads to its row, and the whole has a
// form that scanners for leaked secrets can look for. Its letters survive a
// double click, a URL and a header.
const tokenPrefix = "pr_"

// TokenPattern matches a token's text, and anything that scanners for leaked
// secrets should take for one.
const TokenPattern = `pr_[a-z2-7]{10}_[a-z2-7]{52}`

const (
	tokenIDCharacters = 10
	tokenIDBytes      = 7  // 56 bits, of which 10 characters hold 50
	tokenSecretBytes  = 32 // 256 bits
)

var (
	tokenID       = regexp.MustCompile(`^[a-z2-7]{10}$`)
	tokenText     = regexp.MustCompile(`^` + TokenPattern + `$`)
	tokenEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
)

// newToken draws a token. Ids are random, so that one tells nothing of how many
// there are; should one be taken, the insert fails.
func newToken() (id, text string) {
	random := make([]byte, tokenIDBytes+tokenSecretBytes)
	_, _ = rand.Read(random) // never fails
	id = tokenEncoding.EncodeToString(random[:tokenIDBytes])[:tokenIDCharacters]
	return id, tokenPrefix + id + "_" + tokenEncoding.EncodeToString(random[tokenIDBytes:])
}

// ValidTokenID reports whether id can name a token.
func ValidTokenID(id string) bool { return tokenID.MatchString(id) }

// ParseToken returns the id that a token's text names; false for what can be no
// token.
func ParseToken(text string) (id string, ok bool) {
	if !tokenText.MatchString(text) {
		return "", false
	}
	return text[len(tokenPrefix) : len(tokenPrefix)+tokenIDCharacters], true
}

func hashOf(text string) []byte {
	hash := sha256.Sum256([]byte(text))
	return hash[:]
}

// sameHash takes as long for one that is nearly right as for any other.
func sameHash(hash []byte, text string) bool {
	return subtle.ConstantTimeCompare(hash, hashOf(text)) == 1
}

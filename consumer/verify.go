package consumer

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Reasons to refuse a request; ask with errors.Is.
var (
	// ErrHeaders: id, timestamp or signature is missing or cannot be read.
	ErrHeaders = errors.New("webhook headers are missing or malformed")
	// ErrTimestamp: the request is too old, or from the future.
	ErrTimestamp = errors.New("webhook timestamp is out of tolerance")
	// ErrSignature: no signature fits the body and a known secret.
	ErrSignature = errors.New("webhook signature does not match")
)

const (
	secretPrefix    = "whsec_"
	signaturePrefix = "v1,"
	// toleranceDefault is what Standard Webhooks' libraries use.
	toleranceDefault = 300 * time.Second
)

// Verifier checks signatures (Standard Webhooks v1: HMAC-SHA256). It is safe
// for concurrent use.
type Verifier struct {
	keys      [][]byte
	tolerance time.Duration
	now       func() time.Time
}

// NewVerifier takes every secret that may sign at the moment: one, or the old
// and the new one during a rotation; `whsec_` may be left out.
func NewVerifier(secrets ...string) (*Verifier, error) {
	v := &Verifier{tolerance: toleranceDefault, now: time.Now}
	for i, secret := range secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
		if err != nil || len(key) == 0 {
			return nil, fmt.Errorf("read signing secret %d: not %s and base64", i, secretPrefix)
		}
		v.keys = append(v.keys, key)
	}
	if len(v.keys) == 0 {
		return nil, errors.New("no signing secret is given")
	}
	return v, nil
}

// Verify checks that a request is from Postroad and was sent within the last
// 300 s. body is the exact bytes that came. Headers may be named webhook-* or
// svix-*.
func (v *Verifier) Verify(header http.Header, body []byte) error {
	prefix := "Webhook-"
	if header.Get(prefix+"Id") == "" {
		prefix = "Svix-"
	}
	id, signatures := header.Get(prefix+"Id"), header.Get(prefix+"Signature")
	timestamp := header.Get(prefix + "Timestamp")
	sent, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || id == "" || signatures == "" {
		return ErrHeaders
	}
	// Compared as times, not as a difference, which could overflow.
	now, tolerance := v.now().Unix(), int64(v.tolerance/time.Second)
	if sent < now-tolerance || sent > now+tolerance {
		return ErrTimestamp
	}
	for _, key := range v.keys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + timestamp + "."))
		mac.Write(body)
		want := mac.Sum(nil)
		for _, signature := range strings.Fields(signatures) {
			encoded, ok := strings.CutPrefix(signature, signaturePrefix)
			if !ok {
				continue // a version that this package does not know
			}
			given, err := base64.StdEncoding.DecodeString(encoded)
			if err == nil && hmac.Equal(given, want) {
				return nil
			}
		}
	}
	return ErrSignature
}

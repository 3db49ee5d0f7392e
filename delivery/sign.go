package delivery

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"time"

	"postroad/event"
)

// signingSecretBytes is the length of a secret made here; Standard Webhooks
// asks for 24 to 64.
const signingSecretBytes = 32

// signatureScheme names an HMAC-SHA256 signature (Standard Webhooks).
const signatureScheme = "v1,"

// NewSigningSecret makes a random signing secret: `whsec_` and the base64 of
// 32 bytes.
func NewSigningSecret() string {
	var raw [signingSecretBytes]byte
	_, _ = rand.Read(raw[:]) // never fails: the program ends instead
	return event.SigningSecretPrefix + base64.StdEncoding.EncodeToString(raw[:])
}

// signingKey is one secret that requests are signed with.
type signingKey struct {
	raw []byte
	// until ends the overlap of a rotated key, by the monotonic clock; zero:
	// never.
	until time.Time
}

func (k signingKey) active(now time.Time) bool { return k.until.IsZero() || now.Before(k.until) }

// newSigningKeys decodes secrets. now is the time by the clock that their
// expiries were made with; from here on the monotonic clock counts what is
// left. The first secret is the current one and never expires.
func newSigningKeys(secrets []event.SigningSecret, now time.Time) ([]signingKey, error) {
	var keys []signingKey
	for i, s := range secrets {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s.Secret, event.SigningSecretPrefix))
		if err != nil || len(raw) == 0 {
			return nil, fmt.Errorf("decode signing secret %d: not %s and base64", i, event.SigningSecretPrefix)
		}
		key := signingKey{raw: raw}
		if i > 0 && !s.ExpiresAt.IsZero() {
			left := s.ExpiresAt.Sub(now)
			if left <= 0 {
				continue
			}
			key.until = time.Now().Add(left)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// Sign returns the Standard Webhooks v1 signature of a request: `v1,` and the
// base64 of the HMAC-SHA256 of id, timestamp (seconds since 1970) and body,
// joined by full stops.
func Sign(secret, id string, timestamp int64, body []byte) (string, error) {
	keys, err := newSigningKeys([]event.SigningSecret{{Secret: secret}}, time.Time{})
	if err != nil {
		return "", err
	}
	head := strconv.AppendInt(append([]byte(id), '.'), timestamp, 10)
	return string(appendSignature(nil, hmac.New(sha256.New, keys[0].raw), append(head, '.'), body)), nil
}

// appendSignature appends the signature of head, which is the id and the
// timestamp each followed by a full stop, and body. The hash is reset first:
// one hash serves many requests, one at a time.
func appendSignature(b []byte, mac hash.Hash, head, body []byte) []byte {
	mac.Reset()
	mac.Write(head)
	mac.Write(body)
	var sum [sha256.Size]byte
	return base64.StdEncoding.AppendEncode(append(b, signatureScheme...), mac.Sum(sum[:0]))
}

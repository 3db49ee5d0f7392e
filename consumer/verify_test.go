package consumer

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The vector that Standard Webhooks' own libraries publish.
const (
	secret          = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorTimestamp = 1614265330
	vectorBody      = `{"test": 2432232314}`
	vectorSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	otherSecret     = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
)

// sign makes a signature without any of the package's own code.
func sign(secret, id string, timestamp int64, body string) string {
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + strconv.FormatInt(timestamp, 10) + "." + body))
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func TestVerify(t *testing.T) {
	t.Parallel()
	later := sign(otherSecret, vectorID, vectorTimestamp, vectorBody)
	tests := []struct {
		name                     string
		secrets                  []string
		id, timestamp, signature string // empty: the vector's; "-": missing
		body                     string
		age                      int64 // seconds from timestamp to now
		want                     error
	}{
		{name: "vector"},
		{name: "secret without prefix", secrets: []string{strings.TrimPrefix(secret, "whsec_")}},
		{name: "among unknown versions", signature: "v1a,AAAA v2,x v1,bm8= " + vectorSignature},
		{name: "rotation: old and new sign, old is known", signature: later + " " + vectorSignature},
		{name: "rotation: old and new sign, new is known", signature: later + " " + vectorSignature, secrets: []string{otherSecret}},
		{name: "rotation: both are known, old signs", secrets: []string{otherSecret, secret}},
		{name: "300 s old", age: 300},
		{name: "301 s old", age: 301, want: ErrTimestamp},
		{name: "300 s ahead", age: -300},
		{name: "301 s ahead", age: -301, want: ErrTimestamp},
		{name: "timestamp is a word", timestamp: "hello", want: ErrHeaders},
		{name: "timestamp overflows", timestamp: "99999999999999999999", want: ErrHeaders},
		{name: "timestamp far in the past", timestamp: "-9223372036854775808", want: ErrTimestamp},
		{name: "timestamp in another form", timestamp: "+1614265330", want: ErrSignature},
		{name: "timestamp changed", timestamp: "1614265331", want: ErrSignature},
		{name: "no id", id: "-", want: ErrHeaders},
		{name: "no timestamp", timestamp: "-", want: ErrHeaders},
		{name: "no signature", signature: "-", want: ErrHeaders},
		{name: "id changed", id: "msg_other", want: ErrSignature},
		{name: "one byte changed", body: `{"test": 2432232315}`, want: ErrSignature},
		{name: "serialized anew", body: `{"test":2432232314}`, want: ErrSignature},
		{name: "unknown secret", secrets: []string{otherSecret}, want: ErrSignature},
		{name: "empty signature", signature: "v1,", want: ErrSignature},
		{name: "truncated signature", signature: vectorSignature[:20], want: ErrSignature},
		{name: "prefix of the signature", signature: "v1,g0hM9SsE+OTPJTGt", want: ErrSignature},
		{name: "signature without version", signature: vectorSignature[3:], want: ErrSignature},
		{name: "another version's signature", signature: "v2" + vectorSignature[2:], want: ErrSignature},
		{name: "not base64", signature: "v1,!!!!", want: ErrSignature},
	}
	for _, tt := range tests {
		for _, prefix := range []string{"webhook-", "svix-"} {
			t.Run(prefix+tt.name, func(t *testing.T) {
				t.Parallel()
				header := http.Header{}
				set := func(name, given, vector string) {
					if given == "" {
						given = vector
					}
					if given != "-" {
						header.Set(prefix+name, given)
					}
				}
				set("id", tt.id, vectorID)
				set("timestamp", tt.timestamp, strconv.Itoa(vectorTimestamp))
				set("signature", tt.signature, vectorSignature)
				secrets, body := tt.secrets, tt.body
				if secrets == nil {
					secrets = []string{secret}
				}
				if body == "" {
					body = vectorBody
				}
				v, err := NewVerifier(secrets...)
				if err != nil {
					t.Fatal(err)
				}
				v.now = func() time.Time { return time.Unix(vectorTimestamp+tt.age, 0) }
				if err := v.Verify(header, []byte(body)); !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
			})
		}
	}
}

func TestNewVerifierRefuses(t *testing.T) {
	t.Parallel()
	for _, secrets := range [][]string{nil, {""}, {"whsec_"}, {"whsec_not base64"}, {secret, ""}} {
		if _, err := NewVerifier(secrets...); err == nil {
			t.Errorf("NewVerifier(%q) gives no error", secrets)
		}
	}
}

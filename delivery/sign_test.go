package delivery

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"postroad/event"
)

// The vector that the standard's own libraries publish.
const (
	vectorSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorTimestamp = 1614265330
	vectorBody      = `{"test": 2432232314}`
	vectorSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func TestSign(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{vectorSecret, strings.TrimPrefix(vectorSecret, "whsec_")} {
		got, err := Sign(secret, vectorID, vectorTimestamp, []byte(vectorBody))
		if err != nil || got != vectorSignature {
			t.Errorf("Sign with %s = %s, %v; want %s", secret, got, err, vectorSignature)
		}
	}
	for _, secret := range []string{"", "whsec_", "whsec_not base64", "whsk_" + vectorSecret[6:]} {
		if got, err := Sign(secret, vectorID, vectorTimestamp, nil); err == nil {
			t.Errorf("Sign with the secret %q = %s; want an error", secret, got)
		}
	}
}

func TestNewSigningSecret(t *testing.T) {
	t.Parallel()
	secret := NewSigningSecret()
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil || len(raw) != 32 || !event.ValidSigningSecret(secret) {
		t.Errorf("NewSigningSecret() = %s: %d bytes, %v", secret, len(raw), err)
	}
	if secret == NewSigningSecret() {
		t.Error("two secrets are the same")
	}
}

// verify checks a request's signature with the standard's own library.
func verify(t *testing.T, secret string, header http.Header, prefix string, body []byte) error {
	t.Helper()
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	named := http.Header{}
	for _, name := range []string{"Id", "Timestamp", "Signature"} {
		named["Webhook-"+name] = header[prefix+name]
	}
	return webhook.Verify(body, named)
}

func TestSignedByReference(t *testing.T) {
	t.Parallel()
	const current = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	old, older := NewSigningSecret(), NewSigningSecret()
	now := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC) // the database's clock, years from ours
	secrets := []event.SigningSecret{
		{Secret: current, ExpiresAt: now.Add(-time.Hour)}, // the current one has no end
		{Secret: old, ExpiresAt: now.Add(time.Hour)},
		{Secret: older, ExpiresAt: now},
	}
	for scheme, prefix := range map[string]string{event.SigningStandard: "Webhook-", event.SigningSvix: "Svix-"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			x := newExchange(newTestTarget(t, event.Subscriber{Signing: event.Signing{Scheme: scheme}}, event.Secrets{Signing: secrets}, now))
			x.prepare(Request{Events: testEvents(1), Attempt: 1}, time.Now())
			x.fillHeader()
			h := x.request.Header
			for _, secret := range []string{current, old} {
				if err := verify(t, secret, h, prefix, x.body); err != nil {
					t.Errorf("within the overlap: %v", err)
				}
			}
			if verify(t, older, h, prefix, x.body) == nil {
				t.Error("an expired secret still signs")
			}
			if err := verify(t, current, h, prefix, append(x.body, ' ')); err == nil {
				t.Error("the signature does not depend on the body")
			}
			if n := len(strings.Fields(h.Get(prefix + "Signature"))); n != 2 {
				t.Errorf("%d signatures, want 2: %s", n, h.Get(prefix+"Signature"))
			}

			// An hour later the overlap is over; a retry has the same id, a
			// newer timestamp and another signature.
			before := h.Clone()
			x.prepare(Request{Events: testEvents(1), Attempt: 2}, time.Now().Add(time.Hour))
			x.fillHeader()
			if h.Get(prefix+"Id") != before.Get(prefix+"Id") || h.Get(prefix+"Timestamp") == before.Get(prefix+"Timestamp") {
				t.Errorf("a retry: id %s, was %s; timestamp %s, was %s", h.Get(prefix+"Id"), before.Get(prefix+"Id"), h.Get(prefix+"Timestamp"), before.Get(prefix+"Timestamp"))
			}
			timestamp, _ := strconv.ParseInt(h.Get(prefix+"Timestamp"), 10, 64)
			want, _ := Sign(current, h.Get(prefix+"Id"), timestamp, x.body)
			if got := h.Get(prefix + "Signature"); got != want {
				t.Errorf("after the overlap: %s, want the current key's only: %s", got, want)
			}
		})
	}
}

func TestNewTargetRefuses(t *testing.T) {
	t.Parallel()
	signed := event.Secrets{Signing: []event.SigningSecret{{Secret: vectorSecret}}}
	tests := []struct {
		name    string
		sub     event.Subscriber
		secrets event.Secrets
	}{
		{"no URL", event.Subscriber{}, signed},
		{"a relative URL", event.Subscriber{Endpoint: event.Endpoint{URL: "/top-secret-path"}}, signed},
		{"a broken URL", event.Subscriber{Endpoint: event.Endpoint{URL: "https://h/top-secret-path%zz"}}, signed},
		{"no signing secret", event.Subscriber{Endpoint: event.Endpoint{URL: "https://c.example"}}, event.Secrets{}},
		{"a broken signing secret", event.Subscriber{Endpoint: event.Endpoint{URL: "https://c.example"}}, event.Secrets{Signing: []event.SigningSecret{{Secret: "top-secret-path"}}}},
		{"a header with a line break", event.Subscriber{Endpoint: event.Endpoint{URL: "https://c.example"}}, event.Secrets{Headers: map[string]string{"X-A": "top-secret-path\r\nX-B: 1"}, Signing: signed.Signing}},
	}
	c := NewClient(Config{})
	t.Cleanup(c.Close)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := c.NewTarget(TargetConfig{Subscriber: tt.sub, Secrets: tt.secrets})
			if err == nil || strings.Contains(err.Error(), "top-secret-path") {
				t.Errorf("got %v; want an error that tells no secret", err)
			}
		})
	}
}

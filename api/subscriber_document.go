package api

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"postroad/delivery"
	"postroad/event"
	"postroad/store"
)

// subscriberDocument is a subscriber as the API shows it.
type subscriberDocument struct {
	event.Subscriber
	Version   int64             `json:"version"`
	CreatedAt time.Time         `json:"createdAt"`
	UpdatedAt time.Time         `json:"updatedAt"`
	Links     map[string]string `json:"links"`
}

// subscriberInput is a subscriber as it may be sent: what only the server sets
// is taken and dropped, so that a document that was read can be sent back.
type subscriberInput struct {
	event.Subscriber
	Version   any `json:"version"`
	CreatedAt any `json:"createdAt"`
	UpdatedAt any `json:"updatedAt"`
	Links     any `json:"links"`
}

func subscriberDocumentOf(r store.Record) subscriberDocument {
	self := "/v1/subscribers/" + r.Subscriber.ID
	return subscriberDocument{
		Subscriber: r.Subscriber, Version: r.Version, CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
		Links: map[string]string{
			"self": self, "status": self + "/status", "attempts": self + "/attempts", "feed": "/v1/feeds/" + r.Subscriber.Feed,
		},
	}
}

// writeSubscriber answers with a subscriber. generated is the signing secret
// that was made with it: this is the only time it is shown.
func writeSubscriber(c *gin.Context, status int, r store.Record, generated string) error {
	document := subscriberDocumentOf(r)
	document.Signing.Secret = generated
	c.Header("ETag", etag(r.Version))
	return writeJSON(c, status, document)
}

// prepared is a subscriber ready to be stored.
type prepared struct {
	subscriber event.Subscriber // without secrets
	secrets    event.Secrets
	generated  string // the signing secret made just now; "": none
}

// prepare checks a subscriber as it was sent, fills in the defaults and
// divides off the secrets; had are those it may keep, was is what may rest as it
// is in a mode that makes no use of it.
func (s *Server) prepare(sub, was event.Subscriber, had event.Secrets) (prepared, error) {
	sub = sub.Defaulted()
	faults := sub.Resting(was)
	if sub.Mode == event.ModePull && sub.Signing == (event.Signing{}) {
		had.Signing = nil // else there was a secret of no scheme
	}
	faults = append(faults, dropForeignCredentials(&sub)...)
	faults = append(faults, sub.Validate(s.config.AllowHTTPEndpoints || s.config.AllowLoopback)...)
	if sub.Mode == event.ModePush && !named(faults, "/endpoint/url") {
		if blocked := (*delivery.BlockedError)(nil); errors.As(s.client.Guard().CheckEndpoint(sub.Endpoint.URL), &blocked) {
			faults.Add("/endpoint/url", blocked.Reason)
		}
	}
	public, secrets, missing := sub.SplitSecrets(had)
	faults = append(faults, missing...)
	if err := faults.Err(); err != nil {
		return prepared{}, err
	}
	p := prepared{subscriber: public, secrets: secrets}
	if sub.Mode == event.ModePush && sub.Signing.Scheme != event.SigningNone && len(secrets.Signing) == 0 {
		p.generated = newSigningSecret()
		p.secrets.Signing = []event.SigningSecret{{Secret: p.generated}}
		p.subscriber = public.Redacted(p.secrets)
	}
	return p, nil
}

func named(faults event.FieldErrors, pointer string) bool {
	for _, f := range faults {
		if f.Pointer == pointer {
			return true
		}
	}
	return false
}

// dropForeignCredentials lets go of what is stored for another type of
// authentication, and refuses a secret that the type does not use: it would be
// kept without ever being sent.
func dropForeignCredentials(sub *event.Subscriber) event.FieldErrors {
	var faults event.FieldErrors
	a := &sub.Auth
	for _, secret := range []struct {
		kind, pointer string
		value         string
		set           *bool
	}{
		{event.AuthBearer, "/auth/token", a.Token, &a.TokenSet},
		{event.AuthBasic, "/auth/password", a.Password, &a.PasswordSet},
		{event.AuthHeader, "/auth/value", a.Value, &a.ValueSet},
	} {
		if a.Type == secret.kind {
			continue
		}
		*secret.set = false
		if secret.value != "" {
			faults.Add(secret.pointer, fmt.Sprintf("is not used by auth type %s", a.Type))
		}
	}
	if a.Type != event.AuthBasic {
		a.Username = ""
	}
	if a.Type != event.AuthHeader {
		a.Name = ""
	}
	return faults
}

// newSigningSecret makes a Standard Webhooks secret of 32 random bytes.
func newSigningSecret() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return event.SigningSecretPrefix + base64.StdEncoding.EncodeToString(key)
}

// etag is a version as an entity tag.
func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// noVersion is a version that nothing has: an entity tag that is none of ours
// can match nothing.
const noVersion = -1

// ifMatch reads the version that If-Match names; nil: any.
func ifMatch(r *http.Request) (*int64, error) {
	values := r.Header.Values("If-Match")
	if len(values) == 0 {
		return nil, nil
	}
	tag := strings.TrimSpace(values[0])
	if len(values) > 1 || strings.Contains(tag, ",") {
		return nil, invalidHeader("If-Match", "must name one entity tag")
	}
	if tag == "*" {
		return nil, nil
	}
	version := int64(noVersion)
	bare, ok := strings.CutPrefix(tag, `"`)
	bare, closed := strings.CutSuffix(bare, `"`)
	switch {
	case strings.HasPrefix(tag, "W/"): // a weak tag never matches here (RFC 9110 §13.1.1)
	case !ok || !closed:
		return nil, invalidHeader("If-Match", `must be an entity tag as it was returned, such as "3" with the quotes`)
	default:
		if n, err := strconv.ParseInt(bare, 10, 64); err == nil && n > 0 {
			version = n
		}
	}
	return &version, nil
}

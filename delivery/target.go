package delivery

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"postroad/event"
)

// Header names of a delivery, in the form net/http keeps them.
const (
	headerPrevious        = "Postroad-Previous-Sequence"
	headerAcceptedThrough = "Postroad-Accepted-Through"
	headerTest            = "Postroad-Test"
	headerRetryAfter      = "Retry-After"
	headerDate            = "Date"
	headerAuthorization   = "Authorization"
)

// TargetConfig is what a Target is made from.
type TargetConfig struct {
	Subscriber event.Subscriber
	Secrets    event.Secrets
	// FeedEpoch is the epoch of the subscriber's feed.
	FeedEpoch int
	// Now is the time by the clock that the secrets' expiries were made with,
	// PostgreSQL's; zero: this host's.
	Now time.Time
}

// Target is everything about a subscriber's requests that its configuration
// fixes, prepared once: the URL, the headers, the keys. It is safe for
// concurrent use and never changes; a new configuration is a new Target.
type Target struct {
	id            string
	url           *url.URL
	origin        string // scheme and host: all that texts say of the endpoint
	refused       error  // why no request may be made; nil: one may
	address       string // host and port for the direct path; empty: not for it
	head          []byte // of every request on the direct path
	timeout       time.Duration
	format        string
	batched       bool
	batchSize     int
	batchBytes    int
	maxRetryAfter time.Duration
	headers       http.Header // fixed for every request
	signingPrefix string      // Webhook- or Svix-
	keys          []signingKey
	exchanges     sync.Pool // of *exchange
	flights       flights   // under way on the direct path
}

// NewTarget prepares a subscriber's requests. It fails where the configuration
// cannot make a request at all; whether the endpoint may be called is decided
// at each request, by the guard.
func (c *Client) NewTarget(cfg TargetConfig) (*Target, error) {
	sub := cfg.Subscriber.Defaulted()
	u, err := url.Parse(sub.Endpoint.URL)
	if err != nil || u.Host == "" {
		// The error of url.Parse quotes the URL, which may hold a secret.
		return nil, fmt.Errorf("prepare subscriber %s: the endpoint's URL is not an absolute URL", sub.ID)
	}
	u.RawQuery = escapeQuery(u.RawQuery)
	t := &Target{
		id: sub.ID, url: u, origin: u.Scheme + "://" + u.Host,
		timeout: sub.Endpoint.Timeout.Std(), maxRetryAfter: sub.Retry.MaxRetryAfter.Std(),
		format: sub.Format, batched: sub.BatchSize != 1, batchSize: sub.BatchSize.Or(event.BatchSizeMax), batchBytes: sub.BatchBytes,
		signingPrefix: "Webhook-",
	}
	switch sub.Signing.Scheme {
	case event.SigningSvix:
		t.signingPrefix = "Svix-"
		fallthrough
	case event.SigningStandard:
		if cfg.Now.IsZero() {
			cfg.Now = time.Now()
		}
		if t.keys, err = newSigningKeys(cfg.Secrets.Signing, cfg.Now); err != nil {
			return nil, fmt.Errorf("prepare subscriber %s: %w", sub.ID, err)
		}
		if len(t.keys) == 0 {
			return nil, fmt.Errorf("prepare subscriber %s: no signing secret is stored for scheme %s", sub.ID, sub.Signing.Scheme)
		}
	}
	t.headers = fixedHeaders(sub, cfg.Secrets, cfg.FeedEpoch, c.userAgent)
	for name, values := range t.headers {
		if !validHeaderName(name) || !validHeaderValue(values[0]) {
			return nil, fmt.Errorf("prepare subscriber %s: header %q cannot be sent", sub.ID, name)
		}
		values[0] = strings.Trim(values[0], " \t")
	}
	if u.Scheme != "https" && !c.guard.allowsPlain(u) {
		t.refused = &BlockedError{Reason: "plain http is not allowed on this server"}
	}
	t.address = directAddress(u)
	t.head = appendHead(nil, t)
	t.exchanges.New = func() any { return newExchange(t) }
	return t, nil
}

// Origin is the endpoint's scheme and host.
func (t *Target) Origin() string { return t.origin }

// Host is the endpoint's host without a port.
func (t *Target) Host() string { return t.url.Hostname() }

// Timeout bounds a request, from dial to the end of the answer.
func (t *Target) Timeout() time.Duration { return t.timeout }

// Batched reports whether requests carry an array of events.
func (t *Target) Batched() bool { return t.batched }

// Fit returns how many of events, from the first on, go into one request: at
// most limit and the subscriber's batchSize, and within batchBytes; but one
// event always fits.
func (t *Target) Fit(events []*event.Event, limit int) int {
	most := min(len(events), limit, t.batchSize)
	if most <= 1 || !t.batched {
		return min(most, 1)
	}
	size := EnvelopeBytes(t.format) + Size(t.format, events[0])
	for n := 1; n < most; n++ {
		if size += Size(t.format, events[n]); size > t.batchBytes {
			return n
		}
	}
	return most
}

// fixedHeaders lays the operator's headers down first, so that nothing of
// Postroad's own can be overridden even by a configuration that was never
// validated.
func fixedHeaders(sub event.Subscriber, secrets event.Secrets, epoch int, userAgent string) http.Header {
	h := http.Header{}
	for _, name := range slices.Sorted(maps.Keys(secrets.Headers)) {
		setOperatorHeader(h, name, secrets.Headers[name])
	}
	h.Del(headerAuthorization)
	switch sub.Auth.Type {
	case event.AuthBearer:
		h.Set(headerAuthorization, "Bearer "+secrets.Token)
	case event.AuthBasic:
		pair := sub.Auth.Username + ":" + secrets.Password
		h.Set(headerAuthorization, "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
	case event.AuthHeader:
		setOperatorHeader(h, sub.Auth.Name, secrets.Value)
	}
	if sub.Label != "" {
		// RCP-28 names the header; its draft called it ConsumerLabel.
		if sub.LabelHeader != event.LabelConsumerLabel {
			h["EntityEventSource"] = []string{sub.Label}
		}
		if sub.LabelHeader != event.LabelEntityEventSource {
			h["ConsumerLabel"] = []string{sub.Label}
		}
	}
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", userAgent)
	h.Set("Postroad-Subscriber", sub.ID)
	h.Set("Postroad-Feed", sub.Feed+";epoch="+strconv.Itoa(epoch))
	return h
}

// ownedHeaders may not come from an operator: Postroad sets them, HTTP's
// framing depends on them, or net/http would send a request again by itself
// (Idempotency-Key).
var ownedHeaders = []string{
	"Host", "Content-Length", "Connection", "Transfer-Encoding", "Trailer", "Te", "Upgrade", "Expect", "Keep-Alive",
	"Proxy-Connection", "Idempotency-Key", "X-Idempotency-Key", "Traceparent", "Tracestate", "Accept-Encoding",
	"Entityeventsource", "Consumerlabel",
}

func setOperatorHeader(h http.Header, name, value string) {
	name = textproto.CanonicalMIMEHeaderKey(name)
	for _, prefix := range []string{"Postroad-", "Webhook-", "Svix-"} {
		if strings.HasPrefix(name, prefix) {
			return
		}
	}
	if name != "" && !slices.Contains(ownedHeaders, name) {
		h[name] = []string{value}
	}
}

// validHeaderValue reports whether net/http sends a value (RFC 9110, 5.5);
// with one it refuses, every request would fail as if the network were at
// fault.
func validHeaderValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// validHeaderName reports whether a name is a token (RFC 9110, 5.6.2).
func validHeaderName(s string) bool {
	const special = "!#$%&'*+-.^_`|~"
	for i := range len(s) {
		c := s[i]
		if letter := c | 0x20; (letter < 'a' || letter > 'z') && (c < '0' || c > '9') && strings.IndexByte(special, c) < 0 {
			return false
		}
	}
	return s != ""
}

// escapeQuery percent-encodes what may not stand in a request line, as browsers
// do: net/url leaves a query as it was written, blanks included.
func escapeQuery(s string) string {
	var b []byte
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' {
			b = appendPercent(b, c)
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

func appendPercent(b []byte, c byte) []byte {
	const hex = "0123456789ABCDEF"
	return append(b, '%', hex[c>>4], hex[c&0xf])
}

// directAddress returns the host and port to connect to on the direct path, or
// nothing for hosts that net/http would rewrite first: international names and
// addresses with a zone.
func directAddress(u *url.URL) string {
	for i := range len(u.Host) {
		if c := u.Host[i]; c <= ' ' || c > '~' || c == '%' {
			return ""
		}
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// appendHeaderText appends text that may hold anything as a header value:
// bytes outside of printable ASCII, per cent signs and blanks at either end
// are percent-encoded.
func appendHeaderText(b []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if c < ' ' || c > '~' || c == '%' || c == ' ' && (i == 0 || i == len(s)-1) {
			b = appendPercent(b, c)
			continue
		}
		b = append(b, c)
	}
	return b
}

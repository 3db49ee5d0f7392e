package event

import (
	"maps"
	"slices"
	"strings"
)

// SplitSecrets divides a subscriber as it was sent into what may be shown and
// what is stored sealed. A secret that the subscriber only marks as set is
// taken from stored; a mark without a stored secret is an error that names the
// member.
func (s Subscriber) SplitSecrets(stored Secrets) (Subscriber, Secrets, FieldErrors) {
	var errs FieldErrors
	keep := func(given, kept string, set bool, pointer string) string {
		switch {
		case given != "" || !set:
			return given
		case kept == "":
			errs.Add(pointer, "says a secret is stored, but none is: send the secret itself")
		}
		return kept
	}
	secrets := Secrets{
		Token:    keep(s.Auth.Token, stored.Token, s.Auth.TokenSet, "/auth/tokenSet"),
		Password: keep(s.Auth.Password, stored.Password, s.Auth.PasswordSet, "/auth/passwordSet"),
		Value:    keep(s.Auth.Value, stored.Value, s.Auth.ValueSet, "/auth/valueSet"),
		Signing:  stored.Signing,
	}
	headers := maps.Clone(s.Endpoint.Headers)
	for i, name := range s.Endpoint.HeadersSet {
		if s.Endpoint.gives(name) {
			continue // the new value, whatever the case of its name
		}
		value, ok := stored.Headers[name]
		if !ok {
			errs.Addf("/endpoint/headersSet/%d", "says a value is stored for this header, but none is", i)
			continue
		}
		if headers == nil {
			headers = map[string]string{}
		}
		headers[name] = value
	}
	secrets.Headers = headers
	if s.Signing.Secret != "" {
		secrets.Signing = []SigningSecret{{Secret: s.Signing.Secret}}
	}
	return s.Redacted(secrets), secrets, errs
}

// gives reports whether a value is sent for the header name.
func (p Endpoint) gives(name string) bool {
	for given := range p.Headers {
		if strings.EqualFold(given, name) {
			return true
		}
	}
	return false
}

// names reports whether name is one of the headers, sent or kept.
func (p Endpoint) names(name string) bool {
	return p.gives(name) || slices.ContainsFunc(p.HeadersSet, func(s string) bool { return strings.EqualFold(s, name) })
}

// Redacted returns the subscriber without secrets, marked with those that
// secrets holds.
func (s Subscriber) Redacted(secrets Secrets) Subscriber {
	s.Auth.Token, s.Auth.TokenSet = "", secrets.Token != ""
	s.Auth.Password, s.Auth.PasswordSet = "", secrets.Password != ""
	s.Auth.Value, s.Auth.ValueSet = "", secrets.Value != ""
	s.Signing.Secret, s.Signing.SecretSet = "", len(secrets.Signing) > 0
	s.Endpoint.Headers = nil
	s.Endpoint.HeadersSet = slices.Sorted(maps.Keys(secrets.Headers))
	return s
}

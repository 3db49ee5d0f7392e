package event

import (
	"fmt"
	"time"
	"unicode/utf8"
)

// Source is the RESO Web API server whose EntityEvent resource (RCP-27) a feed
// follows. Its secrets are write-only: they are split off to be stored sealed.
type Source struct {
	// URL is the service root; /EntityEvent below it is read.
	URL  string     `json:"url"`
	Auth SourceAuth `json:"auth"`
	// Horizon is for how long a sequence behind a gap must have been in sight
	// before it is taken, 0-1 h.
	Horizon *Duration `json:"horizon,omitempty"`
	// Poll is the pause at the source's end, 100 ms-1 h.
	Poll Duration `json:"poll"`
}

// SourceAuth is how the source lets us in.
type SourceAuth struct {
	// Type is AuthNone, AuthBearer or AuthClientCredentials.
	Type string `json:"type"`
	// Token is sent as a bearer token.
	Token    string `json:"token,omitempty"`
	TokenSet bool   `json:"tokenSet,omitzero"`
	// TokenURL gives access tokens for ClientID and ClientSecret, with Scope where
	// that is set (RFC 6749, 4.4).
	TokenURL        string `json:"tokenUrl,omitempty"`
	ClientID        string `json:"clientId,omitempty"`
	ClientSecret    string `json:"clientSecret,omitempty"`
	ClientSecretSet bool   `json:"clientSecretSet,omitzero"`
	Scope           string `json:"scope,omitempty"`
}

// AuthClientCredentials is OAuth2's grant of that name.
const AuthClientCredentials = "clientCredentials"

// SourceSecrets are what is stored sealed of a source.
type SourceSecrets struct {
	Token        string `json:"token,omitempty"`
	ClientSecret string `json:"clientSecret,omitempty"`
}

// Defaults and bounds of a source.
const (
	HorizonDefault = Duration(10 * time.Second)
	HorizonMax     = Duration(time.Hour)
	PollDefault    = Duration(2 * time.Second)
	PollMin        = Duration(100 * time.Millisecond)
	PollMax        = Duration(time.Hour)
)

// Defaulted returns the source with every default filled in.
func (s Source) Defaulted() Source {
	setDefault(&s.Auth.Type, AuthNone)
	setDefault(&s.Poll, PollDefault)
	if s.Horizon == nil {
		horizon := HorizonDefault
		s.Horizon = &horizon
	}
	return s
}

// Validate checks every member of a defaulted source, secrets included; the
// pointers are those of a feed. allowHTTP admits a source without TLS.
func (s Source) Validate(allowHTTP bool) FieldErrors {
	var e FieldErrors
	if problem := checkRoot(s.URL, allowHTTP); problem != "" {
		e.Add("/source/url", problem)
	}
	s.Auth.validate(&e, allowHTTP)
	if *s.Horizon < 0 || *s.Horizon > HorizonMax {
		e.Add("/source/horizon", fmt.Sprintf("must not be longer than %s", HorizonMax))
	}
	if s.Poll < PollMin || s.Poll > PollMax {
		e.Add("/source/poll", fmt.Sprintf("must be between %s and %s", PollMin, PollMax))
	}
	return e
}

// checkRoot checks a service root: addresses are made by putting something
// behind it.
func checkRoot(raw string, allowHTTP bool) string {
	if problem := checkURL(raw, allowHTTP); problem != "" {
		return problem
	}
	for _, c := range raw {
		switch {
		case c == '?':
			return "must be a service root, without a query"
		case c <= ' ' || c == utf8.RuneError:
			return "must not contain blanks or control characters"
		}
	}
	return ""
}

func (a SourceAuth) validate(e *FieldErrors, allowHTTP bool) {
	checkHeaderValue(e, "/source/auth/token", a.Token)
	checkText(e, "/source/auth/clientId", a.ClientID, NameCharactersMax)
	checkText(e, "/source/auth/scope", a.Scope, NameCharactersMax)
	checkText(e, "/source/auth/clientSecret", a.ClientSecret, HeaderValueBytesMax)
	required := func(member, value string, set bool) {
		if value == "" && !set {
			e.Add("/source/auth/"+member, "is required for "+a.Type+" authentication")
		}
	}
	switch a.Type {
	case AuthNone:
	case AuthBearer:
		required("token", a.Token, a.TokenSet)
	case AuthClientCredentials:
		required("clientId", a.ClientID, false)
		required("clientSecret", a.ClientSecret, a.ClientSecretSet)
		if problem := checkURL(a.TokenURL, allowHTTP); problem != "" {
			e.Add("/source/auth/tokenUrl", problem)
		}
	default:
		checkOneOf(e, "/source/auth/type", a.Type, AuthNone, AuthBearer, AuthClientCredentials)
	}
}

// SplitSecrets divides a source as it was sent into what may be shown and what
// is stored sealed. A secret that is only marked as set is taken from stored; a
// mark without a stored secret is an error that names the member. What the type
// of authentication does not use is dropped.
func (s Source) SplitSecrets(stored SourceSecrets) (Source, SourceSecrets, FieldErrors) {
	var errs FieldErrors
	a := &s.Auth
	keep := func(given *string, kept string, set *bool, uses bool, pointer string) string {
		value := *given
		switch {
		case !uses:
			value = ""
		case value != "" || !*set:
		case kept == "":
			errs.Add(pointer, "says a secret is stored, but none is: send the secret itself")
		default:
			value = kept
		}
		*given, *set = "", value != ""
		return value
	}
	secrets := SourceSecrets{
		Token:        keep(&a.Token, stored.Token, &a.TokenSet, a.Type == AuthBearer, "/source/auth/tokenSet"),
		ClientSecret: keep(&a.ClientSecret, stored.ClientSecret, &a.ClientSecretSet, a.Type == AuthClientCredentials, "/source/auth/clientSecretSet"),
	}
	if a.Type != AuthClientCredentials {
		a.TokenURL, a.ClientID, a.Scope = "", "", ""
	}
	return s, secrets, errs
}

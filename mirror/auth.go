package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Auth is how the source lets us in. RESO's Web API Core knows bearer tokens and
// OAuth2 client credentials (2.9); the zero value sends nothing.
type Auth struct {
	// Token is sent as a bearer token. It excludes the others.
	Token string
	// TokenURL is where an access token is had for ClientID and ClientSecret, with
	// Scope if that is set (RFC 6749, 4.4).
	TokenURL, ClientID, ClientSecret, Scope string
}

// tokenBytesMax bounds the answer of a token endpoint.
const tokenBytesMax = 1 << 20

// Access tokens are renewed that long before they end; one whose end was not
// told is kept for tokenUntold, and renewed on a 401 in any case.
const (
	tokenEarly  = 30 * time.Second
	tokenUntold = 5 * time.Minute
)

// authorizer holds the current access token. One goroutine uses it.
type authorizer struct {
	auth   Auth
	config *Config
	token  string
	until  time.Time
	// inBody: the server does not know HTTP Basic authentication of clients.
	inBody bool
}

// authorize puts the token on a request.
func (a *authorizer) authorize(ctx context.Context, request *http.Request) error {
	token := a.auth.Token
	if a.auth.TokenURL != "" {
		if a.token == "" || !time.Now().Before(a.until) {
			if err := a.renew(ctx); err != nil {
				return err
			}
		}
		token = a.token
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return nil
}

// rejected is told of a 401; it reports whether a new token may help.
func (a *authorizer) rejected() bool {
	fresh := a.auth.TokenURL != "" && a.token != ""
	a.token = ""
	return fresh
}

// renew gets a new access token. Clients authenticate by HTTP Basic, which every
// server must know (RFC 6749, 2.3.1); those that do not get id and secret in the
// body.
func (a *authorizer) renew(ctx context.Context) error {
	err := a.ask(ctx)
	var fault *Fault
	if errors.As(err, &fault) && !a.inBody && (fault.Status == http.StatusBadRequest || fault.Status == http.StatusUnauthorized) {
		a.inBody = true
		if again := a.ask(ctx); again == nil {
			return nil
		}
		a.inBody = false
	}
	return err
}

func (a *authorizer) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.config.RequestTimeout)
	defer cancel()
	form := url.Values{"grant_type": {"client_credentials"}}
	if a.auth.Scope != "" {
		form.Set("scope", a.auth.Scope)
	}
	if a.inBody {
		form.Set("client_id", a.auth.ClientID)
		form.Set("client_secret", a.auth.ClientSecret)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.auth.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return fmt.Errorf("make token request: %w", err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", a.config.UserAgent)
	if !a.inBody {
		request.SetBasicAuth(url.QueryEscape(a.auth.ClientID), url.QueryEscape(a.auth.ClientSecret))
	}
	response, err := a.config.HTTP.Do(request)
	if err != nil {
		return unreachable(ctx, a.auth.TokenURL, "get access token", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, tokenBytesMax))
	if err != nil {
		return unreachable(ctx, a.auth.TokenURL, "get access token", err)
	}
	if response.StatusCode != http.StatusOK {
		return a.config.refused(a.auth.TokenURL, response, body, time.Now())
	}
	return a.keep(body)
}

func (a *authorizer) keep(body []byte) error {
	var answer struct {
		AccessToken string          `json:"access_token"`
		TokenType   string          `json:"token_type"`
		ExpiresIn   json.RawMessage `json:"expires_in"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.AccessToken == "" {
		// The answer may hold a token all the same: it is not quoted.
		return &Fault{URL: a.auth.TokenURL, Reason: "the answer has no access_token"}
	}
	if answer.TokenType != "" && !strings.EqualFold(answer.TokenType, "bearer") {
		return &Fault{URL: a.auth.TokenURL, Reason: "the access token is of type " + excerpt([]byte(answer.TokenType)) + ", not bearer"}
	}
	lasts := tokenUntold
	// Some give the number as a string.
	if seconds, err := strconv.ParseInt(strings.Trim(string(answer.ExpiresIn), `"`), 10, 32); err == nil && seconds > 0 {
		lasts = time.Duration(seconds) * time.Second
		lasts -= min(tokenEarly, lasts/2)
	}
	a.token, a.until = answer.AccessToken, time.Now().Add(lasts)
	return nil
}

package api

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/gin-gonic/gin"
)

const (
	contentTypeForm = "application/x-www-form-urlencoded"
	// oauthFormBytesMax is many times what a client has to say.
	oauthFormBytesMax = 8 << 10
	grantOfClients    = "client_credentials"
)

// Error codes of RFC 6749 §5.2.
const (
	oauthInvalidRequest       = "invalid_request"
	oauthInvalidClient        = "invalid_client"
	oauthUnsupportedGrantType = "unsupported_grant_type"
	oauthInvalidScope         = "invalid_scope"
)

// oauthScope is RFC 6749 §3.3: what is asked for need not be known here, but
// has to be a scope.
var oauthScope = regexp.MustCompile(`^[\x21\x23-\x5B\x5D-\x7E]+( [\x21\x23-\x5B\x5D-\x7E]+)*$`)

// oauthProblem is a refusal in the words of RFC 6749 §5.2.
func oauthProblem(status Code, code, description string) *Problem {
	return &Problem{Code: status, Detail: description, OAuthError: code}
}

func oauthBadRequest(description string) *Problem {
	return oauthProblem(CodeMalformed, oauthInvalidRequest, description)
}

// oauthWrongClient does not tell what was wrong with the credentials.
func oauthWrongClient() *Problem {
	p := oauthProblem(CodeUnauthorized, oauthInvalidClient, "client_id must be the id of a token that is valid, and client_secret its text")
	p.Header = map[string]string{"WWW-Authenticate": `Basic realm="postroad"`}
	return p
}

// issueAccessToken is the token endpoint (RFC 6749 §3.2) for the grant of client
// credentials (§4.4). The client is one of our tokens: client_id is its id,
// client_secret its text. The access token has its rights, and ends with it.
func (s *Server) issueAccessToken(c *gin.Context) error {
	form, err := s.oauthForm(c)
	if err != nil {
		return err
	}
	switch form.Get("grant_type") {
	case grantOfClients:
	case "":
		return oauthBadRequest("grant_type is missing: it must be " + grantOfClients)
	default:
		return oauthProblem(CodeMalformed, oauthUnsupportedGrantType, "grant_type must be "+grantOfClients)
	}
	scope := form.Get("scope")
	if scope != "" && !oauthScope.MatchString(scope) {
		return oauthProblem(CodeMalformed, oauthInvalidScope, "scope is malformed; it may be left out")
	}
	id, secret, err := clientCredentials(c.Request.Header.Get("Authorization"), form)
	if err != nil {
		return err
	}
	client, err := s.tokens.opened(c.Request.Context(), secret)
	if err != nil {
		return err
	}
	if client == nil || client.principal.token != id {
		return oauthWrongClient()
	}
	answer := struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int64  `json:"expires_in"`
		Scope       string `json:"scope,omitempty"`
	}{TokenType: "Bearer"}
	answer.AccessToken, answer.ExpiresIn = s.tokens.access.issue(id, client.now(), client.tokenEnds)
	if scope != "" {
		answer.Scope = client.principal.role // it differs from what was asked for, so it must be told
	}
	c.Header("Pragma", "no-cache") // RFC 6749 §5.1; write adds Cache-Control
	return writeJSON(c, http.StatusOK, answer)
}

// oauthForm reads the request's parameters, each at most once (§3.2). Those that
// are not known stay unread, as the standard wants it.
func (s *Server) oauthForm(c *gin.Context) (url.Values, error) {
	if c.Request.URL.RawQuery != "" {
		return nil, oauthBadRequest("parameters must be in the body, not in the URL")
	}
	media, err := mediaType(c.Request)
	if err != nil || media != contentTypeForm {
		return nil, oauthBadRequest("the body must be " + contentTypeForm + " in UTF-8")
	}
	reader, err := s.openBody(c)
	if err != nil {
		return nil, err
	}
	body, release, err := readWhole(reader, c.Request.ContentLength, oauthFormBytesMax, s.uploads)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, oauthProblem(CodeTooLarge, oauthInvalidRequest, fmt.Sprintf("the body must not be larger than %d bytes", oauthFormBytesMax))
	}
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	release() // small, and about to be decoded
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, oauthBadRequest("the body cannot be read as a form")
	}
	for _, name := range []string{"grant_type", "scope", "client_id", "client_secret"} {
		if len(form[name]) > 1 {
			return nil, oauthBadRequest(name + " must not appear twice")
		}
	}
	return form, nil
}

// clientCredentials are in the header or in the form (§2.3.1), not in both. A
// client_id beside the header is harmless and usual.
func clientCredentials(header string, form url.Values) (id, secret string, err error) {
	if header == "" {
		if form.Get("client_id") == "" || form.Get("client_secret") == "" {
			return "", "", oauthWrongClient()
		}
		return form.Get("client_id"), form.Get("client_secret"), nil
	}
	if form.Get("client_secret") != "" {
		return "", "", oauthBadRequest("client_secret must be in the Authorization header or in the body, not in both")
	}
	scheme, encoded, _ := strings.Cut(header, " ")
	text, err := base64.StdEncoding.DecodeString(strings.TrimLeft(encoded, " "))
	id, secret, ok := strings.Cut(string(text), ":")
	if !strings.EqualFold(scheme, "Basic") || err != nil || !ok {
		return "", "", oauthWrongClient()
	}
	// Both are encoded as in a form. Neither of ours has a letter that this
	// changes, so that clients that leave it out are understood as well.
	id, idErr := url.QueryUnescape(id)
	secret, secretErr := url.QueryUnescape(secret)
	if idErr != nil || secretErr != nil {
		return "", "", oauthWrongClient()
	}
	if other := form.Get("client_id"); other != "" && other != id {
		return "", "", oauthBadRequest("client_id is not the one of the Authorization header")
	}
	return id, secret, nil
}

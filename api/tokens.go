package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"postroad/store"
)

// tokenDocument is a token as the API shows it.
type tokenDocument struct {
	ID          string     `json:"id"`
	Role        string     `json:"role"`
	Feeds       []string   `json:"feeds,omitempty"`
	Subscriber  string     `json:"subscriber,omitempty"`
	Description string     `json:"description,omitempty"`
	State       string     `json:"state"`
	CreatedAt   time.Time  `json:"createdAt"`
	CreatedBy   string     `json:"createdBy"`
	ExpiresAt   *time.Time `json:"expiresAt,omitempty"`
	RevokedAt   *time.Time `json:"revokedAt,omitempty"`
	LastUsedAt  *time.Time `json:"lastUsedAt,omitempty"`
	// Token is the text, shown once.
	Token string `json:"token,omitempty"`
}

func tokenDocumentOf(t store.Token) tokenDocument {
	return tokenDocument{
		ID: t.ID, Role: t.Role, Feeds: t.Feeds, Subscriber: t.Subscriber, Description: t.Description, State: t.State,
		CreatedAt: t.CreatedAt.UTC(), CreatedBy: t.CreatedBy, ExpiresAt: inUTC(t.ExpiresAt), RevokedAt: inUTC(t.RevokedAt), LastUsedAt: inUTC(t.LastUsedAt),
	}
}

func inUTC(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	utc := t.UTC()
	return &utc
}

func (s *Server) listTokens(c *gin.Context) error {
	values, err := query(c, "limit", "pageToken")
	if err != nil {
		return err
	}
	page, err := pageOf(values)
	if err != nil {
		return err
	}
	tokens, err := s.config.Store.Tokens(c.Request.Context(), page.after, min(page.limit+1, store.TokensMax))
	if err != nil {
		return err
	}
	answer := struct {
		Tokens        []tokenDocument `json:"tokens"`
		NextPageToken string          `json:"nextPageToken,omitempty"`
	}{Tokens: []tokenDocument{}}
	tokens, answer.NextPageToken = cut(page, tokens, store.TokensMax, func(t store.Token) string { return t.ID })
	for _, t := range tokens {
		answer.Tokens = append(answer.Tokens, tokenDocumentOf(t))
	}
	return writeJSON(c, http.StatusOK, answer)
}

// createToken makes a token and shows its text, this once.
func (s *Server) createToken(c *gin.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	text, err := s.readDocument(c)
	if err != nil {
		return err
	}
	var input struct {
		Role        string   `json:"role"`
		Feeds       []string `json:"feeds"`
		Subscriber  string   `json:"subscriber"`
		Description string   `json:"description"`
		ExpiresAt   string   `json:"expiresAt"`
	}
	if err := decodeDocument(text, &input); err != nil {
		return err
	}
	spec := store.TokenSpec{
		Role: input.Role, Feeds: input.Feeds, Subscriber: input.Subscriber, Description: input.Description, CreatedBy: grantOf(c).name(),
	}
	if input.ExpiresAt != "" {
		at, err := time.Parse(time.RFC3339, input.ExpiresAt)
		if err != nil {
			return invalidAt("/expiresAt", "must be an RFC 3339 time such as 2026-03-01T09:30:00Z")
		}
		spec.ExpiresAt = &at
	}
	token, secret, err := s.config.Store.CreateToken(c.Request.Context(), spec)
	if err != nil {
		return err
	}
	document := tokenDocumentOf(token)
	document.Token = secret
	c.Header("Location", "/v1/tokens/"+token.ID)
	return writeJSON(c, http.StatusCreated, document)
}

func (s *Server) getToken(c *gin.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	id, err := tokenID(c)
	if err != nil {
		return err
	}
	token, err := s.config.Store.Token(c.Request.Context(), id)
	if err != nil {
		return tokenError(id, err)
	}
	return writeJSON(c, http.StatusOK, tokenDocumentOf(token))
}

// revokeToken ends a token; it goes on being shown.
func (s *Server) revokeToken(c *gin.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	id, err := tokenID(c)
	if err != nil {
		return err
	}
	if err := s.config.Store.RevokeToken(c.Request.Context(), id); err != nil {
		return tokenError(id, err)
	}
	s.tokens.forget()
	c.Status(http.StatusNoContent)
	c.Writer.WriteHeaderNow()
	return nil
}

// tokenID is the path's token. What no token can be called, a token's whole text
// above all, is neither looked up nor shown.
func tokenID(c *gin.Context) (string, error) {
	id := c.Param("token")
	if !store.ValidTokenID(id) {
		return "", notFound("token", "no token can have this id: ids are 10 lower-case letters or digits, between the _ of a token")
	}
	return id, nil
}

// tokenError names the token that is not there.
func tokenError(id string, err error) error {
	if errors.Is(err, store.ErrTokenNotFound) {
		p := notFound("token", fmt.Sprintf("no token has the id %s", strconv.Quote(id)))
		p.cause = err
		return p
	}
	return err
}

package api

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"postroad/store"
)

// permission says whose tokens a route takes. Every route declares one; what is
// not allowed here is refused.
type permission uint8

// allowAdmin is in all but anyone. The roles of feeds may call a route for the
// feeds of their token, a subscriber for itself.
const (
	allowAdmin permission = 1 << iota
	allowPublisher
	allowReader
	allowSubscriber
	allowAnyone // without a token too
)

// The permissions that routes have.
const (
	adminOnly     = allowAdmin
	publishers    = allowAdmin | allowPublisher
	readers       = allowAdmin | allowReader
	usersOfFeed   = allowAdmin | allowPublisher | allowReader
	ownSubscriber = allowAdmin | allowSubscriber
	anyone        = allowAnyone
)

// check refuses a route whose permission cannot be decided: none is declared,
// or the path does not say which feed or subscriber it is about.
func (p permission) check(method, path string) error {
	switch {
	case p == 0:
		return fmt.Errorf("route %s %s declares no permission", method, path)
	case p&(allowPublisher|allowReader) != 0 && !strings.HasPrefix(path, "/v1/feeds/:feed") && !strings.HasPrefix(path, "/odata/:feed"):
		return fmt.Errorf("route %s %s is open to a feed's tokens and names no feed", method, path)
	case p&allowSubscriber != 0 && !strings.HasPrefix(path, "/v1/subscribers/:id"):
		return fmt.Errorf("route %s %s is open to a subscriber's tokens and names no subscriber", method, path)
	}
	return nil
}

// principal is who a token stands for.
type principal struct {
	role string
	// token is the token's id; "" for the one of the environment.
	token      string
	feeds      []string
	subscriber string
}

// environment is who the token of the environment stands for.
var environment = &principal{role: store.RoleAdmin}

func principalOfToken(t store.Token) *principal {
	return &principal{role: t.Role, token: t.ID, feeds: t.Feeds, subscriber: t.Subscriber}
}

// name is what records of changes say: admin or token:<id>.
func (p *principal) name() string {
	if p.token == "" {
		return "admin"
	}
	return "token:" + p.token
}

// may decides. What is asked for is not looked up, so that the answer about
// another's feed or subscriber is the same whether it exists or not.
func (p *principal) may(allowed permission, feed, subscriber string) bool {
	switch p.role {
	case store.RoleAdmin:
		return allowed&allowAdmin != 0
	case store.RolePublisher:
		return allowed&allowPublisher != 0 && slices.Contains(p.feeds, feed)
	case store.RoleReader:
		return allowed&allowReader != 0 && slices.Contains(p.feeds, feed)
	case store.RoleSubscriber:
		return allowed&allowSubscriber != 0 && p.subscriber != "" && p.subscriber == subscriber
	}
	return false
}

func (p *principal) forbidden() *Problem {
	return &Problem{
		Code:   CodeForbidden,
		Detail: fmt.Sprintf("A token with the role %s may not do this, or not for this feed or subscriber.", p.role),
		Header: map[string]string{"WWW-Authenticate": challenge + `, error="insufficient_scope"`},
	}
}

const challenge = `Bearer realm="postroad"` // RFC 6750 §3

func unauthorized(header string) *Problem {
	p := &Problem{
		Code: CodeUnauthorized, Detail: "Send the header Authorization: Bearer <token>.",
		Header: map[string]string{"WWW-Authenticate": challenge},
	}
	if header != "" {
		p.Detail = "The token in the Authorization header is not valid here, or no longer."
		p.Header["WWW-Authenticate"] = challenge + `, error="invalid_token"`
	}
	return p
}

// grant is what a request was let in with. Requests that last ask again: it may
// cease to hold meanwhile.
type grant struct {
	*principal // nil: nobody yet
	header     string
	allowed    permission
	feed, id   string // the path's feed and subscriber
}

// check refuses what the principal may not do.
func (g *grant) check() error {
	if !g.may(g.allowed, g.feed, g.id) {
		return g.forbidden()
	}
	return nil
}

// tokenID is for the log: never more of a token than its id.
func (g *grant) tokenID() string {
	if g.principal == nil {
		return ""
	}
	return g.token
}

const grantKey = "grant"

// admin reports whether the request may see what only admins do.
func (g *grant) admin() bool { return g.principal != nil && g.role == store.RoleAdmin }

// grantOf is what the request was let in with; nobody's where the route is open
// to anyone.
func grantOf(c *gin.Context) *grant {
	value, _ := c.Get(grantKey)
	if g, ok := value.(*grant); ok {
		return g
	}
	return &grant{}
}

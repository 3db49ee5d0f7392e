package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"postroad/store"
)

// routes builds the router: one line a route, in the order of the API's
// description, each with whom it takes; docs/SECURITY.md has the table.
func (s *Server) routes() (*gin.Engine, error) {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.HandleMethodNotAllowed = true
	e.RedirectTrailingSlash = false
	// An id's slash or dot must reach the handler that can name it.
	e.UseEscapedPath = true
	e.ContextWithFallback = false

	var faults []error
	add := func(method, path string, allowed permission, h handler) {
		faults = append(faults, allowed.check(method, path))
		e.Handle(method, path, s.handle(path, allowed, h))
	}
	plain := func(method, path string, allowed permission, h handler) { add(method, path, allowed, s.bounded(h)) }
	s.feedRoutes(add, plain)
	s.explainRoutes(plain)
	s.subscriberRoutes(add, plain)
	s.asideRoutes(add, plain)
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		plain(method, "/odata/:feed", readers, s.serveOData)
		plain(method, "/odata/:feed/*path", readers, s.serveOData)
	}

	plain(http.MethodGet, "/v1/tokens", adminOnly, s.listTokens)
	plain(http.MethodPost, "/v1/tokens", adminOnly, s.createToken)
	plain(http.MethodGet, "/v1/tokens/:token", adminOnly, s.getToken)
	plain(http.MethodDelete, "/v1/tokens/:token", adminOnly, s.revokeToken)

	plain(http.MethodPost, "/oauth/token", anyone, s.issueAccessToken)

	plain(http.MethodGet, "/healthz", anyone, s.healthz)
	plain(http.MethodGet, "/readyz", anyone, s.readyz)
	plain(http.MethodGet, "/openapi.json", anyone, s.openAPI)
	plain(http.MethodGet, "/docs", anyone, s.docs)
	plain(http.MethodGet, "/problems/:code", anyone, s.describeProblem)

	e.NoRoute(s.handle("unknown", anyone, func(c *gin.Context) error {
		return &Problem{Code: CodeNotFound, Detail: "There is no such path. /docs lists those that are."}
	}))
	e.NoMethod(s.handle("unknown", anyone, func(c *gin.Context) error {
		return &Problem{Code: CodeMethodNotAllowed, Detail: "This path allows: " + c.Writer.Header().Get("Allow") + "."}
	}))
	return e, errors.Join(faults...)
}

// register adds a route.
type register func(method, path string, allowed permission, h handler)

func (s *Server) feedRoutes(add, plain register) {
	plain(http.MethodGet, "/v1/feeds", adminOnly, s.listFeeds)
	plain(http.MethodPost, "/v1/feeds", adminOnly, s.createFeed)
	plain(http.MethodGet, "/v1/feeds/:feed", usersOfFeed, s.getFeed)
	plain(http.MethodPatch, "/v1/feeds/:feed", adminOnly, s.patchFeed)
	plain(http.MethodDelete, "/v1/feeds/:feed", adminOnly, s.deleteFeed)

	add(http.MethodPost, "/v1/feeds/:feed/events", publishers, s.publish)
	add(http.MethodGet, "/v1/feeds/:feed/events", readers, s.listEvents)
	plain(http.MethodGet, "/v1/feeds/:feed/events/:sequence", readers, s.getEvent)
	add(http.MethodGet, "/v1/feeds/:feed/stream", readers, s.streamFeed)
	add(http.MethodDelete, "/v1/feeds/:feed/records/:resource/:key/data", adminOnly, s.within(eraseMax, s.eraseRecord))
}

func (s *Server) subscriberRoutes(add, plain register) {
	control := s.controls(add)
	plain(http.MethodGet, "/v1/subscribers", adminOnly, s.listSubscribers)
	plain(http.MethodPost, "/v1/subscribers", adminOnly, s.createSubscriber)
	plain(http.MethodGet, "/v1/subscribers/:id", ownSubscriber, s.ofSubscriber(s.getSubscriber))
	control(http.MethodPut, "/v1/subscribers/:id", adminOnly, s.putSubscriber)
	control(http.MethodPatch, "/v1/subscribers/:id", adminOnly, s.patchSubscriber)
	control(http.MethodDelete, "/v1/subscribers/:id", adminOnly, s.deleteSubscriber)
	plain(http.MethodGet, "/v1/subscribers/:id/status", ownSubscriber, s.ofSubscriber(s.getStatus))
	add(http.MethodGet, "/v1/subscribers/:id/events", ownSubscriber, s.ofSubscriber(s.pullEvents))
	plain(http.MethodPost, "/v1/subscribers/:id/commit", ownSubscriber, s.ofSubscriber(s.commitEvents))
	add(http.MethodGet, "/v1/subscribers/:id/stream", ownSubscriber, s.ofSubscriber(s.streamSubscriber))
	plain(http.MethodGet, "/v1/subscribers/:id/attempts", ownSubscriber, s.ofSubscriber(s.listAttempts))
	control(http.MethodPost, "/v1/subscribers/:id/pause", ownSubscriber, s.pause)
	control(http.MethodPost, "/v1/subscribers/:id/resume", ownSubscriber, s.resume)
	add(http.MethodPost, "/v1/subscribers/:id/test", ownSubscriber, s.ofSubscriber(s.testSubscriber))
	control(http.MethodPost, "/v1/subscribers/:id/signing-secret/rotate", adminOnly, s.rotateSigningSecret)
}

// asideRoutes are about positions, what is set aside, and what is sent again.
func (s *Server) asideRoutes(add, plain register) {
	control := s.controls(add)
	read := func(path string, h func(*gin.Context, string) error) {
		plain(http.MethodGet, path, ownSubscriber, s.ofSubscriber(h))
	}
	control(http.MethodPost, "/v1/subscribers/:id/seek", ownSubscriber, s.seek)
	control(http.MethodPost, "/v1/subscribers/:id/skip", ownSubscriber, s.skip)
	read("/v1/subscribers/:id/held-keys", s.listHeldKeys)
	read("/v1/subscribers/:id/held-keys/events", s.listHeldEvents)
	control(http.MethodPost, "/v1/subscribers/:id/held-keys/retry", ownSubscriber, s.controlHeld(store.ControlHeldRetry))
	control(http.MethodPost, "/v1/subscribers/:id/held-keys/skip", ownSubscriber, s.controlHeld(store.ControlHeldSkip))
	control(http.MethodPost, "/v1/subscribers/:id/held-keys/release", ownSubscriber, s.controlHeld(store.ControlHeldRelease))
	read("/v1/subscribers/:id/dead-letters", s.listDeadLetters)
	plain(http.MethodPost, "/v1/subscribers/:id/dead-letters/dismiss", ownSubscriber, s.ofSubscriber(s.dismissDeadLetters))
	read("/v1/subscribers/:id/replays", s.listReplays)
	add(http.MethodPost, "/v1/subscribers/:id/replays", ownSubscriber, s.within(replayMax, s.ofSubscriber(s.createReplay)))
	read("/v1/subscribers/:id/replays/:replay", s.getReplay)
	control(http.MethodDelete, "/v1/subscribers/:id/replays/:replay", ownSubscriber, s.controlReplay(store.ControlReplayCancel))
	control(http.MethodPost, "/v1/subscribers/:id/replays/:replay/pause", ownSubscriber, s.controlReplay(store.ControlReplayPause))
	control(http.MethodPost, "/v1/subscribers/:id/replays/:replay/resume", ownSubscriber, s.controlReplay(store.ControlReplayResume))
}

// controls is add for what waits until it is in force.
func (s *Server) controls(add register) func(method, path string, allowed permission, h func(*gin.Context, string) error) {
	return func(method, path string, allowed permission, h func(*gin.Context, string) error) {
		add(method, path, allowed, s.within(s.config.DatabaseMax+s.config.ForceWait, s.ofSubscriber(h)))
	}
}

// bounded gives a handler's work in the database an end.
func (s *Server) bounded(h handler) handler { return s.within(s.config.DatabaseMax, h) }

func (s *Server) within(limit time.Duration, h handler) handler {
	return func(c *gin.Context) error {
		request := c.Request
		ctx, cancel := context.WithTimeout(request.Context(), limit)
		defer func() {
			cancel()
			c.Request = request // what comes after is not bounded by it
		}()
		c.Request = request.WithContext(ctx)
		return h(c)
	}
}

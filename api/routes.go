package api

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
)

// routes builds the router: one line a route, in the order of the API's
// description.
func (s *Server) routes() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.HandleMethodNotAllowed = true
	e.RedirectTrailingSlash = false
	// An id's slash or dot must reach the handler that can name it.
	e.UseEscapedPath = true
	e.ContextWithFallback = false

	plain := func(method, path string, h handler) { e.Handle(method, path, s.handle(path, false, s.bounded(h))) }
	long := func(method, path string, h handler) { e.Handle(method, path, s.handle(path, false, h)) }
	control := func(method, path string, h func(*gin.Context, string) error) {
		e.Handle(method, path, s.handle(path, false, s.within(s.config.DatabaseMax+s.config.ForceWait, s.ofSubscriber(h))))
	}
	open := func(path string, h handler) { e.GET(path, s.handle(path, true, s.bounded(h))) }

	plain(http.MethodGet, "/v1/feeds", s.listFeeds)
	plain(http.MethodPost, "/v1/feeds", s.createFeed)
	plain(http.MethodGet, "/v1/feeds/:feed", s.getFeed)
	plain(http.MethodPatch, "/v1/feeds/:feed", s.patchFeed)
	plain(http.MethodDelete, "/v1/feeds/:feed", s.deleteFeed)

	long(http.MethodPost, "/v1/feeds/:feed/events", s.publish)
	long(http.MethodGet, "/v1/feeds/:feed/events", s.listEvents)
	plain(http.MethodGet, "/v1/feeds/:feed/events/:sequence", s.getEvent)

	plain(http.MethodGet, "/v1/subscribers", s.listSubscribers)
	plain(http.MethodPost, "/v1/subscribers", s.createSubscriber)
	plain(http.MethodGet, "/v1/subscribers/:id", s.ofSubscriber(s.getSubscriber))
	control(http.MethodPut, "/v1/subscribers/:id", s.putSubscriber)
	control(http.MethodPatch, "/v1/subscribers/:id", s.patchSubscriber)
	control(http.MethodDelete, "/v1/subscribers/:id", s.deleteSubscriber)
	plain(http.MethodGet, "/v1/subscribers/:id/status", s.ofSubscriber(s.getStatus))
	plain(http.MethodGet, "/v1/subscribers/:id/attempts", s.ofSubscriber(s.listAttempts))
	control(http.MethodPost, "/v1/subscribers/:id/pause", s.pause)
	control(http.MethodPost, "/v1/subscribers/:id/resume", s.resume)
	long(http.MethodPost, "/v1/subscribers/:id/test", s.ofSubscriber(s.testSubscriber))
	control(http.MethodPost, "/v1/subscribers/:id/signing-secret/rotate", s.rotateSigningSecret)

	open("/healthz", s.healthz)
	open("/readyz", s.readyz)
	open("/openapi.json", s.openAPI)
	open("/docs", s.docs)
	open("/problems/:code", s.describeProblem)

	e.NoRoute(s.handle("unknown", true, func(c *gin.Context) error {
		return &Problem{Code: CodeNotFound, Detail: "There is no such path. /docs lists those that are."}
	}))
	e.NoMethod(s.handle("unknown", true, func(c *gin.Context) error {
		return &Problem{Code: CodeMethodNotAllowed, Detail: "This path allows: " + c.Writer.Header().Get("Allow") + "."}
	}))
	return e
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

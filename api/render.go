package api

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"
)

const (
	contentTypeJSON    = "application/json"
	contentTypeProblem = "application/problem+json"
	requestIDHeader    = "X-Request-Id"
	requestIDBytesMax  = 128
	writeMax           = 2 * time.Minute // for one answer
	// statusClientGone is what the metrics count where the client went away;
	// nginx's number for it.
	statusClientGone = 499
)

// handler answers a request, or returns the error that render answers with.
type handler func(c *gin.Context) error

// errPanicked is a handler's panic; its stack was logged.
var errPanicked = errors.New("api: handler panicked")

// handle makes a gin handler of h: it measures, lets in whom the route allows,
// recovers, and is the only caller of render.
func (s *Server) handle(route string, allowed permission, h handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		start := time.Now()
		if s.draining.Err() != nil {
			c.Header("Connection", "close") // its next request is for another process
		}
		control := http.NewResponseController(c.Writer)
		if c.Request.ContentLength != 0 {
			// A body that nobody reads must not hold the connection for ever.
			_ = control.SetReadDeadline(start.Add(s.config.BodyIdle))
		}
		err := s.guarded(c, func(c *gin.Context) error {
			if err := s.authorize(c, allowed); err != nil {
				return err
			}
			return h(c)
		})
		if err != nil {
			s.render(c, route, err)
		}
		s.metrics.observe(c.Request.Method, route, c.Writer.Status(), time.Since(start))
	}
}

func (s *Server) guarded(c *gin.Context, h handler) (err error) {
	defer func() {
		switch reason := recover(); reason {
		case nil:
		case http.ErrAbortHandler:
			panic(reason) //nolint:forbidigo // net/http's own way to drop a connection
		default:
			s.config.Logger.ErrorContext(c.Request.Context(), "handler panicked",
				slog.Any("reason", reason), slog.String("stack", string(debug.Stack())))
			err = errPanicked
		}
	}()
	return h(c)
}

// render is the one place that answers with a problem, counts it and logs it.
func (s *Server) render(c *gin.Context, route string, err error) {
	ctx := c.Request.Context()
	if clientGone(ctx, err) {
		s.config.Logger.DebugContext(ctx, "client went away", slog.String("route", route), slog.Any("error", err))
		// Should somebody read it after all, it must not be an implicit 200.
		c.Header("Connection", "close")
		c.Status(statusClientGone)
		c.Writer.WriteHeaderNow()
		return
	}
	p := problemOf(err)
	requestID := requestID(c.Request)
	s.metrics.problems.WithLabelValues(string(p.Code)).Inc()
	s.config.Logger.LogAttrs(ctx, levelOf(p), "request refused",
		slog.String("request_id", requestID), slog.String("method", c.Request.Method), slog.String("route", route),
		slog.Int("status", p.Status()), slog.String("code", string(p.Code)), slog.String("token_id", grantOf(c).tokenID()), slog.Any("error", err))
	if c.Writer.Written() {
		// Half an answer is out; only a broken connection can say that it is not whole.
		panic(http.ErrAbortHandler) //nolint:forbidigo // net/http's own way to drop a connection
	}
	header := c.Writer.Header()
	for _, stale := range []string{"ETag", "Location", "Cache-Control"} {
		header.Del(stale)
	}
	for name, value := range p.Header {
		header.Set(name, value)
	}
	if p.RetryAfter > 0 {
		header.Set("Retry-After", retryAfterSeconds(p.RetryAfter))
	}
	header.Set(requestIDHeader, requestID)
	if isOData(c.Request) {
		odataHeaders(header, odataVersion(c.Request))
		write(c, p.Status(), contentTypeJSON, odataRefusal(p))
		return
	}
	contentType, document := contentTypeProblem, any(p.body(requestID))
	if p.OAuthError != "" {
		contentType, document = contentTypeJSON, oauthBody{p.OAuthError, p.Detail}
	}
	body, err := json.Marshal(document, json.Deterministic(true))
	if err != nil {
		body = fmt.Appendf(nil, `{"type":"/problems/%s","status":%d}`, p.Code, p.Status())
	}
	write(c, p.Status(), contentType, append(body, '\n'))
}

func levelOf(p *Problem) slog.Level {
	switch {
	case p.Code == CodeInternal:
		return slog.LevelError
	case p.Status() >= http.StatusInternalServerError:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// requestID is the client's own word for the request if it is a decent one,
// else a random one.
func requestID(r *http.Request) string {
	id := r.Header.Get(requestIDHeader)
	if id == "" || len(id) > requestIDBytesMax || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return rand.Text()
	}
	return id
}

// write sends a whole answer. The deadline is for clients that stop reading.
func write(c *gin.Context, status int, contentType string, body []byte) {
	_ = http.NewResponseController(c.Writer).SetWriteDeadline(time.Now().Add(writeMax))
	header := c.Writer.Header()
	header.Set("Content-Type", contentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	if header.Get("Cache-Control") == "" {
		header.Set("Cache-Control", "no-store")
	}
	c.Writer.WriteHeader(status)
	_, _ = c.Writer.Write(body) // an error here is a client that has gone
}

// writeJSON sends a document.
func writeJSON(c *gin.Context, status int, document any) error {
	body, err := json.Marshal(document, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	write(c, status, contentTypeJSON, append(body, '\n'))
	return nil
}

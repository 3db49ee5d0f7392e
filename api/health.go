package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
)

// readyMax bounds all checks of one /readyz together.
const readyMax = 3 * time.Second

func (s *Server) healthz(c *gin.Context) error {
	return writeJSON(c, http.StatusOK, map[string]string{"status": "ok"})
}

// readyz answers whether requests would be served now. What a failed check
// said is logged, not shown: it can name hosts.
func (s *Server) readyz(c *gin.Context) error {
	if s.draining.Err() != nil {
		return &Problem{Code: CodeNotReady, RetryAfter: time.Second, Detail: "The server is shutting down."}
	}
	checks, err := s.check(c.Request.Context())
	if err != nil {
		return &Problem{Code: CodeNotReady, RetryAfter: time.Second, Detail: "A check failed; see checks.", Checks: checks, cause: err}
	}
	return writeJSON(c, http.StatusOK, map[string]any{"status": "ready", "checks": checks})
}

func (s *Server) check(ctx context.Context) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, readyMax)
	defer cancel()
	checks := make(map[string]string, len(s.config.Ready))
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	for name, check := range s.config.Ready {
		all.Go(func() {
			err := check(ctx)
			mu.Lock()
			defer mu.Unlock()
			checks[name] = "ok"
			if err != nil {
				checks[name] = "failed"
				failed = errors.Join(failed, err)
				s.config.Logger.WarnContext(ctx, "readiness check failed", slog.String("check", name), slog.Any("error", err))
			}
		})
	}
	all.Wait()
	return checks, failed
}

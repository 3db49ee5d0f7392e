package api

import (
	"context"
	"fmt"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"postroad/contract"
	"postroad/event"
	"postroad/store"
)

const (
	forcePauseMin = 20 * time.Millisecond
	forcePauseMax = 100 * time.Millisecond
)

// pause stops a subscriber until it is resumed or the given time comes.
func (s *Server) pause(c *gin.Context, id string) error {
	text, err := s.controlBody(c)
	if err != nil {
		return err
	}
	var input struct {
		Reason string `json:"reason"`
		Until  string `json:"until"`
	}
	if text != nil {
		if err := decodeDocument(text, &input); err != nil {
			return err
		}
	}
	var faults event.FieldErrors
	request := store.ControlRequest{Kind: contract.ControlPause, Reason: input.Reason}
	if utf8.RuneCountInString(input.Reason) > store.PauseReasonCharactersMax {
		faults.Add("/reason", fmt.Sprintf("must not be longer than %d characters", store.PauseReasonCharactersMax))
	}
	if input.Until != "" {
		until, err := time.Parse(time.RFC3339, input.Until)
		if err != nil {
			faults.Add("/until", "must be an RFC 3339 time such as 2026-03-01T09:30:00Z")
		}
		request.Until = &until
	}
	if err := faults.Err(); err != nil {
		return err
	}
	return s.control(c, id, request)
}

// resume ends pausing, halting and disabling alike.
func (s *Server) resume(c *gin.Context, id string) error {
	text, err := s.controlBody(c)
	if err != nil {
		return err
	}
	if text != nil {
		if err := decodeDocument(text, &struct{}{}); err != nil {
			return err
		}
	}
	return s.control(c, id, store.ControlRequest{Kind: contract.ControlResume})
}

func (s *Server) controlBody(c *gin.Context) ([]byte, error) {
	if _, err := query(c); err != nil {
		return nil, err
	}
	text, err := s.readDocument(c)
	if len(text) == 0 {
		text = nil // chunked, but empty
	}
	return text, err
}

// control makes a control and answers with the status once it is in force, or
// with 202 and its version.
func (s *Server) control(c *gin.Context, id string, request store.ControlRequest) error {
	key, err := idempotencyKey(c.Request)
	if err != nil {
		return err
	}
	request.Subscriber, request.Source = id, sourceOf(c)
	if key != "" {
		request.RequestID = request.Kind + ":" + key
	}
	ctx := c.Request.Context()
	result, err := s.config.Store.Control(ctx, request)
	if err != nil {
		return err
	}
	s.wakes.wake(id)
	s.pulls.change(id)
	if !s.inForce(ctx, id, result) {
		c.Header("Location", "/v1/subscribers/"+id+"/status")
		return writeJSON(c, http.StatusAccepted, map[string]int64{"version": result.Version})
	}
	return s.writeStatus(c, id)
}

// sourceOf is what the record of a control says of who asked: api for the token
// of the environment, else token:<id>.
func sourceOf(c *gin.Context) string {
	if g := grantOf(c); g.tokenID() != "" {
		return g.name()
	}
	return "api"
}

// inForce waits, within bounds, until a control is in force. A database that
// cannot say so has not undone it: the answer is then that it is not known yet.
func (s *Server) inForce(ctx context.Context, id string, control store.ControlResult) bool {
	if control.InForce {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.ForceWait)
	defer cancel()
	for pause := forcePauseMin; ; pause = min(2*pause, forcePauseMax) {
		select {
		case <-ctx.Done():
			return false
		case <-s.draining.Done():
			return false
		case <-time.After(pause):
		}
		if inForce, err := s.config.Store.InForce(ctx, id, control.Version); err == nil && inForce {
			return true
		}
	}
}

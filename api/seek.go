package api

import (
	"fmt"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"postroad/event"
	"postroad/store"
)

const (
	wantedSeek = `must be "beginning", "now", {"sequence": n} or {"time": "2026-03-01T09:30:00Z"}`
	wantedTime = "must be an RFC 3339 time such as 2026-03-01T09:30:00Z"
)

// seek moves a subscriber to another position of its feed.
func (s *Server) seek(c *gin.Context, id string) error {
	var input struct {
		To jsontext.Value `json:"to"`
	}
	if err := s.readControl(c, &input); err != nil {
		return err
	}
	target, err := readSeek(input.To)
	if err != nil {
		return err
	}
	return s.control(c, id, store.ControlRequest{Kind: store.ControlSeek, Seek: target})
}

func readSeek(text jsontext.Value) (*store.SeekTarget, error) {
	switch text.Kind() {
	case '"':
		var word string
		if err := json.Unmarshal(text, &word); err != nil {
			return nil, fmt.Errorf("decode target: %w", err)
		}
		if word != "beginning" && word != "now" {
			return nil, invalidAt("/to", wantedSeek)
		}
		return &store.SeekTarget{Beginning: word == "beginning", Now: word == "now"}, nil
	case '{':
	default:
		return nil, invalidAt("/to", wantedSeek)
	}
	var input struct {
		Sequence *int64  `json:"sequence"`
		Time     *string `json:"time"`
	}
	if err := decodeDocument(text, &input); err != nil {
		return nil, below("/to", err)
	}
	target := &store.SeekTarget{Sequence: input.Sequence}
	switch {
	case (input.Sequence == nil) == (input.Time == nil):
		return nil, invalidAt("/to", wantedSeek)
	case input.Time != nil:
		at, err := time.Parse(time.RFC3339, *input.Time)
		if err != nil {
			return nil, invalidAt("/to/time", wantedTime)
		}
		target.Time = &at
	case *input.Sequence < 0:
		return nil, invalidAt("/to/sequence", "must be 0 or more")
	}
	return target, nil
}

// below puts what is wrong with a part of a body under the part's pointer.
func below(pointer string, err error) error {
	faults, ok := err.(event.FieldErrors) //nolint:errorlint // decodeDocument returns it bare
	if !ok {
		return err
	}
	for i := range faults {
		faults[i].Pointer = pointer + faults[i].Pointer
	}
	return faults
}

// skip gives up the event at which a subscriber halted, and ends the halt.
func (s *Server) skip(c *gin.Context, id string) error {
	var input struct {
		Sequence *int64 `json:"sequence"`
	}
	if err := s.readControl(c, &input); err != nil {
		return err
	}
	if input.Sequence == nil || *input.Sequence < 1 {
		return invalidAt("/sequence", "must be the event at which the subscriber is halted, as its status says")
	}
	return s.control(c, id, store.ControlRequest{Kind: store.ControlSkip, Sequence: *input.Sequence})
}

// readControl reads the body of a control that cannot do without one.
func (s *Server) readControl(c *gin.Context, into any) error {
	text, err := s.controlBody(c)
	if err != nil {
		return err
	}
	return decodeDocument(text, into)
}

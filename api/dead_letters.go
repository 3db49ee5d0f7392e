package api

import (
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"postroad/event"
	"postroad/store"
)

// dismissedMax is the most dead letters that one request dismisses.
const dismissedMax = 1000

// deadLetterDocument is an event that was given up, as the API shows it.
type deadLetterDocument struct {
	Sequence int64 `json:"sequence"`
	recordKey
	At         time.Time `json:"at"`
	Reason     string    `json:"reason"`
	Source     string    `json:"source,omitempty"`
	Attempts   int       `json:"attempts"`
	LastStatus int       `json:"lastStatus,omitzero"`
	LastError  string    `json:"lastError,omitempty"`
	Replay     int64     `json:"replay,omitzero"`
}

// listDeadLetters lists the events that were given up, in order.
func (s *Server) listDeadLetters(c *gin.Context, id string) error {
	values, err := query(c, "limit", "pageToken")
	if err != nil {
		return err
	}
	page, after, err := numberedPage(values)
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	if _, err := s.config.Store.Get(ctx, id); err != nil {
		return err
	}
	letters, err := s.config.Store.DeadLetters(ctx, id, after, page.limit+1)
	if err != nil {
		return err
	}
	answer := struct {
		DeadLetters   []deadLetterDocument `json:"deadLetters"`
		NextPageToken string               `json:"nextPageToken,omitempty"`
	}{DeadLetters: []deadLetterDocument{}}
	letters, answer.NextPageToken = cut(page, letters, store.AsidePageMax, func(d store.DeadLetter) string { return numbered(d.Sequence) })
	for _, d := range letters {
		answer.DeadLetters = append(answer.DeadLetters, deadLetterDocument{
			Sequence: d.Sequence, recordKey: recordKeyOf(d.Key), At: d.At.UTC(), Reason: d.Reason, Source: d.Source,
			Attempts: d.Attempts, LastStatus: d.LastStatus, LastError: d.LastError, Replay: d.Replay,
		})
	}
	return writeJSON(c, http.StatusOK, answer)
}

// dismissDeadLetters forgets dead letters: they are not sent again. Those that
// are none, or no longer, do not count.
func (s *Server) dismissDeadLetters(c *gin.Context, id string) error {
	var input struct {
		Sequences []int64 `json:"sequences"`
	}
	if err := s.readControl(c, &input); err != nil {
		return err
	}
	var faults event.FieldErrors
	if len(input.Sequences) == 0 || len(input.Sequences) > dismissedMax {
		faults.Add("/sequences", fmt.Sprintf("must have 1-%d entries", dismissedMax))
	}
	for i, sequence := range input.Sequences[:min(len(input.Sequences), dismissedMax)] {
		if sequence < 1 {
			faults.Addf("/sequences/%d", "must be 1 or more", i)
		}
	}
	if err := faults.Err(); err != nil {
		return err
	}
	ctx := c.Request.Context()
	dismissed, err := s.config.Store.DismissDeadLetters(ctx, id, input.Sequences)
	if err != nil {
		return err
	}
	s.config.Logger.InfoContext(ctx, "dead letters dismissed", "subscriber", id, "count", dismissed, "source", sourceOf(c))
	return writeJSON(c, http.StatusOK, map[string]int64{"dismissed": dismissed})
}

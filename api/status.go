package api

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"postroad/contract"
	"postroad/delivery"
	"postroad/event"
	"postroad/store"
)

// statusDocument is a subscriber's status as the API shows it.
type statusDocument struct {
	store.Status
	WorkflowID  string `json:"workflowId"`
	TemporalURL string `json:"temporalUrl,omitempty"`
}

func (s *Server) getStatus(c *gin.Context, id string) error {
	if _, err := query(c); err != nil {
		return err
	}
	return s.writeStatus(c, id)
}

func (s *Server) writeStatus(c *gin.Context, id string) error {
	status, err := s.config.Store.Status(c.Request.Context(), id)
	if err != nil {
		return err
	}
	workflowID := contract.SubscriberWorkflowID(id)
	document := statusDocument{Status: status, WorkflowID: workflowID}
	if s.config.TemporalUIURL != "" && grantOf(c).role == store.RoleAdmin { // it is inside the operator's network
		document.TemporalURL = strings.TrimSuffix(s.config.TemporalUIURL, "/") + "/namespaces/" +
			url.PathEscape(s.config.TemporalNamespace) + "/workflows/" + url.PathEscape(workflowID)
	}
	return writeJSON(c, http.StatusOK, document)
}

// attemptDocument is one request to a consumer as the API shows it.
type attemptDocument struct {
	ID            int64     `json:"id"`
	StartedAt     time.Time `json:"startedAt"`
	FirstSequence int64     `json:"firstSequence"`
	LastSequence  int64     `json:"lastSequence"`
	EventCount    int       `json:"eventCount"`
	Sequences     []int64   `json:"sequences,omitempty"`
	Replay        int64     `json:"replay,omitzero"`
	Compacted     int       `json:"compacted,omitzero"`
	Attempt       int       `json:"attempt"`
	Class         string    `json:"class"`
	Status        *int      `json:"status,omitempty"`
	DurationMS    float64   `json:"durationMs"`
	RequestBytes  int       `json:"requestBytes"`
	Error         string    `json:"error,omitempty"`
	Response      string    `json:"response,omitempty"`
	RetryAfter    string    `json:"retryAfter,omitempty"`
}

// listAttempts lists a subscriber's requests, the newest first.
func (s *Server) listAttempts(c *gin.Context, id string) error {
	values, err := query(c, "limit", "pageToken", "failures")
	if err != nil {
		return err
	}
	page, err := pageOf(values)
	if err != nil {
		return err
	}
	filter := store.AttemptFilter{}
	if filter.FailuresOnly, err = flag(values, "failures"); err != nil {
		return err
	}
	if page.after != "" {
		if filter.BeforeID, err = strconv.ParseInt(page.after, 10, 64); err != nil || filter.BeforeID < 1 {
			return wrongPageToken()
		}
	}
	ctx := c.Request.Context()
	record, err := s.config.Store.Get(ctx, id)
	if err != nil {
		return err
	}
	if grantOf(c).role != store.RoleAdmin {
		filter.Since = record.CreatedAt // whoever had the id before was somebody else
	}
	attempts, err := s.config.Store.Attempts(ctx, id, filter, min(page.limit+1, store.AttemptsMax))
	if err != nil {
		return err
	}
	answer := struct {
		Attempts      []attemptDocument `json:"attempts"`
		NextPageToken string            `json:"nextPageToken,omitempty"`
	}{Attempts: []attemptDocument{}}
	attempts, answer.NextPageToken = cut(page, attempts, store.AttemptsMax, func(a store.Attempt) string { return numbered(a.ID) })
	for _, a := range attempts {
		answer.Attempts = append(answer.Attempts, attemptDocument{
			ID: a.ID, StartedAt: a.StartedAt.UTC(), FirstSequence: a.FirstSequence, LastSequence: a.LastSequence, EventCount: a.EventCount,
			Sequences: a.Sequences, Replay: a.Replay, Compacted: a.Compacted,
			Attempt: a.Attempt, Class: a.Class, Status: a.Status, DurationMS: milliseconds(a.Duration), RequestBytes: a.RequestBytes,
			Error: a.Error, Response: a.Response, RetryAfter: a.RetryAfter,
		})
	}
	return writeJSON(c, http.StatusOK, answer)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// testDocument is what came of a test request. A stage that was not reached
// took 0.
type testDocument struct {
	Success   bool    `json:"success"`
	Class     string  `json:"class"`
	Status    int     `json:"status,omitzero"`
	Code      string  `json:"code,omitempty"`
	Error     string  `json:"error,omitempty"`
	DNSMS     float64 `json:"dnsMs"`
	ConnectMS float64 `json:"connectMs"`
	TLSMS     float64 `json:"tlsMs"`
	TotalMS   float64 `json:"totalMs"`
	Response  string  `json:"response,omitempty"`
}

// testSubscriber makes one request without events to the endpoint, whatever
// the subscriber's state is, and moves nothing.
func (s *Server) testSubscriber(c *gin.Context, id string) error {
	text, err := s.controlBody(c)
	if err != nil {
		return err
	}
	if text != nil {
		if err := decodeDocument(text, &struct{}{}); err != nil {
			return err
		}
	}
	loaded, err := s.config.Store.Load(c.Request.Context(), id)
	if err != nil {
		return err
	}
	if loaded.Subscriber.Mode == event.ModePull {
		return store.ErrPulls
	}
	target, err := s.client.NewTarget(delivery.TargetConfig{
		Subscriber: loaded.Subscriber, Secrets: loaded.Secrets, FeedEpoch: loaded.FeedEpoch, Now: loaded.Now,
	})
	if err != nil {
		return err
	}
	result := s.client.Test(c.Request.Context(), target)
	a := result.Answer
	return writeJSON(c, http.StatusOK, testDocument{
		Success: a.Class == delivery.ClassSuccess, Class: a.Class.String(), Status: a.Status, Code: string(a.Fault.Code), Error: a.Fault.Text,
		DNSMS: milliseconds(result.DNS), ConnectMS: milliseconds(result.Connect), TLSMS: milliseconds(result.TLS), TotalMS: milliseconds(a.Duration),
		Response: string(a.Response),
	})
}

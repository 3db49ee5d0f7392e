package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"postroad/event"
	"postroad/eventlog"
	"postroad/store"
)

// replayMax bounds the making of a replay, which counts its events: ten million
// of them take seconds.
const replayMax = 2 * time.Minute

// What a replay sends: the values of select.
const (
	selectEvents = "events"
	selectMissed = "missed"
)

// replayInput asks for a replay.
type replayInput struct {
	Select        string      `json:"select"`
	FromSequence  *int64      `json:"fromSequence"`
	ToSequence    *int64      `json:"toSequence"`
	FromTime      string      `json:"fromTime"`
	ToTime        string      `json:"toTime"`
	ResourceNames []string    `json:"resourceNames"`
	Keys          []recordKey `json:"keys"`
	DryRun        bool        `json:"dryRun"`
}

// selectionDocument is what a replay sends, of what lies in its bounds.
type selectionDocument struct {
	Select        string      `json:"select"`
	ResourceNames []string    `json:"resourceNames,omitempty"`
	Keys          []recordKey `json:"keys,omitempty"`
}

// replayDocument is a replay as the API shows it.
type replayDocument struct {
	ID           int64             `json:"id"`
	State        string            `json:"state"`
	Selection    selectionDocument `json:"selection"`
	FromSequence int64             `json:"fromSequence"`
	ToSequence   int64             `json:"toSequence"`
	Total        int64             `json:"total"`
	Done         int64             `json:"done"`
	Rate         float64           `json:"rate"`
	ETASeconds   *float64          `json:"etaSeconds,omitempty"`
	Position     int64             `json:"position"`
	Source       string            `json:"source"`
	CreatedAt    time.Time         `json:"createdAt"`
	StartedAt    *time.Time        `json:"startedAt,omitempty"`
	FinishedAt   *time.Time        `json:"finishedAt,omitempty"`
}

func replayDocumentOf(r store.Replay) replayDocument {
	d := replayDocument{
		ID: r.ID, State: r.State, Selection: selectionDocument{Select: selectEvents, ResourceNames: r.Selection.ResourceNames},
		FromSequence: r.After + 1, ToSequence: r.Through, Total: r.Total, Done: r.Done, Rate: r.Rate, ETASeconds: r.ETASeconds,
		Position: r.Cursor, Source: r.Source, CreatedAt: r.CreatedAt.UTC(), StartedAt: utc(r.StartedAt), FinishedAt: utc(r.FinishedAt),
	}
	if r.Selection.Missed {
		d.Selection.Select = selectMissed
	}
	for _, key := range r.Selection.Keys {
		d.Selection.Keys = append(d.Selection.Keys, recordKeyOf(key))
	}
	return d
}

func replayPath(id string, replay int64) string {
	return "/v1/subscribers/" + id + "/replays/" + strconv.FormatInt(replay, 10)
}

// createReplay makes a replay, or counts what it would send.
func (s *Server) createReplay(c *gin.Context, id string) error {
	var input replayInput
	if err := s.readControl(c, &input); err != nil {
		return err
	}
	key, err := idempotencyKey(c.Request)
	if err != nil {
		return err
	}
	request, err := input.request()
	if err != nil {
		return err
	}
	request.Subscriber, request.Source, request.Count = id, sourceOf(c), s.countReplay
	if key != "" {
		request.RequestID = store.ControlReplay + ":" + key
	}
	replay, _, err := s.config.Store.CreateReplay(c.Request.Context(), request)
	if err != nil {
		return input.refused(err)
	}
	if input.DryRun {
		return writeJSON(c, http.StatusOK, struct {
			Total         int64 `json:"total"`
			FirstSequence int64 `json:"firstSequence"`
			LastSequence  int64 `json:"lastSequence"`
		}{replay.Total, replay.First, replay.Last})
	}
	s.wakes.wake(id)
	c.Header("Location", replayPath(id, replay.ID))
	return writeJSON(c, http.StatusCreated, replayDocumentOf(replay))
}

func (s *Server) countReplay(ctx context.Context, r store.ReplayStretch) (total, first, last int64, err error) {
	return s.config.Log.Count(ctx, r.FeedID, eventlog.Selection{After: r.After, Through: r.Through, Filter: r.Filter, Keys: r.Keys})
}

// request checks the members that can be checked without the log.
func (r *replayInput) request() (store.ReplayRequest, error) {
	var faults event.FieldErrors
	request := store.ReplayRequest{
		FromSequence: r.FromSequence, ToSequence: r.ToSequence, ResourceNames: r.ResourceNames, DryRun: r.DryRun, Missed: r.Select == selectMissed,
	}
	if r.Select != "" && r.Select != selectEvents && r.Select != selectMissed {
		faults.Add("/select", "must be one of: "+selectEvents+", "+selectMissed)
	}
	checkSequence(&faults, "/fromSequence", r.FromSequence)
	checkSequence(&faults, "/toSequence", r.ToSequence)
	request.FromTime = readTime(&faults, "/fromTime", r.FromTime)
	request.ToTime = readTime(&faults, "/toTime", r.ToTime)
	faults = append(faults, event.Filter{ResourceNames: r.ResourceNames}.Validate()...)
	if r.Keys != nil && (len(r.Keys) == 0 || len(r.Keys) > store.ReplayKeysMax) {
		faults.Add("/keys", fmt.Sprintf("must have 1-%d entries", store.ReplayKeysMax))
	}
	for i, key := range r.Keys[:min(len(r.Keys), store.ReplayKeysMax)] {
		key.check(&faults, fmt.Sprintf("/keys/%d", i))
		request.Keys = append(request.Keys, event.Key(key))
	}
	given := r.given()
	switch {
	case !request.Missed && len(given) == 0 && len(faults) == 0:
		faults.Add("", `must say what to send again: bounds, resourceNames, keys, or "select": "missed"`)
	case request.Missed:
		for _, pointer := range given {
			faults.Add(pointer, `does not go with "select": "missed", which sends every dead letter there is`)
		}
	}
	return request, faults.Err()
}

// given are the pointers of the members that bound or select.
func (r *replayInput) given() []string {
	var pointers []string
	for _, member := range []struct {
		pointer string
		given   bool
	}{
		{"/fromSequence", r.FromSequence != nil},
		{"/toSequence", r.ToSequence != nil},
		{"/fromTime", r.FromTime != ""},
		{"/toTime", r.ToTime != ""},
		{"/resourceNames", r.ResourceNames != nil},
		{"/keys", r.Keys != nil},
	} {
		if member.given {
			pointers = append(pointers, member.pointer)
		}
	}
	return pointers
}

func checkSequence(faults *event.FieldErrors, pointer string, sequence *int64) {
	if sequence != nil && *sequence < 1 {
		faults.Add(pointer, "must be 1 or more")
	}
}

func readTime(faults *event.FieldErrors, pointer, text string) *time.Time {
	if text == "" {
		return nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		faults.Add(pointer, wantedTime)
		return nil
	}
	return &at
}

// replayOf reads the path's replay. A number that no replay can have is not
// looked up.
func (s *Server) replayOf(c *gin.Context) (int64, error) {
	number, err := strconv.ParseInt(c.Param("replay"), 10, 64)
	if err != nil || number < 1 {
		return 0, notFound("replay", "no replay can have this number: they are numbered from 1")
	}
	return number, nil
}

func (s *Server) getReplay(c *gin.Context, id string) error {
	if _, err := query(c); err != nil {
		return err
	}
	number, err := s.replayOf(c)
	if err != nil {
		return err
	}
	return s.writeReplay(c, id, number)
}

func (s *Server) writeReplay(c *gin.Context, id string, number int64) error {
	ctx := c.Request.Context()
	if _, err := s.config.Store.Get(ctx, id); err != nil {
		return err
	}
	replay, err := s.config.Store.Replay(ctx, id, number)
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, replayDocumentOf(replay))
}

// listReplays lists a subscriber's replays, the newest first.
func (s *Server) listReplays(c *gin.Context, id string) error {
	values, err := query(c, "limit", "pageToken")
	if err != nil {
		return err
	}
	page, before, err := numberedPage(values)
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	if _, err := s.config.Store.Get(ctx, id); err != nil {
		return err
	}
	replays, err := s.config.Store.Replays(ctx, id, before, page.limit+1)
	if err != nil {
		return err
	}
	answer := struct {
		Replays       []replayDocument `json:"replays"`
		NextPageToken string           `json:"nextPageToken,omitempty"`
	}{Replays: []replayDocument{}}
	replays, answer.NextPageToken = cut(page, replays, 0, func(r store.Replay) string { return numbered(r.ID) })
	for _, r := range replays {
		answer.Replays = append(answer.Replays, replayDocumentOf(r))
	}
	return writeJSON(c, http.StatusOK, answer)
}

// controlReplay is a handler that pauses, resumes or cancels a replay.
func (s *Server) controlReplay(kind string) func(c *gin.Context, id string) error {
	return func(c *gin.Context, id string) error {
		text, err := s.controlBody(c)
		if err != nil {
			return err
		}
		if text != nil {
			if err := decodeDocument(text, &struct{}{}); err != nil {
				return err
			}
		}
		number, err := s.replayOf(c)
		if err != nil {
			return err
		}
		key, err := idempotencyKey(c.Request)
		if err != nil {
			return err
		}
		if key != "" {
			key = fmt.Sprintf("%s:%d:%s", kind, number, key)
		}
		ctx := c.Request.Context()
		_, result, err := s.config.Store.ControlReplay(ctx, id, number, kind, sourceOf(c), key)
		if err != nil {
			return err
		}
		s.wakes.wake(id)
		if !s.inForce(ctx, id, result) {
			c.Header("Location", replayPath(id, number))
			return writeJSON(c, http.StatusAccepted, map[string]int64{"version": result.Version})
		}
		return s.writeReplay(c, id, number)
	}
}

package api

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"postroad/event"
	"postroad/eventlog"
	"postroad/store"
)

// explainRoutes answer "did it arrive, and when?".
func (s *Server) explainRoutes(plain register) {
	plain(http.MethodGet, "/v1/feeds/:feed/events/:sequence/deliveries", adminOnly, s.listEventDeliveries)
	plain(http.MethodGet, "/v1/feeds/:feed/records/:resource/:key/events", readers, s.listRecordEvents)
	plain(http.MethodGet, "/v1/subscribers/:id/deliveries", ownSubscriber, s.ofSubscriber(s.listDeliveries))
}

// explainedDocument is the event that is asked about, without what it carries.
type explainedDocument struct {
	Sequence          int64      `json:"sequence"`
	ResourceName      string     `json:"resourceName,omitempty"`
	ResourceRecordKey string     `json:"resourceRecordKey,omitempty"`
	EventType         string     `json:"eventType,omitempty"`
	RecordedAt        *time.Time `json:"recordedAt,omitempty"`
	Removed           bool       `json:"removed,omitzero"`
}

func explainedDocumentOf(e *store.ExplainedEvent) *explainedDocument {
	if e == nil {
		return nil
	}
	d := &explainedDocument{
		Sequence: e.Sequence, ResourceName: e.Key.ResourceName, ResourceRecordKey: e.Key.ResourceRecordKey, EventType: e.EventType, Removed: e.Removed,
	}
	if !e.Removed {
		d.RecordedAt = &e.RecordedAt
	}
	return d
}

// deliveryDocument is what became of an event for a subscriber.
type deliveryDocument struct {
	store.Delivery
	Event *explainedDocument `json:"event,omitempty"`
}

// hiddenDocument is all that a subscriber is told of what its filter excludes.
type hiddenDocument struct {
	Subscriber string `json:"subscriber"`
	Sequence   int64  `json:"sequence"`
	State      string `json:"state"`
}

// listEventDeliveries says what became of one event for each subscriber of the
// feed, or for one.
func (s *Server) listEventDeliveries(c *gin.Context) error {
	values, err := query(c, "subscriber", "limit", "pageToken")
	if err != nil {
		return err
	}
	page, err := pageOf(values)
	if err != nil {
		return err
	}
	subscriber := values.Get("subscriber")
	if _, given := values["subscriber"]; given && !event.ValidSubscriberID(subscriber) {
		return invalidParameter("subscriber", "must be a subscriber's id")
	}
	feed, sequence, err := s.eventOfFeed(c)
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	ev, deliveries, err := s.config.Store.ExplainEvent(ctx, feed.ID, sequence, subscriber, page.after, min(page.limit+1, store.SubscribersMax))
	switch {
	case errors.Is(err, store.ErrEventNotFound):
		return noSuchEvent(feed.Name, sequence)
	case errors.Is(err, store.ErrNotFound):
		return notFound("subscriber", fmt.Sprintf("no subscriber of feed %q has the id %q", feed.Name, subscriber))
	case err != nil:
		return err
	}
	answer := struct {
		Event         *explainedDocument `json:"event"`
		Deliveries    []store.Delivery   `json:"deliveries"`
		NextPageToken string             `json:"nextPageToken,omitempty"`
	}{Event: explainedDocumentOf(&ev), Deliveries: deliveries}
	answer.Deliveries, answer.NextPageToken = cut(page, deliveries, store.SubscribersMax, func(d store.Delivery) string { return d.Subscriber })
	return writeJSON(c, http.StatusOK, answer)
}

// eventOfFeed reads the feed and the sequence that the path names.
func (s *Server) eventOfFeed(c *gin.Context) (eventlog.Feed, int64, error) {
	name, err := feedName(c)
	if err != nil {
		return eventlog.Feed{}, 0, err
	}
	sequence, err := sequenceOf(c)
	if err != nil {
		return eventlog.Feed{}, 0, err
	}
	feed, err := s.config.Log.Feed(c.Request.Context(), name)
	if err != nil {
		return eventlog.Feed{}, 0, feedError(name, err)
	}
	return feed, sequence, nil
}

// sequenceOf reads {sequence} from the path.
func sequenceOf(c *gin.Context) (int64, error) {
	sequence, err := strconv.ParseInt(c.Param("sequence"), 10, 64)
	if err != nil || sequence < 1 {
		return 0, notFound("sequence", fmt.Sprintf("no event has the sequence %s: sequences are whole numbers from 1",
			strconv.QuoteToASCII(shownName(c.Param("sequence")))))
	}
	return sequence, nil
}

func noSuchEvent(feed string, sequence int64) *Problem {
	return notFound("sequence", fmt.Sprintf("no event of feed %q has the sequence %d", feed, sequence))
}

// pageBefore reads a list that goes down: limit, and the sequence to go on below,
// 0 at its beginning.
func pageBefore(values url.Values) (before int64, limit int, err error) {
	page, err := pageOf(values)
	if err != nil || page.after == "" {
		return 0, page.limit, err
	}
	before, err = strconv.ParseInt(page.after, 10, 64)
	if err != nil || before < 1 {
		return 0, 0, wrongPageToken()
	}
	return before, page.limit, nil
}

// nextBefore is the token of the next part of such a list; "": there is none.
func nextBefore(before int64) string {
	if before == 0 {
		return ""
	}
	return pageToken(strconv.FormatInt(before, 10))
}

// listRecordEvents reads the events of one record, the newest first.
func (s *Server) listRecordEvents(c *gin.Context) error {
	values, err := query(c, "limit", "pageToken")
	if err != nil {
		return err
	}
	before, limit, err := pageBefore(values)
	if err != nil {
		return err
	}
	feed, record, err := s.recordOfFeed(c)
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	page, err := s.config.Log.RecordEvents(ctx, feed.ID, record, before, limit)
	if err != nil {
		return feedError(feed.Name, err)
	}
	b := []byte(`{"events":[`)
	for i, e := range page.Events {
		if i > 0 {
			b = append(b, ',')
		}
		b = e.AppendJSON(b)
	}
	b = append(b, ']')
	if next := nextBefore(page.Before); next != "" {
		b = fmt.Appendf(b, `,"nextPageToken":%q`, next)
	}
	write(c, http.StatusOK, contentTypeJSON, append(b, '}', '\n'))
	return nil
}

// listDeliveries says what became of one event, or of those of one record, for
// one subscriber.
func (s *Server) listDeliveries(c *gin.Context, id string) error {
	values, err := query(c, "sequence", "resourceName", "resourceRecordKey", "limit", "pageToken")
	if err != nil {
		return err
	}
	before, limit, err := pageBefore(values)
	if err != nil {
		return err
	}
	sequence, err := integer(values, "sequence", 0, 1, math.MaxInt64)
	if err != nil {
		return err
	}
	record, err := recordParameters(values, sequence)
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	stored, err := s.config.Store.Get(ctx, id)
	if err != nil {
		return err
	}
	own := grantOf(c).role == store.RoleSubscriber
	var answer struct {
		Deliveries    []any  `json:"deliveries"`
		FilteredBy    string `json:"filteredBy,omitempty"`
		NextPageToken string `json:"nextPageToken,omitempty"`
	}
	answer.Deliveries = []any{}
	sequences := []int64{sequence}
	if sequence == 0 {
		names := event.Filter{ResourceNames: stored.Subscriber.Filter.ResourceNames}
		if own && !names.Match(record.ResourceName, "") {
			// Whether there is such a record is not for it to know.
			answer.FilteredBy = "resourceNames"
			return writeJSON(c, http.StatusOK, answer)
		}
		var next int64
		if sequences, next, err = s.config.Log.RecordSequences(ctx, stored.FeedID, record, before, limit); err != nil {
			return err
		}
		answer.NextPageToken = nextBefore(next)
	}
	deliveries, err := s.config.Store.ExplainSubscriber(ctx, id, sequences)
	if err != nil {
		return err
	}
	if sequence != 0 && len(deliveries) == 0 {
		return noSuchEvent(stored.FeedName, sequence)
	}
	for _, d := range deliveries {
		answer.Deliveries = append(answer.Deliveries, shownDelivery(d, own))
	}
	return writeJSON(c, http.StatusOK, answer)
}

// shownDelivery is what may be told of a delivery: of what its filter excludes,
// a subscriber learns no more than that. What it was sent before the filter was
// changed is no secret, but for what it was.
func shownDelivery(d store.Delivery, own bool) any {
	if own && d.State == store.DeliveryFiltered {
		return hiddenDocument{Subscriber: d.Subscriber, Sequence: d.Sequence, State: d.State}
	}
	if own {
		d.FilteredBy = ""
	}
	return deliveryDocument{Delivery: d, Event: explainedDocumentOf(d.Event)}
}

// recordParameters reads the record that is asked about, where no sequence is.
func recordParameters(values url.Values, sequence int64) (event.Key, error) {
	record := event.Key{ResourceName: values.Get("resourceName"), ResourceRecordKey: values.Get("resourceRecordKey")}
	named := record != event.Key{}
	switch {
	case sequence != 0 && named:
		return record, invalidParameter("sequence", "must not stand beside resourceName and resourceRecordKey")
	case sequence == 0 && !named:
		return record, invalidParameter("sequence", "must be given, or resourceName and resourceRecordKey")
	}
	for name, value := range map[string]string{"resourceName": record.ResourceName, "resourceRecordKey": record.ResourceRecordKey} {
		if named && (value == "" || utf8.RuneCountInString(value) > event.NameCharactersMax) {
			return record, invalidParameter(name, fmt.Sprintf("must be 1-%d characters; resourceName and resourceRecordKey stand together", event.NameCharactersMax))
		}
	}
	return record, nil
}

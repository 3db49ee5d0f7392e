package consumer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Event is one event of a feed.
type Event struct {
	// Sequence is its place in the feed. It is 0 where it cannot be known: in
	// the midst of a batch of format raw that leaves out sequences.
	Sequence int64
	// ResourceName, ResourceRecordKey and ResourceRecordURL name the record
	// that changed; empty in format raw. ResourceRecordURL may be empty.
	ResourceName, ResourceRecordKey, ResourceRecordURL string
	// EventType is what happened, if the producer says so and the request
	// holds a single event.
	EventType string
	// Data is the event's data in format raw, else nil.
	Data json.RawMessage

	highest int64 // Sequence, or the highest it can be
}

// Position is where a consumer stands in a feed.
type Position struct {
	// Epoch counts the feed's lives: a feed deleted and made anew has the next.
	Epoch int64
	// Sequence is that of the last event applied; 0: none.
	Sequence int64
}

// Batch is what one request carries.
type Batch struct {
	// ID is the request's id, the same when the same events are sent again.
	ID string
	// Subscriber and Feed name where it comes from; Epoch is the feed's.
	Subscriber, Feed string
	Epoch            int64
	// Attempt counts the requests for these events, from 1.
	Attempt int
	// Previous is the event this subscriber was owed before the first of this
	// request; 0: none, or not told, as with several lanes.
	Previous int64
	// Replay is the replay that the request is part of: somebody asked for these
	// events to be sent again; 0: none.
	Replay int64
	// Last is the sequence of the last event of the request.
	Last int64
	// Events are those that were not applied yet, in order.
	Events []Event
	// Gap is set where events before these were never seen. With one lane that
	// is no order of arrival but a loss: of the consumer's own position, say.
	Gap *Gap

	reached Position // what After was told
}

// Gap tells of events that were missed: those above After, up to Through.
type Gap struct{ After, Through int64 }

// Position is what a consumer remembers once all events are applied: the end
// of the batch, or the position it was found to have reached beyond that, for a
// request that was stuck may have been overtaken by those after it. A replay
// moves it nowhere, as it may leave out what this subscriber is still owed.
func (b Batch) Position() Position {
	if b.Replay != 0 || b.reached.Epoch > b.Epoch || b.reached.Epoch == b.Epoch && b.reached.Sequence > b.Last {
		return b.reached
	}
	return Position{b.Epoch, b.Last}
}

// After returns the batch without the events that are known to be applied by
// the time the consumer is at a position. A position in an earlier epoch is
// the start of this one; one in a later epoch leaves nothing. All of a replay is
// left: it is sent because events are wanted again.
func (b Batch) After(at Position) Batch {
	b.reached = at
	if at.Epoch > b.Epoch {
		b.Events, b.Gap = nil, nil
		return b
	}
	if b.Replay != 0 {
		b.Gap = nil
		return b
	}
	if at.Epoch != b.Epoch {
		at.Sequence = 0
	}
	events := b.Events
	for len(events) > 0 && events[0].highest <= at.Sequence {
		events = events[1:]
	}
	b.Events, b.Gap = events, nil
	if b.Previous > at.Sequence {
		b.Gap = &Gap{After: at.Sequence, Through: b.Previous}
	}
	return b
}

// parseBatch reads a request that was verified.
func parseBatch(header http.Header, body []byte, raw bool) (Batch, error) {
	b := Batch{ID: header.Get("Webhook-Id"), Subscriber: header.Get("Postroad-Subscriber")}
	if b.ID == "" {
		b.ID = header.Get("Svix-Id")
	}
	feed, epoch, _ := strings.Cut(header.Get("Postroad-Feed"), ";epoch=")
	b.Feed = feed
	attempt, errAttempt := optionalNumber(header.Get("Postroad-Attempt"))
	previous, errPrevious := optionalNumber(header.Get("Postroad-Previous-Sequence"))
	number, errEpoch := optionalNumber(epoch)
	b.Attempt, b.Previous, b.Epoch = int(attempt), previous, number
	b.Replay = replayOf(b.ID)
	err := errors.Join(errAttempt, errPrevious, errEpoch)
	if err == nil && raw {
		b.Events, b.Last, err = parseRaw(header, body)
	} else if err == nil {
		b.Events, b.Last, err = parseRESO(body)
	}
	if err != nil {
		return Batch{}, err
	}
	if len(b.Events) == 1 {
		// It is percent-encoded where it holds what a header cannot.
		b.Events[0].EventType, err = url.PathUnescape(header.Get("Postroad-Event-Type"))
	}
	return b, err
}

// replayOf reads the replay from the end of a request's id, which is signed,
// unlike the header Postroad-Replay.
func replayOf(id string) int64 {
	number, replayed := strings.CutPrefix(id[strings.LastIndexByte(id, '_')+1:], "r")
	n, err := optionalNumber(number)
	if !replayed || err != nil {
		return 0
	}
	return n
}

func optionalNumber(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err == nil && n < 0 {
		err = errors.New("negative number")
	}
	return n, err
}

// resoEvent is an EntityEvent (RESO RCP-28); members it does not name are
// tolerated.
type resoEvent struct {
	Sequence int64  `json:"EntityEventSequence"`
	Name     string `json:"ResourceName"`
	Key      string `json:"ResourceRecordKey"`
	URL      string `json:"ResourceRecordUrl"`
}

// parseRESO reads a single event, or those of the member `value`: which one it
// is shows by that member (RESO Common Format).
func parseRESO(body []byte) ([]Event, int64, error) {
	var content struct {
		resoEvent
		Value *[]resoEvent `json:"value"`
	}
	if err := json.Unmarshal(body, &content); err != nil {
		return nil, 0, fmt.Errorf("read body: %w", err)
	}
	list := []resoEvent{content.resoEvent}
	if content.Value != nil {
		list = *content.Value
	}
	events := make([]Event, len(list))
	last := int64(0)
	for i, e := range list {
		if e.Sequence <= last || e.Name == "" || e.Key == "" {
			return nil, 0, fmt.Errorf("read event %d: no rising sequence, resource name and key", i)
		}
		last = e.Sequence
		events[i] = Event{Sequence: e.Sequence, ResourceName: e.Name, ResourceRecordKey: e.Key, ResourceRecordURL: e.URL, highest: e.Sequence}
	}
	if last == 0 {
		return nil, 0, errors.New("read body: no events")
	}
	return events, last, nil
}

// parseRaw reads one document, or as many as Postroad-Count says. The headers
// say where the batch begins and ends; what lies between is bounded by that.
func parseRaw(header http.Header, body []byte) ([]Event, int64, error) {
	first, err := optionalNumber(header.Get("Postroad-Sequence"))
	if err != nil || first == 0 {
		return nil, 0, errors.New("read Postroad-Sequence: not a sequence")
	}
	count := header.Get("Postroad-Count")
	if count == "" {
		if !json.Valid(body) {
			return nil, 0, errors.New("read body: not JSON")
		}
		return []Event{{Sequence: first, Data: bytes.Clone(body), highest: first}}, first, nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, 0, fmt.Errorf("read body: %w", err)
	}
	last, err := optionalNumber(header.Get("Postroad-Last-Sequence"))
	n := int64(len(list))
	if err != nil || n == 0 || strconv.FormatInt(n, 10) != count || last-first < n-1 || n == 1 && last != first {
		return nil, 0, errors.New("read Postroad-Last-Sequence and Postroad-Count: they do not fit the body")
	}
	events := make([]Event, n)
	for i := range n {
		lowest, highest := first+i, last-(n-1-i)
		events[i] = Event{Data: list[i], highest: highest}
		switch {
		case i == 0:
			events[i].Sequence, events[i].highest = first, first
		case i == n-1 || lowest == highest:
			events[i].Sequence = highest
		}
	}
	return events, last, nil
}

package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"postroad/event"
	"postroad/store"
)

// changeTriesMax is how often a change without If-Match is made anew when
// somebody else's came first.
const changeTriesMax = 5

// ofSubscriber is a handler of one subscriber: it checks the id and names it
// where there is none.
func (s *Server) ofSubscriber(h func(c *gin.Context, id string) error) handler {
	return func(c *gin.Context) error {
		id := c.Param("id")
		if !event.ValidSubscriberID(id) {
			detail := fmt.Sprintf("no subscriber can have the id %s: ids are 1-63 letters, digits, - or _, and start with a letter or digit",
				strconv.QuoteToASCII(shownName(id)))
			if c.Request.Method == http.MethodPut {
				return invalidAt("/id", detail)
			}
			return notFound("id", detail)
		}
		err := h(c, id)
		if errors.Is(err, store.ErrNotFound) {
			p := notFound("id", fmt.Sprintf("no subscriber has the id %q", id))
			p.cause = err
			return p
		}
		return err
	}
}

func (s *Server) listSubscribers(c *gin.Context) error {
	values, err := query(c, "feed", "owner", "limit", "pageToken")
	if err != nil {
		return err
	}
	page, err := pageOf(values)
	if err != nil {
		return err
	}
	filter := store.ListFilter{Feed: values.Get("feed"), Owner: values.Get("owner")}
	// One more tells whether there is more; the largest page looks again.
	records, err := s.config.Store.List(c.Request.Context(), filter, page.after, min(page.limit+1, store.SubscribersMax))
	if err != nil {
		return err
	}
	answer := struct {
		Subscribers   []subscriberDocument `json:"subscribers"`
		NextPageToken string               `json:"nextPageToken,omitempty"`
	}{Subscribers: []subscriberDocument{}}
	records, answer.NextPageToken = cut(page, records, store.SubscribersMax, func(r store.Record) string { return r.Subscriber.ID })
	for _, r := range records {
		answer.Subscribers = append(answer.Subscribers, subscriberDocumentOf(r))
	}
	return writeJSON(c, http.StatusOK, answer)
}

// readSubscriber reads a subscriber from a body.
func (s *Server) readSubscriber(c *gin.Context) (event.Subscriber, error) {
	text, err := s.readDocument(c)
	if err != nil {
		return event.Subscriber{}, err
	}
	var input subscriberInput
	if err := decodeDocument(text, &input); err != nil {
		return event.Subscriber{}, err
	}
	return input.Subscriber, nil
}

func (s *Server) createSubscriber(c *gin.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	sub, err := s.readSubscriber(c)
	if err != nil {
		return err
	}
	return s.create(c, sub)
}

// create stores a new subscriber and shows its signing secret, this once.
func (s *Server) create(c *gin.Context, sub event.Subscriber) error {
	p, err := s.prepare(sub, event.Subscriber{}, event.Secrets{})
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	record, parked, err := s.insert(ctx, p)
	if errors.Is(err, store.ErrDeleting) && s.freeID(ctx, p.subscriber.ID) {
		record, parked, err = s.insert(ctx, p)
	}
	if err != nil {
		return err
	}
	if !parked && record.Subscriber.Mode == event.ModePush {
		s.wakes.wake(record.Subscriber.ID)
	}
	c.Header("Location", "/v1/subscribers/"+record.Subscriber.ID)
	return writeSubscriber(c, http.StatusCreated, record, p.generated)
}

// insert stores a new subscriber. One that is made by itself has its workflow at
// once, which whoever made it may look for in Temporal's UI. Those that many are
// made of at once have theirs when there is an event for them.
func (s *Server) insert(ctx context.Context, p prepared) (record store.Record, parked bool, err error) {
	if s.starts.Allow() {
		record, err = s.config.Store.Create(ctx, p.subscriber, p.secrets)
		return record, false, err
	}
	return s.config.Store.CreateParked(ctx, p.subscriber, p.secrets)
}

// freeID removes a tombstone whose workflow has closed, and asks Temporal
// whether it has. Without an answer the id stays taken.
func (s *Server) freeID(ctx context.Context, id string) bool {
	if s.config.Waker == nil {
		return false
	}
	asking, cancel := context.WithTimeout(ctx, closedAnswerMax)
	defer cancel()
	closed, err := s.config.Waker.Closed(asking, id)
	if err == nil && closed {
		err = s.config.Store.Purge(ctx, id)
	} else if err == nil {
		s.wakes.wake(id) // so that it sees that it may end
	}
	if err != nil {
		s.config.Logger.WarnContext(ctx, "id not freed", "subscriber_id", id, "error", err)
		return false
	}
	return closed
}

func (s *Server) getSubscriber(c *gin.Context, id string) error {
	if _, err := query(c); err != nil {
		return err
	}
	record, err := s.config.Store.Get(c.Request.Context(), id)
	if err != nil {
		return err
	}
	return writeSubscriber(c, http.StatusOK, record, "")
}

// putSubscriber creates or replaces. Members that are left out take their
// defaults; feed and start, which cannot change, stay.
func (s *Server) putSubscriber(c *gin.Context, id string) error {
	if _, err := query(c); err != nil {
		return err
	}
	match, err := ifMatch(c.Request)
	if err != nil {
		return err
	}
	sub, err := s.readSubscriber(c)
	if err != nil {
		return err
	}
	if sub.ID != "" && sub.ID != id {
		return invalidAt("/id", fmt.Sprintf("must be %q, as in the path, or be left out", id))
	}
	sub.ID = id
	err = s.change(c, id, match, func(stored event.Subscriber) (event.Subscriber, error) {
		next := sub
		if next.Feed == "" {
			next.Feed = stored.Feed
		}
		if next.Start.Where == "" {
			next.Start = stored.Start
		}
		return next, nil
	})
	if errors.Is(err, store.ErrNotFound) {
		if len(c.Request.Header.Values("If-Match")) > 0 {
			return store.ErrVersionMismatch
		}
		return s.create(c, sub)
	}
	return err
}

// patchSubscriber is a merge patch (RFC 7396) over the document as it is read;
// null takes a member back to its default.
func (s *Server) patchSubscriber(c *gin.Context, id string) error {
	if _, err := query(c); err != nil {
		return err
	}
	match, err := ifMatch(c.Request)
	if err != nil {
		return err
	}
	text, err := s.readDocument(c, contentTypeMergePatch)
	if err != nil {
		return err
	}
	patch, err := readPatch(text)
	if err != nil {
		return err
	}
	return s.change(c, id, match, patch.apply)
}

// change replaces a subscriber by what next makes of it, at the version it was
// made from, and waits until that is in force.
func (s *Server) change(c *gin.Context, id string, match *int64, next func(event.Subscriber) (event.Subscriber, error)) error {
	ctx := c.Request.Context()
	for try := 1; ; try++ {
		loaded, err := s.config.Store.Load(ctx, id)
		if err != nil {
			return err
		}
		if match != nil && *match != loaded.Version {
			return &Problem{
				Code: CodeVersionMismatch, Version: loaded.Version,
				Detail: fmt.Sprintf("The configuration is at version %d, not at the one that If-Match names. Read it again.", loaded.Version),
			}
		}
		sub, err := next(loaded.Subscriber)
		if err != nil {
			return err
		}
		if err := immutable(loaded.Subscriber, sub.Defaulted()); err != nil {
			return err
		}
		p, err := s.prepare(sub, loaded.Subscriber, loaded.Secrets)
		if err != nil {
			return err
		}
		record, control, err := s.config.Store.Replace(ctx, p.subscriber, p.secrets, store.Change{IfMatch: &loaded.Version, Source: sourceOf(c)})
		if errors.Is(err, store.ErrVersionMismatch) && match == nil && try < changeTriesMax {
			continue
		}
		if err != nil {
			return err
		}
		s.wakes.wake(id)
		s.pulls.change(id)
		status := http.StatusOK
		if !s.inForce(ctx, id, control) {
			status = http.StatusAccepted // stored, and in force with the next request
			c.Header("Location", "/v1/subscribers/"+id+"/status")
		}
		return writeSubscriber(c, status, record, p.generated)
	}
}

// immutable names the members that a change may not touch.
func immutable(was, is event.Subscriber) error {
	var faults event.FieldErrors
	if is.ID != was.ID {
		faults.Add("/id", immutableDetail("id"))
	}
	if is.Feed != was.Feed {
		faults.Add("/feed", immutableDetail("feed"))
	}
	if is.Start != was.Start {
		faults.Add("/start", immutableDetail("start"))
	}
	return faults.Err()
}

func (s *Server) deleteSubscriber(c *gin.Context, id string) error {
	if _, err := query(c); err != nil {
		return err
	}
	match, err := ifMatch(c.Request)
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	control, err := s.config.Store.Delete(ctx, id, store.Change{IfMatch: match, Source: sourceOf(c)})
	if err != nil {
		return err
	}
	s.wakes.wake(id)
	if !s.inForce(ctx, id, control) {
		return writeJSON(c, http.StatusAccepted, map[string]int64{"version": control.Version})
	}
	c.Status(http.StatusNoContent)
	c.Writer.WriteHeaderNow()
	return nil
}

// rotateSigningSecret makes a new signing secret, or takes the one sent; the
// old one signs beside it for the overlap.
func (s *Server) rotateSigningSecret(c *gin.Context, id string) error {
	if _, err := query(c); err != nil {
		return err
	}
	text, err := s.readDocument(c)
	if err != nil {
		return err
	}
	const overlapDefault, overlapMax = event.Day, 30 * event.Day
	input := struct {
		Secret  string         `json:"secret"`
		Overlap event.Duration `json:"overlap"`
	}{Overlap: overlapDefault}
	if text != nil {
		if err := decodeDocument(text, &input); err != nil {
			return err
		}
	}
	var faults event.FieldErrors
	if input.Secret != "" && !event.ValidSigningSecret(input.Secret) {
		faults.Add("/secret", "must be whsec_ and the base64 of 24-64 bytes")
	}
	if input.Overlap < 0 || input.Overlap > overlapMax {
		faults.Add("/overlap", fmt.Sprintf("must not be longer than %s", overlapMax))
	}
	if err := faults.Err(); err != nil {
		return err
	}
	secret, generated := input.Secret, ""
	if secret == "" {
		secret = newSigningSecret()
		generated = secret
	}
	ctx := c.Request.Context()
	record, control, err := s.config.Store.RotateSigningSecret(ctx, id, secret, time.Duration(input.Overlap), store.Change{Source: sourceOf(c)})
	if err != nil {
		return err
	}
	s.wakes.wake(id)
	status := http.StatusOK
	if !s.inForce(ctx, id, control) {
		status = http.StatusAccepted
	}
	return writeSubscriber(c, status, record, generated)
}

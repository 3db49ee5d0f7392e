package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"postroad/event"
	"postroad/eventlog"
)

const (
	// waitMax is the longest long poll.
	waitMax = 60 * time.Second
	// eventOverhead is about what an event's JSON adds to its members.
	eventOverhead = 200
)

// listEvents reads a feed from a position on and, where there is nothing yet,
// waits for it.
func (s *Server) listEvents(c *gin.Context) error {
	values, err := query(c, "after", "limit", "wait")
	if err != nil {
		return err
	}
	after, err := integer(values, "after", 0, 0, math.MaxInt64)
	if err != nil {
		return err
	}
	limit, err := integer(values, "limit", pageDefault, 1, pageMax)
	if err != nil {
		return err
	}
	wait, err := waitOf(values)
	if err != nil {
		return err
	}
	name, err := feedName(c)
	if err != nil {
		return err
	}
	page, err := s.readEvents(c.Request.Context(), grantOf(c), after, int(limit), wait)
	if err != nil {
		return feedError(name, err)
	}
	write(c, http.StatusOK, contentTypeJSON, appendPage(page))
	return nil
}

func waitOf(values url.Values) (time.Duration, error) {
	raw, ok := values["wait"]
	if !ok {
		return 0, nil
	}
	wait, err := event.ParseDuration(raw[0])
	if err != nil || wait.Std() > waitMax {
		return 0, invalidParameter("wait", fmt.Sprintf("must be a duration up to %s, such as 500ms or 30s", event.Duration(waitMax)))
	}
	return wait.Std(), nil
}

// readEvents reads a page, and once more after the wait where it was empty.
func (s *Server) readEvents(ctx context.Context, g *grant, after int64, limit int, wait time.Duration) (eventlog.Page, error) {
	feed, page, err := s.readPage(ctx, g.feed, eventlog.Feed{}, after, limit)
	if err != nil || len(page.Events) > 0 || wait == 0 {
		return page, err
	}
	ending, end := context.WithCancelCause(ctx)
	defer end(nil)
	waiting, cancel := context.WithTimeout(ending, wait)
	defer cancel()
	//nolint:contextcheck // the drain ends the wait beside the request's own context
	defer context.AfterFunc(s.draining, cancel)()
	s.polling.Add(1)
	defer s.polling.Add(-1)
	if g.tokenID() != "" { // the token of the environment does not end
		go s.watch(waiting, g, end)
	}
	err = s.config.Log.Wait(waiting, feed.ID, after)
	if refused := (*Problem)(nil); errors.As(context.Cause(ending), &refused) {
		return page, refused
	}
	if err != nil {
		switch {
		case ctx.Err() != nil:
			return page, ctx.Err() // the client went away
		case waiting.Err() != nil, errors.Is(err, eventlog.ErrClosed):
			return page, nil // nothing came, or the server drains
		}
		return page, err
	}
	if err := s.stillAllowed(ctx, g); err != nil {
		return page, err
	}
	_, page, err = s.readPage(ctx, g.feed, feed, after, limit)
	return page, err
}

// watch ends a long poll whose token is no longer good for it.
func (s *Server) watch(ctx context.Context, g *grant, end context.CancelCauseFunc) {
	ticker := time.NewTicker(s.config.TokenFresh)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := s.stillAllowed(ctx, g); err != nil && ctx.Err() == nil {
			end(problemOf(err))
			return
		}
	}
}

func (s *Server) readPage(ctx context.Context, name string, feed eventlog.Feed, after int64, limit int) (eventlog.Feed, eventlog.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.DatabaseMax)
	defer cancel()
	cached := false
	if feed.ID == 0 {
		var err error
		if feed, cached, err = s.feeds.get(ctx, s.config.Log, name); err != nil {
			return feed, eventlog.Page{}, err
		}
	}
	page, err := s.config.Log.Read(ctx, feed.ID, after, limit)
	if cached && errors.Is(err, eventlog.ErrNotFound) {
		s.feeds.forget(name)
		return s.readPage(ctx, name, eventlog.Feed{}, after, limit)
	}
	return feed, page, err
}

func appendPage(page eventlog.Page) []byte {
	size := eventOverhead
	for i := range page.Events {
		size += page.Events[i].Size() + eventOverhead
	}
	b := append(make([]byte, 0, size), `{"events":[`...)
	for i := range page.Events {
		if i > 0 {
			b = append(b, ',')
		}
		b = page.Events[i].AppendJSON(b)
	}
	b = strconv.AppendInt(append(b, `],"next":`...), page.Next, 10)
	b = strconv.AppendInt(append(b, `,"head":`...), page.Head, 10)
	b = strconv.AppendInt(append(b, `,"firstSequence":`...), page.FirstSequence, 10)
	if page.CompactedThrough != 0 {
		b = strconv.AppendInt(append(b, `,"compactedThrough":`...), page.CompactedThrough, 10)
	}
	return append(b, '}', '\n')
}

func (s *Server) getEvent(c *gin.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	feed, sequence, err := s.eventOfFeed(c)
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	ev, err := s.config.Log.ReadOne(ctx, feed.ID, sequence)
	if errors.Is(err, eventlog.ErrNotFound) {
		if sequence <= feed.CompactedThrough {
			return notFound("sequence", fmt.Sprintf("feed %q has no event %d: up to %d, only the newest event of each record is kept", feed.Name, sequence, feed.CompactedThrough))
		}
		return noSuchEvent(feed.Name, sequence)
	}
	if err != nil {
		return err
	}
	write(c, http.StatusOK, contentTypeJSON, append(ev.AppendJSON(make([]byte, 0, ev.Size()+eventOverhead)), '\n'))
	return nil
}

package api

import (
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"postroad/event"
	"postroad/eventlog"
)

// eraseMax bounds an erasure; one that takes longer goes on where it was when it
// is asked for again.
const eraseMax = time.Minute

// eraseRecord removes what the events of one record carry, and what consumers
// answered to them.
func (s *Server) eraseRecord(c *gin.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	feed, record, err := s.recordOfFeed(c)
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	var answer struct {
		Events   int64 `json:"events"`
		Excerpts int64 `json:"excerpts"`
	}
	if answer.Events, err = s.config.Log.Erase(ctx, feed.ID, record); err != nil {
		return err
	}
	if answer.Excerpts, err = s.config.Store.EraseExcerpts(ctx, feed.ID, record); err != nil {
		return err
	}
	// The key may name a person: who needs to know which one it was has the
	// request's own log.
	s.config.Logger.InfoContext(ctx, "record erased", "feed", feed.Name, "resource_name", record.ResourceName,
		"events", answer.Events, "excerpts", answer.Excerpts)
	return writeJSON(c, http.StatusOK, answer)
}

// recordOfFeed reads the feed and the record that the path names.
func (s *Server) recordOfFeed(c *gin.Context) (eventlog.Feed, event.Key, error) {
	name, err := feedName(c)
	if err != nil {
		return eventlog.Feed{}, event.Key{}, err
	}
	record, err := recordOf(c)
	if err != nil {
		return eventlog.Feed{}, event.Key{}, err
	}
	feed, err := s.config.Log.Feed(c.Request.Context(), name)
	if err != nil {
		return eventlog.Feed{}, event.Key{}, feedError(name, err)
	}
	return feed, record, nil
}

// recordOf reads /v1/feeds/{feed}/records/{resource}/{key}/... from the path as
// it was sent: the router takes a + for a blank, as queries do.
func recordOf(c *gin.Context) (event.Key, error) {
	parts := strings.Split(c.Request.URL.EscapedPath(), "/")
	var values [2]string
	for i, parameter := range []string{"resource", "key"} {
		value, err := url.PathUnescape(parts[5+i])
		if err != nil || !utf8.ValidString(value) || strings.ContainsRune(value, 0) || utf8.RuneCountInString(value) > event.NameCharactersMax {
			return event.Key{}, notFound(parameter, "no event can have it: names and keys are 1-255 characters, percent-encoded here")
		}
		values[i] = value
	}
	return event.Key{ResourceName: values[0], ResourceRecordKey: values[1]}, nil
}

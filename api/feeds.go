package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"postroad/event"
	"postroad/eventlog"
)

// feedDocument is a feed as the API shows it.
type feedDocument struct {
	Name             string          `json:"name"`
	Sequences        string          `json:"sequences"`
	Description      string          `json:"description,omitempty"`
	Retention        retention       `json:"retention,omitzero"`
	Source           *sourceDocument `json:"source,omitzero"`
	Epoch            int             `json:"epoch"`
	Head             int64           `json:"head"`
	FirstSequence    int64           `json:"firstSequence"`
	CompactedThrough int64           `json:"compactedThrough,omitzero"`
	CreatedAt        time.Time       `json:"createdAt"`
	Version          int64           `json:"version"`
}

// feedDocumentOf shows a feed; who is no admin does not see where its source is.
func feedDocumentOf(f eventlog.Feed, admin bool) feedDocument {
	return feedDocument{
		Name: f.Name, Sequences: f.Sequences, Description: f.Description, Retention: retentionOf(f.Retention), Source: sourceDocumentOf(f, admin), Epoch: f.Epoch, Head: f.Head,
		FirstSequence: f.FloorSequence + 1, CompactedThrough: f.CompactedThrough, CreatedAt: f.CreatedAt, Version: f.Version,
	}
}

// feedInput is a feed as it may be sent: what only the server sets is taken
// and dropped, so that a document that was read can be sent back.
type feedInput struct {
	Name        string       `json:"name"`
	Sequences   string       `json:"sequences"`
	Description string       `json:"description"`
	Retention   retention    `json:"retention"`
	Source      *sourceInput `json:"source"`
	feedReadOnly
}

type feedReadOnly struct {
	Epoch            any `json:"epoch"`
	Head             any `json:"head"`
	FirstSequence    any `json:"firstSequence"`
	CompactedThrough any `json:"compactedThrough"`
	CreatedAt        any `json:"createdAt"`
	Version          any `json:"version"`
}

func writeFeed(c *gin.Context, status int, feed eventlog.Feed) error {
	c.Header("ETag", etag(feed.Version))
	return writeJSON(c, status, feedDocumentOf(feed, grantOf(c).admin()))
}

func (s *Server) listFeeds(c *gin.Context) error {
	values, err := query(c, "limit", "pageToken")
	if err != nil {
		return err
	}
	page, err := pageOf(values)
	if err != nil {
		return err
	}
	feeds, err := s.config.Log.Feeds(c.Request.Context(), page.after, page.limit+1)
	if err != nil {
		return err
	}
	answer := struct {
		Feeds         []feedDocument `json:"feeds"`
		NextPageToken string         `json:"nextPageToken,omitempty"`
	}{Feeds: []feedDocument{}}
	feeds, answer.NextPageToken = cut(page, feeds, 0, func(f eventlog.Feed) string { return f.Name })
	for _, feed := range feeds {
		answer.Feeds = append(answer.Feeds, feedDocumentOf(feed, true))
	}
	return writeJSON(c, http.StatusOK, answer)
}

func (s *Server) createFeed(c *gin.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	text, err := s.readDocument(c)
	if err != nil {
		return err
	}
	var input feedInput
	if err := decodeDocument(text, &input); err != nil {
		return err
	}
	ages, err := input.Retention.ages()
	if err != nil {
		return err
	}
	spec := eventlog.FeedSpec{Name: input.Name, Sequences: input.Sequences, Description: input.Description, Retention: ages}
	if input.Source != nil {
		spec.Sequences = cmp.Or(spec.Sequences, eventlog.SequencesSupplied)
		if spec.Source, err = s.source(input.Name, input.Source.Source, event.SourceSecrets{}); err != nil {
			return err
		}
	}
	feed, err := s.config.Log.CreateFeed(c.Request.Context(), spec)
	if err != nil {
		return err
	}
	c.Header("Location", "/v1/feeds/"+feed.Name)
	return writeFeed(c, http.StatusCreated, feed)
}

func (s *Server) getFeed(c *gin.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	name, err := feedName(c)
	if err != nil {
		return err
	}
	feed, err := s.config.Log.Feed(c.Request.Context(), name)
	if err != nil {
		return feedError(name, err)
	}
	return writeFeed(c, http.StatusOK, feed)
}

func (s *Server) patchFeed(c *gin.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	name, err := feedName(c)
	if err != nil {
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
	feed, err := s.changeFeed(c.Request.Context(), name, text, match)
	if err != nil {
		return feedError(name, err)
	}
	return writeFeed(c, http.StatusOK, feed)
}

// changeFeed applies a merge patch. A source is made whole of what was stored, so
// that it is written over that only, and made again where that changed meanwhile.
func (s *Server) changeFeed(ctx context.Context, name string, text []byte, match *int64) (eventlog.Feed, error) {
	for try := 0; ; try++ {
		feed, err := s.config.Log.Feed(ctx, name)
		if err != nil {
			return feed, err
		}
		patch, err := s.feedPatch(text, feed)
		if err != nil {
			return feed, err
		}
		patch.IfVersion = match
		if patch == (eventlog.FeedPatch{}) {
			return feed, nil
		}
		if patch.Source != nil && match == nil {
			patch.IfVersion = &feed.Version
		}
		changed, err := s.config.Log.UpdateFeed(ctx, name, patch)
		if errors.Is(err, eventlog.ErrVersionMismatch) && match == nil && try < changeTriesMax {
			continue
		}
		return changed, err
	}
}

// feedPatch reads a merge patch (RFC 7396) of a feed: the description, the
// retention and the source may change, and null removes them.
func (s *Server) feedPatch(text []byte, feed eventlog.Feed) (eventlog.FeedPatch, error) {
	var input struct {
		Name        *string                   `json:"name"`
		Sequences   *string                   `json:"sequences"`
		Description optional[string]          `json:"description"`
		Retention   optional[*retentionPatch] `json:"retention"`
		Source      optional[map[string]any]  `json:"source"`
		feedReadOnly
	}
	if err := decodeDocument(text, &input); err != nil {
		return eventlog.FeedPatch{}, err
	}
	var faults event.FieldErrors
	if input.Name != nil && *input.Name != feed.Name {
		faults.Add("/name", immutableDetail("name"))
	}
	if input.Sequences != nil && *input.Sequences != feed.Sequences {
		faults.Add("/sequences", immutableDetail("sequences"))
	}
	patch := eventlog.FeedPatch{}
	if input.Description.set && input.Description.value != feed.Description {
		patch.Description = &input.Description.value
		if feed.Name == event.SystemFeed {
			faults.Add("/description", "cannot be changed: the feed is Postroad's own")
		}
	}
	if input.Retention.set {
		if err := input.Retention.value.change(feed.Retention, &patch); err != nil {
			return patch, err
		}
	}
	if input.Source.set {
		var err error
		if patch.Source, err = s.changedSource(feed, input.Source.value); err != nil {
			return patch, err
		}
	}
	return patch, faults.Err()
}

func (s *Server) deleteFeed(c *gin.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	name, err := feedName(c)
	if err != nil {
		return err
	}
	if err := s.config.Log.DeleteFeed(c.Request.Context(), name); err != nil {
		return feedError(name, err)
	}
	s.feeds.forget(name)
	c.Status(http.StatusNoContent)
	c.Writer.WriteHeaderNow()
	return nil
}

// feedName is the path's feed. A name that no feed can have is not looked up.
func feedName(c *gin.Context) (string, error) {
	name := c.Param("feed")
	if !event.ValidFeedName(name) {
		return "", notFound("feed", fmt.Sprintf("no feed can be named %s: names are 1-63 lower-case letters, digits or -", strconv.QuoteToASCII(shownName(name))))
	}
	return name, nil
}

// feedError names the feed that is not there.
func feedError(name string, err error) error {
	switch {
	case errors.Is(err, eventlog.ErrNotFound):
		p := notFound("feed", fmt.Sprintf("no feed is named %q", name))
		p.cause = err
		return p
	case errors.Is(err, eventlog.ErrVersionMismatch):
		return &Problem{Code: CodeVersionMismatch, Detail: "The feed is not at the version that If-Match names. Read it again.", cause: err}
	}
	return err
}

const cachedFeedsMax = 10_000

// feedCache remembers feeds for publishing, so that an event costs one
// statement. What it holds may be out of date: Append checks the feed's
// identity, and on its refusal the feed is read again. Feeds with supplied
// sequences are not remembered: one may be given a source at any time, and
// publishing to it must end with that.
type feedCache struct {
	mu    sync.RWMutex
	feeds map[string]eventlog.Feed
}

func (f *feedCache) get(ctx context.Context, log PublishingLog, name string) (feed eventlog.Feed, cached bool, err error) {
	f.mu.RLock()
	feed, cached = f.feeds[name]
	f.mu.RUnlock()
	if cached {
		return feed, true, nil
	}
	if feed, err = log.Feed(ctx, name); err != nil {
		return feed, false, err
	}
	if feed.Sequences == eventlog.SequencesSupplied {
		return feed, false, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.feeds) >= cachedFeedsMax || f.feeds == nil {
		f.feeds = map[string]eventlog.Feed{} // rare, and soon filled again
	}
	f.feeds[name] = feed
	return feed, false, nil
}

func (f *feedCache) forget(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.feeds, name)
}

package api

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"postroad/event"
	"postroad/eventlog"
	"postroad/store"
)

const (
	// busyStreamRetryAfter is how soon a client may come back where there are too
	// many streams.
	busyStreamRetryAfter = 5 * time.Second
	lastEventIDHeader    = "Last-Event-ID"
)

// The forms of a stream.
const (
	formatSSE       = "sse"
	formatNDJSON    = "ndjson"
	formatWebSocket = "websocket"
)

// streamRequest is what a stream is asked for.
type streamRequest struct {
	format string
	// after is the position to go on after, asked for in the query or, where
	// header says so, in Last-Event-ID; named is false where none is.
	after         int64
	named, header bool
	filter        event.Filter
	partition     event.Partition
	requests      bool // as=requests
}

func (s *Server) streamFeed(c *gin.Context) error {
	request, err := readStreamRequest(c, "after", "resourceNames", "eventTypes", "partition", "format")
	if err != nil {
		return err
	}
	name, err := feedName(c)
	if err != nil {
		return err
	}
	return s.stream(c, request, func(ctx context.Context) (*stream, error) {
		feed, err := s.config.Log.Feed(ctx, name)
		if err != nil {
			return nil, feedError(name, err)
		}
		return s.newStream(c, request, feed, feed.Head)
	})
}

// streamSubscriber streams what a subscriber is owed. Its cursor stays where it is.
func (s *Server) streamSubscriber(c *gin.Context, id string) error {
	request, err := readStreamRequest(c, "after", "partition", "format", "as")
	if err != nil {
		return err
	}
	return s.stream(c, request, func(ctx context.Context) (*stream, error) {
		record, err := s.config.Store.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		run, err := s.config.Store.Run(ctx, id)
		if err != nil {
			return nil, err
		}
		feed, err := s.config.Log.Feed(ctx, record.FeedName)
		if err != nil {
			return nil, err
		}
		request.filter = record.Subscriber.Filter
		st, err := s.newStream(c, request, feed, run.Cursor)
		if err != nil {
			return nil, err
		}
		st.subscriber, st.version = id, store.Version{Number: record.Version, CreatedAt: record.CreatedAt}
		if request.requests {
			st.item, err = s.renderRequests(ctx, record, request.partition)
		}
		return st, err
	})
}

// stream looks up what is asked for, and streams it until there is a reason to end.
func (s *Server) stream(c *gin.Context, request streamRequest, open func(ctx context.Context) (*stream, error)) error {
	if !s.streams.enter() {
		return &Problem{Code: CodeBusy, RetryAfter: busyStreamRetryAfter, Detail: "Too many streams are open here. Try again later."}
	}
	defer s.streams.leave()
	looking, cancel := context.WithTimeout(c.Request.Context(), s.config.DatabaseMax)
	defer cancel()
	st, err := open(looking)
	if err != nil {
		return err
	}
	if s.draining.Err() != nil {
		return &Problem{Code: CodeBusy, RetryAfter: time.Second, Detail: "This process is about to stop. Try again: another one answers."}
	}
	switch request.format {
	case formatWebSocket:
		return s.serveWebSocket(c, st)
	case formatNDJSON:
		return s.serveLines(c, st, ndjsonLines{}, contentTypeNDJSON)
	}
	return s.serveLines(c, st, sseLines{}, contentTypeSSE)
}

// newStream checks the position, which is fallback where none is named.
func (s *Server) newStream(c *gin.Context, r streamRequest, feed eventlog.Feed, fallback int64) (*stream, error) {
	after := fallback
	if r.named {
		after = r.after
	}
	switch {
	case after < feed.FloorSequence:
		return nil, &eventlog.BelowFloorError{FirstSequence: feed.FloorSequence + 1}
	case after > feed.Head:
		// Waiting until the feed has come there would pass over events without a word.
		detail := fmt.Sprintf("must not be above the head of the feed, which is %d", feed.Head)
		p := invalidParameter("after", detail)
		if r.header {
			p = invalidHeader(lastEventIDHeader, detail)
		}
		p.Head = &feed.Head
		return nil, p
	}
	return &stream{
		server: s, grant: grantOf(c), format: r.format, feed: feed.ID, epoch: feed.Epoch, filter: r.filter, partition: r.partition,
		position: after, told: -1, named: r.named, item: (*event.Event).AppendJSON, checked: time.Now(),
	}, nil
}

func readStreamRequest(c *gin.Context, allowed ...string) (r streamRequest, err error) {
	values, err := query(c, allowed...)
	if err != nil {
		return r, err
	}
	if r.format, err = formatOf(c.Request, values); err != nil {
		return r, err
	}
	if r.after, err = integer(values, "after", 0, 0, math.MaxInt64); err != nil {
		return r, err
	}
	_, r.named = values["after"]
	if id := c.Request.Header.Get(lastEventIDHeader); id != "" {
		// What an EventSource saw last is newer than what its URL says.
		r.after, err = strconv.ParseInt(id, 10, 64)
		if err != nil || r.after < 0 {
			return r, invalidHeader(lastEventIDHeader, "must be a sequence, as id says it")
		}
		r.named, r.header = true, true
	}
	if r.filter, err = filterOf(values); err != nil {
		return r, err
	}
	if text, ok := values["partition"]; ok {
		if r.partition, err = event.ParsePartition(text[0]); err != nil {
			return r, invalidParameter("partition", err.Error())
		}
	}
	if as, ok := values["as"]; ok {
		if as[0] != "events" && as[0] != "requests" {
			return r, invalidParameter("as", "must be events or requests")
		}
		r.requests = as[0] == "requests"
	}
	return r, nil
}

// filterOf reads comma-separated lists; an event passes that both let pass.
func filterOf(values url.Values) (event.Filter, error) {
	list := func(name string) []string {
		if text, ok := values[name]; ok {
			return strings.Split(text[0], ",")
		}
		return nil
	}
	f := event.Filter{ResourceNames: list("resourceNames"), EventTypes: list("eventTypes")}
	for _, fault := range f.Validate() {
		name, _, _ := strings.Cut(strings.TrimPrefix(fault.Pointer, "/"), "/")
		return f, invalidParameter(name, "is a list with commas of which each "+fault.Detail)
	}
	return f, nil
}

// formatOf is what the query says, else what Upgrade and Accept ask for, else SSE.
func formatOf(r *http.Request, values url.Values) (string, error) {
	upgrade := strings.EqualFold(r.Header.Get("Upgrade"), formatWebSocket)
	format, given := values["format"]
	switch {
	case given && (format[0] != formatSSE && format[0] != formatNDJSON || upgrade):
		return "", invalidParameter("format", "must be sse or ndjson, and left out where the request upgrades to a WebSocket")
	case given:
		return format[0], nil
	case upgrade:
		return formatWebSocket, nil
	}
	accepted := strings.Join(r.Header.Values("Accept"), ",")
	for media := range strings.SplitSeq(accepted, ",") {
		media, _, _ = strings.Cut(media, ";")
		switch strings.ToLower(strings.TrimSpace(media)) {
		case contentTypeSSE:
			return formatSSE, nil
		case contentTypeNDJSON:
			return formatNDJSON, nil
		}
	}
	return formatSSE, nil
}

// acceptsGzip reports whether an answer may be gzip (RFC 9110, 12.5.3).
func acceptsGzip(r *http.Request) bool {
	codings := strings.Split(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",")
	return slices.ContainsFunc(codings, func(coding string) bool {
		name, parameter, _ := strings.Cut(coding, ";")
		if name = strings.ToLower(strings.TrimSpace(name)); name != "gzip" && name != "x-gzip" {
			return false
		}
		quality, ok := strings.CutPrefix(strings.ToLower(strings.ReplaceAll(parameter, " ", "")), "q=")
		q, err := strconv.ParseFloat(quality, 64)
		return !ok || err == nil && q > 0
	})
}

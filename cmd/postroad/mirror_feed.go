package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"postroad/event"
	"postroad/internal/apiclient"
	"postroad/mirror"
)

// clientFeed is a feed of a running server, for a mirror.
type clientFeed struct {
	client *apiclient.Client
	name   string
}

// open makes the feed if there is none, and returns its head.
func (f *clientFeed) open(ctx context.Context) (int64, error) {
	feed, err := f.read(ctx)
	var problem *apiclient.Problem
	if errors.As(err, &problem) && problem.Status == http.StatusNotFound {
		in := map[string]string{"name": f.name, "sequences": "supplied"}
		_, err = f.client.Do(ctx, apiclient.Request{Method: http.MethodPost, Path: "/v1/feeds", In: in}, &feed)
	}
	if err != nil {
		return 0, err
	}
	if feed.Sequences != "supplied" {
		return 0, fmt.Errorf("feed %s numbers its events itself: a mirror needs one that was made with --sequences supplied", f.name)
	}
	return feed.Head, nil
}

func (f *clientFeed) read(ctx context.Context) (feed feedDocument, err error) {
	_, err = f.client.Do(ctx, apiclient.Request{Method: http.MethodGet, Path: feedPath(f.name)}, &feed)
	return feed, err
}

// Position implements mirror.Feed.
func (f *clientFeed) Position(ctx context.Context) (mirror.Position, error) {
	feed, err := f.read(ctx)
	return mirror.Position{Head: feed.Head, Whole: max(feed.FirstSequence-1, feed.CompactedThrough)}, temporary(err)
}

// Append implements mirror.Feed.
func (f *clientFeed) Append(ctx context.Context, events []event.Event) error {
	body := []byte{'['}
	for i := range events {
		if i > 0 {
			body = append(body, ',')
		}
		body = events[i].AppendJSON(body)
	}
	body = append(body, ']')
	_, err := f.client.Do(ctx, apiclient.Request{
		Method: http.MethodPost, Path: feedPath(f.name) + "/events", Body: bytes.NewReader(body), ContentType: "application/json",
	}, nil)
	var problem *apiclient.Problem
	if errors.As(err, &problem) && problem.Status == http.StatusConflict {
		return errors.Join(mirror.ErrConflict, err)
	}
	return temporary(err)
}

// Records implements mirror.Feed.
func (f *clientFeed) Records(ctx context.Context, after int64, limit int) ([]event.Event, error) {
	var page struct {
		Events []event.Event `json:"events"`
	}
	path := feedPath(f.name) + "/events?limit=" + strconv.Itoa(limit) + "&after=" + decimal(after)
	_, err := f.client.Do(ctx, apiclient.Request{Method: http.MethodGet, Path: path}, &page)
	var problem *apiclient.Problem
	if errors.As(err, &problem) && problem.Status == http.StatusGone {
		return nil, &mirror.TemporaryError{Err: err} // retention raised the floor meanwhile
	}
	return page.Events, temporary(err)
}

// temporary marks what another try may mend: supplied sequences make publishing
// again a repeat, whatever became of it the first time.
func temporary(err error) error {
	var problem *apiclient.Problem
	var unreachable *apiclient.UnreachableError
	switch {
	case errors.As(err, &unreachable) && !errors.Is(err, context.Canceled):
		return &mirror.TemporaryError{Err: err}
	case errors.As(err, &problem) && (problem.Status >= 500 || problem.Status == http.StatusTooManyRequests || problem.Status == http.StatusRequestTimeout):
		seconds, _ := strconv.Atoi(problem.RetryAfter)
		return &mirror.TemporaryError{Err: err, RetryAfter: time.Duration(seconds) * time.Second}
	}
	return err
}

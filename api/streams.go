package api

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"postroad/store"
)

// streams are those that are open. One goroutine looks for all of them after what
// ends a stream and does not show in the log.
type streams struct {
	server *Server
	most   int64
	count  atomic.Int64

	mu   sync.Mutex
	open map[*stream]context.CancelCauseFunc

	serving sync.WaitGroup
	stop    context.CancelFunc
	done    sync.WaitGroup
}

func newStreams(s *Server) *streams {
	t := &streams{server: s, most: int64(s.config.StreamsMax), open: map[*stream]context.CancelCauseFunc{}}
	ctx, stop := context.WithCancel(context.Background())
	t.stop = stop
	t.done.Go(func() { t.watch(ctx) })
	return t
}

// close waits for the streams, which end as the server drains.
func (t *streams) close() {
	t.serving.Wait()
	t.stop()
	t.done.Wait()
}

// enter takes a place, if there is one.
func (t *streams) enter() bool {
	if t.count.Add(1) > t.most {
		t.count.Add(-1)
		return false
	}
	t.serving.Add(1)
	return true
}

func (t *streams) leave() {
	t.count.Add(-1)
	t.serving.Done()
}

// serve runs a stream. ctx ends with its reader.
func (t *streams) serve(ctx context.Context, st *stream, wire func(ctx context.Context) wire) ending {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	//nolint:contextcheck // the drain ends the stream beside the request's own context
	defer context.AfterFunc(t.server.draining, func() { end(streamEnd{endDraining}) })()
	t.mu.Lock()
	t.open[st] = end
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.open, st)
	}()
	m := t.server.metrics
	m.streams.WithLabelValues(st.format).Inc()
	defer m.streams.WithLabelValues(st.format).Dec()
	e := st.run(ctx, wire(ctx))
	m.streamsEnded.WithLabelValues(e.reason).Inc()
	t.server.config.Logger.LogAttrs(ctx, slog.LevelDebug, "stream ended",
		slog.String("reason", e.reason), slog.String("format", st.format), slog.Int64("feed_id", st.feed), slog.String("subscriber", st.subscriber),
		slog.Int64("after", e.after), slog.Int64("events", st.sent), slog.String("token_id", st.grant.tokenID()))
	return e
}

func (t *streams) watch(ctx context.Context) {
	ticker := time.NewTicker(t.server.config.StreamCheck)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := t.look(ctx); err != nil && ctx.Err() == nil {
				t.server.config.Logger.WarnContext(ctx, "feeds and subscribers of streams not looked at", slog.Any("error", err))
			}
		}
	}
}

// look ends the streams of feeds and subscribers that are deleted, and of
// subscribers whose configuration has changed.
func (t *streams) look(ctx context.Context) error {
	t.mu.Lock()
	open := maps.Clone(t.open)
	t.mu.Unlock()
	if len(open) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, t.server.config.DatabaseMax)
	defer cancel()
	feeds, subscribers := map[int64]bool{}, map[string]bool{}
	for st := range open {
		feeds[st.feed] = true
		if st.subscriber != "" {
			subscribers[st.subscriber] = true
		}
	}
	epochs, err := t.server.config.Log.Epochs(ctx, slices.Collect(maps.Keys(feeds)))
	if err != nil {
		return err
	}
	versions := map[string]store.Version{}
	if len(subscribers) > 0 {
		if versions, err = t.server.config.Store.Versions(ctx, slices.Collect(maps.Keys(subscribers))); err != nil {
			return err
		}
	}
	for st, end := range open {
		version := versions[st.subscriber]
		switch {
		// What was made anew under the name or id is another.
		case epochs[st.feed] != st.epoch, st.subscriber != "" && !version.CreatedAt.Equal(st.version.CreatedAt):
			end(streamEnd{endDeleted})
		case st.subscriber != "" && version.Number != st.version.Number:
			end(streamEnd{endChanged})
		}
	}
	return nil
}

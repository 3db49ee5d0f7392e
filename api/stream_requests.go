package api

import (
	"context"
	"maps"
	"slices"
	"strconv"

	"postroad/delivery"
	"postroad/event"
	"postroad/store"
)

// renderRequests makes items of the requests that would carry the events to the
// subscriber's endpoint, one event each, signed as they are rendered. Neither where
// they would go nor a credential of the consumer's is in them.
func (s *Server) renderRequests(ctx context.Context, record store.Record, partition event.Partition) (func(*event.Event, []byte) []byte, error) {
	l, err := s.config.Store.Load(ctx, record.Subscriber.ID)
	if err != nil {
		return nil, err
	}
	if l.Subscriber.Mode == event.ModePull {
		return nil, store.ErrPulls
	}
	sub := l.Subscriber
	sub.Endpoint = event.Endpoint{URL: "https://endpoint.invalid/"}
	sub.Auth = event.Auth{Type: event.AuthNone}
	target, err := s.client.NewTarget(delivery.TargetConfig{
		Subscriber: sub, Secrets: event.Secrets{Signing: l.Secrets.Signing}, FeedEpoch: l.FeedEpoch, Now: l.Now,
	})
	if err != nil {
		return nil, err
	}
	// What the subscriber matched before is known from the second item on, and
	// only of a stream of all it matches.
	previous := int64(0)
	return func(e *event.Event, b []byte) []byte {
		rendered := target.Render(delivery.Request{
			Events: []*event.Event{e}, Attempt: 1, Previous: previous, NoPrevious: previous == 0 || partition.Count > 0, Traceparent: e.Trace,
		})
		previous = e.Sequence
		b = strconv.AppendInt(append(b, `{"sequence":`...), e.Sequence, 10)
		b = append(b, `,"method":"POST","headers":{`...)
		for i, name := range slices.Sorted(maps.Keys(rendered.Header)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = event.AppendString(append(event.AppendString(b, name), ':'), rendered.Header[name])
		}
		return append(event.AppendString(append(b, `},"body":`...), string(rendered.Body)), '}')
	}, nil
}

package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"postroad/internal/apiclient"
)

// pollEvery is how often the receiver's book is looked at.
const pollEvery = 50 * time.Millisecond

// prepare makes a paused subscriber with a backlog. config is what the subscriber
// has besides its name, feed and start.
func (m *measurement) prepare(ctx context.Context, config map[string]any, events io.Reader) error {
	name := m.scenario.Name
	subscriber := map[string]any{"id": name, "feed": name, "start": "beginning"}
	for member, value := range config {
		subscriber[member] = value
	}
	for _, call := range []apiclient.Request{
		{Method: http.MethodPost, Path: "/v1/feeds", In: map[string]any{"name": name}},
		{Method: http.MethodPost, Path: "/v1/subscribers", In: subscriber},
		{Method: http.MethodPost, Path: "/v1/subscribers/" + name + "/pause", In: map[string]any{"reason": "until the backlog is there"}},
	} {
		if _, err := m.api.Do(ctx, call, nil); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	started := time.Now()
	_, err := m.api.Do(ctx, apiclient.Request{
		Method: http.MethodPost, Path: "/v1/feeds/" + name + "/events", Body: events, ContentType: "application/x-ndjson",
	}, nil)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	published := rateOf(m.events, time.Since(started).Seconds(), 0)
	m.say("published %d events, %.0f/s", m.events, published.PerSecond)
	m.note("a backlog of %d events, published as NDJSON at %.0f/s", m.events, published.PerSecond)
	return nil
}

// deliver resumes the subscriber and waits until arrived, which says how many
// events did, has counted all. That is the stretch that is watched. What is
// written after the last delivery (its settlement, its attempt) is part of its
// price, and a repeat would come then.
func (m *measurement) deliver(ctx context.Context, arrived func() (int64, error)) error {
	return m.watch(ctx, m.events, func() error {
		if _, err := m.api.Do(ctx, apiclient.Request{Method: http.MethodPost, Path: "/v1/subscribers/" + m.scenario.Name + "/resume"}, nil); err != nil {
			return fmt.Errorf("resume: %w", err)
		}
		if all, err := m.await(ctx, m.events, arrived); err != nil || !all {
			return err
		}
		return m.settled(ctx, m.scenario.Name, m.events)
	})
}

// await waits until arrived says want or more. Where nothing arrives for long it
// is a fault, and all is false.
func (m *measurement) await(ctx context.Context, want int, arrived func() (int64, error)) (all bool, err error) {
	var before int64
	moved := time.Now()
	for {
		n, err := arrived()
		if err != nil {
			return false, err
		}
		if n >= int64(want) {
			return true, nil
		}
		if n > before {
			before, moved = n, time.Now()
		}
		if time.Since(moved) > m.cfg.StallMax {
			m.result.fault("nothing arrived for %s after %d of %d", m.cfg.StallMax, n, want)
			return false, nil
		}
		if err := m.pause(ctx, pollEvery); err != nil {
			return false, err
		}
	}
}

// settled waits until the subscriber's cursor stands at the end.
func (m *measurement) settled(ctx context.Context, subscriber string, end int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, m.cfg.StallMax, fmt.Errorf("the last event was not settled within %s", m.cfg.StallMax))
	defer cancel()
	for {
		var status struct {
			Cursor int64 `json:"cursor"`
		}
		_, err := m.api.Do(ctx, apiclient.Request{Method: http.MethodGet, Path: "/v1/subscribers/" + subscriber + "/status"}, &status)
		if err != nil {
			return fmt.Errorf("read status: %w", err)
		}
		if status.Cursor >= int64(end) {
			return nil
		}
		if err := m.pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}

package bench

import (
	"context"
	"fmt"
	"strings"
	"time"
)

const (
	figureP99    = "p99"
	figureP50    = "p50"
	milliseconds = "ms"
)

// timedPerSecond is the steady rate at which events are published one by one.
const timedPerSecond = 20

// How many events are published so.
const (
	timedCount      = 200
	timedCountQuick = 10
)

func (m *measurement) timedEvents() int {
	if m.cfg.Quick {
		return timedCountQuick
	}
	return timedCount
}

// timedEvent is an event that says when it is published. It is as long as others.
func timedEvent(i int) string {
	data := fmt.Sprintf(`{"sentAt":%d,"fill":"`, time.Now().UnixNano())
	data += strings.Repeat("x", bodyBytes-len(data)-2) + `"}`
	return fmt.Sprintf(`{"resourceName":"File","resourceRecordKey":%q,"eventType":"record.updated","data":%s}`, recordKey(i), data)
}

// publishTimed publishes n events at the steady rate.
func (c *crowd) publishTimed(ctx context.Context, n int) error {
	next := time.Now()
	for i := range n {
		next = next.Add(time.Second / timedPerSecond)
		if err := c.pause(ctx, time.Until(next)); err != nil {
			return err
		}
		if err := c.post(ctx, strings.NewReader(timedEvent(i)), "application/json"); err != nil {
			return err
		}
		c.published++
	}
	return nil
}

// timed publishes n events at the steady rate and returns how long each was
// under way to members from the first-th to before the end-th: from the moment
// that the publisher's request was made to the moment that the consumer had read
// the event.
func (c *crowd) timed(ctx context.Context, n, first, end int) (latencies, error) {
	if err := c.publishTimed(ctx, n); err != nil {
		return nil, err
	}
	if _, _, err := c.arrived(ctx, first, end); err != nil {
		return nil, err
	}
	all, err := book[latencies](ctx, c.run, fmt.Sprintf("/latencies/%s/%d/%d", c.name, first, end))
	if err == nil && len(all) != n*(end-first) {
		err = fmt.Errorf("%d latencies were noted, want %d", len(all), n*(end-first))
	}
	return all, err
}

package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	figureP99    = "p99"
	figureP50    = "p50"
	milliseconds = "ms"
)

// timedEvent is an event that says when it is published. It is as long as others.
func timedEvent(i int) string {
	data := fmt.Sprintf(`{"sentAt":%d,"fill":"`, time.Now().UnixNano())
	data += strings.Repeat("x", bodyBytes-len(data)-2) + `"}`
	return fmt.Sprintf(`{"resourceName":"File","resourceRecordKey":%q,"eventType":"record.updated","data":%s}`, recordKey(i), data)
}

// publishTimed publishes n events one by one at a steady rate, and returns how
// long each answer took.
func (c *crowd) publishTimed(ctx context.Context, n, perSecond int) (answers latencies, err error) {
	next := time.Now()
	for i := range n {
		next = next.Add(time.Second / time.Duration(perSecond))
		if err := c.pause(ctx, time.Until(next)); err != nil {
			return nil, err
		}
		started := time.Now()
		if err := c.post(ctx, strings.NewReader(timedEvent(i)), "application/json"); err != nil {
			return nil, err
		}
		answers = append(answers, float64(time.Since(started))/float64(time.Millisecond))
		c.published++
	}
	slices.Sort(answers)
	return answers, nil
}

// timed publishes n events one by one at a steady rate and returns how long each was
// under way to members from the first-th to before the end-th: from the moment
// that the publisher's request was made to the moment that the consumer had read
// the event.
func (c *crowd) timed(ctx context.Context, n, perSecond, first, end int) (latencies, error) {
	answers, err := c.publishTimed(ctx, n, perSecond)
	if err != nil {
		return nil, err
	}
	c.say("answers to the publisher: %.2f ms p50, %.2f ms p99", answers.at(50), answers.at(99))
	if _, _, err := c.arrived(ctx, first, end); err != nil {
		return nil, err
	}
	all, err := book[latencies](ctx, c.run, fmt.Sprintf("/latencies/%s/%d/%d", c.name, first, end))
	if err == nil && len(all) != n*(end-first) {
		err = fmt.Errorf("%d latencies were noted, want %d", len(all), n*(end-first))
	}
	return all, err
}

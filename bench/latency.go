package bench

import (
	"context"
	"fmt"
	"strings"
	"time"
)

func latency() Scenario {
	return Scenario{
		Name: "latency", What: fmt.Sprintf("from the publish request to receipt, single events at %d/s: one busy subscriber, and parked ones", timedPerSecond),
		Floor: "none: the goals are times",
		Goals: []Goal{
			{Figure: "busy p99", AtLeast: 10, Aim: 3, Of: OfValue, Lower: true},
			{Figure: "parked p99", AtLeast: 100, Aim: 20, Of: OfValue, Lower: true},
		},
		Events: 600, QuickEvents: 20, measure: measureLatency,
	}
}

// timedPerSecond is the rate at which events are published one by one.
const timedPerSecond = 20

// parkedMost is how many subscribers are parked at most: each is woken once.
const parkedMost = 300

// measureLatency has those park first that are to be parked: while three hundred
// do, Temporal keeps both cores of a small machine busy, and it is neither of the
// two times that is measured then.
func measureLatency(ctx context.Context, m *measurement) error {
	events := m.events
	if m.cfg.Quick {
		events = min(events, 10)
	}
	size := min(events, parkedMost)
	parked, err := m.newCrowd(ctx, m.scenario.Name+"-parked", size, func(i int, subscriber map[string]any) {
		subscriber["filter"] = map[string]any{"resourceNames": []string{parkedResource(i)}}
		subscriber["endpoint"] = map[string]any{"url": m.sink.URL + "/in/" + m.scenario.Name + fmt.Sprintf("-parked/%d?timed=1", i)}
	})
	if err != nil {
		return err
	}
	m.say("waiting until %d subscribers are parked", parked.size)
	if err := parked.parked(ctx); err != nil {
		return err
	}
	busy, err := m.newCrowd(ctx, m.scenario.Name+"-busy", 1, func(_ int, subscriber map[string]any) {
		subscriber["endpoint"] = map[string]any{"url": m.sink.URL + "/in/" + m.scenario.Name + "-busy/0?timed=1"}
	})
	if err != nil {
		return err
	}
	if err := busy.warmUp(ctx); err != nil {
		return err
	}
	err = m.watch(ctx, events, func() error {
		late, err := busy.timed(ctx, events, timedPerSecond, 0, 1)
		m.figure("busy p50", milliseconds, late.at(50), 0)
		m.figure("busy p99", milliseconds, late.at(99), 0)
		return err
	})
	if err != nil {
		return err
	}
	report, err := busy.report(ctx, 0, 1)
	if err != nil {
		return err
	}
	m.result.Book = report
	m.result.judgeCrowd(report, 1, busy.published)
	return m.measureParked(ctx, parked)
}

func parkedResource(i int) string { return fmt.Sprintf("Parked%d", i) }

// measureParked publishes one event for each of the subscribers, which are parked.
func (m *measurement) measureParked(ctx context.Context, c *crowd) error {
	next := time.Now()
	for i := range c.size {
		next = next.Add(time.Second / timedPerSecond)
		if err := m.pause(ctx, time.Until(next)); err != nil {
			return err
		}
		event := strings.Replace(timedEvent(i), `"File"`, fmt.Sprintf("%q", parkedResource(i)), 1)
		if err := c.post(ctx, strings.NewReader(event), "application/json"); err != nil {
			return err
		}
	}
	_, err := m.await(ctx, c.size, func() (int64, error) {
		report, err := c.report(ctx, 0, c.size)
		return report.Events, err
	})
	if err != nil {
		return err
	}
	late, err := book[latencies](ctx, m.run, fmt.Sprintf("/latencies/%s/0/%d", c.name, c.size))
	if err != nil {
		return err
	}
	m.figure("parked p50", milliseconds, late.at(50), 0)
	m.figure("parked p99", milliseconds, late.at(99), 0)
	m.note("%d parked subscribers, each woken by one event", c.size)
	report, err := c.report(ctx, 0, c.size)
	if err != nil {
		return err
	}
	if report.Unequal || report.Events != int64(c.size) || report.Repeats+report.Malformed > 0 || len(late) != c.size {
		m.result.fault("%d parked subscribers, each with one event of its own, got %+v", c.size, report)
	}
	return nil
}

// parked waits until all members are.
func (c *crowd) parked(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.StallMax, fmt.Errorf("not all subscribers were parked within %s", c.cfg.StallMax))
	defer cancel()
	for {
		var busy int
		err := c.database.QueryRow(ctx, "SELECT count(*) FROM runs JOIN feeds ON feeds.id = feed_id WHERE feeds.name = $1 AND NOT parked", c.name).Scan(&busy)
		if err != nil {
			return fmt.Errorf("read who is parked: %w", err)
		}
		if busy == 0 {
			return nil
		}
		if err := c.pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}

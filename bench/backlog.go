package bench

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"postroad/internal/apiclient"
)

func backlog() Scenario {
	return Scenario{
		Name: "backlog", What: "one ordered subscriber with a long backlog",
		Floor:  fmt.Sprintf("the same with a hundredth of it, %d times before and %d times after", smallRounds, smallRounds),
		Goals:  []Goal{{Figure: figureRate, AtLeast: 0.9, Aim: 1}},
		Events: 1_000_000, QuickEvents: 20_000, measure: measureBacklog,
	}
}

func catchup() Scenario {
	return Scenario{
		Name: "catchup", What: fmt.Sprintf("one ordered subscriber catches up while %d events/s are published", catchupArray*catchupArrays),
		Floor:  "the same backlog while nothing is published",
		Events: 100_000, QuickEvents: 5000, measure: measureCatchup,
	}
}

// smallRounds is how often the short backlog is delivered, before and after the
// long one.
const smallRounds = 4

func measureBacklog(ctx context.Context, m *measurement) error {
	var floors []Rate
	small := func(when string) error {
		for i := range smallRounds {
			rate, err := m.backlogOf(ctx, fmt.Sprintf("%s-%s-%d", m.scenario.Name, when, i), max(1, m.events/100))
			if err != nil {
				return err
			}
			floors = append(floors, rate)
		}
		return nil
	}
	if err := small("before"); err != nil {
		return err
	}
	var rate Rate
	c, err := m.withBacklog(ctx, m.scenario.Name, m.events)
	if err != nil {
		return err
	}
	err = m.watch(ctx, m.events, func() error {
		rate, err = c.drain(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if err := small("after"); err != nil {
		return err
	}
	m.figure(figureRate, perSecond, rate.PerSecond, merge(floors).PerSecond)
	return nil
}

// withBacklog makes a subscriber, paused, with a backlog.
func (m *measurement) withBacklog(ctx context.Context, name string, events int) (*crowd, error) {
	c, err := m.newCrowd(ctx, name, 1, nil)
	if err != nil {
		return nil, err
	}
	if err := c.control(ctx, "pause"); err != nil {
		return nil, err
	}
	return c, c.publish(ctx, events)
}

// control pauses or resumes a crowd of one.
func (c *crowd) control(ctx context.Context, what string) error {
	if _, err := c.api.Do(ctx, apiclient.Request{Method: http.MethodPost, Path: "/v1/subscribers/" + c.member(0) + "/" + what}, nil); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// drain resumes a subscriber and judges what arrived of its backlog. The rate is
// the receiver's, from the first request to the last.
func (c *crowd) drain(ctx context.Context) (Rate, error) {
	if err := c.control(ctx, "resume"); err != nil {
		return Rate{}, err
	}
	report, _, err := c.arrived(ctx, 0, 1)
	if err != nil {
		return Rate{}, err
	}
	if err := c.settledAll(ctx); err != nil {
		return Rate{}, err
	}
	c.result.judgeCrowd(report, 1, c.published)
	rate := rateOf(int(report.Requests), report.Seconds(), 0)
	c.say("%d events: %.0f deliveries/s", report.Events, rate.PerSecond)
	return rate, nil
}

func (m *measurement) backlogOf(ctx context.Context, name string, events int) (Rate, error) {
	c, err := m.withBacklog(ctx, name, events)
	if err != nil {
		return Rate{}, err
	}
	return c.drain(ctx)
}

// While one catches up, so many events are published in an array, so many arrays
// a second.
const (
	catchupArray  = 100
	catchupArrays = 20
)

func measureCatchup(ctx context.Context, m *measurement) error {
	floor, err := m.backlogOf(ctx, m.scenario.Name+"-floor", m.events)
	if err != nil {
		return err
	}
	c, err := m.withBacklog(ctx, m.scenario.Name, m.events)
	if err != nil {
		return err
	}
	var caughtUp CrowdReport
	err = m.watch(ctx, m.events, func() error {
		caughtUp, err = c.catchUp(ctx)
		return err
	})
	if err != nil {
		return err
	}
	report, _, err := c.arrived(ctx, 0, 1)
	if err != nil {
		return err
	}
	m.result.Book = report
	m.result.judgeCrowd(report, 1, c.published)
	m.figure(figureRate, perSecond, rateOf(int(caughtUp.Requests), caughtUp.Seconds(), 0).PerSecond, floor.PerSecond)
	m.figure("caught up after", "s", caughtUp.Seconds(), 0)
	m.note("a backlog of %d events and %d more that were published meanwhile", m.events, int(caughtUp.Events)-m.events)
	return nil
}

// catchUp resumes the subscriber and publishes on until it has all there is.
func (c *crowd) catchUp(ctx context.Context) (report CrowdReport, err error) {
	publishing, stop := context.WithCancel(ctx)
	defer stop()
	var published atomic.Int64
	published.Store(int64(c.published))
	ended := make(chan error, 1)
	go func() { ended <- c.publishArrays(publishing, &published) }()
	if err := c.control(ctx, "resume"); err != nil {
		return report, err
	}
	_, err = c.await(ctx, c.published, func() (int64, error) {
		report, err = c.report(ctx, 0, 1)
		if behind := published.Load() - report.Events; behind > 0 && err == nil {
			return min(report.Events, int64(c.published)-1), nil // not there yet
		}
		return report.Events, err
	})
	stop()
	err2 := <-ended
	c.published = int(published.Load())
	if err == nil {
		err = err2
	}
	return report, err
}

// publishArrays publishes at the steady rate until ctx ends.
func (c *crowd) publishArrays(ctx context.Context, published *atomic.Int64) error {
	ticker := time.NewTicker(time.Second / catchupArrays)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		array := strings.Builder{}
		first := int(published.Load())
		for i := range catchupArray {
			array.WriteByte("[,"[min(i, 1)])
			array.Write(appendEvent(nil, first+i))
		}
		array.WriteByte(']')
		// One that is under way ends in order.
		if err := c.post(context.WithoutCancel(ctx), strings.NewReader(array.String()), "application/json"); err != nil {
			return err
		}
		published.Add(catchupArray)
	}
}

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"
)

func naiveScenario() Scenario {
	return Scenario{
		Name: "naive", What: "one ordered subscriber, against the obvious design: one Temporal activity for each event",
		Floor:  "a workflow that runs an activity for each event, which reads it, posts it by net/http and records the position; same Temporal, same PostgreSQL",
		Events: 64_000, QuickEvents: 2000, measure: measureNaive,
	}
}

// The naive design takes its time: it delivers a fraction of the events.
const (
	naiveShare = 32
	// naiveManySubscribers share twice as many deliveries.
	naiveManySubscribers = 50
)

func measureNaive(ctx context.Context, m *measurement) error {
	endpoint := map[string]any{"url": m.sink.URL + "/in/" + m.scenario.Name}
	config := map[string]any{"format": "raw", "batchSize": 1, "lanes": 1, "endpoint": endpoint}
	if err := m.prepare(ctx, config, &stream{n: m.events, line: appendEvent}); err != nil {
		return err
	}
	ours, err := m.inOrder(ctx)
	if err != nil {
		return err
	}
	used := m.result.Resources
	one, oneUsed, err := m.naive(ctx, 1, m.events/naiveShare)
	if err != nil {
		return err
	}
	many, manyUsed, err := m.naive(ctx, naiveManySubscribers, m.events/naiveShare*2/naiveManySubscribers)
	if err != nil {
		return err
	}
	m.figure(figureRate, perSecond, ours.PerSecond, one)
	m.figure(figureCPU, cpuPer1000, used.productCPU(), oneUsed.productCPU())
	m.figure("naive: history events", "/delivery", oneUsed.HistoryEvents, 0)
	m.figure(fmt.Sprintf("naive: rate, %d subscribers", naiveManySubscribers), perSecond, many, 0)
	m.figure(fmt.Sprintf("naive: CPU, %d subscribers", naiveManySubscribers), cpuPer1000, manyUsed.productCPU(), 0)
	m.result.Resources = used
	return nil
}

// naiveWarmUp are events that each subscriber is sent before the clock starts:
// pollers, sticky queues and connections are there then.
const naiveWarmUp = 2

// naive has the naive design deliver so many events to each of its subscribers,
// by a worker in a process of its own, and returns deliveries per second.
func (m *measurement) naive(ctx context.Context, subscribers, events int) (rate float64, used *Resources, err error) {
	events = max(events, 2*naiveWarmUp)
	lane := fmt.Sprintf("%s-%d-", m.scenario.Name, subscribers)
	if err := m.startNaive(ctx, m.sink.URL+"/in/"+lane); err != nil {
		return 0, nil, err
	}
	defer func() {
		err = errors.Join(err, m.beside.stop(m.cfg.StopMax))
		m.beside = nil
	}()
	temporal, err := dialNaive(ctx, m.ready.TemporalAddress, naiveNamespace)
	if err != nil {
		return 0, nil, err
	}
	defer temporal.Close()
	var feed int64
	if err := m.database.QueryRow(ctx, "SELECT id FROM feeds WHERE name = $1", m.scenario.Name).Scan(&feed); err != nil {
		return 0, nil, fmt.Errorf("find the feed: %w", err)
	}
	if err := runNaive(ctx, temporal, subscribers, naiveInput{FeedID: feed, Next: 1, Through: naiveWarmUp}); err != nil {
		return 0, nil, err
	}
	deliveries := subscribers * (events - naiveWarmUp)
	var took time.Duration
	err = m.watch(ctx, deliveries, func() error {
		started := time.Now()
		defer func() { took = time.Since(started) }()
		return runNaive(ctx, temporal, subscribers, naiveInput{FeedID: feed, Next: naiveWarmUp + 1, Through: int64(events)})
	})
	if err != nil {
		return 0, nil, err
	}
	for i := range subscribers {
		report, err := book[LaneReport](ctx, m.run, fmt.Sprintf("/report/%s%d", lane, i))
		if err != nil {
			return 0, nil, err
		}
		m.result.judgeOrder(report, events)
	}
	rate = float64(deliveries) / took.Seconds()
	m.say("naive, %d subscribers: %.0f deliveries/s", subscribers, rate)
	return rate, m.result.Resources, nil
}

// naiveNamespace is the one that Postroad makes.
const naiveNamespace = "postroad"

func (m *measurement) startNaive(ctx context.Context, endpoint string) (err error) {
	m.beside, err = startProcess("the naive worker", m.cfg.Command, []string{
		"bench-naive", "--temporal", m.ready.TemporalAddress, "--namespace", naiveNamespace, "--endpoint", endpoint,
		"--database", m.cluster.URL(m.database.Config().Database),
	}, m.cfg.Env)
	if err != nil {
		return err
	}
	_, err = firstOutput(ctx, m.beside, func(out io.Reader) (line string, err error) {
		_, err = fmt.Fscanln(out, &line)
		return line, err
	})
	return err
}

// runNaive has each subscriber send the events that in says, and waits.
func runNaive(ctx context.Context, temporal client.Client, subscribers int, in naiveInput) error {
	all, ctx := errgroup.WithContext(ctx)
	for i := range subscribers {
		in.Subscriber = i
		one := in
		all.Go(func() error {
			options := client.StartWorkflowOptions{ID: fmt.Sprintf("naive-%d-%d-%d", subscribers, i, one.Next), TaskQueue: naiveQueue}
			run, err := temporal.ExecuteWorkflow(ctx, options, naiveWorkflow, one)
			if err == nil {
				err = run.Get(ctx, nil)
			}
			if err != nil {
				return fmt.Errorf("run naive subscriber %d: %w", i, err)
			}
			return nil
		})
	}
	return all.Wait()
}

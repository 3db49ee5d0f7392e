package bench

import (
	"context"
	"time"
)

func ordered() Scenario {
	return Scenario{
		Name: "ordered", What: "one ordered subscriber, 1 lane, batch 1, attempts recorded",
		Floor: "one net/http loop posting the same bodies over one connection",
		Goals: []Goal{
			{Figure: figureRate, AtLeast: 0.6, Aim: 0.9},
			{Figure: figureCPU, AtLeast: 3, Aim: 1.5, Lower: true},
		},
		Events: 200_000, QuickEvents: 10_000, measure: measureOrdered,
	}
}

// measureOrdered takes the floor before and after the product, so that a machine
// whose speed drifts drifts for both.
func measureOrdered(ctx context.Context, m *measurement) error {
	floors := make([]Rate, 2)
	var err error
	if floors[0], err = m.floor(ctx, "floor-before"); err != nil {
		return err
	}
	endpoint := map[string]any{"url": m.sink.URL + "/in/" + m.scenario.Name}
	config := map[string]any{"format": "raw", "batchSize": 1, "lanes": 1, "endpoint": endpoint}
	if err := m.prepare(ctx, config, &stream{n: m.events, line: appendEvent}); err != nil {
		return err
	}
	ordered, err := m.inOrder(ctx)
	if err != nil {
		return err
	}
	if floors[1], err = m.floor(ctx, "floor-after"); err != nil {
		return err
	}
	floor := merge(floors)
	m.figure(figureRate, perSecond, ordered.PerSecond, floor.PerSecond)
	m.figure(figureCPU, cpuPer1000, m.result.Resources.productCPU(), floor.CPUSecondsPer1000)
	return nil
}

func merge(rates []Rate) Rate {
	var requests int
	var seconds float64
	var cpu time.Duration
	for _, one := range rates {
		requests += one.Requests
		seconds += one.Seconds
		cpu += time.Duration(one.CPUSecondsPer1000 * float64(one.Requests) / 1000 * float64(time.Second))
	}
	return rateOf(requests, seconds, cpu)
}

func (m *measurement) floor(ctx context.Context, lane string) (Rate, error) {
	n := min(m.events, floorRequestsMax)
	rate, err := floor(ctx, m.sink.URL+"/in/"+lane, n)
	if err != nil {
		return Rate{}, err
	}
	m.say("floor: %.0f requests/s", rate.PerSecond)
	return rate, nil
}

// floorRequestsMax is enough for a steady figure.
const floorRequestsMax = 50_000

// inOrder delivers the backlog. The rate is the receiver's: from the first
// request to the last.
func (m *measurement) inOrder(ctx context.Context) (Rate, error) {
	read := func() (LaneReport, error) { return book[LaneReport](ctx, m.run, "/report/"+m.scenario.Name) }
	err := m.deliver(ctx, func() (int64, error) {
		report, err := read()
		return report.Last, err
	})
	if err != nil {
		return Rate{}, err
	}
	report, err := read()
	if err != nil {
		return Rate{}, err
	}
	rate := rateOf(int(report.Requests), report.Seconds(), 0)
	m.say("one ordered subscriber: %.0f deliveries/s", rate.PerSecond)
	m.result.Book = report
	m.result.judgeOrder(report, m.events)
	return rate, nil
}

// judgeOrder says what is wrong with what arrived.
func (r *Result) judgeOrder(got LaneReport, want int) {
	if got.Events != int64(want) {
		r.fault("%d of %d events arrived", got.Events, want)
	}
	if got.Gaps > 0 {
		r.fault("%d requests skipped a sequence", got.Gaps)
	}
	if got.Repeats > 0 {
		r.fault("%d requests repeated a sequence or came out of order", got.Repeats)
	}
	if got.Malformed > 0 {
		r.fault("%d requests had no sequence", got.Malformed)
	}
	if bytes := got.Requests * bodyBytes; got.BodyBytes != bytes {
		r.fault("bodies of %d bytes arrived, want %d: the data was not delivered as it was published", got.BodyBytes, bytes)
	}
}

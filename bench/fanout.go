package bench

import (
	"context"
	"fmt"
)

// fanoutFloorEvents is how many deliveries the fan-out takes that is a floor for
// others, where its own scenario was not run before.
const (
	fanoutFloorEvents      = 200_000
	fanoutFloorEventsQuick = 2000
	fanoutFloorSize        = 50
)

func fanout50() Scenario {
	return Scenario{
		Name: "fanout50", What: "50 subscribers, every event to all, batch 1, attempts recorded",
		Floor: fmt.Sprintf("net/http loops posting the same bodies over %d connections", crowdFloorAtOnce),
		Goals: []Goal{
			{Figure: figureRate, AtLeast: 0.5, Aim: 0.8},
			{Figure: figureCPU, AtLeast: 3, Aim: 1.5, Lower: true},
		},
		Events: 400_000, QuickEvents: 10_000, measure: measureFanout50,
	}
}

// fanoutEach is how many events each of many subscribers gets at least.
const fanoutEach = 20

func fanout500() Scenario {
	return Scenario{
		Name: "fanout500", What: "500 subscribers, every event to all, batch 1, attempts recorded",
		Floor: "the rate of 50 subscribers", Goals: []Goal{{Figure: figureRate, AtLeast: 0.5, Aim: 0.8}},
		Events: 400_000, QuickEvents: 2000, measure: measureFanout500,
	}
}

func measureFanout50(ctx context.Context, m *measurement) error {
	floors := make([]Rate, 2)
	var err error
	if floors[0], err = m.crowdFloor(ctx, "floor-before", min(m.events, floorRequestsMax)); err != nil {
		return err
	}
	rate, err := m.fanout(ctx, m.scenario.Name, fanoutFloorSize)
	if err != nil {
		return err
	}
	if floors[1], err = m.crowdFloor(ctx, "floor-after", min(m.events, floorRequestsMax)); err != nil {
		return err
	}
	floor := merge(floors)
	m.fanoutRate = rate.PerSecond
	m.figure(figureRate, perSecond, rate.PerSecond, floor.PerSecond)
	m.figure(figureCPU, cpuPer1000, m.result.Resources.productCPU(), floor.CPUSecondsPer1000)
	return nil
}

func measureFanout500(ctx context.Context, m *measurement) error {
	floor, err := m.fanoutFloor(ctx)
	if err != nil {
		return err
	}
	// A small run has fewer: each takes its time to be made.
	rate, err := m.fanout(ctx, m.scenario.Name, max(1, min(500, m.events/fanoutEach)))
	if err != nil {
		return err
	}
	m.figure(figureRate, perSecond, rate.PerSecond, floor)
	return nil
}

// fanout delivers to a crowd of that size, as many events as make m.events
// deliveries, and is the watched stretch.
func (m *measurement) fanout(ctx context.Context, name string, size int) (rate Rate, err error) {
	events := max(1, m.events/size)
	c, err := m.newCrowd(ctx, name, size, nil)
	if err != nil {
		return Rate{}, err
	}
	if err := c.warmUp(ctx); err != nil {
		return Rate{}, err
	}
	err = m.watch(ctx, events*size, func() error {
		if rate, err = c.deliver(ctx, events, 0, size); err != nil {
			return err
		}
		return c.settledAll(ctx)
	})
	if err != nil {
		return Rate{}, err
	}
	report, err := c.report(ctx, 0, size)
	if err != nil {
		return Rate{}, err
	}
	m.say("%d subscribers: %.0f deliveries/s", size, rate.PerSecond)
	m.note("%d events published as NDJSON to subscribers that had nothing to do, each to %d of them", events, size)
	m.result.Book = report
	m.result.judgeCrowd(report, size, c.published)
	return rate, nil
}

// fanoutFloor is the rate of deliveries per second to 50 subscribers, for
// scenarios whose floor that is: measured once in a run.
func (m *measurement) fanoutFloor(ctx context.Context) (float64, error) {
	if m.fanoutRate > 0 {
		return m.fanoutRate, nil
	}
	deliveries := fanoutFloorEvents
	if m.cfg.Quick {
		deliveries = fanoutFloorEventsQuick
	}
	c, err := m.newCrowd(ctx, "fanout-floor", fanoutFloorSize, nil)
	if err != nil {
		return 0, err
	}
	if err := c.warmUp(ctx); err != nil {
		return 0, err
	}
	rate, err := c.deliver(ctx, deliveries/fanoutFloorSize, 0, fanoutFloorSize)
	if err != nil {
		return 0, err
	}
	m.say("floor: %.0f deliveries/s to %d subscribers", rate.PerSecond, fanoutFloorSize)
	m.fanoutRate = rate.PerSecond
	return m.fanoutRate, c.remove(ctx)
}

package bench

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"postroad/internal/apiclient"
)

// besideShape is well-behaved subscribers with others beside them on the same
// feed: what counts is what the others cost them.
type besideShape struct {
	good, odd int
	// manners is what consumer i of the others does.
	manners func(i int) url.Values
	// repeats says that the others may see a request again.
	repeats bool
	// more measures something else, when the good ones have been measured and the
	// others still are as they are; nil: nothing.
	more func(ctx context.Context, c *crowd, shape besideShape) ([]Figure, error)
}

// So many events are published one by one, so many a second, for latencies: at
// the 99th percentile stand several of them.
const (
	besideTimed      = 800
	besideTimedQuick = 20
	besidePerSecond  = 100
)

// besideRound is what the good ones got in one round.
type besideRound struct {
	rate Rate
	late latencies
	more []Figure
}

func slow() Scenario {
	return besideScenario("slow", "40 of 50 subscribers beside 10 whose consumers answer after 5 s", besideShape{
		good: 40, odd: 10, manners: func(int) url.Values { return url.Values{"delay": {"5s"}} },
	}, []Goal{
		{Figure: figureRate, AtLeast: 0.9, Aim: 1},
		{Figure: figureP99, AtLeast: 1 / 0.9, Aim: 1, Lower: true},
	})
}

func wall429() Scenario {
	return besideScenario("wall429", "10 subscribers beside 20 whose consumers answer 429 with Retry-After: 1 to two of three requests", besideShape{
		good: 10, odd: 20, manners: func(int) url.Values { return url.Values{"wall": {"1"}} }, more: measureWall,
	}, nil)
}

func drip() Scenario {
	return besideScenario("drip", "10 subscribers beside 10 whose consumers send their answer's body a byte at a time, one of them its headers", besideShape{
		good: 10, odd: 10, repeats: true,
		manners: func(i int) url.Values {
			if i == 0 {
				return url.Values{"drip": {"headers"}}
			}
			return url.Values{"drip": {"body"}}
		},
	}, nil)
}

func besideScenario(name, what string, shape besideShape, goals []Goal) Scenario {
	return Scenario{
		Name: name, What: what, Floor: "the same without those, before and after", Goals: goals,
		Events: 200_000, QuickEvents: 4000,
		measure: func(ctx context.Context, m *measurement) error { return measureBeside(ctx, m, shape) },
	}
}

func measureBeside(ctx context.Context, m *measurement, shape besideShape) error {
	alone := shape
	alone.odd = 0
	rounds := make([]besideRound, 3)
	for i, s := range []besideShape{alone, shape, alone} {
		var err error
		if rounds[i], err = m.besideRound(ctx, fmt.Sprintf("%s-%d", m.scenario.Name, i+1), s); err != nil {
			return err
		}
	}
	without := merge([]Rate{rounds[0].rate, rounds[2].rate})
	m.figure(figureRate, perSecond, rounds[1].rate.PerSecond, without.PerSecond)
	m.figure(figureP99, milliseconds, rounds[1].late.at(99), (rounds[0].late.at(99)+rounds[2].late.at(99))/2)
	m.result.Figures = append(m.result.Figures, rounds[1].more...)
	m.note("publish request to receipt at %d/s, with them %.2f ms p50 and %.2f ms p99; %d events published", besidePerSecond, rounds[1].late.at(50), rounds[1].late.at(99), m.events/shape.good)
	return nil
}

// besideRound delivers to the good ones, once as fast as it goes and once at a
// steady rate. Where there are others, that is the watched stretch; then they
// stop what they do, and have to get all that was published.
func (m *measurement) besideRound(ctx context.Context, name string, shape besideShape) (round besideRound, err error) {
	address := func(i int) string { return fmt.Sprintf("%s/in/%s/%d", m.sink.URL, name, i) }
	c, err := m.newCrowd(ctx, name, shape.good+shape.odd, func(i int, subscriber map[string]any) {
		manners := url.Values{"timed": {"1"}}
		if i >= shape.good {
			manners = shape.manners(i - shape.good)
			manners.Set("gate", name)
		}
		subscriber["endpoint"] = map[string]any{"url": address(i) + "?" + manners.Encode(), "timeout": "6s"}
		subscriber["retry"] = map[string]any{"schedule": []string{"1s"}}
	})
	if err != nil {
		return round, err
	}
	if _, err := c.deliver(ctx, 1, 0, shape.good); err != nil {
		return round, err
	}
	events, timed := max(1, m.events/shape.good), besideTimed
	if m.cfg.Quick {
		timed = besideTimedQuick
	}
	stretch := func() error {
		if round.rate, err = c.deliver(ctx, events, 0, shape.good); err != nil {
			return err
		}
		if round.late, err = c.timed(ctx, timed, besidePerSecond, 0, shape.good); err != nil {
			return err
		}
		if shape.odd > 0 && shape.more != nil {
			round.more, err = shape.more(ctx, c, shape)
		}
		return err
	}
	if shape.odd == 0 {
		err = stretch()
	} else {
		err = m.watch(ctx, (events+timed)*shape.good, stretch)
	}
	if err != nil {
		return round, err
	}
	m.say("%d subscribers, %d others: %.0f deliveries/s, p99 %.2f ms", shape.good, shape.odd, round.rate.PerSecond, round.late.at(99))
	return round, m.afterGate(ctx, c, shape)
}

// afterGate opens the gate and judges what arrived in the end.
func (m *measurement) afterGate(ctx context.Context, c *crowd, shape besideShape) error {
	if _, err := m.sink.Do(ctx, apiclient.Request{Method: http.MethodPost, Path: "/gate/" + c.name}, nil); err != nil {
		return fmt.Errorf("open the gate: %w", err)
	}
	if _, _, err := c.arrived(ctx, 0, c.size); err != nil {
		return err
	}
	if err := c.settledAll(ctx); err != nil {
		return err
	}
	good, err := c.report(ctx, 0, shape.good)
	if err != nil {
		return err
	}
	m.result.judgeCrowd(good, shape.good, c.published)
	if shape.odd == 0 {
		return nil
	}
	odd, err := c.report(ctx, shape.good, c.size)
	if err != nil {
		return err
	}
	m.result.Book = odd
	if odd.Early > 0 {
		m.result.fault("%d requests came before the time that Retry-After asked for", odd.Early)
	}
	if shape.repeats {
		odd.Requests, odd.Repeats, odd.BodyBytes = odd.Events, 0, odd.BodyBytes*odd.Events/max(odd.Requests, 1)
	}
	m.result.judgeCrowd(odd, shape.odd, c.published)
	return nil
}

// wallStretch is how long the wall is looked at.
const (
	wallStretch      = 6 * time.Second
	wallStretchQuick = time.Second
)

// measureWall looks at what waiting subscribers cost.
func measureWall(ctx context.Context, c *crowd, shape besideShape) ([]Figure, error) {
	length := wallStretch
	if c.cfg.Quick {
		length = wallStretchQuick
	}
	cpu := func() time.Duration {
		all := c.usage()
		return all[processProduct].cpu + all[processDatabase].cpu
	}
	used, started := cpu(), time.Now()
	before, err := c.report(ctx, shape.good, c.size)
	if err != nil {
		return nil, err
	}
	if err := c.pause(ctx, length); err != nil {
		return nil, err
	}
	after, err := c.report(ctx, shape.good, c.size)
	if err != nil {
		return nil, err
	}
	seconds := time.Since(started).Seconds()
	asked := after.Requests + after.Refused - before.Requests - before.Refused
	return []Figure{
		newFigure("requests at the wall", perSecond, float64(asked)/seconds, 0),
		newFigure("CPU at the wall", "cores", (cpu()-used).Seconds()/seconds, 0),
	}, nil
}

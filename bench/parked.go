package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// Windows in which the CPU of a product at rest is measured: with nobody there,
	// and with everybody parked. What is done once a minute is in the longer one.
	nobodyWindow, parkedWindow           = 15 * time.Second, 60 * time.Second
	nobodyWindowQuick, parkedWindowQuick = time.Second, 2 * time.Second
	// wokenOf is the part of the parked subscribers that are woken: one in so many.
	wokenOf = 10
	// restLeast is the least difference that is told from none.
	restLeast = 0.01
)

func parked10k() Scenario {
	return Scenario{
		Name: "parked10k", What: "10,000 parked subscribers at rest, and 1,000 of them woken at once",
		Floor: "what Postroad costs without a subscriber",
		Goals: []Goal{
			{Figure: "all woken", AtLeast: 10, Aim: 3, Of: OfValue, Lower: true},
			{Figure: "CPU at rest", AtLeast: 1, Aim: 0.1, Of: OfValue, Lower: true},
			{Figure: "memory at rest", AtLeast: 500, Aim: 100, Of: OfValue, Lower: true},
		},
		Events: 10_000, QuickEvents: 100, measure: measureParked10k,
	}
}

// measureParked10k takes figures of rest as differences: what the subscribers add.
func measureParked10k(ctx context.Context, m *measurement) error {
	quiet, window := nobodyWindow, parkedWindow
	if m.cfg.Quick {
		quiet, window = nobodyWindowQuick, parkedWindowQuick
	}
	nobody, err := m.atRest(ctx, quiet)
	if err != nil {
		return err
	}
	c := newMultitude(m, m.events, false)
	if err := c.create(ctx); err != nil {
		return err
	}
	if err := c.park(ctx); err != nil {
		return err
	}
	if err := c.calm(ctx, nobody.cpu); err != nil {
		return err
	}
	parked, err := m.atRest(ctx, window)
	if err != nil {
		return err
	}
	// Each subscriber is woken once, and none that was not drawn.
	woken := rand.New(rand.NewPCG(1, 2)).Perm(c.size)[:max(1, c.size/wokenOf)] //nolint:gosec // the same each time
	var got ManyReport
	published := time.Now()
	err = m.watch(ctx, len(woken), func() (err error) {
		published = time.Now()
		got, err = c.stretch(ctx, woken)
		return err
	})
	if err != nil {
		return err
	}
	c.judge(got, "woken")
	m.result.Book = got
	m.figure("all woken", "s", time.Unix(0, got.LastAt).Sub(published).Seconds(), 0)
	m.figure("first woken", "s", time.Unix(0, got.FirstAt).Sub(published).Seconds(), 0)
	m.figure("CPU at rest", "% of a core", max(restLeast, 100*(parked.cpu-nobody.cpu)), 0)
	m.figure("memory at rest", "MiB", max(restLeast, float64(parked.memory-nobody.memory)/(1<<20)), 0)
	m.note("Without a subscriber: %.2f %% of a core, %d MiB. With %d parked: %.2f %%, %d MiB",
		100*nobody.cpu, nobody.memory>>20, c.size, 100*parked.cpu, parked.memory>>20)
	return nil
}

// rest is what a product with its database takes while nothing happens.
type rest struct {
	cpu    float64 // of a core
	memory int64   // bytes
}

func (m *measurement) atRest(ctx context.Context, window time.Duration) (r rest, err error) {
	before, started := m.usage(), time.Now()
	if err := m.pause(ctx, window); err != nil {
		return r, err
	}
	after, seconds := m.usage(), time.Since(started).Seconds()
	for _, name := range []string{processProduct, processDatabase} {
		r.cpu += (after[name].cpu - before[name].cpu).Seconds() / seconds
		r.memory += after[name].memory
	}
	m.say("at rest: %.2f %% of a core, %d MiB", 100*r.cpu, r.memory>>20)
	return r, nil
}

// park waits until all are parked.
func (c *multitude) park(ctx context.Context) error {
	started := time.Now()
	moved, before := started, -1
	for {
		var parked int
		err := c.m.database.QueryRow(ctx, `SELECT count(*) FROM runs WHERE parked AND starts_with(id, $1 || '-')`, c.name).Scan(&parked)
		if err != nil {
			return fmt.Errorf("count parked subscribers: %w", err)
		}
		if parked == c.size {
			c.m.say("all parked after %.1f s", time.Since(started).Seconds())
			return nil
		}
		if parked != before {
			before, moved = parked, time.Now()
		}
		if time.Since(moved) > c.m.cfg.StallMax {
			return fmt.Errorf("only %d of %d subscribers parked within %s", parked, c.size, c.m.cfg.StallMax)
		}
		if err := c.m.pause(ctx, 4*pollEvery); err != nil {
			return err
		}
	}
}

// calmMax bounds the wait until Temporal has taken in who is parked.
const calmMax = time.Minute

// calm waits until the product uses little more CPU than with nobody there.
func (c *multitude) calm(ctx context.Context, nobody float64) error {
	for started := time.Now(); time.Since(started) < calmMax; {
		now, err := c.m.atRest(ctx, time.Second)
		if err != nil || now.cpu < 2*nobody+0.05 {
			return err
		}
	}
	return nil
}

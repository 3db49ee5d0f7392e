package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"postroad/internal/apiclient"
)

const routeFloor = "the same route of an API whose log answers at once and stores nothing"

func publish1() Scenario { return publishSingles(1, 0, 0, 12_000, 600) }

func publish16() Scenario { return publishSingles(16, 0.4, 0.7, 120_000, 4000) }

func publish64() Scenario { return publishSingles(64, 0.4, 0.7, 120_000, 4000) }

// publishSingles publishes one event per request; without a goal where that is 0.
func publishSingles(clients int, atLeast, aim float64, events, quick int) Scenario {
	s := Scenario{
		Name: "publish" + strconv.Itoa(clients), What: fmt.Sprintf("publish, %d clients, single events", clients), Floor: routeFloor,
		Events: events, QuickEvents: quick,
		measure: func(ctx context.Context, m *measurement) error { return measurePublish(ctx, m, clients) },
	}
	if atLeast > 0 {
		s.Goals = []Goal{{Figure: figureRate, AtLeast: atLeast, Aim: aim}}
	}
	return s
}

func measurePublish(ctx context.Context, m *measurement, clients int) (err error) {
	route, err := m.startRoute(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, route.stop(5*time.Second)) }()
	load := Load{Feed: m.scenario.Name, Token: m.api.Token, Clients: clients, Events: m.events, Array: 1}
	if err := m.makeFeed(ctx); err != nil {
		return err
	}
	floorLoad := load
	floorLoad.URL = route.url
	var floors, floorCPU, floorEvents float64
	floor := func() error {
		cpu, _ := usageOf(route.pid())
		report, err := m.publishLoad(ctx, floorLoad)
		after, _ := usageOf(route.pid())
		m.judgePublished(report, floorLoad.Events)
		floors += report.Seconds
		floorCPU += (after.cpu - cpu.cpu).Seconds() + report.CPUSeconds
		floorEvents += float64(report.Events)
		return err
	}
	// Before and after the product, so that a machine whose speed drifts drifts for
	// both.
	if err := floor(); err != nil {
		return err
	}
	load.URL = m.api.URL
	report, err := m.publishWatched(ctx, load)
	if err != nil {
		return err
	}
	if err := floor(); err != nil {
		return err
	}
	m.figure(figureRate, perSecond, float64(report.Events)/report.Seconds, floorEvents/floors)
	product := m.result.Resources.productCPU() + 1000*report.CPUSeconds/float64(report.Events)
	m.figure(figureCPU, cpuPer1000, product, 1000*floorCPU/floorEvents)
	m.figure("p99", "s", report.P99, 0)
	return nil
}

// makeFeed makes a feed of the scenario's name.
func (m *measurement) makeFeed(ctx context.Context) error {
	_, err := m.api.Do(ctx, apiclient.Request{Method: http.MethodPost, Path: "/v1/feeds", In: map[string]any{"name": m.scenario.Name}}, nil)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	return nil
}

// publishWatched publishes to the product, and holds what it answered against
// what the log has.
func (m *measurement) publishWatched(ctx context.Context, load Load) (report LoadReport, err error) {
	err = m.watch(ctx, load.Events, func() (err error) {
		report, err = m.publishLoad(ctx, load)
		return err
	})
	if err != nil {
		return report, err
	}
	m.say("published %.0f events/s, p50 %.2f ms, p99 %.2f ms", float64(report.Events)/report.Seconds, 1000*report.P50, 1000*report.P99)
	m.judgePublished(report, load.Events)
	m.result.Book = report
	var stored, first, last int64
	err = m.database.QueryRow(ctx, `SELECT count(*), coalesce(min(sequence), 0), coalesce(max(sequence), 0)
		FROM events WHERE feed_id = (SELECT id FROM feeds WHERE name = $1)`, load.Feed).Scan(&stored, &first, &last)
	if err != nil {
		return report, fmt.Errorf("count what is stored: %w", err)
	}
	if stored != int64(report.Events) || first != report.First || last != report.Last {
		m.result.fault("the log has %d events, %d to %d; answered were %d, %d to %d",
			stored, first, last, report.Events, report.First, report.Last)
	}
	return report, nil
}

// judgePublished says what is wrong with what was answered.
func (m *measurement) judgePublished(got LoadReport, want int) {
	if got.Events != want {
		m.result.fault("%d of %d events were answered", got.Events, want)
	}
	if got.Missing > 0 {
		m.result.fault("%d sequences were given to nobody", got.Missing)
	}
	if got.Repeats > 0 {
		m.result.fault("%d sequences were given twice", got.Repeats)
	}
}

// publishLoad publishes from a process of its own.
func (m *measurement) publishLoad(ctx context.Context, load Load) (LoadReport, error) {
	publisher, err := startProcess("the publisher", m.cfg.Command, []string{
		"bench-publisher", "--url", load.URL, "--feed", load.Feed, "--clients", strconv.Itoa(load.Clients),
		"--events", strconv.Itoa(load.Events), "--array", strconv.Itoa(load.Array),
	}, m.withToken("POSTROAD_TOKEN"))
	if err != nil {
		return LoadReport{}, err
	}
	report, err := firstOutput(ctx, publisher, func(out io.Reader) (r LoadReport, err error) {
		return r, json.NewDecoder(out).Decode(&r)
	})
	if err != nil {
		err = fmt.Errorf("publish: %w", err)
	}
	return report, errors.Join(err, publisher.stop(5*time.Second))
}

func (m *measurement) withToken(variable string) []string {
	return append(m.cfg.Env[:len(m.cfg.Env):len(m.cfg.Env)], variable+"="+m.api.Token)
}

// routeProcess is the API without a database.
type routeProcess struct {
	*process
	url string
}

func (m *measurement) startRoute(ctx context.Context) (routeProcess, error) {
	p, err := startProcess("the route alone", m.cfg.Command, []string{"bench-route"}, m.withToken("POSTROAD_ADMIN_TOKEN"))
	if err != nil {
		return routeProcess{}, err
	}
	url, err := firstOutput(ctx, p, func(out io.Reader) (line string, err error) {
		_, err = fmt.Fscanln(out, &line)
		return line, err
	})
	if err != nil {
		return routeProcess{}, errors.Join(fmt.Errorf("start the route: %w", err), p.stop(5*time.Second))
	}
	return routeProcess{p, url}, nil
}

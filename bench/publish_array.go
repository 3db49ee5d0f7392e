package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// arrayEvents is how many events make one array, and arrayClients how many
// publishers send such arrays: one would wait for the database while nothing is
// decoded, and the other way round.
const (
	arrayEvents  = 1000
	arrayClients = 4
)

func publishArray() Scenario {
	return Scenario{
		Name: "publisharray", What: fmt.Sprintf("publish in arrays of 1,000, %d clients", arrayClients),
		Floor:  "COPY of as many such rows into a table with the same columns, checks and indexes, over one connection",
		Goals:  []Goal{{Figure: figureRate, AtLeast: 0.4, Aim: 0.8}},
		Events: 400_000, QuickEvents: 20_000, measure: measurePublishArray,
	}
}

func measurePublishArray(ctx context.Context, m *measurement) error {
	if err := m.makeFeed(ctx); err != nil {
		return err
	}
	load := Load{URL: m.api.URL, Feed: m.scenario.Name, Token: m.api.Token, Clients: arrayClients, Events: m.events, Array: arrayEvents}
	if load.Events%arrayEvents != 0 {
		load.Array = load.Events // a run that is smaller than an array
	}
	before, err := m.copyFloor(ctx, "before")
	if err != nil {
		return err
	}
	report, err := m.publishWatched(ctx, load)
	if err != nil {
		return err
	}
	after, err := m.copyFloor(ctx, "after")
	if err != nil {
		return err
	}
	m.figure(figureRate, perSecond, float64(report.Events)/report.Seconds, merge([]Rate{before, after}).PerSecond)
	m.figure("p99", "s", report.P99, 0)
	return nil
}

// copyFloor copies the events into a table like that of the log.
func (m *measurement) copyFloor(ctx context.Context, name string) (Rate, error) {
	table := pgx.Identifier{"bench_copy_" + name}
	if _, err := m.database.Exec(ctx, "CREATE TABLE "+table.Sanitize()+" (LIKE events INCLUDING ALL)"); err != nil {
		return Rate{}, fmt.Errorf("make the floor's table: %w", err)
	}
	bodies := make([]string, min(m.events, bodiesMax))
	for i := range bodies {
		bodies[i] = string(eventData(i))
	}
	columns := []string{"feed_id", "sequence", "recorded_at", "resource_name", "resource_key", "event_type", "occurred_at", "data"}
	i := 0
	started := time.Now()
	n, err := m.database.CopyFrom(ctx, table, columns, pgx.CopyFromFunc(func() ([]any, error) {
		if i == m.events {
			return nil, nil
		}
		i++
		return []any{int64(1), int64(i), started, "File", recordKey(i), types[i%len(types)], "2024-05-06T07:08:09Z", bodies[i%len(bodies)]}, nil
	}))
	seconds := time.Since(started).Seconds()
	if err != nil {
		return Rate{}, fmt.Errorf("copy events: %w", err)
	}
	if n != int64(m.events) {
		return Rate{}, fmt.Errorf("copied %d of %d events", n, m.events)
	}
	if _, err := m.database.Exec(ctx, "DROP TABLE "+table.Sanitize()); err != nil {
		return Rate{}, fmt.Errorf("drop the floor's table: %w", err)
	}
	m.say("floor: COPY of %.0f rows/s", float64(n)/seconds)
	return rateOf(int(n), seconds, 0), nil
}

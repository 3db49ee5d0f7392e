package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"postroad/internal/streams"
)

// farShape is a subscriber whose consumer is far away: what counts is how many
// events are on their way at once.
type farShape struct {
	lanes, batch int
	source       func() (source, error)
}

// source is events to publish, told by their index from 0.
type source struct {
	// line appends an event as one line of NDJSON, name is its record.
	line func(b []byte, i int) []byte
	name func(i int) recordName
}

// far declares the scenario of a shape. At best as many events as are on their
// way at once arrive each round trip.
func far(name, what string, shape farShape, events, quick int) Scenario {
	return Scenario{
		Name: name, What: what + ", a consumer that takes its time", Floor: fmt.Sprintf("%d events each round trip of a bare client", shape.width()),
		Goals: []Goal{{Figure: figureRate, AtLeast: 0.9, Aim: 0.97}}, Events: events, QuickEvents: quick,
		measure: func(ctx context.Context, m *measurement) error { return measureFar(ctx, m, shape) },
	}
}

// width is how many events are on their way at once.
func (s farShape) width() int { return s.lanes * s.batch }

// How many requests the round trip is measured with, before and after.
const (
	roundTrips      = 100
	roundTripsQuick = 10
)

// measureFar takes the round trip before and after, one request after the other
// over one connection, with bodies as the product sends them.
func measureFar(ctx context.Context, m *measurement, shape farShape) error {
	events, err := shape.source()
	if err != nil {
		return err
	}
	trips := make([]Rate, 2)
	if trips[0], err = m.roundTrip(ctx, shape, events, "before"); err != nil {
		return err
	}
	config := map[string]any{
		"format": "reso", "batchSize": shape.batch, "lanes": shape.lanes,
		"endpoint": map[string]any{"url": m.keysURL(m.scenario.Name)},
	}
	if err := m.prepare(ctx, config, &stream{n: m.events, line: events.line}); err != nil {
		return err
	}
	rate, err := m.byKey(ctx, shape, events)
	if err != nil {
		return err
	}
	if trips[1], err = m.roundTrip(ctx, shape, events, "after"); err != nil {
		return err
	}
	trip := merge(trips)
	seconds := trip.Seconds / float64(trip.Requests)
	m.note("a round trip took %s", time.Duration(seconds*float64(time.Second)).Round(10*time.Microsecond))
	m.figure(figureRate, perSecond, rate.PerSecond, float64(shape.width())/seconds)
	return nil
}

func (m *measurement) keysURL(book string) string {
	return m.sink.URL + "/keys/" + book + "?delay=" + url.QueryEscape(m.cfg.Delay.String())
}

func (m *measurement) roundTrip(ctx context.Context, shape farShape, events source, when string) (Rate, error) {
	n := roundTrips
	if m.cfg.Quick {
		n = roundTripsQuick
	}
	bodies := make([][]byte, n)
	for i := range bodies {
		body, err := shape.body(events, i*shape.batch)
		if err != nil {
			return Rate{}, err
		}
		bodies[i] = body
	}
	rate, err := loop(ctx, m.keysURL(m.scenario.Name+"-"+when), n, bodies)
	if err != nil {
		return Rate{}, fmt.Errorf("measure the round trip: %w", err)
	}
	m.say("round trip: %s", time.Duration(rate.Seconds/float64(n)*float64(time.Second)).Round(10*time.Microsecond))
	return rate, nil
}

// body is a request's body in the format reso, from event i on.
func (s farShape) body(events source, i int) ([]byte, error) {
	const resoContext = "urn:reso:metadata:2.0:resource:entityevent"
	at := func(i int) resoEvent {
		name := events.name(i)
		return resoEvent{int64(i + 1), name.resource, name.key}
	}
	if s.batch == 1 {
		return json.Marshal(struct {
			Context string `json:"@reso.context"`
			resoEvent
		}{resoContext, at(i)})
	}
	value := make([]resoEvent, s.batch)
	for n := range value {
		value[n] = at(i + n)
	}
	return json.Marshal(struct {
		Context string      `json:"@reso.context"`
		Value   []resoEvent `json:"value"`
	}{resoContext, value})
}

// byKey delivers the backlog. The rate is the receiver's, from the first request
// to the last answer: a whole number of round trips at best.
func (m *measurement) byKey(ctx context.Context, shape farShape, events source) (Rate, error) {
	read := func() (KeyReport, error) { return book[KeyReport](ctx, m.run, "/keys/"+m.scenario.Name) }
	err := m.deliver(ctx, func() (int64, error) {
		report, err := read()
		return report.Events, err
	})
	if err != nil {
		return Rate{}, err
	}
	report, err := read()
	if err != nil {
		return Rate{}, err
	}
	rate := rateOf(int(report.Events), report.Seconds(), 0)
	m.say("%d lanes, batches of %d: %.0f events/s", shape.lanes, shape.batch, rate.PerSecond)
	m.result.Book = report
	m.note("bodies of %.0f bytes, of %d records, at most %d requests at once",
		float64(report.BodyBytes)/float64(max(report.Requests, 1)), report.Keys, report.MostInFlight)
	var want uint64
	for i := range m.events {
		want += digest(int64(i+1), events.name(i))
	}
	m.result.judgeKeys(report, m.events, shape.lanes, want)
	return rate, nil
}

// judgeKeys says what is wrong with what arrived.
func (r *Result) judgeKeys(got KeyReport, want, lanes int, digest uint64) {
	switch {
	case got.Events != int64(want):
		r.fault("%d of %d events arrived", got.Events, want)
	case got.Digest != digest:
		r.fault("sequences or records are not those of the events that were published")
	}
	if got.Repeats > 0 {
		r.fault("%d events came again", got.Repeats)
	}
	if got.Disorders > 0 {
		r.fault("%d events came after a later one of their record", got.Disorders)
	}
	if got.Overlaps > 0 {
		r.fault("%d times two requests with a record were in flight at once", got.Overlaps)
	}
	if got.Malformed > 0 {
		r.fault("%d requests were not understood", got.Malformed)
	}
	if got.MostInFlight > lanes {
		r.fault("%d requests were in flight at once, %d may be", got.MostInFlight, lanes)
	}
}

// sdkSource is the real stream, from its beginning again where it is too short.
func sdkSource() (source, error) {
	lines, err := streams.Lines("sdk-go")
	if err != nil {
		return source{}, err
	}
	names := make([]recordName, len(lines))
	for i, line := range lines {
		var e struct {
			Resource string `json:"resourceName"`
			Key      string `json:"resourceRecordKey"`
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return source{}, fmt.Errorf("read line %d of the stream: %w", i+1, err)
		}
		names[i] = recordName{e.Resource, e.Key}
	}
	return source{
		line: func(b []byte, i int) []byte { return append(append(b, lines[i%len(lines)]...), '\n') },
		name: func(i int) recordName { return names[i%len(names)] },
	}, nil
}

// manyRecords is how many records manySource knows.
const manyRecords = 16_384

// manySource is events of many records, drawn at random.
func manySource() (source, error) {
	name := func(i int) recordName {
		return recordName{"Property", fmt.Sprint(100_000 + digest(int64(i), recordName{})%manyRecords)}
	}
	return source{
		line: func(b []byte, i int) []byte {
			return fmt.Appendf(b, `{"resourceName":%q,"resourceRecordKey":%q,"eventType":"record.updated"}`+"\n", name(i).resource, name(i).key)
		},
		name: name,
	}, nil
}

package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"postroad/internal/apiclient"
)

const (
	// manyEventsEach is how many events each of many subscribers gets, on average.
	manyEventsEach = 10
	// manyClients is how many requests that make something are under way at once.
	manyClients = 16
	// manyFeedChunk is how many events one request publishes into one of many feeds.
	manyFeedChunk = 10
)

// multitude is many subscribers and what each is to get.
type multitude struct {
	m    *measurement
	name string
	size int
	// feeds says that each has a feed of its own; else they share one, with a
	// resource name for each.
	feeds bool
	// next is each feed's next sequence, of the one feed's where there is one.
	next []int64
	// owed is the book as it should be.
	owed *manyBook
}

func newMultitude(m *measurement, size int, feeds bool) *multitude {
	c := &multitude{m: m, name: m.scenario.Name, size: size, feeds: feeds, owed: newManyBook(), next: []int64{1}}
	if feeds {
		c.next = make([]int64, size)
		for i := range c.next {
			c.next[i] = 1
		}
	}
	return c
}

// feed is the feed of a subscriber.
func (c *multitude) feed(number int) string {
	if c.feeds {
		return fmt.Sprintf("%s-%d", c.name, number)
	}
	return c.name
}

// create makes the feeds and the subscribers over the API.
func (c *multitude) create(ctx context.Context) error {
	started := time.Now()
	if !c.feeds {
		if err := c.post(ctx, "/v1/feeds", map[string]any{"name": c.name}); err != nil {
			return err
		}
	}
	err := each(ctx, c.size, func(ctx context.Context, i int) error {
		subscriber := map[string]any{
			"id": fmt.Sprintf("%s-%d", c.name, i), "feed": c.feed(i), "start": "beginning", "format": "raw",
			"endpoint": map[string]any{"url": fmt.Sprintf("%s/many/%s/%d", c.m.sink.URL, c.name, i)},
		}
		if !c.feeds {
			subscriber["filter"] = map[string]any{"resourceNames": []string{c.resource(i)}}
		} else if err := c.post(ctx, "/v1/feeds", map[string]any{"name": c.feed(i)}); err != nil {
			return err
		}
		return c.post(ctx, "/v1/subscribers", subscriber)
	})
	if err == nil {
		c.m.say("created %d subscribers in %.1f s", c.size, time.Since(started).Seconds())
	}
	return err
}

func (c *multitude) post(ctx context.Context, path string, in any) error {
	if _, err := c.m.api.Do(ctx, apiclient.Request{Method: http.MethodPost, Path: path, In: in}, nil); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	return nil
}

// each calls f for 0 to n-1, as many at once as there are clients.
func each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	numbers := make(chan int)
	var clients sync.WaitGroup
	for range min(n, manyClients) {
		clients.Go(func() {
			for i := range numbers {
				if err := f(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		numbers <- i
	}
	close(numbers)
	clients.Wait()
	return context.Cause(ctx)
}

func (c *multitude) resource(number int) string {
	if c.feeds {
		return "File"
	}
	return fmt.Sprintf("File%d", number)
}

// owe notes that the next event of a subscriber's feed is for it.
func (c *multitude) owe(number int) {
	feed := 0
	if c.feeds {
		feed = number
	}
	c.owed.mu.Lock()
	defer c.owed.mu.Unlock()
	c.owed.report.Events++
	c.owed.end(number).take(c.next[feed])
	c.next[feed]++
}

// publish publishes an event for each of these subscribers, in their order for
// each of them, and returns once all are taken in.
func (c *multitude) publish(ctx context.Context, numbers []int) error {
	line := func(b []byte, i int) []byte { return appendMultitudeEvent(b, c.resource(numbers[i]), i) }
	if !c.feeds {
		return c.send(ctx, c.name, &stream{n: len(numbers), line: line})
	}
	return each(ctx, len(numbers)/manyFeedChunk, func(ctx context.Context, i int) error {
		var body bytes.Buffer
		_, _ = io.Copy(&body, &stream{n: (i + 1) * manyFeedChunk, next: i * manyFeedChunk, line: line})
		return c.send(ctx, c.feed(numbers[i*manyFeedChunk]), &body)
	})
}

func (c *multitude) send(ctx context.Context, feed string, events io.Reader) error {
	_, err := c.m.api.Do(ctx, apiclient.Request{
		Method: http.MethodPost, Path: "/v1/feeds/" + feed + "/events", Body: events, ContentType: "application/x-ndjson",
	}, nil)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// appendMultitudeEvent appends event i as one line of NDJSON.
func appendMultitudeEvent(b []byte, resource string, i int) []byte {
	b = fmt.Appendf(b, `{"resourceName":%q,"resourceRecordKey":%q,"eventType":%q,"data":`, resource, recordKey(i), types[i%len(types)])
	b = append(b, eventData(i%floorBodiesMax)...)
	return append(b, '}', '\n')
}

// draw returns about n subscribers at random, always the same; in runs where each
// has a feed.
func (c *multitude) draw(n int) []int {
	n -= n % manyFeedChunk
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each time
	numbers := make([]int, n)
	for i := range numbers {
		if numbers[i] = random.IntN(c.size); c.feeds && i%manyFeedChunk > 0 {
			numbers[i] = numbers[i-1]
		}
	}
	return numbers
}

// stretch publishes for these subscribers, waits until they got it, and returns
// what they got since the mark.
func (c *multitude) stretch(ctx context.Context, numbers []int) (ManyReport, error) {
	path := "/many/" + c.name
	if err := c.mark(ctx); err != nil {
		return ManyReport{}, err
	}
	for _, number := range numbers {
		c.owe(number)
	}
	published := make(chan error, 1)
	go func() { published <- c.publish(ctx, numbers) }()
	moved, before := time.Now(), int64(0)
	for {
		got, err := book[ManyReport](ctx, c.m.run, path)
		if err != nil {
			return got, err
		}
		select {
		case err := <-published:
			if err != nil {
				return got, err
			}
			published = nil
		default:
		}
		if got.Events >= int64(len(numbers)) && published == nil {
			return got, nil
		}
		if got.Events > before {
			before, moved = got.Events, time.Now()
		}
		if time.Since(moved) > c.m.cfg.StallMax {
			c.m.result.fault("no event arrived for %s after %d of %d", c.m.cfg.StallMax, got.Events, len(numbers))
			return got, nil
		}
		if err := c.m.pause(ctx, 4*pollEvery); err != nil {
			return got, err
		}
	}
}

// mark begins a new stretch in both books.
func (c *multitude) mark(ctx context.Context) error {
	c.owed.mark()
	if _, err := c.m.sink.Do(ctx, apiclient.Request{Method: http.MethodPost, Path: "/many/" + c.name + "/mark"}, nil); err != nil {
		return fmt.Errorf("mark the receiver's book: %w", err)
	}
	return nil
}

// judge says what is wrong with what arrived in a stretch.
func (c *multitude) judge(got ManyReport, what string) {
	want, r := c.owed.read(), &c.m.result
	if got.Events != want.Events || got.Ends != want.Ends {
		r.fault("%s: %d events arrived at %d subscribers, want %d at %d", what, got.Events, got.Ends, want.Events, want.Ends)
	}
	if got.Digest != want.Digest {
		r.fault("%s: a subscriber got other events than its own, or in another order", what)
	}
	if got.Repeats > 0 {
		r.fault("%s: %d requests repeated an event or came too late", what, got.Repeats)
	}
	if got.Overlaps > 0 {
		r.fault("%s: %d requests did not wait for the answer before", what, got.Overlaps)
	}
	if got.Malformed > 0 {
		r.fault("%s: %d requests had no sequence", what, got.Malformed)
	}
}

// manyFloor is what many subscribers are set against.
const manyFloor = "50 subscribers that all get every event, in the same run"

func select10k() Scenario {
	return Scenario{
		Name: "select10k", What: "one feed, 10,000 subscribers, each event matches one", Floor: manyFloor,
		Goals:  []Goal{{Figure: figureRate, AtLeast: 0.5, Aim: 0.8}},
		Events: 100_000, QuickEvents: 2_000, measure: func(ctx context.Context, m *measurement) error { return measureMany(ctx, m, false) },
	}
}

func feeds10k() Scenario {
	return Scenario{
		Name: "feeds10k", What: "10,000 feeds with one subscriber each", Floor: manyFloor,
		Goals:  []Goal{{Figure: figureRate, AtLeast: 0.5, Aim: 0.8}},
		Events: 100_000, QuickEvents: 2_000, measure: func(ctx context.Context, m *measurement) error { return measureMany(ctx, m, true) },
	}
}

// stream makes all, wakes them, and delivers the events of the scenario, each to one
// of them drawn at random: the watched stretch.
func (c *multitude) stream(ctx context.Context) (got ManyReport, err error) {
	if err := c.create(ctx); err != nil {
		return got, err
	}
	if err := c.rouse(ctx); err != nil {
		return got, err
	}
	numbers := c.draw(c.m.events)
	err = c.m.watch(ctx, len(numbers), func() (err error) {
		got, err = c.stretch(ctx, numbers)
		return err
	})
	return got, err
}

// measureMany measures a stream in which each event is for one of many.
func measureMany(ctx context.Context, m *measurement, feeds bool) error {
	floor, err := m.fanoutFloor(ctx)
	if err != nil {
		return err
	}
	c := newMultitude(m, max(10, m.events/manyEventsEach), feeds)
	got, err := c.stream(ctx)
	if err != nil {
		return err
	}
	c.judge(got, m.scenario.Name)
	m.result.Book = got
	rate := rateOf(int(got.Events), got.Seconds(), 0)
	m.say("%d subscribers: %.0f deliveries/s", c.size, rate.PerSecond)
	m.figure(figureRate, perSecond, rate.PerSecond, floor)
	m.figure("memory of the worker's process", "MiB", float64(m.result.Resources.Processes[processProduct].MemoryPeakBytes)/(1<<20), 0)
	m.note("%d events published as NDJSON while they are delivered, each to one of %d subscribers, at random", got.Events, c.size)
	if feeds {
		m.note("%d clients publish %d events in a request", manyClients, manyFeedChunk)
	}
	return nil
}

// rouseEvery is below the time after which a subscriber without an event parks.
const rouseEvery = 15 * time.Second

// rouse gives each of them an event, and again until all have theirs at once, so
// that none is parked when the stretch begins.
func (c *multitude) rouse(ctx context.Context) error {
	all := make([]int, 0, c.size*manyFeedChunk)
	for i := range c.size {
		all = append(all, i)
		for c.feeds && len(all)%manyFeedChunk > 0 {
			all = append(all, i)
		}
	}
	if err := c.mark(ctx); err != nil {
		return err
	}
	started, moved, before := time.Now(), time.Now(), int64(0)
	for {
		for _, number := range all {
			c.owe(number)
		}
		if err := c.publish(ctx, all); err != nil {
			return err
		}
		owed := c.owed.read().Events
		for round := time.Now(); time.Since(round) < rouseEvery; {
			got, err := book[ManyReport](ctx, c.m.run, "/many/"+c.name)
			if err != nil {
				return err
			}
			if got.Events >= owed {
				c.judge(got, "all awake")
				c.m.say("all awake after %.1f s", time.Since(started).Seconds())
				return nil
			}
			if got.Events > before {
				before, moved = got.Events, time.Now()
			}
			if err := c.m.pause(ctx, 4*pollEvery); err != nil {
				return err
			}
		}
		if time.Since(moved) > c.m.cfg.StallMax {
			return fmt.Errorf("no event arrived for %s while %d subscribers were woken", c.m.cfg.StallMax, c.size)
		}
	}
}

// busy1000 measures the worker's memory with its subscribers all at work.
func busy1000() Scenario {
	return Scenario{
		Name: "busy1000", What: "memory of a worker with 1,000 busy subscribers, each event matches one", Floor: manyFloor,
		Goals:  []Goal{{Figure: "memory of the worker's process", AtLeast: 1024, Aim: 512, Of: OfValue, Lower: true}},
		Events: 100_000, QuickEvents: 1_000, measure: measureBusy,
	}
}

// busySize is how many subscribers busy1000 has.
const busySize = 1000

// measureBusy has the process of the whole stack, in which the worker is.
func measureBusy(ctx context.Context, m *measurement) error {
	c := newMultitude(m, max(10, min(busySize, m.events/manyEventsEach)), false)
	got, err := c.stream(ctx)
	if err != nil {
		return err
	}
	c.judge(got, m.scenario.Name)
	m.result.Book = got
	peak := m.result.Resources.Processes[processProduct].MemoryPeakBytes
	m.figure("memory of the worker's process", "MiB", float64(peak)/(1<<20), 0)
	m.figure(figureRate, perSecond, rateOf(int(got.Events), got.Seconds(), 0).PerSecond, 0)
	m.note("%d subscribers; API, worker and Temporal's server are one process here", c.size)
	return nil
}

package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"postroad/internal/apiclient"
)

// crowd is subscribers of one feed that each get all of its events. Its name is
// the feed's; member i is <name>-<i>, and its book at the receiver <name>/<i>.
type crowd struct {
	*measurement
	name string
	size int
	// published is how many events there are in the feed.
	published int
}

// callsAtOnce is how many calls of the API are made at once in preparation.
const callsAtOnce = 8

// newCrowd makes the feed and its subscribers, each with what config, where not
// nil, gives it besides.
func (m *measurement) newCrowd(ctx context.Context, name string, size int, config func(i int, subscriber map[string]any)) (*crowd, error) {
	c := &crowd{measurement: m, name: name, size: size}
	if _, err := m.api.Do(ctx, apiclient.Request{Method: http.MethodPost, Path: "/v1/feeds", In: map[string]any{"name": name}}, nil); err != nil {
		return nil, fmt.Errorf("make feed %s: %w", name, err)
	}
	making, ctx := errgroup.WithContext(ctx)
	making.SetLimit(callsAtOnce)
	for i := range size {
		making.Go(func() error {
			subscriber := map[string]any{
				"id": c.member(i), "feed": name, "start": "beginning", "format": "raw",
				"endpoint": map[string]any{"url": c.url(i)},
			}
			if config != nil {
				config(i, subscriber)
			}
			if _, err := m.api.Do(ctx, apiclient.Request{Method: http.MethodPost, Path: "/v1/subscribers", In: subscriber}, nil); err != nil {
				return fmt.Errorf("make subscriber %s: %w", c.member(i), err)
			}
			return nil
		})
	}
	return c, making.Wait()
}

func (c *crowd) member(i int) string { return fmt.Sprintf("%s-%d", c.name, i) }

// url is where member i is delivered to.
func (c *crowd) url(i int) string { return fmt.Sprintf("%s/in/%s/%d", c.sink.URL, c.name, i) }

// remove deletes the subscribers.
func (c *crowd) remove(ctx context.Context) error {
	removing, ctx := errgroup.WithContext(ctx)
	removing.SetLimit(callsAtOnce)
	for i := range c.size {
		removing.Go(func() error {
			_, err := c.api.Do(ctx, apiclient.Request{Method: http.MethodDelete, Path: "/v1/subscribers/" + c.member(i)}, nil)
			return err
		})
	}
	return removing.Wait()
}

// publish appends n events of the generated stream to the feed.
func (c *crowd) publish(ctx context.Context, n int) error {
	first := c.published
	c.published += n
	return c.post(ctx, &stream{n: c.published, next: first, line: appendEvent}, "application/x-ndjson")
}

func (c *crowd) post(ctx context.Context, body io.Reader, contentType string) error {
	request := apiclient.Request{Method: http.MethodPost, Path: "/v1/feeds/" + c.name + "/events", Body: body, ContentType: contentType}
	if _, err := c.api.Do(ctx, request, nil); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// report is what arrived at the members from the first-th to before the end-th.
func (c *crowd) report(ctx context.Context, first, end int) (CrowdReport, error) {
	return book[CrowdReport](ctx, c.run, fmt.Sprintf("/reports/%s/%d/%d", c.name, first, end))
}

// arrived waits until members from the first-th to before the end-th have all
// events. all is false where they stopped arriving.
func (c *crowd) arrived(ctx context.Context, first, end int) (report CrowdReport, all bool, err error) {
	all, err = c.await(ctx, (end-first)*c.published, func() (int64, error) {
		report, err = c.report(ctx, first, end)
		return report.Events, err
	})
	return report, all, err
}

// deliver publishes n events and waits until all members have them. The rate is
// from the moment that publishing began to the last arrival.
func (c *crowd) deliver(ctx context.Context, n, first, end int) (Rate, error) {
	started := time.Now()
	if err := c.publish(ctx, n); err != nil {
		return Rate{}, err
	}
	report, _, err := c.arrived(ctx, first, end)
	if err != nil {
		return Rate{}, err
	}
	seconds := time.Duration(report.LastAt - started.UnixNano()).Seconds()
	return rateOf(n*(end-first), seconds, 0), nil
}

// warmUp publishes one event and waits until all members have it.
func (c *crowd) warmUp(ctx context.Context) error {
	_, err := c.deliver(ctx, 1, 0, c.size)
	return err
}

// settledAll waits until the cursor of each member stands at the end.
func (c *crowd) settledAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.StallMax, fmt.Errorf("the last events were not settled within %s", c.cfg.StallMax))
	defer cancel()
	for {
		var behind int
		err := c.database.QueryRow(ctx, "SELECT count(*) FROM runs JOIN feeds ON feeds.id = feed_id WHERE feeds.name = $1 AND cursor < $2", c.name, c.published).Scan(&behind)
		if err != nil {
			return fmt.Errorf("read cursors: %w", err)
		}
		if behind == 0 {
			return nil
		}
		if err := c.pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// CrowdReport is what arrived at several lanes.
type CrowdReport struct {
	Lanes int `json:"lanes"`
	// LaneReport is the sum of theirs, from the first arrival to the last; Last is
	// the lowest of theirs.
	LaneReport
	// Unequal says that not all have as many events.
	Unequal bool `json:"unequal,omitempty"`
}

func crowdReport(lanes []LaneReport) CrowdReport {
	if len(lanes) == 0 {
		return CrowdReport{}
	}
	sum := CrowdReport{Lanes: len(lanes), LaneReport: lanes[0]}
	for _, l := range lanes[1:] {
		sum.Unequal = sum.Unequal || l.Events != lanes[0].Events
		sum.Requests += l.Requests
		sum.Events += l.Events
		sum.Repeats += l.Repeats
		sum.Gaps += l.Gaps
		sum.Malformed += l.Malformed
		sum.Refused += l.Refused
		sum.Early += l.Early
		sum.BodyBytes += l.BodyBytes
		sum.Last = min(sum.Last, l.Last)
		if l.FirstAt > 0 && (sum.FirstAt == 0 || l.FirstAt < sum.FirstAt) {
			sum.FirstAt = l.FirstAt
		}
		sum.LastAt = max(sum.LastAt, l.LastAt)
	}
	return sum
}

// judgeCrowd says what is wrong with what arrived at the lanes of a crowd.
func (r *Result) judgeCrowd(got CrowdReport, lanes, events int) {
	if got.Lanes != lanes || got.Unequal || got.Last != int64(events) {
		r.fault("events arrived at %d of %d subscribers, equally many: %t, up to %d of %d", got.Lanes, lanes, !got.Unequal, got.Last, events)
	}
	r.judgeOrder(got.LaneReport, lanes*events)
}

// crowdFloorAtOnce is how many connections the floor of a crowd uses.
const crowdFloorAtOnce = 64

// crowdFloor sends n bodies over many connections, in a loop each, to lanes of
// this name.
func (m *measurement) crowdFloor(ctx context.Context, name string, n int) (Rate, error) {
	bodies := make([][]byte, min(n/crowdFloorAtOnce+1, floorBodiesMax))
	for i := range bodies {
		bodies[i] = eventData(i)
	}
	cpu, started := ownCPU(), time.Now()
	sending, ctx := errgroup.WithContext(ctx)
	each := max(1, n/crowdFloorAtOnce)
	for i := range crowdFloorAtOnce {
		sending.Go(func() error {
			_, err := loop(ctx, fmt.Sprintf("%s/in/%s/%d", m.sink.URL, name, i), each, bodies)
			return err
		})
	}
	if err := sending.Wait(); err != nil {
		return Rate{}, fmt.Errorf("measure the floor: %w", err)
	}
	rate := rateOf(each*crowdFloorAtOnce, time.Since(started).Seconds(), ownCPU()-cpu)
	m.say("floor: %.0f requests/s over %d connections", rate.PerSecond, crowdFloorAtOnce)
	return rate, nil
}

package bench

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"postroad/internal/apiclient"
)

const (
	feedName     = "bench"
	subscriberID = "bench"
	orderedLane  = "ordered"
)

// pollEvery is how often the receiver's book is looked at.
const pollEvery = 50 * time.Millisecond

// measure takes the floor before and after the product, so that a machine whose
// speed drifts drifts for both.
func (r *run) measure(ctx context.Context) error {
	floors := make([]Rate, 2)
	var err error
	if floors[0], err = r.floor(ctx, "floor-before"); err != nil {
		return err
	}
	if err := r.prepare(ctx); err != nil {
		return err
	}
	if err := r.deliver(ctx); err != nil {
		return err
	}
	if floors[1], err = r.floor(ctx, "floor-after"); err != nil {
		return err
	}
	r.report.Floor = merge(floors)
	if r.report.Floor.PerSecond > 0 {
		r.report.Ratio = r.report.Ordered.PerSecond / r.report.Floor.PerSecond
	}
	if r.report.Ordered.CPUSecondsPer1000 > 0 && r.report.Floor.CPUSecondsPer1000 > 0 {
		r.report.CPURatio = r.report.Ordered.CPUSecondsPer1000 / r.report.Floor.CPUSecondsPer1000
	}
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

func (r *run) floor(ctx context.Context, lane string) (Rate, error) {
	n := min(r.cfg.Events, floorRequestsMax)
	rate, err := floor(ctx, r.sink.URL+"/in/"+lane, n)
	if err != nil {
		return Rate{}, err
	}
	r.say("floor: %.0f requests/s", rate.PerSecond)
	return rate, nil
}

// floorRequestsMax is enough for a steady figure.
const floorRequestsMax = 50_000

// prepare makes a paused subscriber with a backlog.
func (r *run) prepare(ctx context.Context) error {
	for _, call := range []apiclient.Request{
		{Method: http.MethodPost, Path: "/v1/feeds", In: map[string]any{"name": feedName}},
		{Method: http.MethodPost, Path: "/v1/subscribers", In: map[string]any{
			"id": subscriberID, "feed": feedName, "format": "raw", "batchSize": 1, "lanes": 1, "start": "beginning",
			"endpoint": map[string]any{"url": r.sink.URL + "/in/" + orderedLane},
		}},
		{Method: http.MethodPost, Path: "/v1/subscribers/" + subscriberID + "/pause", In: map[string]any{"reason": "until the backlog is there"}},
	} {
		if _, err := r.api.Do(ctx, call, nil); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	started := time.Now()
	_, err := r.api.Do(ctx, apiclient.Request{
		Method: http.MethodPost, Path: "/v1/feeds/" + feedName + "/events",
		Body: &stream{n: r.cfg.Events}, ContentType: "application/x-ndjson",
	}, nil)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	r.report.Publish = rateOf(r.cfg.Events, time.Since(started).Seconds(), 0)
	r.say("published %d events, %.0f/s", r.cfg.Events, r.report.Publish.PerSecond)
	return nil
}

// deliver resumes the subscriber and waits for the last event. The rate is the
// receiver's: from the first request to the last.
func (r *run) deliver(ctx context.Context) error {
	cpu, _ := treeCPU(r.product.pid())
	if _, err := r.api.Do(ctx, apiclient.Request{Method: http.MethodPost, Path: "/v1/subscribers/" + subscriberID + "/resume"}, nil); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	var last int64
	moved := time.Now()
	for {
		report, err := r.lane(ctx, orderedLane)
		if err != nil {
			return err
		}
		r.report.Received = report
		if report.Last >= int64(r.cfg.Events) {
			break
		}
		if report.Last > last {
			last, moved = report.Last, time.Now()
		}
		if time.Since(moved) > r.cfg.StallMax {
			r.fault("no event arrived for %s after number %d of %d", r.cfg.StallMax, last, r.cfg.Events)
			return nil
		}
		if err := r.pause(ctx, pollEvery); err != nil {
			return err
		}
	}
	// What is written after the last delivery (its settlement, its attempt) is
	// part of its price, and a repeat would come now.
	if err := r.settled(ctx); err != nil {
		return err
	}
	after, _ := treeCPU(r.product.pid())
	report, err := r.lane(ctx, orderedLane)
	if err != nil {
		return err
	}
	r.report.Received = report
	r.report.Ordered = rateOf(int(report.Requests), report.Seconds(), after-cpu)
	r.say("one ordered subscriber: %.0f deliveries/s", r.report.Ordered.PerSecond)
	r.judge()
	return nil
}

// settled waits until the subscriber's cursor stands at the end.
func (r *run) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.cfg.StallMax, fmt.Errorf("the last event was not settled within %s", r.cfg.StallMax))
	defer cancel()
	for {
		var status struct {
			Cursor int64 `json:"cursor"`
		}
		_, err := r.api.Do(ctx, apiclient.Request{Method: http.MethodGet, Path: "/v1/subscribers/" + subscriberID + "/status"}, &status)
		if err != nil {
			return fmt.Errorf("read status: %w", err)
		}
		if status.Cursor >= int64(r.cfg.Events) {
			return nil
		}
		if err := r.pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}

func (r *run) fault(format string, args ...any) {
	r.report.Faults = append(r.report.Faults, fmt.Sprintf(format, args...))
}

// judge says what is wrong with what arrived.
func (r *run) judge() {
	got, want := r.report.Received, int64(r.cfg.Events)
	if got.Events != want {
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

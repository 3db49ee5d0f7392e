//go:build chaos

package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"postroad/contract"
	"postroad/internal/apiclient"
	"postroad/internal/testkit"
)

// cutFor is how long a way is cut.
const cutFor = 2 * time.Minute

// cutting is one way of cutting processes off.
type cutting struct {
	way func(*topology) *proxy
	cut func(*proxy)
	// one cuts off the worker that delivers, alone.
	one bool
}

// TestChaosCut cuts the network to PostgreSQL and to Temporal for two minutes,
// with two APIs and two workers: once connections are reset, and once nothing
// comes through and nobody is told, which is what a network that lost its way
// looks like from inside. What was held back arrives when it is mended.
func TestChaosCut(t *testing.T) {
	t.Parallel()
	toPostgres := func(p *topology) *proxy { return p.toPostgres }
	toTemporal := func(p *topology) *proxy { return p.toTemporal }
	for name, c := range map[string]cutting{
		"PostgreSQL reset":              {toPostgres, (*proxy).cut, false},
		"PostgreSQL frozen":             {toPostgres, (*proxy).freeze, false},
		"PostgreSQL reset for one":      {toPostgres, (*proxy).cut, true},
		"PostgreSQL frozen for one":     {toPostgres, (*proxy).freeze, true},
		"Temporal reset":                {toTemporal, (*proxy).cut, false},
		"Temporal frozen":               {toTemporal, (*proxy).freeze, false},
		"Temporal reset for one worker": {toTemporal, (*proxy).cut, true},
		"Temporal frozen for one":       {toTemporal, (*proxy).freeze, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newTraffic(t).run(c)
		})
	}
}

// traffic is a topology with subscribers in every state and publishers.
type traffic struct {
	t     *testing.T
	p     *topology
	aside *topology // of the worker that delivers at first
	fixed *apiclient.Client

	busy, batches, parked, waiting, paused *road
	sources                                []*source
}

const (
	cutAsk     = 5 // the request that is answered with a Retry-After
	cutWait    = time.Minute
	cutBacklog = 20
	// cutEvent is for the parked one; its outcome may be unknown.
	cutEvent = `{"resourceName":"Property","resourceRecordKey":"2","idempotencyKey":"2"}`
)

func newTraffic(t *testing.T) *traffic {
	t.Helper()
	p := newTopology(t)
	f := &traffic{t: t, p: p, aside: p.aside()}
	apis := []*instance{p.api(), p.api()}
	f.fixed = apis[0].api
	// It is alone at first: all is its own, the waker too.
	first := f.aside.worker()
	await(t, &first.stderr, "(waker active)")
	f.parked = newRoad(t, f.fixed, "parked", nil, nil)
	f.parked.publish(numbered(1))
	f.paused = newRoad(t, f.fixed, "paused", slow(time.Millisecond), nil)
	f.paused.publish(numbered(1))
	f.parked.awaitCursor(waitMax, 1)
	f.paused.awaitCursor(waitMax, 1)
	f.paused.control("pause")
	f.paused.awaitPaused()
	f.busy = newRoad(t, f.fixed, "busy", slow(5*time.Millisecond), nil)
	f.batches = newRoad(t, f.fixed, "batches", slow(50*time.Millisecond), map[string]any{"batchSize": 100, "format": "raw"})
	fronts := []*front{newFront(apis[0]), newFront(apis[1])}
	for i, r := range []*road{f.busy, f.busy, f.batches, f.batches, f.paused} {
		s := &source{road: r, name: fmt.Sprintf("publisher-%d", i), fronts: fronts, batch: 1, every: 50 * time.Millisecond}
		f.sources = append(f.sources, s.start(t))
	}
	f.busy.consumer.WaitFor(t, 50, waitMax)
	f.batches.consumer.WaitFor(t, 20, waitMax)
	awaitRest(t, dialTemporal(t, p.temporal.address), f.parked)
	f.waiting = newRoad(t, f.fixed, "waiting", asksOnce(cutAsk, cutWait), nil)
	f.waiting.publish(numbered(cutBacklog))
	f.waiting.awaitStatus(waitMax, "waiting", func(s roadStatus) bool { return s.State == contract.StateWaiting })
	p.worker()
	return f
}

// run cuts, mends, and looks at what it cost.
func (f *traffic) run(c cutting) {
	ways := []*proxy{c.way(f.aside)}
	if !c.one {
		ways = append(ways, c.way(f.p))
	}
	cutAt := time.Now()
	for _, way := range ways {
		c.cut(way)
	}
	if c.one {
		f.takenOver(cutAt)
	}
	<-time.After(time.Until(cutAt.Add(cutFor / 4)))
	resumed := f.try(http.MethodPost, "/v1/subscribers/paused/resume", nil)
	told := f.try(http.MethodPost, "/v1/feeds/parked/events", []byte(cutEvent))
	if c.one && told == nil {
		f.arrives("parked, and woken meanwhile", f.parked, time.Now(), vanishedMax)
	}
	<-time.After(time.Until(cutAt.Add(cutFor)))
	mended := time.Now()
	for _, way := range ways {
		way.resume()
	}
	f.recovered(c, cutAt, mended, resumed, told)
	// What the cut left behind has its time to do harm.
	<-time.After(cutFor / 4)
	f.checkAll(c, cutAt)
}

// try makes a call that may be refused while something is away.
func (f *traffic) try(method, path string, in []byte) error {
	f.t.Helper()
	began := time.Now()
	request := apiclient.Request{Method: method, Path: path}
	if in != nil {
		request.Body, request.ContentType = bytes.NewReader(in), "application/json"
	}
	_, err := f.fixed.Do(f.t.Context(), request, nil)
	f.t.Logf("%s during the cut: %v after %.1f s", path, err, time.Since(began).Seconds())
	var problem *apiclient.Problem
	if err != nil && (!errors.As(err, &problem) || problem.Status != http.StatusServiceUnavailable) {
		f.t.Errorf("%s during the cut: %v", path, err)
	}
	if took := time.Since(began); took > answerMax {
		f.t.Errorf("%s during the cut was answered after %s", path, took)
	}
	return err
}

// takenOver looks at how the other worker goes on since one was cut off.
func (f *traffic) takenOver(cutAt time.Time) {
	for _, r := range []*road{f.busy, f.batches} {
		own := remotes(before(r.consumer.Requests(), cutAt))
		testkit.Eventually(f.t, 2*vanishedMax, func() bool {
			for request := range slices.Values(since(r.consumer.Requests(), cutAt)) {
				if !own[request.Remote] {
					return true
				}
			}
			return false
		}, r.name+" is taken over")
		took := time.Since(cutAt)
		f.t.Logf("%s: taken over %.1f s after the cut", r.name, took.Seconds())
		if took > vanishedMax {
			f.t.Errorf("%s: taken over after %s", r.name, took)
		}
	}
}

// arrives waits for a road's next request since a moment.
func (f *traffic) arrives(what string, r *road, moment time.Time, most time.Duration) {
	f.t.Helper()
	at := r.awaitSince(moment, 1, 2*most).At
	f.t.Logf("%s: delivering %.1f s later", what, at.Sub(moment).Seconds())
	if at.Sub(moment) > most {
		f.t.Errorf("%s: delivering after %s", what, at.Sub(moment))
	}
}

// recovered looks at how all goes on since the way was mended.
func (f *traffic) recovered(c cutting, cutAt, mended time.Time, resumed, told error) {
	t := f.t
	for _, s := range f.sources {
		testkit.Eventually(t, 2*recoverMax, func() bool { return s.storedSince(mended) }, "publishing goes on")
		if since := time.Since(mended); since > recoverMax {
			t.Errorf("%s: publishing went on after %s", s.name, since)
		}
	}
	t.Logf("publishing goes on %.1f s after the mending", time.Since(mended).Seconds())
	f.arrives("busy after the mending", f.busy, mended, recoverMax)
	f.arrives("batches after the mending", f.batches, mended, recoverMax)
	if told != nil {
		f.parked.publish([][]byte{[]byte(cutEvent)})
	}
	f.arrives("parked since the cut", f.parked, cutAt, time.Since(cutAt)+recoverMax)
	f.parked.awaitCursor(recoverMax, 2)
	if resumed != nil {
		f.paused.control("resume")
	}
	f.arrives("paused since the cut", f.paused, cutAt, time.Since(cutAt)+recoverMax)
	f.waiting.awaitCursor(recoverMax, cutBacklog)
	t.Logf("all were delivered to %.1f s after the mending", time.Since(mended).Seconds())
}

func (f *traffic) checkAll(c cutting, cutAt time.Time) {
	t := f.t
	figures := finish(t, f.sources...)
	postgres := c.way(f.p) == f.p.toPostgres
	if away := postgres && !c.one; away != (figures.refused > 0) {
		t.Errorf("%d tries to publish were answered 503, want some: %v", figures.refused, away)
	}
	if figures.unreached > 0 {
		t.Errorf("%d tries to publish were not answered", figures.unreached)
	}
	for _, r := range []*road{f.busy, f.batches, f.paused} {
		head := r.checkLog(f.sources...)
		r.awaitCursor(deliveredMax, head)
		r.checkInterrupted(r.consumer.Requests(), head, cutAt)
	}
	f.parked.checkInterrupted(f.parked.consumer.Requests(), 2, cutAt)
	all := f.waiting.consumer.Requests()
	end := all[cutAsk-1].At.Add(all[cutAsk-1].Took).Add(cutWait)
	if early := all[cutAsk].At; early.Before(end) {
		t.Errorf("waiting: a request came %s before the end of the Retry-After", end.Sub(early))
	}
	f.waiting.checkInterrupted(slices.Delete(all, cutAsk-1, cutAsk), cutBacklog, cutAt)
}

// checkInterrupted fails the test unless requests bring 1 to n in order, and
// what is sent again, since a moment, is no more than after a crash.
func (r *road) checkInterrupted(all []testkit.Request, n int, moment time.Time) {
	r.t.Helper()
	next, repeats := 1, 0
	for i, request := range all {
		first := firstOf(r.t, request)
		if first > next {
			r.t.Fatalf("%s: request %d brings event %d, want %d", r.name, request.N, first, next)
		}
		if first < next {
			inFlight, age := lastOf(r.t, all[i-1])-firstOf(r.t, all[i-1])+1, ageOf(r.t, all[:i], first)
			r.t.Logf("%s: %.1f s after the cut %d events were repeated (%d were in flight), the oldest settled %d ms before the last request",
				r.name, request.At.Sub(moment).Seconds(), next-first, inFlight, age.Milliseconds())
			if repeats++; request.At.Before(moment) || repeats > 1 {
				r.t.Errorf("%s: events are repeated a second time, or without a reason", r.name)
			}
			if next-first > max(repeatsMax, inFlight)+inFlight || age > repeatAgeMax+measureMax {
				r.t.Errorf("%s: %d events were repeated, of an age of %s", r.name, next-first, age)
			}
		}
		next = lastOf(r.t, request) + 1
	}
	if next != n+1 {
		r.t.Fatalf("%s: the last event that came is %d, want %d", r.name, next-1, n)
	}
	if most := r.consumer.MaxInFlight(); most > 2 {
		r.t.Errorf("%s: %d requests were in flight at once", r.name, most)
	}
}

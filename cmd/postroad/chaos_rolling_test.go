//go:build chaos

package main_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"postroad/internal/testkit"
)

// rolling is production under load whose processes are replaced one by one.
type rolling struct {
	t       *testing.T
	p       *topology
	roads   []*road
	sources []*source
}

const (
	// rollingPace is the publishing of one source: 8 of them make 1,000 events/s.
	rollingBatch = 10
	rollingEvery = 80 * time.Millisecond
	// settle is the time between two steps of a rolling restart.
	rollingSettle = 5 * time.Second
	// drainDelay is what the second API is told, and drainSeen how soon whoever
	// looks at /readyz must know.
	drainDelay = 3 * time.Second
	drainSeen  = time.Second
)

// TestChaosRollingRestart replaces two workers and two APIs under 1,000 events a
// second: no publish fails that is tried once more, and nothing is sent twice but
// the request that its consumer left unanswered for 18 s.
func TestChaosRollingRestart(t *testing.T) {
	t.Parallel()
	p := newTopology(t)
	// The second API is stopped behind a load balancer that looks at /readyz.
	apis := []*instance{p.api(), p.api("--drain-delay", drainDelay.String())}
	fronts := []*front{newFront(apis[0]), newFront(apis[1])}
	workers := []*instance{p.worker()}
	sluggish := newRoad(t, apis[0].api, "sluggish", slow(20*time.Millisecond), nil)
	sluggish.call(http.MethodPatch, "/v1/subscribers/sluggish", map[string]any{"endpoint": map[string]any{"timeout": "60s"}}, nil)
	const backlog = 6000
	sluggish.publish(numbered(backlog))
	sluggish.consumer.WaitFor(t, 20, waitMax)
	workers = append(workers, p.worker())
	r := &rolling{t: t, p: p}
	for i := range 4 {
		settings := map[string]any{"batchSize": 100, "format": "raw"}
		if i == 0 {
			settings = nil
		}
		road := newRoad(t, apis[0].api, fmt.Sprintf("road-%d", i+1), nil, settings)
		r.roads = append(r.roads, road)
		for j := range 2 {
			s := &source{road: road, name: fmt.Sprintf("publisher-%d-%d", i+1, j+1), fronts: fronts, batch: rollingBatch, every: rollingEvery, tries: 2}
			r.sources = append(r.sources, s.start(t))
		}
	}
	began := time.Now()
	for _, road := range r.roads {
		road.consumer.WaitFor(t, 50, waitMax)
	}
	<-time.After(rollingSettle)

	unanswered := sluggish.hang(testkit.Answer{Hang: testkit.Forever}, slow(20*time.Millisecond))
	r.worker("the first worker, with a consumer that hangs", workers[0])
	r.worker("the second worker", workers[1])
	r.api("the first API", apis[0], fronts[0])
	failed := r.failed()
	r.balancedAPI("the second API", apis[1], fronts[1])
	if now := r.failed(); now != failed {
		t.Errorf("%d tries to publish failed though /readyz had told in time", now-failed)
	}
	f := finish(t, r.sources...)
	rate := float64(f.stored*rollingBatch) / time.Since(began).Seconds()
	t.Logf("%.0f events/s were published; %d tries failed once", rate, failed)
	if rate < 800 {
		t.Errorf("%.0f events/s were published, want about 1,000: this shows nothing", rate)
	}
	for _, road := range r.roads {
		road.api = fronts[0].Load()
		head := road.checkLog(r.sources...)
		road.awaitCursor(deliveredMax, head)
		onceInOrder(t, road.consumer.Requests(), head)
	}
	sluggish.api = fronts[0].Load()
	sluggish.consumer.SetScript(nil)
	sluggish.awaitCursor(deliveredMax, backlog)
	onceInOrder(t, slices.Delete(sluggish.consumer.Requests(), unanswered-1, unanswered), backlog)
}

// failed is how many tries to publish have failed so far.
func (r *rolling) failed() (n int) {
	for _, s := range r.sources {
		s.mu.Lock()
		n += s.refused + s.unreached
		s.mu.Unlock()
	}
	return n
}

// worker replaces a worker and looks at the longest pause of each subscriber.
func (r *rolling) worker(what string, old *instance) {
	r.t.Helper()
	asked := time.Now()
	took := old.terminate()
	r.p.worker()
	r.t.Logf("%s stopped in %.1f s; the new one was ready %.1f s later", what, took.Seconds(), (time.Since(asked) - took).Seconds())
	<-time.After(rollingSettle)
	for _, road := range r.roads {
		all := since(road.consumer.Requests(), asked.Add(-time.Second))
		var longest time.Duration
		for i := range all[1:] {
			longest = max(longest, all[i+1].At.Sub(all[i].At))
		}
		r.t.Logf("%s: the longest pause was %.2f s", road.name, longest.Seconds())
		if longest > goOnMax {
			r.t.Errorf("%s: nothing came for %s", road.name, longest)
		}
	}
}

// api replaces an API whose clients are told nothing.
func (r *rolling) api(what string, old *instance, at *front) {
	r.t.Helper()
	took := old.terminate()
	at.Store(r.p.api().api)
	r.t.Logf("%s stopped in %.2f s; %d tries to publish have failed so far", what, took.Seconds(), r.failed())
	<-time.After(rollingSettle)
}

// balancedAPI replaces an API behind a balancer, which looks at /readyz and sends
// everything to the other one when it says no.
func (r *rolling) balancedAPI(what string, old *instance, at *front) {
	r.t.Helper()
	url, other := old.api.URL, r.sources[0].fronts[0].Load()
	terminated := make(chan time.Duration, 1)
	asked := time.Now()
	go func() { terminated <- old.terminate() }()
	testkit.Eventually(r.t, waitMax, func() bool { return get(r.t, url+"/readyz") == http.StatusServiceUnavailable }, what+" is not ready")
	seen := time.Since(asked)
	if seen > drainSeen {
		r.t.Errorf("%s was not ready after %s", what, seen)
	}
	// It serves on, for as long as somebody may not have looked, and asks whoever
	// keeps a connection to make another.
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, url+"/healthz", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if response, err := http.DefaultClient.Do(request); err != nil {
		r.t.Errorf("%s does not serve while it is not ready: %v", what, err)
	} else {
		_ = response.Body.Close()
		if !response.Close {
			r.t.Errorf("%s keeps connections while it is not ready", what)
		}
	}
	at.Store(other)
	took := <-terminated
	if took < drainDelay {
		r.t.Errorf("%s stopped after %s, before whoever looks at /readyz may have", what, took)
	}
	at.Store(r.p.api().api)
	r.t.Logf("%s was not ready after %d ms and stopped in %.2f s", what, seen.Milliseconds(), took.Seconds())
	<-time.After(rollingSettle)
}

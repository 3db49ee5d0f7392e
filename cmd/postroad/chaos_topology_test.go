//go:build chaos

package main_test

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postroad/internal/apiclient"
	"postroad/internal/testkit"
)

// TestChaosTopologyProcesses lets each process go and come back, one after the
// other, with two of ours of each kind: deliveries go on in order.
func TestChaosTopologyProcesses(t *testing.T) {
	t.Parallel()
	p := newTopology(t)
	first, second := p.api(), p.api()
	p.worker()
	p.worker()
	events := testkit.Lines(t, "sdk-go")[:4000]
	r := newRoad(t, first.api, "steady", slow(10*time.Millisecond), nil)
	r.publish(events)
	r.consumer.WaitFor(t, 100, waitMax)
	first.terminate()
	r.api = second.api

	// Held back and let go: what was under way goes on.
	for name, way := range map[string]*proxy{"PostgreSQL": p.toPostgres, "Temporal": p.toTemporal} {
		way.freeze()
		<-time.After(2 * time.Second)
		way.resume()
		at := r.consumer.Count()
		resumed := time.Now()
		r.consumer.WaitFor(t, at+20, waitMax)
		t.Logf("the way to %s thawed: 20 requests after %.1f s", name, time.Since(resumed).Seconds())
		way.cut()
		<-time.After(time.Second)
		way.resume()
		resumed = time.Now()
		r.consumer.WaitFor(t, r.consumer.Count()+100, waitMax)
		t.Logf("the way to %s was there again: 100 requests after %.1f s", name, time.Since(resumed).Seconds())
	}
	p.temporal.kill()
	p.startTemporal()
	back := time.Now()
	r.consumer.WaitFor(t, r.consumer.Count()+100, waitMax)
	t.Logf("Temporal was killed and started again: 100 requests after %.1f s", time.Since(back).Seconds())
	r.consumer.SetScript(nil)
	r.awaitCursor(deliveredMax, len(events))
	onceInOrder(t, r.consumer.Requests(), len(events))
}

// keyed publishes numbered events one at a time, each with a key, and again until
// it is stored: first to one API, then to the next.
type keyed struct {
	name  string
	ways  []*apiclient.Client
	again atomic.Int64 // tries beyond the first
}

func (k *keyed) publish(t *testing.T, feed string, n int) {
	key := fmt.Sprintf("%s-%d", k.name, n)
	for try := 0; ; try++ {
		way := k.ways[(n+try)%len(k.ways)]
		_, err := way.Do(t.Context(), apiclient.Request{
			Method: http.MethodPost, Path: "/v1/feeds/" + feed + "/events", Header: http.Header{"Idempotency-Key": {key}},
			In: map[string]string{"resourceName": k.name, "resourceRecordKey": strconv.Itoa(n)},
		}, nil)
		if err == nil {
			k.again.Add(int64(try))
			return
		}
		if t.Context().Err() != nil || try > 100 {
			t.Errorf("publish %s: %v", key, err)
			return
		}
		<-time.After(100 * time.Millisecond)
	}
}

// TestChaosTwoAPIs lets many publishers append to one feed through two APIs, one
// of which is killed: each event is there once, and those of one publisher are in
// the order in which they were answered.
func TestChaosTwoAPIs(t *testing.T) {
	t.Parallel()
	const publishers, each = 16, 400
	p := newTopology(t)
	apis := []*instance{p.api(), p.api()}
	p.worker()
	r := newRoad(t, apis[1].api, "shared", nil, map[string]any{"batchSize": 100, "format": "raw"})
	all := make([]*keyed, publishers)
	var running sync.WaitGroup
	var done atomic.Int64
	for i := range all {
		all[i] = &keyed{name: fmt.Sprintf("publisher-%d", i), ways: []*apiclient.Client{apis[i%2].api, apis[(i+1)%2].api}}
		running.Go(func() {
			for n := range each {
				all[i].publish(t, r.name, n+1)
				done.Add(1)
			}
		})
	}
	testkit.Eventually(t, waitMax, func() bool { return done.Load() > publishers*each/3 }, "a third is published")
	apis[0].kill()
	killed := done.Load()
	running.Wait()
	if killed == publishers*each {
		t.Fatal("all was published before the API was killed: this shows nothing")
	}
	var again int64
	for _, k := range all {
		again += k.again.Load()
	}
	t.Logf("an API was killed after %d of %d publishes; %d were tried again", killed, publishers*each, again)
	if again == 0 {
		t.Error("no publish was tried again: this shows nothing")
	}
	r.awaitCursor(deliveredMax, publishers*each)
	onceInOrder(t, r.consumer.Requests(), publishers*each)
	next := map[string]int{}
	for after := int64(0); ; {
		var page struct {
			Events []struct {
				Sequence                        int64
				ResourceName, ResourceRecordKey string
			}
		}
		r.call(http.MethodGet, "/v1/feeds/"+r.name+"/events?limit=1000&after="+strconv.FormatInt(after, 10), nil, &page)
		for _, e := range page.Events {
			if e.Sequence != after+1 {
				t.Fatalf("after event %d comes %d", after, e.Sequence)
			}
			after = e.Sequence
			if next[e.ResourceName]++; e.ResourceRecordKey != strconv.Itoa(next[e.ResourceName]) {
				t.Fatalf("%s: event %s stands as the %d. one", e.ResourceName, e.ResourceRecordKey, next[e.ResourceName])
			}
		}
		if len(page.Events) == 0 {
			break
		}
	}
	for name, n := range next {
		if n != each {
			t.Errorf("%s: %d events, want %d", name, n, each)
		}
	}
}

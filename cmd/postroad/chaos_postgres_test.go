//go:build chaos

package main_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postroad/internal/apiclient"
	"postroad/internal/testkit"
)

// publishers publish single events until they are stopped, and remember what
// each was answered.
type publishers struct {
	road    *road
	stop    context.CancelFunc
	running sync.WaitGroup
	refused atomic.Int64

	mu      sync.Mutex
	stored  map[int64]string // sequence to record key, of those answered 201
	slowest time.Duration
}

func startPublishers(r *road, n int) *publishers {
	ctx, cancel := context.WithCancel(r.t.Context())
	p := &publishers{road: r, stop: cancel, stored: map[int64]string{}}
	for i := range n {
		p.running.Go(func() {
			for round := 0; ctx.Err() == nil; round++ {
				p.publish(fmt.Sprintf("publisher-%d-%d", i, round))
				select {
				case <-ctx.Done():
				case <-time.After(10 * time.Millisecond): // the consumer keeps up
				}
			}
		})
	}
	return p
}

func (p *publishers) publish(key string) {
	began := time.Now()
	var answer struct{ LastSequence int64 }
	_, err := p.road.api.Do(p.road.t.Context(), apiclient.Request{
		Method: http.MethodPost, Path: "/v1/feeds/" + p.road.name + "/events", In: map[string]string{"resourceName": "Property", "resourceRecordKey": key},
	}, &answer)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slowest = max(p.slowest, time.Since(began))
	var problem *apiclient.Problem
	switch {
	case err == nil:
		p.stored[answer.LastSequence] = key
	case errors.As(err, &problem) && problem.Status == http.StatusServiceUnavailable:
		p.refused.Add(1)
	default:
		p.road.t.Errorf("publish was answered neither 201 nor 503: %v", err)
	}
}

// finish stops them and looks for each event that was answered 201, and for
// events that are there twice. It returns the head.
func (p *publishers) finish() (head int) {
	r := p.road
	r.t.Helper()
	p.stop()
	p.running.Wait()
	r.t.Logf("%d publishes were answered 201, %d 503; the slowest took %.1f s", len(p.stored), p.refused.Load(), p.slowest.Seconds())
	if p.refused.Load() == 0 {
		r.t.Error("no publish met a PostgreSQL that was away: this shows nothing")
	}
	if p.slowest > 6*time.Second { // 5 s for the answer, and the way to it
		r.t.Errorf("a publish was answered after %s", p.slowest)
	}
	there, seen := map[int64]string{}, map[string]bool{}
	for after := int64(0); ; {
		var page struct {
			Events []struct {
				Sequence          int64
				ResourceRecordKey string
			}
			Head int64
		}
		r.call(http.MethodGet, "/v1/feeds/"+r.name+"/events?limit=1000&after="+strconv.FormatInt(after, 10), nil, &page)
		for _, e := range page.Events {
			after = e.Sequence
			there[e.Sequence] = e.ResourceRecordKey
			if seen[e.ResourceRecordKey] {
				r.t.Errorf("event %s is there twice", e.ResourceRecordKey)
			}
			seen[e.ResourceRecordKey] = true
		}
		if len(page.Events) == 0 {
			head = int(page.Head)
			break
		}
	}
	for sequence, key := range p.stored {
		if there[sequence] != key {
			r.t.Errorf("event %s was answered 201 as %d, where %q stands", key, sequence, there[sequence])
		}
	}
	return head
}

// TestChaosKillPostgres kills PostgreSQL under a stack that publishes and
// delivers: first its oldest process alone, then all of them.
func TestChaosKillPostgres(t *testing.T) {
	t.Parallel()
	const backlog = 3000
	r := newRig(t)
	road := r.road("bereft", slow(2*time.Millisecond), nil)
	road.publish(numbered(backlog))
	r.run(500)
	publishing := startPublishers(road, 4)
	for name, victims := range map[string]func() []int{
		"the postmaster":    func() []int { return []int{r.postmaster()} },
		"the whole cluster": func() []int { pid := r.postmaster(); return append(descendants(pid), pid) },
	} {
		r.run(100)
		killed := time.Now()
		for _, pid := range victims() {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Fatalf("kill %s: %v", name, err)
			}
		}
		refused := publishing.refused.Load()
		testkit.Eventually(t, recoverMax, func() bool { return publishing.refused.Load() > refused }, "a publish is refused after "+name+" was killed")
		again := awaitStored(t, publishing)
		// What was read ahead and is young enough may still be sent; more needs PostgreSQL.
		sent := len(before(road.consumer.Requests(), again))
		request := road.awaitSince(again, 1, recoverMax)
		t.Logf("%s: publishing %.1f s after it was killed, delivering %.1f s after it; %d requests in between",
			name, again.Sub(killed).Seconds(), request.At.Sub(killed).Seconds(), sent-len(before(road.consumer.Requests(), killed)))
		if request.At.Sub(killed) > recoverMax {
			t.Errorf("delivering %s after %s was killed", request.At.Sub(killed), name)
		}
	}
	r.run(500)
	head := publishing.finish()
	road.awaitCursor(deliveredMax, head)
	// The process lived, and knew what it had sent.
	onceInOrder(t, road.consumer.Requests(), head)
	if r.child.ended() {
		t.Error("the process ended with its PostgreSQL")
	}
}

// awaitStored waits until a publish is answered 201 again and returns when.
func awaitStored(t *testing.T, p *publishers) time.Time {
	t.Helper()
	count := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.stored)
	}
	stored := count()
	testkit.Eventually(t, recoverMax, func() bool { return count() > stored }, "publishing goes on")
	return time.Now()
}

//go:build chaos

package main_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postroad/internal/apiclient"
	"postroad/internal/testkit"
)

const (
	modelHistories = 220
	modelSteps     = 12 // of each history, spread over the rounds
	modelRounds    = 4  // a kill in each but the last
	modelDrivers   = 24
	modelFailures  = 12 // told of; beyond, only counted
	// seedVariable repeats a run: what is asked for is drawn from it.
	seedVariable = "POSTROAD_MODEL_SEED"

	modelCallMax  = 3 * time.Minute // of one call, over a restart
	modelDrainMax = 3 * time.Minute
)

// kill is a moment at which everything was killed; until then what it sent could
// arrive.
type kill struct{ from, to time.Time }

// modelFeed is a feed that one history or several publish to.
type modelFeed struct {
	name      string
	published atomic.Int64
	log       []modelEvent // read at the end
}

type modelEvent struct {
	Sequence          int64
	ResourceName      string
	ResourceRecordKey string
}

func (e modelEvent) key() string { return e.ResourceName + "/" + e.ResourceRecordKey }

// modelRun is a stack with many histories, and what was done to it.
type modelRun struct {
	t         *testing.T
	dir       string
	child     atomic.Pointer[child] // nil while it is killed and started again
	api       atomic.Pointer[apiclient.Client]
	consumer  *testkit.Receiver
	feeds     []*modelFeed
	histories []*history
	byPath    map[string]*history
	began     time.Time
	kills     []kill
	stopped   atomic.Bool  // a driver met what cannot be
	steps     atomic.Int64 // that were done
}

// TestChaosModel drives hundreds of subscribers at once through random histories,
// with three crashes of everything on the way, and holds what their consumers
// recorded to a plain model: the log, and a list of what was asked.
func TestChaosModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(seedVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s=%d repeats what is asked for", seedVariable, seed)
	r := newModelRun(t, seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	for round := range modelRounds {
		at := 2.0
		if round < modelRounds-1 {
			at = 0.3 + 0.5*chance.Float64()
		}
		r.round(at)
	}
	r.drain()
	r.judge()
}

func newModelRun(t *testing.T, seed uint64) *modelRun {
	t.Helper()
	r := &modelRun{t: t, dir: devDir(t), byPath: map[string]*history{}, began: time.Now()}
	r.consumer = testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, q *testkit.Request) testkit.Answer { return r.byPath[q.Path].answer(n, q) }})
	child, api := startDev(t, r.dir, "--json")
	r.child.Store(child)
	r.api.Store(api)
	for i := range modelHistories {
		if i%5 > 0 || i < 5 { // every fifth shares its feed with the one before
			r.feeds = append(r.feeds, &modelFeed{name: fmt.Sprintf("feed-%d", i)})
		}
		h := newHistory(r, fmt.Sprintf("h%d", i), r.feeds[len(r.feeds)-1], rand.New(rand.NewPCG(seed, uint64(i+1))))
		r.histories = append(r.histories, h)
		r.byPath["/"+h.id] = h
	}
	r.each(func(h *history) { h.create() })
	t.Logf("%d subscribers of %d feeds after %.1f s", len(r.histories), len(r.feeds), time.Since(r.began).Seconds())
	return r
}

// each has the drivers do something with every history.
func (r *modelRun) each(do func(h *history)) {
	r.t.Helper()
	r.drive(r.histories, do).Wait()
	r.check()
}

// check ends the test where a driver met what cannot be.
func (r *modelRun) check() {
	r.t.Helper()
	if r.stopped.Load() {
		r.t.FailNow()
	}
}

func (r *modelRun) drive(work []*history, do func(h *history)) *sync.WaitGroup {
	queue := make(chan *history, len(work))
	for _, h := range work {
		queue <- h
	}
	close(queue)
	var drivers sync.WaitGroup
	for range modelDrivers {
		drivers.Go(func() {
			for h := range queue {
				if !r.stopped.Load() {
					do(h)
				}
			}
		})
	}
	return &drivers
}

// round has each history go on by its share of the steps, in turns, and kills
// everything when the given part of them is done.
func (r *modelRun) round(killAt float64) {
	r.t.Helper()
	began := time.Now()
	var work []*history
	for range modelSteps / modelRounds {
		work = append(work, r.histories...)
	}
	at := r.steps.Load() + int64(killAt*float64(len(work)))
	drivers := r.drive(work, func(h *history) {
		h.driving.Lock()
		defer h.driving.Unlock()
		h.step()
		r.steps.Add(1)
	})
	if killAt < 1 {
		testkit.Eventually(r.t, modelCallMax, func() bool { return r.stopped.Load() || r.steps.Load() >= at }, "the histories went on")
		r.check()
		r.crash()
	}
	drivers.Wait()
	r.check()
	r.t.Logf("a round of %d steps took %.1f s; %d requests so far", len(work), time.Since(began).Seconds(), r.consumer.Count())
}

func (r *modelRun) crash() {
	r.t.Helper()
	k := kill{from: time.Now()}
	r.child.Swap(nil).killTree()
	<-time.After(arriveMax)
	k.to = time.Now()
	r.kills = append(r.kills, k)
	child, api := startDev(r.t, r.dir, "--json")
	r.child.Store(child)
	r.api.Store(api)
	r.t.Logf("killed after %d requests; ready again %.1f s later", r.consumer.Count(), time.Since(k.to).Seconds())
}

// call makes one call, again until it is answered: it carries a key, so that it
// happens once. It returns the refusal, unless that is the server's own trouble.
func (r *modelRun) call(method, path string, in, out any, key string) (status int, problem *apiclient.Problem) {
	deadline := time.Now().Add(modelCallMax)
	for {
		header := http.Header{}
		if key != "" {
			header.Set("Idempotency-Key", key)
		}
		api := *r.api.Load()
		api.HTTP = pooled
		answer, err := api.Do(r.t.Context(), apiclient.Request{Method: method, Path: path, In: in, Header: header}, nil)
		problem = nil
		switch {
		case err == nil && (answer.Status != http.StatusAccepted || key == ""):
			if err := decodeAnswer(answer.Body, out); err != nil {
				r.fail("%s %s: %v", method, path, err)
			}
			return answer.Status, nil
		case errors.As(err, &problem) && problem.Status < http.StatusInternalServerError && problem.Code() != "":
			return problem.Status, problem
		}
		if c := r.child.Load(); c != nil && c.ended() {
			r.fail("%s %s: postroad has ended by itself", method, path)
			return 0, nil
		}
		switch {
		case r.t.Context().Err() != nil || r.stopped.Load(): // the test has ended
			r.stopped.Store(true)
			return 0, nil
		case time.Now().After(deadline):
			r.fail("%s %s: not in force after %s: %v", method, path, modelCallMax, err)
			return 0, nil
		}
		<-time.After(50 * time.Millisecond)
	}
}

// fail tells of what makes no sense to go on after.
func (r *modelRun) fail(format string, args ...any) {
	r.t.Errorf(format, args...)
	r.stopped.Store(true)
}

// drain mends all consumers, ends all that holds a subscriber up, and waits until
// each has got everything.
func (r *modelRun) drain() {
	r.t.Helper()
	began := time.Now()
	for _, h := range r.histories {
		h.mend()
	}
	deadline := began.Add(modelDrainMax)
	for left := r.histories; len(left) > 0; {
		var mu sync.Mutex
		var still []*history
		var why []string
		r.drive(left, func(h *history) {
			if reason := h.drained(); reason != "" {
				mu.Lock()
				defer mu.Unlock()
				still, why = append(still, h), append(why, h.id+" "+reason)
			}
		}).Wait()
		r.check()
		if left = still; len(left) > 0 && time.Now().After(deadline) {
			for _, h := range left[:min(3, len(left))] {
				r.t.Log(h.story())
			}
			r.t.Errorf("%d histories do not drain:\n%s", len(left), strings.Join(why, "\n"))
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	r.t.Logf("all was delivered %.1f s after the consumers were mended; %d requests, %.1f s in all",
		time.Since(began).Seconds(), r.consumer.Count(), time.Since(r.began).Seconds())
}

//go:build chaos

package main_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postroad/contract"
	"postroad/internal/testkit"
)

const (
	takeOverMax = 45 * time.Second // from a dead process
	vanishedMax = 90 * time.Second // from one whose connections stay
	// wakeOverMax is for the waker: 2 s for its lock, and twice the 10 s after
	// which Temporal hands out anew what it gave to a poll of the dead worker.
	wakeOverMax = 45 * time.Second
	// goOnMax is for one that stops in order, with one such hand-out.
	goOnMax = 15 * time.Second
)

// remotes are the connections over which requests came.
func remotes(requests []testkit.Request) map[string]bool {
	all := map[string]bool{}
	for _, r := range requests {
		all[r.Remote] = true
	}
	return all
}

// hang waits until a request comes that is answered late or never, as answer
// says, and returns its number; script answers those after it.
func (r *road) hang(answer testkit.Answer, script testkit.Script) (n int) {
	r.t.Helper()
	var once sync.Once
	arrived := make(chan int, 1)
	r.consumer.SetScript(func(n int, request *testkit.Request) testkit.Answer {
		now := script(n, request)
		once.Do(func() {
			arrived <- n
			now = answer
		})
		return now
	})
	select {
	case n = <-arrived:
	case <-time.After(waitMax):
		r.t.Fatalf("%s: no request came within %s", r.name, waitMax)
	}
	return n
}

// takenOver looks at how another worker goes on since the moment at which the
// one that delivered was gone.
func (r *road) takenOver(gone time.Time, most time.Duration) {
	r.t.Helper()
	first := r.awaitSince(gone, 1, 2*most)
	r.t.Logf("%s: the other worker took over after %.1f s", r.name, first.At.Sub(gone).Seconds())
	if first.At.Sub(gone) > most {
		r.t.Errorf("%s: the other worker took over after %s", r.name, first.At.Sub(gone))
	}
	r.checkRepeats(gone)
}

// signal sends a signal to the process alone.
func (c *child) signal(signal syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(signal); err != nil {
		c.t.Fatalf("send %s: %v", signal, err)
	}
}

// TestChaosTakeOver kills the worker that delivers; the other one takes over.
func TestChaosTakeOver(t *testing.T) {
	t.Parallel()
	s := newSplit(t)
	owner := s.worker()
	events := testkit.Lines(t, "sdk-go")
	r := newRoad(t, s.api, "inherited", slow(5*time.Millisecond), nil)
	r.publish(events)
	r.consumer.WaitFor(t, 100, waitMax)
	s.worker()
	r.consumer.WaitFor(t, r.consumer.Count()+200, waitMax)
	owner.kill()
	<-time.After(arriveMax)
	killed := time.Now()
	r.takenOver(killed, takeOverMax)
	r.consumer.SetScript(nil)
	r.awaitCursor(deliveredMax, len(events))
	r.checkOrder(len(events), killed)
}

// TestChaosZombie stops a worker where it is, for so long that the other one
// has gone far ahead, and lets it go on: with an answer that it has not read
// yet, and with a request whose time is over. It sends nothing more for what it
// lost, writes nothing down, and is good for taking over in its turn.
func TestChaosZombie(t *testing.T) {
	t.Parallel()
	const frozen, pace = 5 * time.Minute, 3 * time.Second
	s := newSplit(t)
	zombie := s.worker()
	events := testkit.Lines(t, "sdk-go")
	single := newRoad(t, s.api, "single", slow(pace/100), nil)
	batches := newRoad(t, s.api, "batches", slow(pace), map[string]any{"batchSize": 100, "format": "raw"})
	roads := []*road{single, batches}
	for _, r := range roads {
		r.publish(events)
	}
	single.consumer.WaitFor(t, 100, waitMax)
	heir := s.worker()
	hung := batches.hang(testkit.Answer{Hang: testkit.Forever}, slow(pace))
	zombie.signal(syscall.SIGSTOP)
	<-time.After(arriveMax)
	stopped := time.Now()
	for _, r := range roads {
		r.takenOver(stopped, vanishedMax)
	}

	<-time.After(time.Until(stopped.Add(frozen)))
	resumed := time.Now()
	zombie.signal(syscall.SIGCONT)
	testkit.Eventually(t, waitMax, func() bool { return batches.consumer.Requests()[hung-1].Took > 0 }, "the zombie gives its request up")
	batches.awaitSince(resumed, 6, waitMax)
	single.awaitSince(resumed, 300, waitMax)
	for _, r := range roads {
		all := r.consumer.Requests()
		heirs := remotes(since(before(all, resumed), stopped))
		for _, request := range since(all, resumed) {
			if !heirs[request.Remote] {
				t.Errorf("%s: %.2f s after it went on, the zombie sent event %d", r.name, request.At.Sub(resumed).Seconds(), firstOf(t, request))
			}
		}
		if status := r.status(); status.State != "active" || status.LastError != "" {
			t.Errorf("%s: %s, %q: the zombie's verdict counts", r.name, status.State, status.LastError)
		}
		t.Logf("%s: the other worker was %d events ahead, and has made %d requests since", r.name,
			firstOf(t, all[len(before(all, resumed))-1])-lastOf(t, all[len(before(all, stopped))-1]), len(since(all, resumed)))
	}

	heir.kill()
	<-time.After(arriveMax)
	killed := time.Now()
	for _, r := range roads {
		r.takenOver(killed, takeOverMax)
		r.consumer.SetScript(nil)
	}
	for _, r := range roads {
		r.awaitCursor(deliveredMax, len(events))
		r.checkOrder(len(events), stopped, killed)
		if most := r.consumer.MaxInFlight(); most > 2 {
			t.Errorf("%s: %d requests were in flight at once", r.name, most)
		}
	}
}

// TestChaosZombieSoon lets a worker go on as soon as the other one has taken over
// some of its subscribers, and before the time of its requests is over: it reads
// their answers then, and what it would send next is the other one's.
func TestChaosZombieSoon(t *testing.T) {
	t.Parallel()
	const (
		// More than the worker has polls open, which Temporal may still answer.
		subscribers = 12
		pace        = 60 * time.Millisecond
		ahead       = 50
		settledMax  = time.Minute
	)
	s := newSplit(t)
	zombie := s.worker()
	events := testkit.Lines(t, "sdk-go")[:3000]
	var roads []*road
	for i := range subscribers {
		r := newRoad(t, s.api, "road-"+strconv.Itoa(i+1), slow(pace), nil)
		r.call(http.MethodPatch, "/v1/subscribers/"+r.name, map[string]any{"endpoint": map[string]any{"timeout": "60s"}}, nil)
		r.publish(events)
		r.consumer.WaitFor(t, 1, waitMax)
		roads = append(roads, r)
	}
	s.worker()
	answer := make(chan struct{})
	hung := map[*road]int{}
	for _, r := range roads {
		hung[r] = r.hang(testkit.Answer{Until: answer}, slow(pace))
	}
	zombie.signal(syscall.SIGSTOP)
	close(answer)
	stopped := time.Now()
	testkit.Eventually(t, vanishedMax, func() bool {
		return slices.ContainsFunc(roads, func(r *road) bool { return r.consumer.Count() > hung[r]+ahead })
	}, "the other worker takes over")
	resumed := time.Now()
	zombie.signal(syscall.SIGCONT)
	inherited := 0
	for _, r := range roads {
		r.awaitSince(resumed, ahead, waitMax)
		if len(since(before(r.consumer.Requests(), resumed), stopped)) > 0 {
			inherited++
		}
	}
	t.Logf("resumed after %.1f s, when the other worker had taken over %d of %d", resumed.Sub(stopped).Seconds(), inherited, len(roads))
	for _, r := range roads {
		r.consumer.SetScript(nil)
	}
	for _, r := range roads {
		r.awaitCursor(deliveredMax, len(events))
		// What was not taken over yet goes on, until Temporal gives it to another.
		r.checkRivals(stopped, resumed.Add(settledMax), len(events))
	}
}

// TestChaosDrainBesideLive replaces two workers under load, one after the other.
// What the one that stops delivered goes on elsewhere, soon; nothing is repeated
// but the request that its consumer left unanswered.
func TestChaosDrainBesideLive(t *testing.T) {
	t.Parallel()
	const subscribers, subscribersMax, pace = 4, 40, 20 * time.Millisecond
	s := newSplit(t)
	events := testkit.Lines(t, "sdk-go")[:6000]
	var roads []*road
	var workers [2]*child
	for w := range workers {
		workers[w] = s.worker()
		// Temporal gives a task to who has asked for one for longest: the second worker
		// gets its first once the first has taken some.
		for n := 0; n < subscribers || n < subscribersMax && len(s.deliveredBy(workers[w], roads)) == 0; n++ {
			r := newRoad(t, s.api, "road-"+strconv.Itoa(len(roads)+1), slow(pace), nil)
			r.call(http.MethodPatch, "/v1/subscribers/"+r.name, map[string]any{"endpoint": map[string]any{"timeout": "60s"}}, nil)
			r.publish(events)
			r.consumer.WaitFor(t, 50, waitMax)
			roads = append(roads, r)
		}
	}
	if owned := len(s.deliveredBy(workers[1], roads)); owned == 0 {
		t.Fatalf("the second worker delivers to none of %d: this shows nothing", len(roads))
	}
	sluggish := roads[0]
	unanswered := sluggish.hang(testkit.Answer{Hang: testkit.Forever}, slow(pace))
	s.replace(workers[0], roads, sluggish)

	s.worker()
	s.replace(workers[1], roads, nil)
	for _, r := range roads {
		r.consumer.SetScript(nil)
	}
	for _, r := range roads {
		r.awaitCursor(deliveredMax, len(events))
		all := r.consumer.Requests()
		if r == sluggish {
			all = slices.Delete(all, unanswered-1, unanswered)
		} else if most := r.consumer.MaxInFlight(); most > 1 {
			t.Errorf("%s: %d requests were in flight at once", r.name, most)
		}
		onceInOrder(t, all, len(events))
	}
}

// deliveredBy are the roads that a worker delivers to.
func (s *split) deliveredBy(worker *child, roads []*road) (owned []*road) {
	s.t.Helper()
	temporal := dialTemporal(s.t, s.temporal.TemporalAddress)
	for _, r := range roads {
		run, err := temporal.DescribeWorkflowExecution(s.t.Context(), contract.SubscriberWorkflowID(r.name), "")
		if err != nil {
			s.t.Fatalf("describe the run of %s: %v", r.name, err)
		}
		pending := run.GetPendingActivities()
		if len(pending) != 1 {
			s.t.Fatalf("%s: %d activities run", r.name, len(pending))
		}
		if strings.HasPrefix(pending[0].GetLastWorkerIdentity(), fmt.Sprintf("%d@", worker.cmd.Process.Pid)) {
			owned = append(owned, r)
		}
	}
	return owned
}

// replace terminates a worker. Another one goes on with what it delivered, for a
// sluggish consumer when its request was given up; to the others nothing happens.
func (s *split) replace(worker *child, roads []*road, sluggish *road) {
	s.t.Helper()
	owned := s.deliveredBy(worker, roads)
	asked := time.Now()
	took := worker.terminate()
	s.t.Logf("delivering to %d of %d, it stopped in %.1f s", len(owned), len(roads), took.Seconds())
	if took > 30*time.Second {
		s.t.Errorf("it took %s to stop", took)
	}
	for _, r := range roads {
		from := asked
		if r == sluggish {
			from = asked.Add(took)
		}
		r.awaitSince(from, 100, recoverMax)
		all := r.consumer.Requests()
		own := remotes(before(all, asked))
		at := slices.IndexFunc(all, func(request testkit.Request) bool { return !own[request.Remote] })
		if moved := at >= 0; moved != slices.Contains(owned, r) {
			s.t.Errorf("%s: over another connection from request %d on, want one: %v", r.name, at+1, slices.Contains(owned, r))
			continue
		}
		if at < 0 {
			continue
		}
		pause := all[at].At.Sub(all[at-1].At)
		s.t.Logf("%s: goes on %.2f s after SIGTERM, %.2f s after the request before", r.name, all[at].At.Sub(asked).Seconds(), pause.Seconds())
		if all[at].At.Sub(from) > goOnMax {
			s.t.Errorf("%s: goes on after %s", r.name, all[at].At.Sub(from))
		}
	}
}

// TestChaosWakerKilled lets a waker find an event for a subscriber at rest and
// say so to a Temporal that does not hear it: once its connections break then,
// once it is killed.
func TestChaosWakerKilled(t *testing.T) {
	t.Parallel()
	s := newSplit(t)
	v := newProxy(t, s.temporal.TemporalAddress)
	behind := *s
	behind.environ = append(slices.Clone(s.environ), "TEMPORAL_ADDRESS="+v.address)
	waker := behind.worker()
	await(t, &waker.stderr, "(waker active)")
	heir := s.worker()
	temporal := dialTemporal(t, s.temporal.TemporalAddress)
	deaf := newRoad(t, s.api, "deaf", nil, nil)
	orphaned := newRoad(t, s.api, "orphaned", nil, nil)
	for _, r := range []*road{deaf, orphaned} {
		r.publish(numbered(1))
	}
	for _, r := range []*road{deaf, orphaned} {
		r.awaitCursor(waitMax, 1)
		awaitRest(t, temporal, r)
	}

	v.freeze()
	deaf.wakeLost(waker)
	cut := time.Now()
	v.reset()
	t.Logf("a wake whose connection broke arrived after %.1f s", deaf.awaitSince(cut, 1, waitMax).At.Sub(cut).Seconds())
	deaf.awaitCursor(waitMax, 2)

	v.freeze()
	orphaned.wakeLost(waker)
	waker.kill()
	killed := time.Now()
	first := orphaned.awaitSince(killed, 1, 2*wakeOverMax)
	t.Logf("another waker woke it after %.1f s", first.At.Sub(killed).Seconds())
	if first.At.Sub(killed) > wakeOverMax {
		t.Errorf("another waker woke it after %s", first.At.Sub(killed))
	}
	await(t, &heir.stderr, "(waker active)")
	for _, r := range []*road{deaf, orphaned} {
		r.awaitCursor(waitMax, 2)
		onceInOrder(t, r.consumer.Requests(), 2)
	}
}

// wakeLost publishes an event to a subscriber at rest, and returns when the waker
// has found it and could not say so. Nobody else does.
func (r *road) wakeLost(waker *child) {
	r.t.Helper()
	count := r.consumer.Count()
	r.publish(numbered(1))
	await(r.t, &waker.stderr, `wake not sent" subscriber=(`+r.name+`)`)
	r.stays(count, 0)
}

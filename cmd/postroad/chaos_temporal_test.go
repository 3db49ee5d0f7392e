//go:build chaos

package main_test

import (
	"context"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"

	"postroad/contract"
	"postroad/embedded"
	"postroad/internal/apiclient"
	"postroad/internal/testkit"
)

// split is the product as processes of its own, over a PostgreSQL and a Temporal
// that are not theirs.
type split struct {
	t        *testing.T
	dir      string // Temporal's
	temporal *embedded.Stack
	environ  []string
	process  *child // the API's
	api      *apiclient.Client
}

func newSplit(t *testing.T) *split {
	t.Helper()
	dir := t.TempDir()
	temporal := startTemporal(t, dir, "127.0.0.1:0")
	const token = "a-token-that-is-long-enough"
	s := &split{t: t, dir: dir, temporal: temporal, environ: []string{
		"POSTROAD_DATABASE_URL=" + testkit.Database(t, nil), "POSTROAD_KEY_FILE=" + filepath.Join(t.TempDir(), "key"),
		"POSTROAD_ADMIN_TOKEN=" + token, "TEMPORAL_ADDRESS=" + temporal.TemporalAddress,
		"POSTROAD_LISTEN=127.0.0.1:0", "POSTROAD_METRICS_LISTEN=127.0.0.1:0",
	}}
	if code := startChildWith(t, t.TempDir(), s.environ, "migrate").wait(startMax); code != ok {
		t.Fatalf("migrate ended with code %d", code)
	}
	s.process = s.start("api")
	s.api = &apiclient.Client{URL: await(t, &s.process.stderr, `the API is running" url=(\S+)`), Token: token}
	return s
}

func (s *split) start(command string, more ...string) *child {
	s.t.Helper()
	return startChildWith(s.t, s.t.TempDir(), s.environ, append([]string{command, "--allow-loopback-endpoints"}, more...)...)
}

// worker starts a worker and waits until it polls.
func (s *split) worker(more ...string) *child {
	s.t.Helper()
	c := s.start("worker", more...)
	health := await(s.t, &c.stderr, `the worker is running" health_url=(\S+)`)
	testkit.Eventually(s.t, startMax, func() bool { return get(s.t, health+"/readyz") == http.StatusOK }, "the worker is ready")
	return c
}

func (s *split) stopTemporal() time.Time {
	s.t.Helper()
	began := time.Now()
	if err := s.temporal.StopTemporal(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return began
}

func (s *split) startTemporal() time.Time {
	s.t.Helper()
	if err := s.temporal.StartTemporal(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return time.Now()
}

// TestChaosTemporalAway stops Temporal under a busy subscriber: controls and
// publishing go on without it, deliveries end and begin again.
func TestChaosTemporalAway(t *testing.T) {
	t.Parallel()
	const (
		wakeWithin = 90 * time.Second
		wakeLost   = "wake not sent"
	)
	s := newSplit(t)
	s.worker()
	temporal := dialTemporal(t, s.temporal.TemporalAddress)
	events := testkit.Lines(t, "sdk-go")
	r := newRoad(t, s.api, "busy", slow(10*time.Millisecond), nil)
	r.publish(events)
	r.consumer.WaitFor(t, 200, waitMax)

	// A pause is in force without Temporal, and at once.
	s.stopTemporal()
	at := r.consumer.Count()
	r.consumer.WaitFor(t, at+50, waitMax)
	asked := time.Now()
	if status := r.control(contract.ControlPause); status != http.StatusOK {
		t.Errorf("pause without Temporal answered %d", status)
	}
	answered := time.Now()
	t.Logf("a pause without Temporal was answered after %d ms", answered.Sub(asked).Milliseconds())
	if answered.Sub(asked) > forceMax {
		t.Errorf("a pause without Temporal was answered after %s", answered.Sub(asked))
	}
	began := time.Now()
	r.publish(numbered(10))
	t.Logf("a publish without Temporal was answered after %d ms", time.Since(began).Milliseconds())
	paused := r.consumer.Count()
	r.stays(paused, 2*time.Second)
	if last := r.consumer.Requests()[paused-1]; last.At.After(answered) {
		t.Errorf("a request came %s after the pause was answered", last.At.Sub(answered))
	}

	// A resume is too; deliveries need Temporal. The run rests on a pause without
	// an end, and no wake of the API reaches it: it has to be found.
	s.startTemporal()
	awaitRest(t, temporal, r)
	s.stopTemporal()
	lost := strings.Count(s.process.stderr.String(), wakeLost)
	if status := r.control(contract.ControlResume); status != http.StatusOK {
		t.Errorf("resume without Temporal answered %d", status)
	}
	testkit.Eventually(t, waitMax, func() bool { return strings.Count(s.process.stderr.String(), wakeLost) > lost }, "the wake is lost")
	r.stays(paused, 0)
	back := s.startTemporal()
	first := r.consumer.WaitFor(t, paused+1, wakeWithin)[paused]
	t.Logf("delivering %.1f s after Temporal's return, resumed while it was away", first.At.Sub(back).Seconds())

	r.consumer.WaitFor(t, paused+200, waitMax)
	s.loseTemporal(r)
	if r.consumer.Count() >= len(events) {
		t.Fatal("all was delivered without Temporal: this shows nothing")
	}
	r.consumer.SetScript(nil)
	r.awaitCursor(deliveredMax, len(events)+10)
	onceInOrder(t, r.consumer.Requests(), len(events)+10)
}

// loseTemporal looks at when deliveries end without Temporal, and at when they
// begin again with it.
func (s *split) loseTemporal(r *road) {
	s.t.Helper()
	const stopWithin, resumeWithin = time.Minute, time.Minute
	away := s.stopTemporal()
	<-time.After(time.Until(away.Add(stopWithin)))
	count := r.consumer.Count()
	last := r.consumer.Requests()[count-1]
	s.t.Logf("delivering stopped %.1f s after Temporal was stopped", last.At.Sub(away).Seconds())
	r.stays(count, 3*time.Second)
	back := s.startTemporal()
	first := r.consumer.WaitFor(s.t, count+1, 2*resumeWithin)[count]
	s.t.Logf("delivering %.1f s after Temporal's return", first.At.Sub(back).Seconds())
	if first.At.Sub(back) > resumeWithin {
		s.t.Errorf("delivering %s after Temporal's return", first.At.Sub(back))
	}
}

// stream publishes single events to roads in turn, each of which must be
// answered 201.
type stream struct {
	stop    context.CancelFunc
	running sync.WaitGroup
	stored  map[*road]int // to be read after finish
	slowest time.Duration
}

func startStream(t *testing.T, pause time.Duration, roads ...*road) *stream {
	ctx, cancel := context.WithCancel(t.Context())
	s := &stream{stop: cancel, stored: map[*road]int{}}
	s.running.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			s.publish(roads[i%len(roads)])
		}
	})
	t.Cleanup(s.finish)
	return s
}

func (s *stream) publish(r *road) {
	began := time.Now()
	answer, err := r.api.Do(r.t.Context(), apiclient.Request{
		Method: http.MethodPost, Path: "/v1/feeds/" + r.name + "/events", In: map[string]string{"resourceName": "Property", "resourceRecordKey": "1"},
	}, nil)
	s.slowest = max(s.slowest, time.Since(began))
	if err != nil {
		if r.t.Context().Err() == nil { // else the test has ended, for another reason
			r.t.Errorf("publish to %s: %v", r.name, err)
		}
		return
	}
	if answer.Status != http.StatusCreated {
		r.t.Errorf("publish to %s was answered %d", r.name, answer.Status)
	}
	s.stored[r]++
}

// finish stops it and waits until nothing is under way.
func (s *stream) finish() {
	s.stop()
	s.running.Wait()
}

// TestChaosTemporalAwayTenMinutes stops Temporal for so long that every repeat
// has backed off, and looks at everybody who has something to do at its return.
func TestChaosTemporalAwayTenMinutes(t *testing.T) {
	t.Parallel()
	const (
		outage                   = 10 * time.Minute
		stopWithin, resumeWithin = time.Minute, time.Minute
		waitFor                  = outage / 2
	)
	s := newSplit(t)
	s.worker()
	temporal := dialTemporal(t, s.temporal.TemporalAddress)
	makeRoad := func(name string, script testkit.Script, events int) *road {
		r := newRoad(t, s.api, name, script, nil)
		r.publish(numbered(events))
		return r
	}
	const backlog = 20_000 // at 100 a second
	busy := makeRoad("busy", slow(10*time.Millisecond), backlog)
	begun := map[*road]int{busy: backlog}
	waiting, paused, resumed := makeRoad("waiting", asksOnce(2, waitFor), 5), makeRoad("paused", nil, 5), makeRoad("resumed", nil, 5)
	others := []*road{waiting, paused, resumed}
	for _, name := range []string{"parked-1", "parked-2", "parked-3", "parked-4"} {
		others = append(others, makeRoad(name, nil, 5))
	}
	for _, r := range others {
		begun[r] = 5
		if r != waiting {
			r.awaitCursor(waitMax, 5)
		}
	}
	resumed.control(contract.ControlPause)
	for _, r := range others {
		awaitRest(t, temporal, r)
	}
	waiting.awaitStatus(waitMax, "waiting", func(s roadStatus) bool { return s.State == contract.StateWaiting })
	until := time.Now().Add(waitFor)
	paused.call(http.MethodPost, "/v1/subscribers/paused/pause", map[string]any{"until": until}, nil)
	paused.awaitPaused()

	streams := []*stream{startStream(t, 100*time.Millisecond, busy)}
	<-time.After(time.Second) // published with Temporal, for the comparison
	away := s.stopTemporal()
	streams = append(streams, startStream(t, 100*time.Millisecond, others...))
	<-time.After(time.Until(away.Add(stopWithin)))
	resumed.control(contract.ControlResume)
	created := makeRoad("created", nil, 5)
	begun[created] = 5
	roads := append(others, busy, created)
	<-time.After(time.Until(away.Add(outage)))
	begin := time.Now()
	back := s.startTemporal()
	t.Logf("Temporal was away for %.0f s", back.Sub(away).Seconds())
	for _, r := range roads {
		first := r.awaitSince(begin, 1, 2*resumeWithin)
		r.checkAway(away, stopWithin, begin)
		t.Logf("%s: delivering %.1f s after Temporal's return", r.name, first.At.Sub(back).Seconds())
		if first.At.Sub(back) > resumeWithin {
			t.Errorf("%s: delivering %s after Temporal's return", r.name, first.At.Sub(back))
		}
	}
	for _, stream := range streams {
		stream.finish()
		published := 0
		for r, n := range stream.stored {
			begun[r] += n
			published += n
		}
		t.Logf("%d publishes were answered 201, the slowest after %d ms", published, stream.slowest.Milliseconds())
	}
	busy.consumer.SetScript(nil)
	for _, r := range roads {
		r.awaitCursor(deliveredMax, begun[r])
		requests := r.consumer.Requests()
		if r == waiting {
			requests = slices.Delete(requests, 1, 2)
		}
		onceInOrder(t, requests, begun[r])
		t.Logf("%s: %d events, each once and in order", r.name, begun[r])
	}
}

// checkAway fails the test if a request came without Temporal, later than a
// while after its stop.
func (r *road) checkAway(away time.Time, stopWithin time.Duration, back time.Time) {
	r.t.Helper()
	sent := before(r.consumer.Requests(), back)
	if len(sent) == 0 {
		return
	}
	last := sent[len(sent)-1].At
	if last.After(away) {
		r.t.Logf("%s: delivering stopped %.1f s after Temporal was stopped", r.name, last.Sub(away).Seconds())
	}
	if last.Sub(away) > stopWithin {
		r.t.Errorf("%s: a request came %s after Temporal was stopped", r.name, last.Sub(away))
	}
}

// awaitRest waits until the subscriber's run waits for a signal or a timer.
func awaitRest(t *testing.T, temporal client.Client, r *road) {
	t.Helper()
	testkit.Eventually(t, 2*waitMax, func() bool {
		run, err := temporal.DescribeWorkflowExecution(t.Context(), contract.SubscriberWorkflowID(r.name), "")
		return err == nil && len(run.GetPendingActivities()) == 0 && run.GetPendingWorkflowTask() == nil
	}, "the run of "+r.name+" rests")
}

// TestChaosTerminatedWhileSending ends the run in the Temporal UI while it
// delivers. The subscription goes on in a new run: at once where a person asks
// for it, while the old one does not yet know that it is over, and else when it
// is found that nobody looks after it.
func TestChaosTerminatedWhileSending(t *testing.T) {
	t.Parallel()
	const sweptMax = 150 * time.Second // 24 s until the old one knows, 60 s unchecked, 60 s between sweeps
	events := testkit.Lines(t, "sdk-go")
	r := newRig(t)
	road := r.road("terminated", slow(5*time.Millisecond), nil)
	ui, temporal := openUI(t, road), r.temporal()
	road.publish(events)
	r.run(200)
	goesOn := func() *workflowpb.PendingActivityInfo {
		var pending []*workflowpb.PendingActivityInfo
		testkit.Eventually(t, sweptMax, func() bool {
			run, err := temporal.DescribeWorkflowExecution(t.Context(), contract.SubscriberWorkflowID(road.name), "")
			pending = run.GetPendingActivities()
			return err == nil && run.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING &&
				len(pending) == 1 && pending[0].GetState() == enumspb.PENDING_ACTIVITY_STATE_STARTED
		}, "a new run delivers")
		return pending[0]
	}

	ui.post(road.name, "terminate", map[string]any{"reason": "by hand"})
	asked := time.Now()
	road.control(contract.ControlResume)
	goesOn()
	r.run(1000)
	t.Logf("a run asked for delivered beside the old one after %.1f s", goesOn().GetLastStartedTime().AsTime().Sub(asked).Seconds())
	rivalry := time.Now()

	terminated := ui.post(road.name, "terminate", map[string]any{"reason": "by hand"})
	again := goesOn().GetLastStartedTime().AsTime()
	r.run(100)
	first := road.awaitSince(again, 1, recoverMax)
	t.Logf("a run that nobody asked for delivered %.1f s after the termination", first.At.Sub(terminated).Seconds())
	road.consumer.SetScript(nil)
	road.awaitCursor(deliveredMax, len(events))
	road.checkRivals(asked, rivalry, len(events))
}

// checkRivals fails the test unless 1 to n all came in order, and repeats only
// where one run took over from another, between two moments: a few times, a
// bounded suffix each, and never more than one request of each at a time.
func (r *road) checkRivals(from, to time.Time, n int) {
	r.t.Helper()
	const takeoversMax = 3
	takeovers := 0
	all := r.consumer.Requests()
	for i, request := range all[1:] {
		repeats := lastOf(r.t, all[i]) + 1 - firstOf(r.t, request)
		if repeats == 0 {
			continue
		}
		takeovers++
		r.t.Logf("a take-over repeated %d events", repeats)
		if repeats < 0 || repeats > repeatsMax+1 || request.At.Before(from) || request.At.After(to) {
			r.t.Errorf("request %d brings event %d after %d", request.N, firstOf(r.t, request), lastOf(r.t, all[i]))
		}
	}
	if takeovers > takeoversMax {
		r.t.Errorf("%d runs took over, one after the other", takeovers)
	}
	if last := lastOf(r.t, all[len(all)-1]); last != n {
		r.t.Errorf("the last event that came is %d, want %d", last, n)
	}
	if most := r.consumer.MaxInFlight(); most > 2 {
		r.t.Errorf("%d requests were in flight at once", most)
	}
}

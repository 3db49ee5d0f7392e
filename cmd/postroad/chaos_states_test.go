//go:build chaos

package main_test

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"postroad/contract"
	"postroad/internal/apiclient"
	"postroad/internal/testkit"
)

const (
	// sweptMax is how late a subscriber may be that only the sweep finds: 60 s
	// unchecked and past its wait, 60 s between sweeps, and some for the way.
	sweptMax = 125 * time.Second
	// wokenMax is how late one may be that is woken.
	wokenMax = 30 * time.Second

	stateFirst = 10 // events before a state sets in
	stateTotal = 20
	// stateLasts is how long the waits last that end within the test.
	stateLasts = 2 * time.Minute
)

// states are subscribers of one stack, one in each state there is.
type states struct {
	t        *testing.T
	api      *apiclient.Client
	temporal client.Client

	active, idle, paused, until, asked, waiting, retrying, halted, disabled *road
	// deleting was deleted while its request hung: its workflow has not closed.
	deleting *road

	stood map[*road]roadStatus // before the workflows were lost
	lost  time.Time            // when they were
}

func makeStates(t *testing.T, api *apiclient.Client, temporal client.Client) *states {
	t.Helper()
	s := &states{t: t, api: api, temporal: temporal, stood: map[*road]roadStatus{}}
	none := testkit.Answer{}
	s.idle = s.road("idle", none)
	s.paused, s.until = s.road("paused", none), s.road("until", none)
	s.asked, s.waiting = s.road("asked", wantsWait(time.Hour)), s.road("waiting", wantsWait(stateLasts))
	s.retrying, s.halted = s.road("retrying", testkit.Answer{Status: http.StatusBadGateway}), s.road("halted", testkit.Answer{Status: http.StatusUnprocessableEntity})
	s.disabled = s.road("disabled", testkit.Answer{Status: http.StatusGone})
	s.deleting = s.road("deleting", testkit.Answer{Hang: testkit.Forever})
	s.deleting.call(http.MethodPatch, "/v1/subscribers/deleting", map[string]any{"endpoint": map[string]any{"timeout": "60s"}}, nil)
	s.idle.publish(numbered(stateTotal - stateFirst))
	s.idle.awaitCursor(waitMax, stateTotal)
	awaitRest(t, temporal, s.idle)

	s.active = newRoad(t, api, "active", slow(20*time.Millisecond), nil)
	s.active.publish(testkit.Lines(t, "sdk-go"))
	s.paused.control(contract.ControlPause)
	s.until.call(http.MethodPost, "/v1/subscribers/until/pause", map[string]any{"until": time.Now().Add(stateLasts)}, nil)
	for r, state := range map[*road]string{
		s.idle: "idle", s.paused: contract.StatePaused, s.until: contract.StatePaused, s.asked: contract.StateWaiting, s.waiting: contract.StateWaiting,
		s.retrying: contract.StateRetrying, s.halted: contract.StateHalted, s.disabled: contract.StateDisabled,
	} {
		if r != s.idle {
			r.publish(numbered(stateTotal - stateFirst))
		}
		s.stood[r] = r.awaitStatus(waitMax, state, func(status roadStatus) bool { return status.State == state && status.inForce() })
		awaitRest(t, temporal, r)
	}
	s.deleting.publish(numbered(1))
	s.deleting.consumer.WaitFor(t, stateFirst+1, waitMax)
	s.deleting.call(http.MethodDelete, "/v1/subscribers/deleting", nil, nil)
	if s.createdAgain() {
		t.Fatal("the id of a subscriber whose request hangs was given up with it: this shows nothing")
	}
	s.active.consumer.WaitFor(t, 50, waitMax)
	return s
}

// road adds a subscriber with a few events behind it. The answer is to the next.
func (s *states) road(name string, answer testkit.Answer) *road {
	s.t.Helper()
	script := func(n int, _ *testkit.Request) testkit.Answer {
		if n == stateFirst+1 {
			return answer
		}
		return testkit.Answer{}
	}
	r := newRoad(s.t, s.api, name, script, map[string]any{
		"retry": map[string]any{"schedule": []string{strconv.Itoa(int(stateLasts.Seconds())) + "s"}, "eventAttempts": 1},
	})
	r.publish(numbered(stateFirst))
	r.awaitCursor(waitMax, stateFirst)
	return r
}

func wantsWait(wait time.Duration) testkit.Answer {
	return testkit.Answer{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {strconv.Itoa(int(wait.Seconds()))}}}
}

// all are the subscribers that live.
func (s *states) all() []*road {
	return []*road{s.active, s.idle, s.paused, s.until, s.asked, s.waiting, s.retrying, s.halted, s.disabled}
}

// moved takes in that the stack has other addresses.
func (s *states) moved(api *apiclient.Client, temporal client.Client) {
	s.api, s.temporal = api, temporal
	for _, r := range append(s.all(), s.deleting) {
		r.api = api
	}
}

// createdAgain creates the deleted subscriber anew unless its id is still taken.
func (s *states) createdAgain() bool {
	s.t.Helper()
	_, err := s.api.Do(s.t.Context(), apiclient.Request{Method: http.MethodPost, Path: "/v1/subscribers", In: map[string]any{
		"id": "deleting", "feed": "deleting", "endpoint": map[string]any{"url": s.deleting.consumer.URL()},
	}}, nil)
	var problem *apiclient.Problem
	if err != nil && (!errors.As(err, &problem) || problem.Status != http.StatusConflict) {
		s.t.Fatalf("create deleting again: %v", err)
	}
	return err == nil
}

// check looks at what is left of the states after all workflows were lost. A
// moment ago somebody was there again who can rebuild them.
func (s *states) check() {
	s.t.Helper()
	there := time.Now()
	s.checkStands(s.idle, s.paused, s.until, s.asked, s.waiting, s.retrying, s.halted, s.disabled)
	published := time.Now()
	s.idle.publish(numbered(1))
	s.checkRebuilt(s.idle, published, wokenMax)
	s.checkDeleted(there)
	s.checkRebuilt(s.active, there, sweptMax)
	s.checkRebuilt(s.until, *s.stood[s.until].PausedUntil, sweptMax)
	s.checkRebuilt(s.waiting, *s.stood[s.waiting].RetryAt, sweptMax)
	s.checkRebuilt(s.retrying, *s.stood[s.retrying].RetryAt, sweptMax)
	// These wait for a person, or for an hour, and have done so for minutes now.
	for _, r := range []*road{s.paused, s.asked, s.halted, s.disabled} {
		s.checkStands(r)
		resumed := time.Now()
		r.control(contract.ControlResume)
		s.checkRebuilt(r, resumed, wokenMax)
	}
	s.active.consumer.SetScript(nil)
	s.active.awaitCursor(deliveredMax, len(testkit.Lines(s.t, "sdk-go")))
	for _, r := range s.all()[1:] {
		r.checkOnce(s.stood[r], r == s.idle)
	}
}

// checkOnce fails the test unless all that the state held back came, in order,
// and nothing twice but what was refused before.
func (r *road) checkOnce(stood roadStatus, more bool) {
	r.t.Helper()
	total := stateTotal
	if more {
		total++
	}
	r.awaitCursor(waitMax, total)
	requests := r.consumer.Requests()
	if stood.LastError != "" {
		requests = slices.Delete(requests, stateFirst, stateFirst+1)
	}
	onceInOrder(r.t, requests, total)
}

// checkStands fails the test unless the subscribers are as they were.
func (s *states) checkStands(roads ...*road) {
	s.t.Helper()
	same := func(a, b *time.Time) bool { return a == b || a != nil && b != nil && a.Equal(*b) }
	for _, r := range roads {
		now, was := r.status(), s.stood[r]
		if now.State != was.State || now.Cursor != was.Cursor || !same(now.RetryAt, was.RetryAt) || !same(now.PausedUntil, was.PausedUntil) {
			s.t.Errorf("%s: its status is %+v, was %+v", r.name, now, was)
		}
		if n := len(since(r.consumer.Requests(), s.lost)); n > 0 {
			s.t.Errorf("%s: %d requests came", r.name, n)
		}
	}
}

// checkRebuilt waits for a new run of a subscriber that had something to do
// from a moment on, and for its first request, which is not to come earlier.
func (s *states) checkRebuilt(r *road, due time.Time, most time.Duration) {
	s.t.Helper()
	var started time.Time
	testkit.Eventually(s.t, time.Until(due)+2*most, func() bool {
		run, err := s.temporal.DescribeWorkflowExecution(s.t.Context(), contract.SubscriberWorkflowID(r.name), "")
		info := run.GetWorkflowExecutionInfo()
		started = info.GetStartTime().AsTime()
		return err == nil && info.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING && started.After(s.lost)
	}, r.name+" has a new run")
	request := r.awaitSince(started, 1, most)
	s.t.Logf("%s: a new run %.1f s after it had something to do, its request after %.1f s", r.name, started.Sub(due).Seconds(), request.At.Sub(due).Seconds())
	if late := request.At.Sub(due); late > most {
		s.t.Errorf("%s: a request came %s after it had something to do", r.name, late)
	}
	if first := r.awaitSince(s.lost, 1, 0); r != s.active && first.At.Before(due) {
		s.t.Errorf("%s: a request came %s before the end of its wait", r.name, due.Sub(first.At))
	}
}

// checkDeleted waits until the id of the deleted subscriber can be had again,
// and for an event of the new one.
func (s *states) checkDeleted(there time.Time) {
	s.t.Helper()
	s.deleting.consumer.Release()
	testkit.Eventually(s.t, sweptMax, s.createdAgain, "the tombstone is gone")
	s.t.Logf("the id of the deleted one was free %.1f s later", time.Since(there).Seconds())
	again := time.Now()
	s.deleting.publish(numbered(1))
	if first := s.deleting.awaitSince(again, 1, wokenMax); firstOf(s.t, first) != stateFirst+2 {
		s.t.Errorf("the new subscriber got event %d first, want the one published since", firstOf(s.t, first))
	}
}

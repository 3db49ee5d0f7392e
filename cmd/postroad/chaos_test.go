//go:build chaos

package main_test

import (
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	"postroad/contract"
	"postroad/internal/testkit"
)

// What GUARANTEES.md promises of a crash, at the periods of production.
const (
	repeatsMax   = 500 // settled events, beyond what was in flight
	repeatAgeMax = 200 * time.Millisecond
	// measureMax is how much older an event may look from the consumer's side,
	// which cannot see when its answer was read.
	measureMax = 50 * time.Millisecond
	recoverMax = time.Minute
	// arriveMax is how long a request of a dead process may take to be read by
	// the consumer.
	arriveMax    = 100 * time.Millisecond
	deliveredMax = 3 * time.Minute
)

// rig is a stack that is killed and started again, with its roads.
type rig struct {
	t     *testing.T
	dir   string
	child *child
	roads []*road
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: devDir(t)}
	r.child, _ = startDev(t, r.dir, "--json")
	return r
}

// road adds a road.
func (r *rig) road(name string, script testkit.Script, settings map[string]any) *road {
	r.t.Helper()
	road := newRoad(r.t, r.child.ready(r.dir), name, script, settings)
	r.roads = append(r.roads, road)
	return road
}

// restart starts the stack again and returns when the command was given.
func (r *rig) restart() time.Time {
	r.t.Helper()
	<-time.After(arriveMax)
	command := time.Now()
	child, api := startDev(r.t, r.dir, "--json")
	r.child = child
	for _, road := range r.roads {
		road.api = api
	}
	r.t.Logf("ready %.1f s after the restart command", time.Since(command).Seconds())
	return command
}

// before and since are the requests that arrived before a moment, and since.
func before(all []testkit.Request, moment time.Time) []testkit.Request {
	return all[:cut(all, moment)]
}

func since(all []testkit.Request, moment time.Time) []testkit.Request { return all[cut(all, moment):] }

func cut(all []testkit.Request, moment time.Time) int {
	if i := slices.IndexFunc(all, func(r testkit.Request) bool { return r.At.After(moment) }); i >= 0 {
		return i
	}
	return len(all)
}

// awaitSince waits until n requests have arrived since a moment, and returns
// the first.
func (r *road) awaitSince(moment time.Time, n int, most time.Duration) testkit.Request {
	r.t.Helper()
	return r.consumer.WaitFor(r.t, len(before(r.consumer.Requests(), moment))+n, most)[cut(r.consumer.Requests(), moment)]
}

// checkCrash looks at what a crash and the restart at command cost a road.
func (r *road) checkCrash(command time.Time) {
	r.t.Helper()
	took := r.checkRepeats(command).At.Sub(command)
	r.t.Logf("%s: delivering %.1f s after the restart command", r.name, took.Seconds())
	if took > recoverMax {
		r.t.Errorf("%s: delivering again after %s", r.name, took)
	}
}

// checkRepeats looks at what is sent again since a moment at which the one that
// delivered was gone, and returns the first request: nothing is left out, and
// only a suffix of what was sent is repeated, as short and as young as promised.
func (r *road) checkRepeats(gone time.Time) testkit.Request {
	r.t.Helper()
	all := r.consumer.Requests()
	sent, again := before(all, gone), since(all, gone)
	if len(sent) == 0 || len(again) == 0 {
		r.t.Fatalf("%s: %d requests before the crash, %d after it", r.name, len(sent), len(again))
	}
	last, first := sent[len(sent)-1], again[0]
	inFlight := lastOf(r.t, last) - firstOf(r.t, last) + 1
	repeats := lastOf(r.t, last) + 1 - firstOf(r.t, first)
	if repeats < 0 {
		r.t.Fatalf("%s: after event %d came event %d", r.name, lastOf(r.t, last), firstOf(r.t, first))
	}
	age := ageOf(r.t, sent, firstOf(r.t, first))
	r.t.Logf("%s: %d events repeated (%d were in flight), the oldest settled %d ms before the last request",
		r.name, repeats, inFlight, age.Milliseconds())
	if repeats > max(repeatsMax, inFlight)+inFlight {
		r.t.Errorf("%s: %d events were repeated", r.name, repeats)
	}
	if age > repeatAgeMax+measureMax {
		r.t.Errorf("%s: the oldest event repeated had been settled %s before the last request", r.name, age)
	}
	return first
}

// ageOf is how long before the last request the event was answered; 0 if the
// last request brought it.
func ageOf(t *testing.T, sent []testkit.Request, sequence int) time.Duration {
	t.Helper()
	last := sent[len(sent)-1]
	for _, r := range slices.Backward(sent[:len(sent)-1]) {
		if firstOf(t, r) <= sequence && sequence <= lastOf(t, r) {
			return last.At.Sub(r.At.Add(r.Took))
		}
	}
	return 0
}

// checkOrder fails the test unless 1 to n all came, each request going on where
// the one before ended. A repeat may begin at the first request since each of
// the moments, and nowhere else.
func (r *road) checkOrder(n int, moments ...time.Time) {
	r.t.Helper()
	next := 1
	var at time.Time
	for _, request := range r.consumer.Requests() {
		first := firstOf(r.t, request)
		crashed := slices.ContainsFunc(moments, func(m time.Time) bool { return at.Before(m) && request.At.After(m) })
		if first > next || first < next && !crashed {
			r.t.Fatalf("%s: request %d brings event %d, want %d", r.name, request.N, first, next)
		}
		next, at = lastOf(r.t, request)+1, request.At
	}
	if next != n+1 {
		r.t.Fatalf("%s: the last event that came is %d, want %d", r.name, next-1, n)
	}
}

// TestChaosKillTree kills everything in mid-run, three times; the last time
// PostgreSQL has stood still for a while, so that nothing could be written down.
func TestChaosKillTree(t *testing.T) {
	events := testkit.Lines(t, "sdk-go")
	r := newRig(t)
	single := r.road("single", slow(time.Millisecond), nil)
	r.road("batches", slow(120*time.Millisecond), map[string]any{"batchSize": 100, "format": "raw"})
	for _, road := range r.roads {
		road.publish(events)
	}
	var commands []time.Time
	for round := range 3 {
		r.run(10)
		single.consumer.WaitFor(t, single.consumer.Count()+1000, recoverMax)
		if round == 2 {
			single.consumer.SetScript(nil) // as many as can be
			r.freezePostgres()
		}
		r.child.killTree()
		command := r.restart()
		commands = append(commands, command)
		for _, road := range r.roads {
			road.awaitSince(command, 1, recoverMax)
			road.checkCrash(command)
		}
	}
	for _, road := range r.roads {
		road.awaitCursor(deliveredMax, len(events))
		road.checkOrder(len(events), commands...)
	}
}

// freezePostgres stops PostgreSQL's processes where they are, and waits until
// nothing is sent any more.
func (r *rig) freezePostgres() {
	r.t.Helper()
	frozen := time.Now()
	for _, pid := range descendants(r.child.cmd.Process.Pid) {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	for _, road := range r.roads {
		var last time.Time
		testkit.Eventually(r.t, waitMax, func() bool {
			all := road.consumer.Requests()
			last = all[len(all)-1].At
			return road.consumer.InFlight() == 0 && time.Since(last) > time.Second
		}, road.name+" sends nothing without PostgreSQL")
		r.t.Logf("%s: the last request began %d ms after PostgreSQL stood still", road.name, last.Sub(frozen).Milliseconds())
	}
}

// run lets each road make that many more requests.
func (r *rig) run(requests int) {
	r.t.Helper()
	for _, road := range r.roads {
		road.consumer.WaitFor(r.t, road.consumer.Count()+requests, recoverMax)
	}
}

// TestChaosKillProcess kills the process alone. Its PostgreSQL lives on, and the
// next start has to come to terms with it.
func TestChaosKillProcess(t *testing.T) {
	t.Parallel()
	events := testkit.Lines(t, "sdk-go")[:6000]
	r := newRig(t)
	road := r.road("orphan", slow(time.Millisecond), nil)
	road.publish(events)
	r.run(1500)
	orphans := descendants(r.child.cmd.Process.Pid)
	r.child.kill()
	if !slices.ContainsFunc(orphans, alive) {
		t.Fatal("PostgreSQL died with the process: this shows nothing")
	}
	command := r.restart()
	road.awaitSince(command, 1, recoverMax)
	road.checkCrash(command)
	road.awaitCursor(deliveredMax, len(events))
	road.checkOrder(len(events), command)
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// postmaster is the process of the stack's PostgreSQL.
func (r *rig) postmaster() int {
	r.t.Helper()
	for _, pid := range descendants(r.child.cmd.Process.Pid) {
		// The first to come is the oldest: those of the cluster are below it.
		if name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm"); err == nil && strings.HasPrefix(string(name), "postgres") {
			return pid
		}
	}
	r.t.Fatal("no PostgreSQL runs below the stack")
	return 0
}

// temporal is a client of the stack's Temporal.
func (r *rig) temporal() client.Client {
	r.t.Helper()
	return dialTemporal(r.t, temporalAddress(r.t, &r.child.stdout))
}

// TestChaosRetryAfter: a wait that the consumer asked for survives a crash of
// everything, to its end, and is followed by a probe.
func TestChaosRetryAfter(t *testing.T) {
	t.Parallel()
	const wait, lateMax, total, asked = 20 * time.Second, 5 * time.Second, 100, 4
	r := newRig(t)
	road := r.road("asked", asksOnce(asked, wait), map[string]any{"batchSize": 10})
	road.publish(numbered(total))
	road.awaitStatus(waitMax, "waiting", func(s roadStatus) bool { return s.State == "waiting" })
	temporal := r.temporal()
	testkit.Eventually(t, waitMax, func() bool {
		run, err := temporal.DescribeWorkflowExecution(t.Context(), contract.SubscriberWorkflowID(road.name), "")
		return err == nil && len(run.GetPendingActivities()) == 0 && run.GetPendingWorkflowTask() == nil
	}, "the run waits too")
	answered := road.consumer.Requests()[asked-1]
	end := answered.At.Add(answered.Took).Add(wait)
	r.child.killTree()
	command := r.restart()
	first := road.awaitSince(command, 1, recoverMax+wait)
	t.Logf("the first request came %.2f s after the wait's end, %.1f s after the restart command", first.At.Sub(end).Seconds(), first.At.Sub(command).Seconds())
	if first.At.Before(end) {
		t.Errorf("a request came %s before the end of the Retry-After", end.Sub(first.At))
	}
	if first.At.Sub(end) > lateMax {
		t.Errorf("the first request came %s after the wait's end", first.At.Sub(end))
	}
	if firstOf(t, first) != firstOf(t, answered) || lastOf(t, first) != firstOf(t, answered) {
		t.Errorf("it brought events %d to %d, want a probe of event %d alone", firstOf(t, first), lastOf(t, first), firstOf(t, answered))
	}
	road.awaitCursor(waitMax, total)
	onceInOrder(t, slices.Delete(road.consumer.Requests(), asked-1, asked), total)
}

// asksOnce answers the n-th request with a Retry-After.
func asksOnce(n int, wait time.Duration) testkit.Script {
	return func(i int, _ *testkit.Request) testkit.Answer {
		if i == n {
			return testkit.Answer{Status: 429, Header: map[string][]string{"Retry-After": {strconv.Itoa(int(wait.Seconds()))}}}
		}
		return testkit.Answer{}
	}
}

// TestChaosTerminate stops a stack in order while it delivers: nothing that was
// answered is repeated, and what is not answered in time is all that is.
func TestChaosTerminate(t *testing.T) {
	t.Parallel()
	const stopWithin, patience, total = 30 * time.Second, 5, 20
	r := newRig(t)
	busy := r.road("busy", slow(time.Millisecond), nil)
	sluggish := r.road("sluggish", slow(time.Second), nil)
	busy.publish(testkit.Lines(t, "sdk-go"))
	sluggish.publish(numbered(total))
	r.run(3)
	took := r.child.terminate()
	t.Logf("with a consumer that answers after 1 s it stopped in %.1f s", took.Seconds())
	if took > stopWithin {
		t.Errorf("it took %s to stop", took)
	}

	first := r.restart()
	sluggish.consumer.SetScript(nil)
	hanging := r.road("hanging", func(n int, _ *testkit.Request) testkit.Answer {
		if n == patience {
			return testkit.Answer{Hang: testkit.Forever}
		}
		return testkit.Answer{}
	}, nil)
	hanging.call(http.MethodPatch, "/v1/subscribers/hanging", map[string]any{"endpoint": map[string]any{"timeout": "60s"}}, nil)
	hanging.publish(numbered(total))
	hanging.consumer.WaitFor(t, patience, waitMax)
	busy.awaitSince(first, 100, recoverMax)
	took = r.child.terminate()
	t.Logf("with a consumer that hangs it stopped in %.1f s", took.Seconds())
	if took > stopWithin {
		t.Errorf("it took %s to stop", took)
	}

	second := r.restart()
	t.Logf("busy: delivering %.1f s after the first restart command, %.1f s after the second",
		busy.awaitSince(first, 1, recoverMax).At.Sub(first).Seconds(), busy.awaitSince(second, 1, recoverMax).At.Sub(second).Seconds())
	for road, n := range map[*road]int{busy: len(testkit.Lines(t, "sdk-go")), sluggish: total, hanging: total} {
		road.awaitCursor(deliveredMax, n)
	}
	onceInOrder(t, busy.consumer.Requests(), len(testkit.Lines(t, "sdk-go")))
	onceInOrder(t, sluggish.consumer.Requests(), total)
	onceInOrder(t, slices.Delete(hanging.consumer.Requests(), patience-1, patience), total)
}

package activities_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
	"postroad/store"
)

const (
	day = 24 * time.Hour
	// outageBacklog is published before an outage, outageEach while it lasts.
	outageBacklog, outageEach = 150, 10
	// outageLate is how much of a wait may have passed when Deliver tells of it.
	outageLate = 4 * time.Second
)

// outage is an endpoint that is down, on a clock that the test moves: the row's
// times are moved back instead.
type outage struct {
	*bundle
	passed    time.Duration // since the first request
	last      time.Duration // the last wait
	step      int           // of the schedule: failures since the last resume
	delivers  int
	published int
}

// newOutage makes a subscriber with the default schedule to an endpoint that is
// down, and a backlog.
func newOutage(t *testing.T, url string, batch int, changes ...func(*event.Subscriber)) *outage {
	t.Helper()
	o := &outage{bundle: setup(t)}
	o.create(url, func(s *event.Subscriber) {
		s.BatchSize, s.Retry.Schedule = event.Count(batch), event.ScheduleDefault()
		for _, change := range changes {
			change(s)
		}
	})
	o.more(outageBacklog)
	return o
}

func (o *outage) more(n int) {
	o.t.Helper()
	o.published = int(o.publish(properties(n)...).Last)
}

// pass lets time pass for the row: each time in it is that much longer ago.
func (o *outage) pass(d time.Duration) {
	o.t.Helper()
	o.exec(`UPDATE runs SET not_before = not_before - $1::interval, failing_since = failing_since - $1::interval,
		failing_at = failing_at - $1::interval, wake_at = wake_at - $1::interval,
		paused_until = paused_until - $1::interval, last_delivered_at = last_delivered_at - $1::interval,
		checked_at = checked_at - $1::interval`, d)
	o.exec(`UPDATE held_keys SET not_before = not_before - $1::interval, since = since - $1::interval`, d)
	o.exec(`UPDATE replays SET failing_at = failing_at - $1::interval`, d)
	o.passed += d
}

// fail delivers as the workflow would until that much time has passed since the
// first request, or until the subscriber halts. Each Deliver fails, and each
// wait is the schedule's next; something new is published meanwhile.
func (o *outage) fail(until time.Duration) (result contract.DeliverResult) {
	o.t.Helper()
	for o.passed < until {
		result = o.deliver()
		o.delivers++
		o.more(outageEach)
		if result.Outcome == contract.OutcomeHalted {
			return result
		}
		o.last = time.Duration(result.RemainingMillis) * time.Millisecond
		least, most := o.bounds(o.step)
		if result.Outcome != contract.OutcomeBackoff || result.State != contract.StateRetrying || o.last > most || o.last < least-outageLate {
			o.t.Fatalf("failure %d in a row after %s: %+v, want a wait of %s to %s", o.step+1, o.passed, result, least, most)
		}
		o.step++
		o.pass(o.last)
	}
	return result
}

// bounds are the least and the most that a step of the schedule lasts.
func (o *outage) bounds(step int) (least, most time.Duration) {
	schedule := event.ScheduleDefault()
	d := schedule[min(step, len(schedule)-1)].Std()
	return d - d/10, d + d/10
}

// requestsWithin are the fewest and the most requests that the schedule makes in
// that time.
func (o *outage) requestsWithin(d time.Duration) (least, most int) {
	for early, late := time.Duration(0), time.Duration(0); early < d; most++ {
		shortest, longest := o.bounds(most)
		if late < d {
			least++
		}
		early, late = early+shortest-outageLate, late+longest
	}
	return least, most
}

// failed are the requests that were not answered 2xx, as recorded.
func (o *outage) failed() (n int) {
	o.t.Helper()
	check(o.t, o.pool.QueryRow(o.t.Context(), `SELECT count(*) FROM attempts WHERE class <> 'success'`).Scan(&n))
	return n
}

// wantNothingSettled checks what an outage leaves in the row: the position of
// before, and no event to blame but by its own answers.
func (o *outage) wantNothingSettled(requests int) {
	o.t.Helper()
	if row := o.row(); row.Cursor != 0 || len(row.Settled) > 0 || row.Disabled || row.Lease != nil {
		o.t.Errorf("after the outage: %+v", row)
	}
	testkit.Eventually(o.t, waitMax, func() bool { return o.failed() >= requests }, "the requests are recorded")
	if got := o.failed(); got != requests {
		o.t.Errorf("%d requests, want %d", got, requests)
	}
}

// wantAll checks that the mended endpoint gets everything, in order, each event
// once, and that nothing of the outage is left.
func (o *outage) wantAll(r *testkit.Receiver, since int) {
	o.t.Helper()
	failed := o.failed()
	o.drive(contract.OutcomeParked)
	o.more(outageEach)
	o.drive(contract.OutcomeParked)
	requests := r.Requests()[since:]
	wantSequence(o.t, arrivals(o.t, requests, all), o.published)
	if first := arrivals(o.t, requests[:1], all); len(first) != 1 {
		o.t.Errorf("the first request brought %d events, want a probe", len(first))
	}
	row := o.row()
	if row.Cursor != int64(o.published) || row.Failures != 0 || row.FailingSince != nil || row.EventAttempt != 0 || row.LastError != nil {
		o.t.Errorf("when all has arrived: %+v", row)
	}
	if now := o.failed(); now != failed {
		o.t.Errorf("%d requests failed after the endpoint was mended", now-failed)
	}
}

// refusing reserves a port that refuses connections until listen is called.
func refusing(t *testing.T) (url string, listen func() net.Listener) {
	t.Helper()
	syscall.ForkLock.RLock()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(socket)
	}
	syscall.ForkLock.RUnlock()
	check(t, err)
	file := os.NewFile(uintptr(socket), "endpoint")
	t.Cleanup(func() { _ = file.Close() })
	check(t, syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	name, err := syscall.Getsockname(socket)
	check(t, err)
	return fmt.Sprintf("http://127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port), func() net.Listener {
		check(t, syscall.Listen(socket, 16))
		listener, err := net.FileListener(file)
		check(t, err)
		return listener
	}
}

func always(status int) testkit.Script {
	return func(int, *testkit.Request) testkit.Answer { return testkit.Answer{Status: status} }
}

func eachBatch(t *testing.T, f func(t *testing.T, batch int)) {
	t.Helper()
	for _, batch := range []int{1, 100} {
		t.Run(fmt.Sprintf("batch %d", batch), func(t *testing.T) {
			t.Parallel()
			f(t, batch)
		})
	}
}

// TestOutage leaves an endpoint down for three days, while more is published.
// It is asked as often as the schedule says; mended, it gets everything.
func TestOutage(t *testing.T) {
	t.Parallel()
	const threeDays = 3 * day
	// failing goes through an outage that no event is to blame for.
	failing := func(o *outage) {
		o.t.Helper()
		if result := o.fail(threeDays); result.Outcome != contract.OutcomeBackoff {
			o.t.Fatalf("after %s: %+v", o.passed, result)
		}
		least, most := o.requestsWithin(threeDays)
		o.t.Logf("%d requests in %s, the schedule makes %d to %d", o.delivers, o.passed, least, most)
		if o.delivers < least || o.delivers > most {
			o.t.Errorf("%d requests in %s, want %d to %d", o.delivers, o.passed, least, most)
		}
		row := o.row()
		if row.HaltedReason != nil || row.EventAttempt != 0 || row.Failures != o.delivers {
			o.t.Errorf("after %s: %+v", o.passed, row)
		}
		if row.FailingSince == nil || row.Now.Sub(*row.FailingSince) < o.passed {
			o.t.Errorf("failing since %v, %s have passed", row.FailingSince, o.passed)
		}
		o.wantNothingSettled(o.delivers)
	}
	t.Run("refuses connections", func(t *testing.T) {
		t.Parallel()
		eachBatch(t, func(t *testing.T, batch int) {
			url, listen := refusing(t)
			o := newOutage(t, url, batch)
			failing(o)
			o.wantAll(testkit.NewReceiver(t, testkit.ReceiverOptions{Listener: listen()}), 0)
		})
	})
	t.Run("answers 503", func(t *testing.T) {
		t.Parallel()
		eachBatch(t, func(t *testing.T, batch int) {
			r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: always(503)})
			o := newOutage(t, r.URL(), batch)
			failing(o)
			r.SetScript(nil)
			o.wantAll(r, o.delivers)
		})
	})
	// The answer blames the event, so the subscriber halts, and nobody but an
	// operator can say that the event is not at fault. One looks every six hours.
	t.Run("answers 500", func(t *testing.T) {
		t.Parallel()
		eachBatch(t, func(t *testing.T, batch int) {
			const looksEach, attempts = 6 * time.Hour, 5
			r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: always(500)})
			o := newOutage(t, r.URL(), batch)
			requests := 0
			for n := batch; n > 1; n /= 2 {
				requests++ // a batch is halved at once, and only once
			}
			for o.passed < threeDays {
				result := o.fail(threeDays + looksEach)
				requests += attempts
				const sentence = "halted: event 1 (Property) was refused 5 times, last answer HTTP 500 from the consumer"
				if result.Outcome != contract.OutcomeHalted || result.State != contract.StateHalted || result.Reason != sentence || o.step != attempts-1 {
					t.Fatalf("after %d waits: %+v", o.step, result)
				}
				o.pass(looksEach)
				if again := o.deliver(); again.Outcome != contract.OutcomeHalted || r.Count() != requests {
					t.Fatalf("halted: %+v, %d requests, want %d", again, r.Count(), requests)
				}
				o.control(store.ControlResume)
				o.step = 0
			}
			t.Logf("%d requests in %s", r.Count(), o.passed)
			o.wantNothingSettled(requests)
			r.SetScript(nil)
			o.wantAll(r, requests)
		})
	})
}

// TestOutageGivenUp leaves an endpoint down for longer than giveUpAfter. A
// resume begins the schedule anew, whether the endpoint is mended or not.
func TestOutageGivenUp(t *testing.T) {
	t.Parallel()
	eachBatch(t, func(t *testing.T, batch int) {
		const giveUpAfter = 7 * day
		url, listen := refusing(t)
		o := newOutage(t, url, batch)
		result := o.fail(2 * giveUpAfter)
		const sentence = "halted: the endpoint failed for 7d without a break, last: connection refused by "
		if result.Outcome != contract.OutcomeHalted || result.State != contract.StateHalted || !strings.HasPrefix(result.Reason, sentence) {
			t.Fatalf("after %s: %+v", o.passed, result)
		}
		if o.passed < giveUpAfter-time.Minute || o.passed-o.last >= giveUpAfter {
			t.Errorf("halted after %s, and not %s earlier", o.passed, o.last)
		}
		t.Logf("halted after %d requests in %s", o.delivers, o.passed)
		o.pass(day)
		if again := o.deliver(); again.Outcome != contract.OutcomeHalted {
			t.Fatalf("a day later: %+v", again)
		}
		o.wantNothingSettled(o.delivers)

		o.control(store.ControlResume)
		o.step = 0
		if result := o.fail(o.passed + day); result.Outcome != contract.OutcomeBackoff {
			t.Fatalf("resumed: %+v", result)
		}
		o.wantNothingSettled(o.delivers)
		o.wantAll(testkit.NewReceiver(t, testkit.ReceiverOptions{Listener: listen()}), 0)
	})
}

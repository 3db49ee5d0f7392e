package activities_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"postroad/contract"
	"postroad/internal/testkit"
	"postroad/store"
)

// childURLEnv names the database that a child process delivers from.
const childURLEnv = "POSTROAD_TEST_CHILD_DATABASE"

// child is a worker process: it delivers to acme until it is killed.
func child(url string) {
	b := &bundle{url: url}
	if _, err := b.open(fast); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	b.follow(context.Background(), "acme")
}

// spawn starts a worker process and returns how to kill it.
func (b *bundle) spawn() (kill func()) {
	b.t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), childURLEnv+"="+b.url)
	command.Stderr = os.Stderr
	check(b.t, command.Start())
	kill = sync.OnceFunc(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	b.t.Cleanup(kill)
	return kill
}

// publishStream publishes the first n events of a real stream.
func (b *bundle) publishStream(name string, n int) int {
	b.t.Helper()
	events := stream(b.t, name)[:n]
	for from := 0; from < n; from += 1000 {
		b.publish(events[from:min(from+1000, n)]...)
	}
	return n
}

// wantRepeats checks that arrivals are 1 to n in order, but for stretches that
// were sent again: not more often than times, none longer than most.
func wantRepeats(t *testing.T, got []int64, n, times, most int) {
	t.Helper()
	next, repeats := int64(1), 0
	for i, sequence := range got {
		switch {
		case sequence == next:
		case sequence > next:
			t.Fatalf("arrival %d is event %d: %d is missing", i+1, sequence, next)
		default:
			repeats++
			if again := next - sequence; again > int64(most) {
				t.Errorf("%d events came again, want at most %d", again, most)
			}
		}
		next = sequence + 1
	}
	if next != int64(n+1) {
		t.Errorf("arrived up to %d, want %d", next-1, n)
	}
	if repeats > times {
		t.Errorf("went back %d times, want at most %d", repeats, times)
	}
}

func TestProcessKilled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := b.publishStream("sdk-go", 6000)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	b.create(r.URL(), nil)
	for _, at := range []int{1000, 2500, 4000} {
		kill := b.spawn()
		r.WaitFor(t, at, waitMax)
		kill()
	}
	killed := r.Count()
	b.drive(contract.OutcomeParked)
	requests := r.Requests()
	wantRepeats(t, arrivals(t, requests, all), n, 3, 501)
	if requests[killed-1].N != killed || len(requests) == killed {
		t.Error("nothing was left for the last process")
	}
	if r.MaxInFlight() > 2 { // one of a process that is gone, one of its successor
		t.Errorf("%d requests at once", r.MaxInFlight())
	}
}

// TestProcessKilledBehindRetryAfter kills the process when the wait is in the
// row but Deliver has not returned: what it reads then is locked.
func TestProcessKilledBehindRetryAfter(t *testing.T) {
	t.Parallel()
	const asked = 2 * time.Second
	b := setup(t)
	n := b.publishStream("sdk-go", 300)
	var script answers
	var release func()
	var answeredAt time.Time
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, q *testkit.Request) testkit.Answer {
		if n != 100 {
			return script.note(n, testkit.Answer{})
		}
		release = b.hold("LOCK TABLE subscribers")
		answeredAt = time.Now()
		return script.note(n, testkit.Answer{Status: 429, Header: http.Header{"Retry-After": {"2"}}})
	}})
	b.create(r.URL(), nil)
	kill := b.spawn()
	r.WaitAnswered(t, 100, waitMax)
	testkit.Eventually(t, waitMax, func() bool { return b.row().NotBefore != nil }, "the wait is in the row")
	until := b.row().NotBefore
	kill()
	release()
	result := b.deliver()
	left := time.Duration(result.RemainingMillis) * time.Millisecond
	if result.Outcome != contract.OutcomeBackoff || left > asked || !b.row().NotBefore.Equal(*until) {
		t.Fatalf("after the kill: %+v", result)
	}
	b.drive(contract.OutcomeParked)
	requests := r.Requests()
	if wait := requests[100].At.Sub(answeredAt); wait < asked {
		t.Errorf("the next request came after %v, want %v", wait, asked)
	}
	wantRepeats(t, arrivals(t, requests, script.accepted), n, 0, 0)
}

func TestPostgresKilledBehindRetryAfter(t *testing.T) {
	t.Parallel()
	const asked = 2 * time.Second
	cluster := testkit.Cluster(t)
	check(t, store.Migrate(t.Context(), cluster.URL("postgres")))
	b := setupOn(t, cluster.URL("postgres"))
	n := b.publishStream("sdk-go", 500)
	var script answers
	var answeredAt time.Time
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, q *testkit.Request) testkit.Answer {
		if n != 200 {
			return script.note(n, testkit.Answer{})
		}
		if err := cluster.Kill(); err != nil {
			t.Error(err)
		}
		answeredAt = time.Now()
		return script.note(n, testkit.Answer{Status: 429, Header: http.Header{"Retry-After": {"2"}}})
	}})
	b.create(r.URL(), nil)
	deliver := b.start(t.Context())
	result := deliver.want(contract.OutcomeBackoff)
	left, since := time.Duration(result.RemainingMillis)*time.Millisecond, time.Since(answeredAt)
	// What it takes to reach a server that has just come back is added.
	if left > asked-since/2 || left+since < asked-50*time.Millisecond {
		t.Errorf("%v left %v after the answer", left, since)
	}
	if row := b.row(); row.Cursor != 199 || row.Lease != nil {
		t.Errorf("cursor %d, lease %v", row.Cursor, row.Lease)
	}
	b.drive(contract.OutcomeParked)
	requests := r.Requests()
	if wait := requests[200].At.Sub(answeredAt); wait < asked {
		t.Errorf("the next request came after %v, want %v", wait, asked)
	}
	wantRepeats(t, arrivals(t, requests, script.accepted), n, 0, 0)
}

// TestPostgresKilled kills the server in mid-run again and again: a process
// that lives keeps what it knows, so nothing is even repeated.
func TestPostgresKilled(t *testing.T) {
	t.Parallel()
	cluster := testkit.Cluster(t)
	check(t, store.Migrate(t.Context(), cluster.URL("postgres")))
	b := setupOn(t, cluster.URL("postgres"))
	n := b.publishStream("sdk-go", 5000)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	b.create(r.URL(), nil)
	b.followAll("acme")
	for _, at := range []int{500, 1700, 2900, 4100} {
		r.WaitFor(t, at, waitMax)
		check(t, cluster.Kill())
	}
	r.WaitFor(t, n, waitMax)
	testkit.Eventually(t, waitMax, func() bool {
		row, err := b.store.Run(t.Context(), "acme")
		return err == nil && row.Cursor == int64(n)
	}, "the last position is written")
	wantRepeats(t, arrivals(t, r.Requests(), all), n, 0, 0)
}

package activities_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"postroad/activities"
	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
	"postroad/store"
)

// valve is a way to PostgreSQL that can be shut: connections stay, but nothing
// passes, as if the server's host had stopped.
type valve struct {
	url      string
	listener net.Listener
	all      sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	way   chan struct{} // closed while it is open
}

func newValve(t *testing.T, target string) *valve {
	t.Helper()
	u, err := url.Parse(target)
	check(t, err)
	server := u.Host
	v := &valve{way: make(chan struct{})}
	close(v.way)
	v.listener, err = net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	u.Host = v.listener.Addr().String()
	v.url = u.String()
	v.all.Go(func() {
		for {
			client, err := v.listener.Accept()
			if err != nil {
				return
			}
			backend, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				continue
			}
			v.mu.Lock()
			v.conns = append(v.conns, client, backend)
			v.mu.Unlock()
			v.all.Go(func() { v.copy(backend, client) })
			v.all.Go(func() { v.copy(client, backend) })
		}
	})
	t.Cleanup(func() {
		v.listener.Close()
		v.open()
		v.mu.Lock()
		for _, c := range v.conns {
			c.Close()
		}
		v.mu.Unlock()
		v.all.Wait()
	})
	return v
}

func (v *valve) copy(to, from net.Conn) {
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		v.mu.Lock()
		way := v.way
		v.mu.Unlock()
		<-way
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				from.Close()
			}
			return
		}
	}
}

func (v *valve) shut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.way = make(chan struct{})
}

func (v *valve) open() {
	v.mu.Lock()
	defer v.mu.Unlock()
	select {
	case <-v.way:
	default:
		close(v.way)
	}
}

// wantQuiet checks that no request arrives for a while.
func wantQuiet(t *testing.T, r *testkit.Receiver, d time.Duration) {
	t.Helper()
	before := r.Count()
	<-time.After(d)
	if after := r.Count(); after != before {
		t.Errorf("%d requests arrived within %v", after-before, d)
	}
}

// TestGateUnsaved holds the checkpoints back by a lock on the row.
func TestGateUnsaved(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, pause time.Duration, change func(*activities.Config)) (b *bundle, r *testkit.Receiver, deliver *running, release func()) {
		t.Parallel()
		b = setup(t, change)
		b.publish(properties(2000)...)
		held := make(chan func(), 1)
		r = testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, _ *testkit.Request) testkit.Answer {
			if n == 50 {
				held <- b.hold("SELECT FROM runs WHERE id = 'acme' FOR UPDATE")
			}
			return testkit.Answer{Hang: pause}
		}})
		b.create(r.URL(), nil)
		deliver = b.start(t.Context())
		return b, r, deliver, <-held
	}
	wantRest := func(t *testing.T, r *testkit.Receiver, deliver *running, release func()) {
		t.Helper()
		release()
		deliver.want(contract.OutcomeParked)
		wantSequence(t, arrivals(t, r.Requests(), all), 2000)
	}

	t.Run("by their number", func(t *testing.T) {
		b, r, deliver, release := begin(t, 0, func(c *activities.Config) { c.UnsavedAge = time.Hour })
		most := int(b.row().Cursor) + 500 // Promise 5.
		r.WaitAnswered(t, most, waitMax)
		wantQuiet(t, r, 300*time.Millisecond)
		if r.Count() != most {
			t.Errorf("%d requests, want %d", r.Count(), most)
		}
		wantRest(t, r, deliver, release)
	})
	t.Run("by their age", func(t *testing.T) {
		_, r, deliver, release := begin(t, time.Millisecond, func(c *activities.Config) { c.UnsavedEvents = 100_000 })
		testkit.Eventually(t, waitMax, func() bool {
			requests := r.Requests()
			return time.Since(requests[len(requests)-1].At) > time.Second
		}, "nothing is sent")
		if r.Count() == 2000 {
			t.Error("all was sent while nothing could be saved")
		}
		wantRest(t, r, deliver, release)
	})
	t.Run("one request may hold more", func(t *testing.T) {
		t.Parallel()
		b := setup(t, func(c *activities.Config) { c.UnsavedEvents = 10 })
		b.publish(properties(150)...)
		r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
		b.create(r.URL(), func(s *event.Subscriber) { s.BatchSize = 50 })
		deliver := b.start(t.Context())
		r.WaitFor(t, 3, 5*time.Second)
		deliver.want(contract.OutcomeParked)
		wantSequence(t, arrivals(t, r.Requests(), all), 150)
	})
}

// TestGateResend breaks the connection of a request once the gate is closed:
// nothing came of it, and still it is not sent again.
func TestGateResend(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		closing  func(*bundle)
		outcome  contract.Outcome
		requests int
	}{
		"open":      {func(*bundle) {}, contract.OutcomeParked, 21},
		"a control": {func(b *bundle) { b.wantInForce(b.control(store.ControlPause).Version) }, contract.OutcomePaused, 5},
		"a drain":   {func(b *bundle) { b.Drain() }, contract.OutcomeInterrupted, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, release := setup(t), make(chan struct{})
			b.publish(properties(20)...)
			r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, _ *testkit.Request) testkit.Answer {
				if n == 5 {
					return testkit.Answer{Until: release, Drop: true}
				}
				return testkit.Answer{}
			}})
			b.create(r.URL(), func(s *event.Subscriber) { s.Endpoint.Timeout = event.Duration(waitMax) })
			deliver := b.start(t.Context())
			r.WaitFor(t, 5, waitMax)
			test.closing(b)
			close(release)
			deliver.want(test.outcome)
			if r.Count() != test.requests {
				t.Errorf("%d requests, want %d", r.Count(), test.requests)
			}
		})
	}
}

// TestGateLease stops PostgreSQL: once the lease cannot be trusted any more,
// nothing is sent.
func TestGateLease(t *testing.T) {
	t.Parallel()
	direct := setup(t)
	v := newValve(t, direct.url)
	b := setupOn(t, v.url, func(c *activities.Config) {
		c.UnsavedAge, c.UnsavedEvents, c.AttemptsQueue = time.Hour, 100_000, 100_000
	})
	direct.publish(properties(450)...)
	shut := make(chan time.Time, 1)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, _ *testkit.Request) testkit.Answer {
		if n == 50 {
			v.shut()
			shut <- time.Now()
		}
		return testkit.Answer{Hang: 2 * time.Millisecond}
	}})
	b.create(r.URL(), nil)
	deliver := b.start(t.Context())
	at := <-shut
	testkit.Eventually(t, waitMax, func() bool { return time.Since(at) > 2*fast.LeaseTrust }, "trust is over")
	wantQuiet(t, r, 300*time.Millisecond)
	requests := r.Requests()
	if late := requests[len(requests)-1].At.Sub(at); late > fast.LeaseTrust+300*time.Millisecond {
		t.Errorf("sent for %v after PostgreSQL was last heard of", late)
	}
	if len(requests) == 450 {
		t.Fatal("there was nothing left to send")
	}
	v.open()
	deliver.want(contract.OutcomeParked)
	wantSequence(t, arrivals(t, r.Requests(), all), 450)
}

// TestGateLost leaves a worker without PostgreSQL, which others still have: it
// leaves its subscriber to them, with a request's answer unsaved.
func TestGateLost(t *testing.T) {
	t.Parallel()
	const total = 300
	setupLost := func(t *testing.T) (direct, b *bundle, v *valve, r *testkit.Receiver) {
		direct = setup(t)
		v = newValve(t, direct.url)
		b = setupOn(t, v.url, func(c *activities.Config) { c.LeaseLost = 500 * time.Millisecond })
		direct.publish(properties(total)...)
		r = testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, _ *testkit.Request) testkit.Answer {
			if n == 50 {
				v.shut()
			}
			return testkit.Answer{Hang: time.Millisecond}
		}})
		b.create(r.URL(), nil)
		b.start(t.Context()).want(contract.OutcomeInterrupted)
		return direct, b, v, r
	}
	t.Run("another worker goes on", func(t *testing.T) {
		t.Parallel()
		direct, b, v, r := setupLost(t)
		sent := r.Count()
		direct.drive(contract.OutcomeParked)
		first, err := strconv.Atoi(r.Requests()[sent].Header.Get("Postroad-Sequence"))
		check(t, err)
		if first > sent+1 {
			t.Errorf("after event %d the other worker went on with event %d", sent, first)
		}
		count := r.Count()
		if _, err := b.Deliver(t.Context(), contract.DeliverInput{Subscriber: "acme"}); err == nil {
			t.Error("a Deliver without PostgreSQL returned no error")
		}
		v.open()
		testkit.Eventually(t, waitMax, func() bool { // all that was held back has arrived
			_, err := b.store.Run(t.Context(), "acme")
			return err == nil
		}, "PostgreSQL is back")
		wantQuiet(t, r, 300*time.Millisecond)
		if row := direct.row(); row.Cursor != total || !row.Parked || r.Count() != count {
			t.Errorf("what was held back came through: parked %t up to %d", row.Parked, row.Cursor)
		}
	})
	t.Run("it goes on itself, after its own position", func(t *testing.T) {
		t.Parallel()
		_, b, v, r := setupLost(t)
		v.open()
		b.drive(contract.OutcomeParked)
		wantSequence(t, arrivals(t, r.Requests(), all), total)
	})
}

// TestGateTrust holds back the answer to a statement that found the lease, and
// meanwhile another run takes it: trust counts from before the statement was
// sent, so nothing is sent when the answer comes.
func TestGateTrust(t *testing.T) {
	t.Parallel()
	const trust = 500 * time.Millisecond
	pass := func(t *testing.T, d time.Duration) {
		t.Helper()
		since := time.Now()
		testkit.Eventually(t, waitMax, func() bool { return time.Since(since) > d }, "time passes")
	}
	const table, row = "LOCK TABLE runs", "SELECT FROM runs FOR UPDATE"
	// An event that is sent has the run's statements prepared: what waits for a
	// lock then is the statement itself.
	sendOne := func(t *testing.T, direct, b *bundle) *running {
		t.Helper()
		deliver := b.start(context.Background())
		testkit.Eventually(t, waitMax, func() bool { return direct.row().Lease != nil }, "the lease is taken")
		pass(t, trust)
		direct.publish(properties(1)...)
		testkit.Eventually(t, waitMax, func() bool { return direct.row().Cursor == 1 }, "the position is written")
		return deliver
	}
	for name, test := range map[string]struct {
		statement string
		touch     time.Duration
		sent      int
		// reach has the statement sent, which waits for the lock then.
		reach func(t *testing.T, direct, b *bundle, lock func(string)) *running
	}{
		"taking": {"%UPDATE runs r SET lease = %", time.Hour, 0, func(_ *testing.T, direct, b *bundle, lock func(string)) *running {
			lock(row)
			return b.start(context.Background())
		}},
		"confirming": {"%SELECT r.id, r.lease, r.desired_version%", time.Hour, 1, func(t *testing.T, direct, b *bundle, lock func(string)) *running {
			deliver := sendOne(t, direct, b)
			lock(table)
			pass(t, trust)
			direct.publish(properties(1)...)
			return deliver
		}},
		"checkpoint": {"%WITH input AS%", 4 * trust, 1, func(t *testing.T, direct, b *bundle, lock func(string)) *running {
			deliver := sendOne(t, direct, b)
			lock(table)
			return deliver
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			direct := setup(t)
			v := newValve(t, direct.url)
			u, err := url.Parse(v.url)
			check(t, err)
			q := u.Query()
			q.Set("pool_max_conns", "1")
			u.RawQuery = q.Encode()
			b := setupOn(t, u.String(), func(c *activities.Config) {
				c.Linger, c.LeaseTrust, c.Touch, c.ControlPoll = time.Hour, trust, test.touch, time.Hour
			})
			r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
			b.create(r.URL(), nil)
			release := func() {}
			deliver := test.reach(t, direct, b, func(sql string) { release = direct.hold(sql) })
			t.Cleanup(v.open)
			testkit.Eventually(t, waitMax, func() bool {
				return direct.sessions(`wait_event_type = 'Lock' AND query LIKE $1`, test.statement)
			}, "the statement is sent")
			v.shut()
			release()
			testkit.Eventually(t, waitMax, func() bool {
				return !direct.sessions(`state = 'active' AND query LIKE $1`, test.statement)
			}, "the statement is done")
			direct.exec(`UPDATE runs SET lease = gen_random_uuid()`)
			pass(t, trust)
			direct.publish(properties(1)...)
			v.open()
			deliver.want(contract.OutcomeFenced)
			if r.Count() != test.sent {
				t.Errorf("%d requests, want %d: the lease was another's", r.Count(), test.sent)
			}
		})
	}
}

// TestGateAttempts holds the attempts' log back by a lock on its table.
func TestGateAttempts(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *activities.Config) { c.AttemptsQueue = 100 })
	b.publish(properties(1000)...)
	held := make(chan func(), 1)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, _ *testkit.Request) testkit.Answer {
		if n == 50 {
			held <- b.hold("LOCK TABLE attempts")
		}
		return testkit.Answer{}
	}})
	b.create(r.URL(), nil)
	b.followAll("acme")
	release := <-held
	requests := r.WaitFor(t, 100, waitMax)
	testkit.Eventually(t, waitMax, func() bool {
		requests = r.Requests()
		return time.Since(requests[len(requests)-1].At) > 300*time.Millisecond
	}, "nothing is sent")
	if r.Count() > 50+100 { // those before the lock may all be written
		t.Errorf("%d requests", r.Count())
	}
	// A run that waits for room hears of controls.
	stopped := r.Count()
	b.wantInForce(b.control(store.ControlPause).Version)
	release()
	wantQuiet(t, r, 100*time.Millisecond)
	if r.Count() != stopped {
		t.Error("sent while paused")
	}
	b.control(store.ControlResume)
	r.WaitFor(t, 1000, waitMax)
	wantSequence(t, arrivals(t, r.Requests(), all), 1000)
	testkit.Eventually(t, waitMax, func() bool {
		var rows int
		check(t, b.pool.QueryRow(t.Context(), `SELECT count(*) FROM attempts`).Scan(&rows))
		return rows == 1000
	}, "every attempt is written once")
}

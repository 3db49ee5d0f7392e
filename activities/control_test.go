package activities_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"postroad/activities"
	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
	"postroad/store"
)

// hanging answers request n only once it is released.
func hanging(n int, release <-chan struct{}) testkit.Script {
	return func(i int, _ *testkit.Request) testkit.Answer {
		if i == n {
			return testkit.Answer{Until: release}
		}
		return testkit.Answer{}
	}
}

// TestControlInFlight shows that a control is in force while a request hangs,
// and that none follows it.
func TestControlInFlight(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) (b *bundle, r *testkit.Receiver, deliver *running, release chan struct{}) {
		t.Parallel()
		// No touch by the way: the control itself must be written.
		b, release = setup(t, func(c *activities.Config) { c.Touch = time.Hour }), make(chan struct{})
		b.publish(properties(20)...)
		r = testkit.NewReceiver(t, testkit.ReceiverOptions{Script: hanging(5, release)})
		b.create(r.URL(), func(s *event.Subscriber) { s.Endpoint.Timeout = event.Duration(waitMax) })
		deliver = b.start(t.Context())
		r.WaitFor(t, 5, waitMax)
		testkit.Eventually(t, waitMax, func() bool { return b.row().Cursor == 4 }, "nothing is left to be written by the way")
		return b, r, deliver, release
	}

	t.Run("pause and resume", func(t *testing.T) {
		b, r, deliver, release := begin(t)
		b.wantInForce(b.control(store.ControlPause).Version)
		if r.InFlight() != 1 {
			t.Fatal("the request does not hang any more")
		}
		close(release)
		deliver.want(contract.OutcomePaused)
		if row := b.row(); r.Count() != 5 || row.Cursor != 5 || row.Lease != nil || row.InFlight != 0 {
			t.Errorf("%d requests, %+v", r.Count(), row)
		}
		if result := b.deliver(); result.Outcome != contract.OutcomePaused || r.Count() != 5 {
			t.Errorf("while paused: %+v, %d requests", result, r.Count())
		}
		if !b.control(store.ControlResume).InForce {
			t.Error("nobody holds the lease, but the resume is not in force")
		}
		b.drive(contract.OutcomeParked)
		wantSequence(t, arrivals(t, r.Requests(), all), 20)
	})
	t.Run("both before the answer", func(t *testing.T) {
		b, r, deliver, release := begin(t)
		b.wantInForce(b.control(store.ControlPause).Version)
		b.wantInForce(b.control(store.ControlResume).Version)
		close(release)
		deliver.want(contract.OutcomeParked)
		wantSequence(t, arrivals(t, r.Requests(), all), 20)
	})
	t.Run("configure", func(t *testing.T) {
		b, r, deliver, release := begin(t)
		b.wantInForce(b.configure(func(s *event.Subscriber, secrets *event.Secrets) {
			s.BatchSize, s.Endpoint.HeadersSet = 4, []string{"X-New"}
			secrets.Headers = map[string]string{"X-New": "yes"}
		}).Version)
		close(release)
		deliver.want(contract.OutcomeParked)
		requests := r.Requests()
		wantSequence(t, arrivals(t, requests, all), 20)
		for _, q := range requests[5:] {
			if q.Header.Get("X-New") != "yes" || q.Header.Get("Postroad-Count") == "" {
				t.Errorf("request %d is one of the old configuration: %v", q.N, q.Header)
			}
		}
		if last := requests[len(requests)-2]; last.Header.Get("Postroad-Count") != "4" {
			t.Errorf("a request with %s events in batches of 4", last.Header.Get("Postroad-Count"))
		}
	})
	t.Run("delete", func(t *testing.T) {
		b, r, deliver, release := begin(t)
		result, err := b.store.Delete(t.Context(), "acme", store.Change{})
		check(t, err)
		b.wantInForce(result.Version)
		close(release)
		deliver.want(contract.OutcomeGone)
		if r.Count() != 5 {
			t.Errorf("%d requests", r.Count())
		}
	})
	// Nobody can tell a dead holder from one that hangs: the lease is taken away.
	t.Run("pause of a holder that died", func(t *testing.T) {
		b, _, _, _ := begin(t)
		b.exec(`UPDATE runs SET lease = gen_random_uuid()`)
		version := b.control(store.ControlPause).Version
		other := setupOn(t, b.url)
		began := time.Now()
		if result := other.deliver(); result.Outcome != contract.OutcomePaused {
			t.Errorf("%+v", result)
		}
		if waited := time.Since(began); waited < fast.LeaseTrust {
			t.Errorf("in force after %v, while the holder could start a request", waited)
		}
		b.wantInForce(version)
	})
}

// TestControlSeen shows each way by which a control reaches its holder, without
// the others.
func TestControlSeen(t *testing.T) {
	t.Parallel()
	silently := func(b *bundle) { b.exec(`UPDATE runs SET paused = true, desired_version = desired_version + 1`) }
	for name, test := range map[string]struct {
		poll, touch time.Duration
		accept      func(*bundle)
	}{
		"notification": {time.Hour, time.Hour, func(b *bundle) { b.control(store.ControlPause) }},
		"poll":         {20 * time.Millisecond, time.Hour, silently},
		"checkpoint":   {time.Hour, 50 * time.Millisecond, silently},
		"confirmation": {time.Hour, time.Hour, func(b *bundle) {
			accepted := time.Now()
			silently(b)
			testkit.Eventually(b.t, waitMax, func() bool { return time.Since(accepted) > fast.LeaseTrust }, "trust is over")
			b.publish(properties(1)...)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(c *activities.Config) { c.Linger, c.ControlPoll, c.Touch = time.Hour, test.poll, test.touch })
			r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
			b.create(r.URL(), nil)
			// Whoever begins to listen looks once, too.
			testkit.Eventually(t, waitMax, func() bool { return b.sessions(`query ILIKE 'listen%postroad_controls%'`) }, "it listens")
			deliver := b.start(t.Context())
			// A control that comes after the lease is taken and before is for the poll.
			testkit.Eventually(t, waitMax, func() bool { return b.Known("acme") }, "the run hears of controls")
			test.accept(b)
			deliver.want(contract.OutcomePaused)
			if row := b.row(); r.Count() != 0 || row.AppliedVersion != 1 {
				t.Errorf("%d requests, %+v", r.Count(), row)
			}
		})
	}
}

func TestPauseUntil(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publish(properties(1)...)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	b.create(r.URL(), nil)
	until := b.row().Now.Add(300 * time.Millisecond)
	_, err := b.store.Control(t.Context(), store.ControlRequest{Subscriber: "acme", Kind: store.ControlPause, Until: &until})
	check(t, err)
	if result := b.deliver(); result.Outcome != contract.OutcomePaused || result.RemainingMillis <= 0 || result.RemainingMillis > 300 {
		t.Fatalf("%+v", result)
	}
	b.drive(contract.OutcomeParked)
	if row := b.row(); r.Count() != 1 || row.Paused || row.PausedUntil != nil {
		t.Errorf("%d requests, %+v", r.Count(), row)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	impatient := func(c *activities.Config) { c.DrainRequests = 100 * time.Millisecond }
	begin := func(t *testing.T, ctx context.Context, changes ...func(*activities.Config)) (b *bundle, r *testkit.Receiver, deliver *running, release chan struct{}) {
		t.Parallel()
		b, release = setup(t, changes...), make(chan struct{})
		b.publish(properties(20)...)
		r = testkit.NewReceiver(t, testkit.ReceiverOptions{Script: hanging(5, release)})
		b.create(r.URL(), func(s *event.Subscriber) { s.Endpoint.Timeout = event.Duration(waitMax) })
		deliver = b.start(ctx)
		r.WaitFor(t, 5, waitMax)
		return b, r, deliver, release
	}
	wantRest := func(t *testing.T, b *bundle, r *testkit.Receiver, deliver *running, cursor int64) {
		t.Helper()
		deliver.want(contract.OutcomeInterrupted)
		row := b.row()
		if row.Cursor != cursor || row.Lease != nil || row.Parked || row.Failures != 0 || row.EventAttempt != 0 || row.NotBefore != nil {
			t.Errorf("left as %+v, want cursor %d and nothing charged", row, cursor)
		}
		setupOn(t, b.url).drive(contract.OutcomeParked)
		got := arrivals(t, r.Requests(), all)
		wantSequence(t, append(got[:cursor:cursor], got[5:]...), 20)
	}

	t.Run("finishes what is in flight", func(t *testing.T) {
		b, r, deliver, release := begin(t, t.Context())
		b.Drain()
		close(release)
		wantRest(t, b, r, deliver, 5)
		if result := b.deliver(); result.Outcome != contract.OutcomeInterrupted {
			t.Errorf("after the drain: %+v", result)
		}
	})
	t.Run("gives up what hangs", func(t *testing.T) {
		b, r, deliver, _ := begin(t, t.Context(), impatient)
		b.Drain()
		wantRest(t, b, r, deliver, 4)
	})
	t.Run("cancelled by Temporal", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		b, r, deliver, release := begin(t, ctx)
		cancel()
		testkit.Eventually(t, waitMax, func() bool { return b.Draining("acme") }, "the run is told")
		close(release)
		wantRest(t, b, r, deliver, 5)
	})
	t.Run("cancelled by Temporal while it hangs", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		b, r, deliver, _ := begin(t, ctx, impatient)
		cancel()
		wantRest(t, b, r, deliver, 4)
	})
	t.Run("while lingering", func(t *testing.T) {
		t.Parallel()
		b := setup(t, func(c *activities.Config) { c.Linger = time.Hour })
		b.publish(properties(1)...)
		r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
		b.create(r.URL(), nil)
		deliver := b.start(t.Context())
		r.WaitAnswered(t, 1, waitMax)
		b.Drain()
		deliver.want(contract.OutcomeInterrupted)
		if row := b.row(); row.Lease != nil || row.Parked || row.Cursor != 1 {
			t.Errorf("%+v", row)
		}
	})
	t.Run("at the gate", func(t *testing.T) {
		t.Parallel()
		b := setup(t, func(c *activities.Config) { c.AttemptsQueue = 2 })
		b.publish(properties(20)...)
		held := make(chan func(), 1)
		r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, _ *testkit.Request) testkit.Answer {
			if n == 1 {
				held <- b.hold("LOCK TABLE attempts")
			}
			return testkit.Answer{}
		}})
		b.create(r.URL(), nil)
		deliver := b.start(t.Context())
		t.Cleanup(<-held)
		r.WaitAnswered(t, 2, waitMax)
		wantQuiet(t, r, 100*time.Millisecond)
		b.Drain()
		deliver.want(contract.OutcomeInterrupted)
		if row := b.row(); row.Cursor != 2 || row.Lease != nil || r.Count() != 2 {
			t.Errorf("%d requests, %+v", r.Count(), row)
		}
	})
	t.Run("without PostgreSQL", func(t *testing.T) {
		t.Parallel()
		direct := setup(t)
		v := newValve(t, direct.url)
		b := setupOn(t, v.url)
		release := make(chan struct{})
		direct.publish(properties(20)...)
		r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: hanging(5, release)})
		b.create(r.URL(), nil)
		deliver := b.start(t.Context())
		t.Cleanup(v.open)
		r.WaitFor(t, 5, waitMax)
		v.shut()
		began := time.Now()
		b.Drain()
		close(release)
		deliver.want(contract.OutcomeInterrupted)
		if took := time.Since(began); took > 2*fast.ReleaseTimeout {
			t.Errorf("stopped after %v", took)
		}
		v.open()
	})
}

// TestZombie lets a second worker take the lease while the first one hangs in
// a request.
func TestZombie(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	first := setup(t, func(c *activities.Config) { c.Client = newClient("first") })
	second := setupOn(t, first.url, func(c *activities.Config) { c.Client = newClient("second") })
	const n = 400
	first.publish(properties(n)...)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(i int, _ *testkit.Request) testkit.Answer {
		switch {
		case i == 100:
			return testkit.Answer{Until: release}
		case i > 100:
			return testkit.Answer{Hang: time.Millisecond}
		}
		return testkit.Answer{}
	}})
	first.create(r.URL(), func(s *event.Subscriber) { s.Endpoint.Timeout = event.Duration(waitMax) })
	zombie := first.start(t.Context())
	r.WaitFor(t, 100, waitMax)
	testkit.Eventually(t, waitMax, func() bool { return first.row().Cursor == 99 }, "what is settled is written")
	taken := time.Now()
	owner := second.start(t.Context())
	r.WaitFor(t, 150, waitMax)
	close(release)
	zombie.want(contract.OutcomeFenced)
	if result := owner.want(contract.OutcomeParked); result.Delivered != n-99 {
		t.Errorf("the owner settled %d", result.Delivered)
	}
	requests := r.Requests()
	for _, q := range requests {
		if by := q.Header.Get("User-Agent"); (by == "Postroad/first") != (q.N <= 100) {
			t.Fatalf("request %d is one of %s", q.N, by)
		}
	}
	if early := requests[100].At.Sub(taken); early < fast.LeaseTrust {
		t.Errorf("the owner began after %v, while the zombie could start a request", early)
	}
	got := arrivals(t, requests, all)
	wantSequence(t, append(got[:99:99], got[100:]...), n)
	if row := first.row(); row.Cursor != n || !row.Parked {
		t.Errorf("%+v", row)
	}
}

// TestZombieOfOneWorker is the same within one process: Temporal gave the first
// Deliver up and started it again.
func TestZombieOfOneWorker(t *testing.T) {
	t.Parallel()
	b, release := setup(t), make(chan struct{})
	b.publish(properties(50)...)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: hanging(10, release)})
	b.create(r.URL(), func(s *event.Subscriber) { s.Endpoint.Timeout = event.Duration(waitMax) })
	zombie := b.start(t.Context())
	r.WaitFor(t, 10, waitMax)
	testkit.Eventually(t, waitMax, func() bool { return b.row().Cursor == 9 }, "what is settled is written")
	if result := b.deliver(); result.Outcome != contract.OutcomeParked || result.Delivered != 41 {
		t.Errorf("%+v", result)
	}
	close(release)
	zombie.want(contract.OutcomeFenced)
	got := arrivals(t, r.Requests(), all)
	wantSequence(t, append(got[:9:9], got[10:]...), 50)
}

func TestApply(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.create("https://consumer.example/", nil)
	apply := func(in contract.ApplyInput) contract.ApplyResult {
		t.Helper()
		in.Subscriber = "acme"
		result, err := b.Apply(t.Context(), in)
		check(t, err)
		return result
	}
	pause := contract.ApplyInput{RequestID: "1", Kind: contract.ControlPause, Reason: "a\x00b \xff", Until: "soon"}
	first := apply(pause)
	if row := b.row(); first.Version != 1 || !row.Paused || row.PausedUntil != nil || *row.PauseReason == "" {
		t.Errorf("a pause that does not decode: %+v, %+v", first, row)
	}
	if again := apply(pause); again != first {
		t.Errorf("repeated: %+v", again)
	}
	past := contract.ApplyInput{RequestID: "2", Kind: contract.ControlPause, Until: time.Now().Add(-time.Hour).Format(time.RFC3339)}
	if result := apply(past); result.Refused == "" {
		t.Errorf("a pause that is over: %+v", result)
	}
	if result := apply(contract.ApplyInput{RequestID: "3", Kind: contract.ControlResume}); result.Version != 2 || b.row().Paused {
		t.Errorf("resume: %+v", result)
	}
	result, err := b.Apply(t.Context(), contract.ApplyInput{Subscriber: "nobody", Kind: contract.ControlPause})
	if err != nil || !result.Gone {
		t.Errorf("nobody: %+v, %v", result, err)
	}
	if result, err := b.Deliver(t.Context(), contract.DeliverInput{Subscriber: "nobody"}); err != nil || result.Outcome != contract.OutcomeGone {
		t.Errorf("nobody: %+v, %v", result, err)
	}
}

// TestControlsUnderLoad makes controls without end: nothing is lost or repeated
// by them.
func TestControlsUnderLoad(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := b.publishStream("sdk-go", 3000)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	b.create(r.URL(), nil)
	b.followAll("acme")
	for i := range 60 {
		switch i % 3 {
		case 0:
			r.WaitFor(t, min(10*i, n/6), waitMax)
			b.wantInForce(b.control(store.ControlPause).Version)
		case 1:
			b.wantInForce(b.control(store.ControlResume).Version)
		case 2:
			b.configure(func(s *event.Subscriber, _ *event.Secrets) {
				s.BatchSize, s.Label = event.Count(1+i%5), "label-"+strconv.Itoa(i)
			})
		}
	}
	testkit.Eventually(t, waitMax, func() bool { return b.row().Cursor == int64(n) }, "all is settled")
	wantSequence(t, arrivals(t, r.Requests(), all), n)
	if r.MaxInFlight() != 1 {
		t.Errorf("%d requests at once in one lane", r.MaxInFlight())
	}
}

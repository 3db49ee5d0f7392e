package activities_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/activities"
	"postroad/contract"
	"postroad/event"
	"postroad/internal/testkit"
	"postroad/store"
)

func TestLinger(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *activities.Config) { c.Linger = time.Hour })
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	b.create(r.URL(), nil)
	deliver := b.start(t.Context())
	for n := 1; n <= 5; n++ {
		published := time.Now()
		b.publish(properties(1)...)
		if late := r.WaitFor(t, n, waitMax)[n-1].At.Sub(published); late > time.Second {
			t.Errorf("event %d arrived after %v", n, late)
		}
	}
	// A run that lives marks its row, whatever it waits for.
	seen := b.row()
	if seen.Generation != 0 || seen.Lease == nil {
		t.Errorf("it did not linger: %+v", seen)
	}
	testkit.Eventually(t, waitMax, func() bool { return b.row().CheckedAt.After(seen.CheckedAt.Add(2 * fast.Touch)) }, "it marks its row")
	b.wantInForce(b.control(store.ControlPause).Version)
	deliver.want(contract.OutcomePaused)
}

// TestTouchInFlight shows that a run marks its row while a request hangs.
func TestTouchInFlight(t *testing.T) {
	t.Parallel()
	b, release := setup(t), make(chan struct{})
	b.publish(properties(1)...)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: hanging(1, release)})
	b.create(r.URL(), func(s *event.Subscriber) { s.Endpoint.Timeout = event.Duration(waitMax) })
	deliver := b.start(t.Context())
	r.WaitFor(t, 1, waitMax)
	seen := b.row().CheckedAt
	testkit.Eventually(t, waitMax, func() bool { return b.row().CheckedAt.After(seen.Add(3 * fast.Touch)) }, "it marks its row")
	if row := b.row(); row.InFlight != 1 {
		t.Errorf("%d in flight by the row", row.InFlight)
	}
	close(release)
	deliver.want(contract.OutcomeParked)
}

// TestParkRace publishes at every moment of lingering, parking and looking
// again. The wakes are those of a waker that looks only at what the database
// says: a parked row, and a match above its cursor.
func TestParkRace(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *activities.Config) { c.Linger = 2 * time.Millisecond })
	publisher := setupOn(t, b.url)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	b.create(r.URL(), nil)
	b.followAll("acme")
	const n = 200
	for i := 1; i <= n; i++ {
		<-time.After(time.Duration(rand.IntN(8000)) * time.Microsecond)
		publisher.publish(properties(1)...)
		r.WaitFor(t, i, 5*time.Second)
	}
	wantSequence(t, arrivals(t, r.Requests(), all), n)
	if b.row().Generation < n/4 {
		t.Errorf("parked %d times only: there was no race", b.row().Generation)
	}
}

// TestUnpark commits an event between the end of reading and the parking: the
// look at the database must find it, without any wake.
func TestUnpark(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *activities.Config) { c.Linger = 20 * time.Millisecond })
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	b.create(r.URL(), nil)
	// The trigger stores an event within the parking's own transaction.
	b.exec(`CREATE FUNCTION race() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF NEW.parked AND NEW.generation <= 5 THEN
			INSERT INTO events (feed_id, sequence, recorded_at, xid, resource_name, resource_key)
			VALUES (NEW.feed_id, NEW.generation, now(), pg_current_xact_id(), 'Property', 'k');
		END IF;
		RETURN NEW;
	END $$`)
	b.exec(`CREATE TRIGGER race BEFORE UPDATE ON runs FOR EACH ROW EXECUTE FUNCTION race()`)
	result := b.deliver()
	row := b.row()
	if result.Outcome != contract.OutcomeParked || result.Generation != row.Generation || row.Generation != 6 || result.Delivered != 5 {
		t.Errorf("%+v, the row's generation is %d", result, row.Generation)
	}
	wantSequence(t, arrivals(t, r.Requests(), all), 5)
}

// TestUnparkTaken has another run take the row within the parking's own
// transaction: what the look at the database finds is that run's.
func TestUnparkTaken(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *activities.Config) { c.Linger = 20 * time.Millisecond })
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	b.create(r.URL(), nil)
	b.exec(`CREATE FUNCTION race() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO events (feed_id, sequence, recorded_at, xid, resource_name, resource_key)
		VALUES (NEW.feed_id, 1, now(), pg_current_xact_id(), 'Property', 'k');
		NEW.lease = gen_random_uuid();
		RETURN NEW;
	END $$`)
	b.exec(`CREATE TRIGGER race BEFORE UPDATE ON runs FOR EACH ROW WHEN (NEW.parked) EXECUTE FUNCTION race()`)
	if result := b.deliver(); result.Outcome != contract.OutcomeParked || r.Count() != 0 {
		t.Errorf("%+v, %d requests", result, r.Count())
	}
}

// TestParkAnnounced listens as a waker does.
func TestParkAnnounced(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	b.create(r.URL(), nil)
	conn, err := pgx.Connect(t.Context(), b.url)
	check(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(t.Context(), "LISTEN "+store.ParkedChannel)
	check(t, err)
	b.drive(contract.OutcomeParked)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if n, err := conn.WaitForNotification(ctx); err != nil || n.Payload != "acme" {
		t.Errorf("%+v, %v", n, err)
	}
}

func TestParkedControl(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	b.create(r.URL(), nil)
	b.drive(contract.OutcomeParked)
	if !b.control(store.ControlPause).InForce {
		t.Error("the row is parked, but the pause is not in force at once")
	}
	b.publish(properties(3)...)
	if result := b.deliver(); result.Outcome != contract.OutcomePaused || r.Count() != 0 {
		t.Errorf("%+v, %d requests", result, r.Count())
	}
	if row := b.row(); row.Parked || row.Lease != nil {
		t.Errorf("a paused row stays parked: %+v", row)
	}
	b.control(store.ControlResume)
	b.drive(contract.OutcomeParked)
	wantSequence(t, arrivals(t, r.Requests(), all), 3)
}

// TestNoMatch passes over a long log that holds nothing for the subscriber,
// without patience, as slots are short.
func TestNoMatch(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *activities.Config) { c.Slots = 1 })
	n := b.publishStream("sdk-go", 12_000)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	b.create(r.URL(), func(s *event.Subscriber) { s.Filter.ResourceNames = []string{"Nothing"} })
	b.drive(contract.OutcomeParked)
	if row := b.row(); row.Cursor != int64(n) || !row.Parked || r.Count() != 0 {
		t.Errorf("cursor %d of %d, parked %v, %d requests", row.Cursor, n, row.Parked, r.Count())
	}
}

// TestMany delivers one feed to 50 subscribers at once, while the row of one is
// locked and that of another refuses what is written.
func TestMany(t *testing.T) {
	t.Parallel()
	const subscribers, n = 50, 150
	b := setup(t)
	b.publishStream("reso-transport", n)
	var once sync.Once
	held := make(chan func(), 1)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(_ int, q *testkit.Request) testkit.Answer {
		if q.Path == "/s08" {
			once.Do(func() { held <- b.hold(`SELECT FROM runs WHERE id = 's08' FOR UPDATE`) })
		}
		return testkit.Answer{}
	}})
	var ids []string
	for i := range subscribers {
		ids = append(ids, fmt.Sprintf("s%02d", i))
		b.create(fmt.Sprintf("%s/s%02d", r.URL(), i), func(s *event.Subscriber) { s.ID = ids[i] })
	}
	b.exec(`ALTER TABLE runs ADD CONSTRAINT bad CHECK (id <> 's07' OR cursor < 20)`)
	b.followAll(ids...)
	settled := func(want int) func() bool {
		return func() bool {
			var done int
			check(t, b.pool.QueryRow(t.Context(), `SELECT count(*) FROM runs WHERE cursor = $1`, n).Scan(&done))
			return done == want
		}
	}
	testkit.Eventually(t, waitMax, settled(subscribers-2), "all are served but the two")
	release := <-held
	release()
	testkit.Eventually(t, waitMax, settled(subscribers-1), "the locked one is served")
	b.exec(`ALTER TABLE runs DROP CONSTRAINT bad`)
	testkit.Eventually(t, waitMax, settled(subscribers), "the refused one is served")
	of := map[string][]testkit.Request{}
	for _, q := range r.Requests() {
		of[q.Path[1:]] = append(of[q.Path[1:]], q)
	}
	for _, id := range ids {
		if id != "s07" {
			wantSequence(t, arrivals(t, of[id], all), n)
		}
	}
	if len(of["s07"]) <= n {
		t.Error("nothing was refused")
	}
}

// TestBudget ends runs that still have work, sooner when slots are short.
func TestBudget(t *testing.T) {
	t.Parallel()
	slow := testkit.ReceiverOptions{Script: func(int, *testkit.Request) testkit.Answer {
		return testkit.Answer{Hang: 5 * time.Millisecond}
	}}
	t.Run("used up", func(t *testing.T) {
		t.Parallel()
		const budget = 2 * time.Second
		b := setup(t, func(c *activities.Config) { c.Budget, c.Linger = budget, 20*time.Millisecond })
		b.publish(properties(60)...)
		release := make(chan struct{})
		r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: hanging(3, release)})
		b.create(r.URL(), func(s *event.Subscriber) { s.Endpoint.Timeout = event.Duration(waitMax) })
		deliver := b.start(t.Context())
		r.WaitFor(t, 3, waitMax)
		began := time.Now() // or before
		testkit.Eventually(t, waitMax, func() bool { return time.Since(began) > budget }, "the budget is used up")
		close(release)
		if result := deliver.want(contract.OutcomeMore); result.Delivered != 3 {
			t.Errorf("%+v", result)
		}
		if row := b.row(); row.Lease != nil {
			t.Fatal("the lease was kept")
		}
		b.drive(contract.OutcomeParked)
		wantSequence(t, arrivals(t, r.Requests(), all), 60)
	})
	t.Run("pressed", func(t *testing.T) {
		t.Parallel()
		b := setup(t, func(c *activities.Config) { c.Slots, c.BudgetShort, c.Linger = 1, 100*time.Millisecond, time.Hour })
		b.publish(properties(60)...)
		r := testkit.NewReceiver(t, slow)
		b.create(r.URL(), nil)
		if result := b.deliver(); result.Outcome != contract.OutcomeMore || result.Delivered == 60 {
			t.Errorf("%+v", result)
		}
		b.drive(contract.OutcomeParked) // without lingering for an hour
		wantSequence(t, arrivals(t, r.Requests(), all), 60)
	})
	t.Run("pressed while lingering", func(t *testing.T) {
		t.Parallel()
		b := setup(t, func(c *activities.Config) { c.Slots, c.Linger, c.Touch = 2, time.Hour, time.Hour })
		b.publish(properties(1)...)
		r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
		b.create(r.URL(), nil)
		b.create(r.URL(), func(s *event.Subscriber) { s.ID = "other" })
		deliver := b.start(t.Context())
		testkit.Eventually(t, waitMax, func() bool { return b.row().Cursor == 1 }, "it lingers")
		b.followAll("other")
		deliver.want(contract.OutcomeParked)
	})
	t.Run("pressed later", func(t *testing.T) {
		t.Parallel()
		b := setup(t, func(c *activities.Config) { c.Slots, c.BudgetShort = 2, 50*time.Millisecond })
		b.publish(properties(2000)...)
		r := testkit.NewReceiver(t, slow)
		b.create(r.URL(), nil)
		b.create(r.URL(), func(s *event.Subscriber) { s.ID = "other" })
		deliver := b.start(t.Context())
		r.WaitFor(t, 20, waitMax)
		b.followAll("other")
		if result := deliver.want(contract.OutcomeMore); result.Delivered < 19 {
			t.Errorf("%+v", result)
		}
	})
}

package activities_test

import (
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postroad/activities"
	"postroad/contract"
	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/testkit"
)

// removeThrough has the log remove the events up to one, whoever is owed them.
func (b *bundle) removeThrough(sequence int64) {
	b.t.Helper()
	hard := time.Minute
	_, err := b.log.UpdateFeed(b.t.Context(), b.feed.Name, eventlog.FeedPatch{HardAge: &hard})
	check(b.t, err)
	b.exec(`UPDATE events SET recorded_at = clock_timestamp() - interval '1 hour' WHERE sequence <= $1`, sequence)
	check(b.t, b.log.Retain(b.t.Context(), 1000))
	_, err = b.log.ReapDeleted(b.t.Context(), 100_000)
	check(b.t, err)
}

// TestDeliverAboveTheFloor: a subscriber whose events were removed goes on with
// the first that is kept, its row says what it lost, and so does the header that
// names the event before.
func TestDeliverAboveTheFloor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	b.create(r.URL(), func(s *event.Subscriber) { s.Filter.ResourceNames = []string{"Property"} })
	b.publish(properties(2)...)
	if result := b.deliver(); result.Outcome != contract.OutcomeParked {
		t.Fatalf("%+v", result)
	}
	b.publish(properties(4)...)
	b.publish(event.Event{ResourceName: "Member", ResourceRecordKey: "m"})
	b.publish(properties(2)...)
	b.removeThrough(7)
	b.deliver()
	if diff := cmp.Diff([]int64{1, 2, 8, 9}, arrivals(t, r.Requests(), all)); diff != "" {
		t.Errorf("arrived (-want +got):\n%s", diff)
	}
	for n, want := range map[int]string{3: "6", 4: "8"} {
		if got := r.Requests()[n-1].Header.Get("Postroad-Previous-Sequence"); got != want {
			t.Errorf("request %d names %s as the event before, want %s", n, got, want)
		}
	}
	row := b.row()
	if row.Cursor != 9 || row.LostEvents != 4 || row.LostThrough != 6 || row.LostAt == nil {
		t.Errorf("%+v", row)
	}
}

// TestDeliverWhileTheFloorRises: so does a run that is sending.
func TestDeliverWhileTheFloorRises(t *testing.T) {
	t.Parallel()
	b, release := setup(t), make(chan struct{})
	const total, floor = 4000, 3900
	b.publish(properties(total)...)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: hanging(1, release)})
	b.create(r.URL(), func(s *event.Subscriber) { s.Endpoint.Timeout = event.Duration(waitMax) })
	deliver := b.start(t.Context())
	r.WaitFor(t, 1, waitMax)
	b.removeThrough(floor)
	close(release)
	deliver.want(contract.OutcomeParked)
	got := arrivals(t, r.Requests(), all)
	want := int64(0)
	for _, sequence := range got {
		if want++; sequence != want && want <= floor {
			want = floor + 1 // what was in memory is over
		}
		if sequence != want {
			t.Fatalf("%d arrived, want %d", sequence, want)
		}
	}
	if row := b.row(); want != total || row.Cursor != total || row.LostEvents != floor || row.LostThrough != floor {
		t.Errorf("the last to arrive was %d; %+v", want, row)
	}
}

// TestParkAboveTheFloor: the look at the database that follows the parking finds
// what is kept.
func TestParkAboveTheFloor(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *activities.Config) { c.Linger = 20 * time.Millisecond })
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{})
	b.create(r.URL(), nil)
	b.exec(`CREATE FUNCTION race() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF NEW.parked AND NEW.generation = 1 THEN
			UPDATE feeds SET floor_sequence = 3 WHERE id = NEW.feed_id;
			INSERT INTO events (feed_id, sequence, recorded_at, xid, resource_name, resource_key)
			VALUES (NEW.feed_id, 4, now(), pg_current_xact_id(), 'Property', 'k');
		END IF;
		RETURN NEW;
	END $$`)
	b.exec(`CREATE TRIGGER race BEFORE UPDATE ON runs FOR EACH ROW EXECUTE FUNCTION race()`)
	b.deliver()
	if diff := cmp.Diff([]int64{4}, arrivals(t, r.Requests(), all)); diff != "" {
		t.Errorf("arrived (-want +got):\n%s", diff)
	}
}

// TestDeliverErased: a run does not send what was erased since it read it, and
// keeps no excerpt of an answer to it.
func TestDeliverErased(t *testing.T) {
	t.Parallel()
	for status, want := range map[int][]string{
		200: {`"secret"`, `"secret"`, `null`, `"secret"`, `null`},
		500: {`"secret"`, `null`, `"secret"`, `null`, `"secret"`, `null`},
	} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			deliverErased(t, status, want)
		})
	}
}

// deliverErased erases while the first request hangs, which is answered with
// that status, and wants those bodies to arrive.
func deliverErased(t *testing.T, status int, want []string) {
	b, release := setup(t), make(chan struct{})
	for i := range 5 {
		b.publish(event.Event{ResourceName: "Member", ResourceRecordKey: strconv.Itoa(i % 2), Data: json.RawMessage(`"secret"`)})
	}
	watcher := b.log.Follow(b.feed.ID, 0, event.Filter{})
	defer watcher.Close()
	_, _, err := watcher.Next(t.Context(), 10, 1<<20)
	check(t, err)
	r := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(n int, _ *testkit.Request) testkit.Answer {
		if n == 1 {
			return testkit.Answer{Until: release, Status: status, Body: "cannot take secret"}
		}
		return testkit.Answer{}
	}})
	b.create(r.URL(), func(s *event.Subscriber) {
		s.Format, s.Endpoint.Timeout = event.FormatRaw, event.Duration(waitMax)
	})
	b.followAll("acme")
	r.WaitFor(t, 1, waitMax)
	_, err = b.log.Erase(t.Context(), b.feed.ID, event.Key{ResourceName: "Member", ResourceRecordKey: "0"})
	check(t, err)
	testkit.Eventually(t, waitMax, watcher.Erased, "the worker hears of it")
	close(release)
	var bodies []string
	for _, request := range r.WaitAnswered(t, len(want), waitMax) {
		bodies = append(bodies, string(request.Body))
	}
	if diff := cmp.Diff(want, bodies); diff != "" {
		t.Errorf("bodies (-want +got):\n%s", diff)
	}
	testkit.Eventually(t, waitMax, func() bool {
		var recorded, excerpts int
		check(t, b.pool.QueryRow(t.Context(), `SELECT count(*), count(response) FROM attempts`).Scan(&recorded, &excerpts))
		if excerpts != 0 {
			t.Error("an excerpt was recorded after the erasure")
		}
		return recorded == len(want)
	}, "the attempts are recorded")
}

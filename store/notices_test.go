package store_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"postroad/event"
	"postroad/store"
)

// notices reads what there is to be told, as "type key" each.
func (b *bundle) notices() []string {
	b.t.Helper()
	n, err := b.Notices(b.t.Context(), 100)
	check(b.t, err)
	told := []string{}
	for _, e := range n.Events {
		told = append(told, e.EventType+" "+e.ResourceRecordKey)
	}
	return told
}

// TestTransitionsTold writes each kind of checkpoint over each state that a row
// can be in, twice: what is told, and what the row remembers of it.
func TestTransitionsTold(t *testing.T) {
	b := setup(t)
	before := map[string]string{
		"fresh":          "trouble = NULL",
		"retrying":       "trouble = 'retrying'",
		"halted":         "trouble = 'halted', halted_reason = 'x'",
		"halted resumed": "trouble = 'halted'",
		"disabled":       "trouble = 'disabled', disabled = true",
		"gone resumed":   "trouble = 'disabled'",
		"tombstone":      "deleted = true, trouble = 'retrying'",
	}
	for name, c := range map[string]struct {
		checkpoint store.Checkpoint
		// told and, behind a slash, the trouble afterwards, by the state before.
		want map[string]string
	}{
		"delivers": {store.Checkpoint{Delivered: true}, map[string]string{
			"fresh": "/", "retrying": "recovered/", "halted": "recovered/", "halted resumed": "recovered/", "disabled": "recovered/",
			"gone resumed": "recovered/", "tombstone": "/",
		}},
		"nothing": {store.Checkpoint{}, map[string]string{
			"fresh": "/", "retrying": "/retrying", "halted": "/halted", "halted resumed": "/halted", "disabled": "/disabled",
			"gone resumed": "/disabled", "tombstone": "/retrying",
		}},
		"fails since yesterday": {store.Checkpoint{Failing: true, FailingFor: 24 * time.Hour}, map[string]string{
			"fresh": "retrying/retrying", "retrying": "/retrying", "halted": "/halted", "halted resumed": "/halted", "disabled": "/disabled",
			"gone resumed": "/disabled", "tombstone": "/retrying",
		}},
		"fails since just now": {store.Checkpoint{Failing: true, FailingFor: 59 * time.Second, Delivered: true}, map[string]string{
			"fresh": "/", "retrying": "/retrying", "halted": "/halted", "halted resumed": "/halted", "disabled": "/disabled",
			"gone resumed": "/disabled", "tombstone": "/retrying",
		}},
		"gives up": {store.Checkpoint{Halt: "y", Failing: true, FailingFor: 24 * time.Hour, Delivered: true}, map[string]string{
			"fresh": "halted/halted", "retrying": "halted/halted", "halted": "/halted", "halted resumed": "halted/halted",
			"disabled": "halted/halted", "gone resumed": "halted/halted", "tombstone": "/halted",
		}},
		"is gone": {store.Checkpoint{Disable: true, Delivered: true}, map[string]string{
			"fresh": "disabled/disabled", "retrying": "disabled/disabled", "halted": "disabled/disabled",
			"halted resumed": "disabled/disabled", "disabled": "/disabled", "gone resumed": "disabled/disabled", "tombstone": "/disabled",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for state, changes := range before {
				b.exec(`DELETE FROM notices`)
				id := strings.ReplaceAll(name+"-"+state, " ", "-")
				b.create(id, event.Start{})
				lease := uuid.New()
				b.exec(`UPDATE runs SET lease = $2, `+changes+` WHERE id = $1`, id, lease)
				c.checkpoint.ID, c.checkpoint.Lease = id, lease
				b.write(&c.checkpoint)
				var told []string
				for _, notice := range b.notices() {
					told = append(told, strings.TrimSuffix(strings.TrimPrefix(notice, "subscriber."), " "+id))
				}
				again := c.checkpoint
				b.write(&again)
				if n := len(b.notices()); n != len(told) {
					t.Errorf("%s: the same once more: %d notices", state, n)
				}
				trouble := value[string](b, `SELECT coalesce(trouble, '') FROM runs WHERE id = $1`, id)
				if got, want := strings.Join(told, ",")+"/"+trouble, c.want[state]; got != want {
					t.Errorf("%s: got %q, want %q", state, got, want)
				}
			}
		})
	}
}

// TestNoticeTells: a notice says what the status says, with what happened.
func TestNoticeTells(t *testing.T) {
	b := setup(t)
	b.publish(0, 1, 2, 3)
	b.create("acme", event.Start{Where: "beginning"})
	lease, _ := b.take()
	b.write(&store.Checkpoint{
		ID: "acme", Lease: lease, Cursor: 1, Failing: true, FailingFor: time.Hour, Wait: time.Hour,
		WaitClass: store.WaitEndpoint, WaitReason: "HTTP 503 from the consumer",
	})
	status, err := b.Status(t.Context(), "acme")
	check(t, err)
	b.write(&store.Checkpoint{ID: "acme", Lease: lease, Cursor: 1, Halt: "event 2 (Property) was refused 5 times, last answer HTTP 500 from the consumer"})
	b.control(store.ControlResume)
	b.write(&store.Checkpoint{ID: "acme", Lease: lease, Cursor: 2, Delivered: true})
	n, err := b.Notices(t.Context(), 10)
	check(t, err)
	type told struct {
		State, Reason, From     string
		Cursor, Head, LagEvents int64
	}
	var got []told
	for i, e := range n.Events {
		var data struct {
			told
			Subscriber, Feed string
			At               time.Time
		}
		check(t, json.Unmarshal(e.Data, &data))
		if data.Subscriber != "acme" || data.Feed != "default" || e.ResourceName != "Subscriber" || e.ResourceRecordKey != "acme" {
			t.Errorf("notice %d is about %+v, record %s", i, data, e.ResourceRecordKey)
		}
		if e.OccurredAt != data.At.Format(time.RFC3339Nano) || e.IdempotencyKey != fmt.Sprintf("notice/%d", n.IDs[i]) {
			t.Errorf("notice %d: occurred %s, data %s, key %s", i, e.OccurredAt, data.At, e.IdempotencyKey)
		}
		got = append(got, data.told)
	}
	want := []told{
		{"retrying", status.Reason, "", 1, 3, 2},
		{"halted", "halted: event 2 (Property) was refused 5 times, last answer HTTP 500 from the consumer", "", 1, 3, 2},
		{"active", "sending; 1 event behind", "halted", 2, 3, 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	again, err := b.Notices(t.Context(), 2)
	check(t, err)
	if !slices.EqualFunc(again.Events, n.Events[:2], func(a, b event.Event) bool { return a.ContentHash() == b.ContentHash() }) {
		t.Error("a notice that is read again is another event")
	}
	check(t, b.DropNotices(t.Context(), again.IDs))
	if diff := cmp.Diff([]string{"subscriber.recovered acme"}, b.notices()); diff != "" {
		t.Error(diff)
	}
}

// TestNoticeOfAnotherRelease: one that cannot be read is told as it stands, and
// holds up no other.
func TestNoticeOfAnotherRelease(t *testing.T) {
	b := setup(t)
	b.create("acme", event.Start{})
	const noted = `{"run": {"Cursor": "later"}}`
	b.exec(`INSERT INTO notices (type, resource_name, resource_key, data) VALUES ('subscriber.halted', 'Subscriber', 'other', $1)`, noted)
	lease, _ := b.take()
	b.write(&store.Checkpoint{ID: "acme", Lease: lease, Disable: true})
	if diff := cmp.Diff([]string{"subscriber.halted other", "subscriber.disabled acme"}, b.notices()); diff != "" {
		t.Error(diff)
	}
	n, err := b.Notices(t.Context(), 1)
	check(t, err)
	if got := string(n.Events[0].Data); got != noted {
		t.Errorf("told %s, want it as it was noted", got)
	}
}

// TestSystemSubscribersRaiseNothing: nor can they have an alert.
func TestSystemSubscribersRaiseNothing(t *testing.T) {
	b := setup(t)
	sub := subscriber("pager")
	sub.Feed, sub.Alert = event.SystemFeed, &event.Alert{LagSeconds: 5}
	if faults := sub.Validate(false); len(faults) != 1 || faults[0].Pointer != "/alert" {
		t.Errorf("with an alert: %v", faults)
	}
	_, err := b.Create(t.Context(), sub, event.Secrets{}) // as if it had been there
	check(t, err)
	b.exec(`INSERT INTO events (feed_id, sequence, recorded_at, resource_name, resource_key)
		SELECT id, 1, clock_timestamp() - interval '1 hour', 'Subscriber', 'x' FROM feeds WHERE name = '_system'`)
	lease := uuid.New()
	_, err = b.TakeLease(t.Context(), "pager", lease)
	check(t, err)
	for _, c := range []store.Checkpoint{
		{Failing: true, FailingFor: time.Hour},
		{Halt: "because"},
		{Disable: true},
		{Delivered: true},
	} {
		c.ID, c.Lease = "pager", lease
		b.write(&c)
	}
	b.watch()
	if got := b.notices(); len(got) > 0 {
		t.Errorf("told: %v", got)
	}
}

// watch looks at all lags.
func (b *bundle) watch() {
	b.t.Helper()
	for after, rounds := "", 0; ; rounds++ {
		var err error
		after, err = b.WatchLag(b.t.Context(), after, 1)
		check(b.t, err)
		if after == "" {
			return
		}
		if rounds > 100 {
			b.t.Fatal("it goes on for ever")
		}
	}
}

// TestWatchLag: a subscriber is told of once when it is further behind than its
// alert allows, whatever keeps it, and once when it is not any more.
func TestWatchLag(t *testing.T) {
	b := setup(t)
	b.publish(100*time.Second, 1)
	b.publish(40*time.Second, 2)
	alert := func(id string, lagSeconds int64) {
		sub := subscriber(id)
		sub.Start, sub.Alert = event.Start{Where: "beginning"}, &event.Alert{LagSeconds: lagSeconds}
		_, err := b.Create(t.Context(), sub, event.Secrets{})
		check(t, err)
	}
	for _, id := range []string{"acme", "halted", "paused", "disabled", "parked", "deleted"} {
		alert(id, 60)
	}
	alert("patient", 200)
	b.create("none", event.Start{Where: "beginning"})
	b.exec(`UPDATE runs SET halted_reason = 'x' WHERE id = 'halted'`)
	b.exec(`UPDATE runs SET paused = true WHERE id = 'paused'`)
	b.exec(`UPDATE runs SET disabled = true WHERE id = 'disabled'`)
	b.exec(`UPDATE runs SET parked = true WHERE id = 'parked'`)
	b.exec(`UPDATE runs SET deleted = true WHERE id = 'deleted'`)
	expect := func(want ...string) {
		t.Helper()
		b.watch()
		b.watch()
		got := b.notices()
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		b.exec(`DELETE FROM notices`)
	}
	const behind, recovered = "subscriber.behind ", "subscriber.recovered "
	expect(behind+"acme", behind+"disabled", behind+"halted", behind+"paused")
	b.exec(`UPDATE runs SET cursor = 1 WHERE id = 'acme'`) // 40 s: less than it may, more than half of it
	expect([]string{}...)
	b.exec(`UPDATE runs SET cursor = 2 WHERE id = 'acme'`)
	b.watch()
	n, err := b.Notices(t.Context(), 1)
	check(t, err)
	if text := string(n.Events[0].Data); !strings.Contains(text, `"from":"behind"`) || !strings.Contains(text, `"lagSeconds":0`) {
		t.Errorf("recovered: %s", text)
	}
	expect(recovered + "acme")
	b.exec(`UPDATE runs SET cursor = 0 WHERE id = 'acme'`)
	expect(behind + "acme")

	// Whoever takes the alert away wants to hear no more; put back, it counts anew.
	for _, a := range []*event.Alert{nil, {LagSeconds: 60}} {
		record, err := b.Get(t.Context(), "acme")
		check(t, err)
		record.Subscriber.Alert = a
		_, _, err = b.Replace(t.Context(), record.Subscriber, event.Secrets{}, store.Change{})
		check(t, err)
		b.exec(`UPDATE runs SET cursor = 2 WHERE id = 'acme'`)
		expect([]string{}...)
	}
}

// TestTellLasting: what lasts is told once, or once a while; what was over for
// long enough is new.
func TestTellLasting(t *testing.T) {
	b := setup(t)
	tell := func(again, forget time.Duration, keys ...string) []string {
		t.Helper()
		var there []store.Lasting
		for _, key := range keys {
			there = append(there, store.Lasting{Key: key, ResourceName: "Feed", ResourceKey: key, Data: map[string]string{"z": key, "a": "b"}})
		}
		check(t, b.TellLasting(t.Context(), store.NoticeLogPinned, there, again, forget))
		defer b.exec(`DELETE FROM notices`)
		return b.notices()
	}
	const hours3 = 3 * time.Hour
	for i, step := range []struct {
		since         time.Duration
		again, forget time.Duration
		keys          []string
		want          []string
	}{
		{0, 0, hours3, []string{"a", "b"}, []string{"log.pinned a", "log.pinned b"}},
		{0, 0, hours3, []string{"a", "b"}, []string{}},
		{2 * time.Hour, hours3, hours3, []string{"b"}, []string{}},
		{0, hours3, hours3, []string{"a", "b"}, []string{}},                      // a was away for a moment
		{2 * time.Hour, hours3, hours3, []string{"b"}, []string{"log.pinned b"}}, // and is forgotten
		{0, hours3, hours3, []string{"a", "b"}, []string{"log.pinned a"}},
		{100 * time.Hour, 0, hours3, []string{"a", "b"}, []string{}},
	} {
		b.exec(`UPDATE told SET at = at - $1::interval`, step.since)
		if diff := cmp.Diff(step.want, tell(step.again, step.forget, step.keys...)); diff != "" {
			t.Errorf("step %d: %s", i, diff)
		}
	}
}

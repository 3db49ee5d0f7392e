package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"postroad/event"
	"postroad/store"
)

// count is a ReplayCounter that counts what publish stored.
func (b *bundle) count(ctx context.Context, s store.ReplayStretch) (total, first, last int64, err error) {
	err = b.pool.QueryRow(ctx, `
		SELECT count(*), coalesce(min(sequence), 0), coalesce(max(sequence), 0) FROM events
		 WHERE feed_id = $1 AND sequence > $2 AND sequence <= $3 AND ($4::text[] IS NULL OR resource_name = ANY ($4))`,
		s.FeedID, s.After, s.Through, s.Filter.ResourceNames).Scan(&total, &first, &last)
	return total, first, last, err
}

func (b *bundle) replay(r store.ReplayRequest) (store.Replay, store.ControlResult, error) {
	b.t.Helper()
	r.Subscriber, r.Count = "acme", b.count
	if r.Source == "" {
		r.Source = "api"
	}
	return b.CreateReplay(b.t.Context(), r)
}

func (b *bundle) mustReplay(r store.ReplayRequest) store.Replay {
	b.t.Helper()
	replay, _, err := b.replay(r)
	check(b.t, err)
	return replay
}

func (b *bundle) die(sequence int64) {
	b.t.Helper()
	b.exec(`INSERT INTO dead_letters (subscriber, sequence, resource_name, resource_key, reason) VALUES ('acme', $1, 'Property', 'k', 'exhausted')`, sequence)
}

// setupReplays is a subscriber of a feed that has the events 4 to 9 left, one
// recorded each minute, and 3 and 7 of which it gave up.
func setupReplays(t *testing.T) (b *bundle, at func(sequence int64) *time.Time) {
	t.Helper()
	b = setup(t)
	b.create("acme", event.Start{Where: "beginning"})
	base := time.Now().UTC().Add(-time.Hour).Truncate(time.Second)
	b.publish(0, 4, 5, 6, 7, 8, 9)
	b.exec(`UPDATE events SET recorded_at = $1::timestamptz + sequence * interval '1 minute'`, base)
	b.exec(`UPDATE feeds SET floor_sequence = 3 WHERE name = 'default'`)
	return b, func(sequence int64) *time.Time {
		at := base.Add(time.Duration(sequence) * time.Minute)
		return &at
	}
}

func number(n int64) *int64 { return &n }

func TestCreateReplayBounds(t *testing.T) {
	b, at := setupReplays(t)
	later := func(t *time.Time) *time.Time { l := t.Add(time.Second); return &l }
	for name, test := range map[string]struct {
		request store.ReplayRequest
		want    []int64 // after, through, total, first, last
		reason  string
	}{
		"everything kept":              {want: []int64{3, 9, 6, 4, 9}},
		"a range":                      {request: store.ReplayRequest{FromSequence: number(5), ToSequence: number(7)}, want: []int64{4, 7, 3, 5, 7}},
		"one event":                    {request: store.ReplayRequest{FromSequence: number(9), ToSequence: number(9)}, want: []int64{8, 9, 1, 9, 9}},
		"to beyond the head":           {request: store.ReplayRequest{FromSequence: number(8), ToSequence: number(99)}, reason: store.ReplayToAboveHead},
		"from a time on":               {request: store.ReplayRequest{FromTime: at(6)}, want: []int64{5, 9, 4, 6, 9}},
		"from between two":             {request: store.ReplayRequest{FromTime: later(at(6))}, want: []int64{6, 9, 3, 7, 9}},
		"to a time":                    {request: store.ReplayRequest{ToTime: at(6)}, want: []int64{3, 6, 3, 4, 6}},
		"within times":                 {request: store.ReplayRequest{FromTime: at(5), ToTime: later(at(6))}, want: []int64{4, 6, 2, 5, 6}},
		"both kinds of bound":          {request: store.ReplayRequest{FromSequence: number(5), ToSequence: number(8), FromTime: at(6), ToTime: at(7)}, want: []int64{5, 7, 2, 6, 7}},
		"the others of both":           {request: store.ReplayRequest{FromSequence: number(7), ToSequence: number(8), FromTime: at(5), ToTime: at(9)}, want: []int64{6, 8, 2, 7, 8}},
		"from the first one's time":    {request: store.ReplayRequest{FromTime: at(4)}, want: []int64{3, 9, 6, 4, 9}},
		"reversed":                     {request: store.ReplayRequest{FromSequence: number(7), ToSequence: number(5)}, reason: store.ReplayReversed},
		"reversed times":               {request: store.ReplayRequest{FromTime: at(7), ToTime: at(5)}, reason: store.ReplayReversed},
		"between two events":           {request: store.ReplayRequest{FromTime: later(at(5)), ToTime: later(at(5))}, reason: store.ReplayEmpty},
		"above the head":               {request: store.ReplayRequest{FromSequence: number(10)}, reason: store.ReplayAboveHead},
		"after the last one's time":    {request: store.ReplayRequest{FromTime: later(at(9))}, reason: store.ReplayAboveHead},
		"below the floor":              {request: store.ReplayRequest{FromSequence: number(3)}, reason: store.ReplayBelowFloor},
		"to below the floor":           {request: store.ReplayRequest{ToSequence: number(3)}, reason: store.ReplayBelowFloor},
		"before the first one kept":    {request: store.ReplayRequest{FromTime: at(2)}, reason: store.ReplayBelowFloor},
		"to before the first one kept": {request: store.ReplayRequest{ToTime: at(2)}, reason: store.ReplayBelowFloor},
		"no resource of that name":     {request: store.ReplayRequest{ResourceNames: []string{"Member"}}, reason: store.ReplayEmpty},
		"too many keys":                {request: store.ReplayRequest{Keys: make([]event.Key, store.ReplayKeysMax+1)}, reason: store.ReplayTooManyKeys},
		"missed within bounds":         {request: store.ReplayRequest{Missed: true, FromSequence: number(5)}, reason: store.ReplayMissedMixed},
		"missed of a resource":         {request: store.ReplayRequest{Missed: true, ResourceNames: []string{"Property"}}, reason: store.ReplayMissedMixed},
		"nothing is missed":            {request: store.ReplayRequest{Missed: true}, reason: store.ReplayEmpty},
	} {
		for _, dry := range []bool{true, false} {
			test.request.DryRun = dry
			replay, result, err := b.replay(test.request)
			var refused *store.ReplayRefusedError
			if test.reason != "" {
				if !errors.As(err, &refused) || refused.Reason != test.reason {
					t.Errorf("%s, dry %t: %v, want %s", name, dry, err, test.reason)
				} else if refused.Reason == store.ReplayBelowFloor && refused.FirstSequence != 4 {
					t.Errorf("%s: %+v does not name the first event", name, refused)
				}
				continue
			}
			check(t, err)
			if diff := cmp.Diff(test.want, []int64{replay.After, replay.Through, replay.Total, replay.First, replay.Last}); diff != "" {
				t.Errorf("%s, dry %t: %s", name, dry, diff)
			}
			if dry != (replay.ID == 0) || dry != (result.Version == 0) {
				t.Errorf("%s, dry %t: replay %d, control %d", name, dry, replay.ID, result.Version)
			}
		}
	}
	made := value[int](b, `SELECT count(*) FROM replays`)
	if controls := value[int](b, `SELECT count(*) FROM controls`); made != 10 || controls != made {
		t.Errorf("%d replays by %d controls, want 10: a dry run or a refusal left something", made, controls)
	}
	if _, _, err := b.CreateReplay(t.Context(), store.ReplayRequest{Subscriber: "none", Count: b.count}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of a subscriber that is not there: %v", err)
	}
}

// TestCreateReplayStretch: what is counted is what the subscriber's filter and the
// request both let pass.
func TestCreateReplayStretch(t *testing.T) {
	b, _ := setupReplays(t)
	b.exec(`UPDATE subscribers SET config = config || '{"filter": {"resourceNames": ["Prop*", "Media"], "eventTypes": ["a"]}}'`)
	keys := []event.Key{{ResourceName: "Property", ResourceRecordKey: "4"}}
	var got store.ReplayStretch
	r := store.ReplayRequest{Subscriber: "acme", Source: "signal", ResourceNames: []string{"Property", "Member"}, Keys: keys, FromSequence: number(5)}
	r.Count = func(_ context.Context, s store.ReplayStretch) (int64, int64, int64, error) {
		got = s
		return 3, 5, 8, nil
	}
	replay, result, err := b.CreateReplay(t.Context(), r)
	check(t, err)
	feed := value[int64](b, `SELECT id FROM feeds WHERE name = 'default'`)
	want := store.ReplayStretch{FeedID: feed, After: 4, Through: 9, Keys: keys, Filter: event.Filter{ResourceNames: []string{"Property"}, EventTypes: []string{"a"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !result.InForce || result.Version != 1 {
		t.Errorf("nobody holds the lease, and the control is %+v", result)
	}
	stored, err := b.Replay(t.Context(), "acme", 1)
	check(t, err)
	wantReplay := store.Replay{
		ID: 1, State: store.ReplayQueued, Selection: store.ReplaySelection{ResourceNames: r.ResourceNames, Keys: keys},
		After: 4, Through: 9, Total: 3, Source: "signal", Cursor: 4, Settled: []int64{}, CreatedAt: stored.CreatedAt,
	}
	if diff := cmp.Diff(wantReplay, stored); diff != "" {
		t.Error(diff)
	}
	wantReplay.First, wantReplay.Last = 5, 8
	if diff := cmp.Diff(wantReplay, replay); diff != "" {
		t.Error(diff)
	}
	boom := errors.New("boom")
	r.Count = func(context.Context, store.ReplayStretch) (int64, int64, int64, error) { return 0, 0, 0, boom }
	if _, _, err := b.CreateReplay(t.Context(), r); !errors.Is(err, boom) {
		t.Errorf("%v", err)
	}
}

// TestCreateReplayFloorRises: a floor that passes what was counted makes it count
// again; it is never below the floor.
func TestCreateReplayFloorRises(t *testing.T) {
	b, _ := setupReplays(t)
	rounds := 0
	r := store.ReplayRequest{Subscriber: "acme", Source: "api"}
	r.Count = func(ctx context.Context, s store.ReplayStretch) (int64, int64, int64, error) {
		if rounds++; rounds == 1 {
			b.exec(`UPDATE feeds SET floor_sequence = 6 WHERE name = 'default'`)
		}
		return b.count(ctx, s)
	}
	replay, _, err := b.CreateReplay(t.Context(), r)
	check(t, err)
	if replay.After != 6 || replay.Total != 3 || rounds != 2 {
		t.Errorf("%d rounds: %+v", rounds, replay)
	}
	rounds, r.FromSequence = 0, number(7)
	r.Count = func(ctx context.Context, s store.ReplayStretch) (int64, int64, int64, error) {
		b.exec(`UPDATE feeds SET floor_sequence = 8 WHERE name = 'default'`)
		return 1, 7, 7, nil
	}
	var refused *store.ReplayRefusedError
	if _, _, err := b.CreateReplay(t.Context(), r); !errors.As(err, &refused) || refused.FirstSequence != 9 {
		t.Errorf("%v", err)
	}
}

func TestCreateReplayMissed(t *testing.T) {
	b, _ := setupReplays(t)
	missed := store.ReplayRequest{Missed: true}
	taken := func() string {
		return value[string](b, `SELECT coalesce(string_agg(sequence || ':' || coalesce(replay, 0), ' ' ORDER BY sequence), '') FROM dead_letters`)
	}
	b.die(5)
	b.die(8)
	dry, _, err := b.replay(store.ReplayRequest{Missed: true, DryRun: true})
	check(t, err)
	if dry.Total != 2 || dry.First != 5 || dry.Last != 8 || taken() != "5:0 8:0" {
		t.Errorf("a dry run: %+v, %s", dry, taken())
	}
	first := b.mustReplay(missed)
	if first.Total != 2 || first.After != 4 || first.Through != 8 || taken() != "5:1 8:1" {
		t.Errorf("%+v, %s", first, taken())
	}
	b.die(9)
	if second := b.mustReplay(missed); second.Total != 1 || second.After != 8 || taken() != "5:1 8:1 9:2" {
		t.Errorf("%+v, %s", second, taken())
	}
	if _, _, err := b.ControlReplay(t.Context(), "acme", 2, store.ControlReplayCancel, "api", ""); err != nil || taken() != "5:1 8:1 9:0" {
		t.Errorf("cancelled: %v, %s", err, taken())
	}
	// The first one ends without 8, which an endpoint that came back refuses.
	b.exec(`DELETE FROM dead_letters WHERE sequence = 5`)
	b.exec(`UPDATE replays SET state = 'done', finished_at = clock_timestamp() WHERE id = 1`)
	if third := b.mustReplay(missed); third.Total != 2 || taken() != "8:3 9:3" {
		t.Errorf("%+v, %s", third, taken())
	}
}

func TestCreateReplayRepeated(t *testing.T) {
	b, _ := setupReplays(t)
	request := store.ReplayRequest{FromSequence: number(5), ToSequence: number(6), RequestID: "replay:k"}
	first, result, err := b.replay(request)
	check(t, err)
	b.exec(`UPDATE feeds SET floor_sequence = 7 WHERE name = 'default'`) // a new one would be refused
	again, repeated, err := b.replay(request)
	check(t, err)
	first.First, first.Last = 0, 0
	if diff := cmp.Diff(first, again); diff != "" || repeated != result {
		t.Errorf("control %+v, then %+v: %s", result, repeated, diff)
	}
	// A repeat that comes while the first is being made counts, and then finds it.
	b.exec(`UPDATE feeds SET floor_sequence = 3 WHERE name = 'default'`)
	late := store.ReplayRequest{Subscriber: "acme", Source: "api", RequestID: "replay:l"}
	late.Count = func(ctx context.Context, s store.ReplayStretch) (int64, int64, int64, error) {
		other := late
		other.Count = b.count
		if _, _, err := b.CreateReplay(ctx, other); err != nil {
			return 0, 0, 0, err
		}
		return b.count(ctx, s)
	}
	if replay, _, err := b.CreateReplay(t.Context(), late); err != nil || replay.ID != 2 {
		t.Errorf("%+v, %v", replay, err)
	}
	if n := value[int](b, `SELECT count(*) FROM replays`); n != 2 {
		t.Errorf("%d replays", n)
	}
	b.exec(`DELETE FROM replays`)
	if _, _, err := b.replay(request); !errors.Is(err, store.ErrReplayNotFound) {
		t.Errorf("a repeat for what is no longer kept: %v", err)
	}
}

func TestCreateReplayBoundsHowMany(t *testing.T) {
	b, _ := setupReplays(t)
	insert := func(from, to int, state string) {
		b.exec(`INSERT INTO replays (subscriber, id, state, selection, after_sequence, through_sequence, total, source, cursor)
			SELECT 'acme', n, $3, '{}', 3, 9, 6, 'api', 3 FROM generate_series($1::int, $2::int) n`, from, to, state)
	}
	insert(1, 70, store.ReplayDone)
	insert(71, 169, store.ReplayPaused)
	insert(170, 210, store.ReplayCancelled)
	if made := b.mustReplay(store.ReplayRequest{}); made.ID != 211 {
		t.Errorf("it got the number %d", made.ID)
	}
	if kept := value[string](b, `SELECT min(id) || ' ' || count(*) FROM replays WHERE state IN ('done', 'cancelled')`); kept != fmt.Sprint("12 ", store.ReplaysFinishedMax) {
		t.Errorf("the first of the finished ones and how many: %s", kept)
	}
	var refused *store.ReplayRefusedError
	if _, _, err := b.replay(store.ReplayRequest{}); !errors.As(err, &refused) || refused.Reason != store.ReplayTooManyOpen {
		t.Errorf("the one above %d: %v", store.ReplaysOpenMax, err)
	}
	page, err := b.Replays(t.Context(), "acme", 0, 2)
	check(t, err)
	more, err := b.Replays(t.Context(), "acme", 210, 2)
	check(t, err)
	var ids []int64
	for _, r := range append(page, more...) {
		ids = append(ids, r.ID)
	}
	if diff := cmp.Diff([]int64{211, 210, 209, 208}, ids); diff != "" {
		t.Error(diff)
	}
}

// TestControlReplay: what may be done to a replay in each state, and what comes of
// it.
func TestControlReplay(t *testing.T) {
	b, _ := setupReplays(t)
	const same, finished = "same", "finished"
	for state, does := range map[string]map[string]string{
		store.ReplayQueued:    {store.ControlReplayPause: store.ReplayPaused, store.ControlReplayResume: same, store.ControlReplayCancel: store.ReplayCancelled},
		store.ReplayRunning:   {store.ControlReplayPause: store.ReplayPaused, store.ControlReplayResume: same, store.ControlReplayCancel: store.ReplayCancelled},
		"paused, begun":       {store.ControlReplayPause: same, store.ControlReplayResume: store.ReplayRunning, store.ControlReplayCancel: store.ReplayCancelled},
		"paused, not begun":   {store.ControlReplayPause: same, store.ControlReplayResume: store.ReplayQueued, store.ControlReplayCancel: store.ReplayCancelled},
		store.ReplayDone:      {store.ControlReplayPause: finished, store.ControlReplayResume: finished, store.ControlReplayCancel: finished},
		store.ReplayCancelled: {store.ControlReplayPause: finished, store.ControlReplayResume: finished, store.ControlReplayCancel: same},
	} {
		for kind, want := range does {
			b.exec(`DELETE FROM replays`)
			b.mustReplay(store.ReplayRequest{})
			b.exec(`UPDATE replays SET state = split_part($1, ',', 1), started_at = CASE WHEN $1 IN ('running', 'paused, begun') THEN clock_timestamp() END`, state)
			before := value[int64](b, `SELECT desired_version FROM runs`)
			got, result, err := b.ControlReplay(t.Context(), "acme", 1, kind, "token:t", "")
			var over *store.ReplayFinishedError
			switch {
			case want == finished:
				if !errors.As(err, &over) || over.State != state {
					t.Errorf("%s of a replay that is %s: %v", kind, state, err)
				}
				continue
			case err != nil:
				t.Errorf("%s of a replay that is %s: %v", kind, state, err)
				continue
			case want == same:
				if result.Version != before || !result.InForce {
					t.Errorf("%s of a replay that is %s: control %+v", kind, state, result)
				}
				continue
			}
			stored, err := b.Replay(t.Context(), "acme", 1)
			check(t, err)
			if got.State != want || stored.State != want || result.Version != before+1 || (want == store.ReplayCancelled) != (stored.FinishedAt != nil) {
				t.Errorf("%s of a replay that is %s: %+v, control %+v", kind, state, stored, result)
			}
			if last := value[string](b, `SELECT kind || ' ' || source || ' ' || (args ->> 'replay') FROM controls ORDER BY version DESC LIMIT 1`); last != kind+" token:t 1" {
				t.Errorf("the control says %q", last)
			}
		}
	}
	if _, _, err := b.ControlReplay(t.Context(), "acme", 7, store.ControlReplayPause, "api", ""); !errors.Is(err, store.ErrReplayNotFound) {
		t.Errorf("%v", err)
	}
	if _, _, err := b.ControlReplay(t.Context(), "none", 1, store.ControlReplayPause, "api", ""); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// TestReplayControlsAndLease: under a lease a replay changes at once, and the
// holder learns of it as of any control; the lease stays.
func TestReplayControlsAndLease(t *testing.T) {
	b, _ := setupReplays(t)
	lease := uuid.New()
	taken, err := b.TakeLease(t.Context(), "acme", lease)
	check(t, err)
	if !taken.Held {
		t.Fatal("not held")
	}
	_, result, err := b.replay(store.ReplayRequest{})
	check(t, err)
	if result.InForce || value[string](b, `SELECT state FROM replays`) != store.ReplayQueued {
		t.Errorf("%+v", result)
	}
	_, result, err = b.ControlReplay(t.Context(), "acme", 1, store.ControlReplayPause, "api", "replay-pause:k")
	check(t, err)
	_, _, err = b.ControlReplay(t.Context(), "acme", 1, store.ControlReplayResume, "api", "")
	check(t, err)
	replay, repeated, err := b.ControlReplay(t.Context(), "acme", 1, store.ControlReplayPause, "api", "replay-pause:k")
	check(t, err)
	if result.InForce || result.Version != 2 || repeated != result || replay.State != store.ReplayQueued {
		t.Errorf("%+v, then %+v: the replay is %s", result, repeated, replay.State)
	}
	desired, held, err := b.Confirm(t.Context(), "acme", lease)
	if err != nil || !held || desired != 3 {
		t.Errorf("the holder sees %d, held %t, %v", desired, held, err)
	}
}

func TestReplayProgress(t *testing.T) {
	b, _ := setupReplays(t)
	b.mustReplay(store.ReplayRequest{})
	read := func() store.Replay {
		r, err := b.Replay(t.Context(), "acme", 1)
		check(t, err)
		return r
	}
	if r := read(); r.Rate != 0 || r.ETASeconds != nil {
		t.Errorf("one that has not begun: %+v", r)
	}
	b.exec(`UPDATE replays SET state = 'running', total = 400, done = 100, started_at = clock_timestamp() - interval '50 seconds'`)
	if r := read(); r.Rate < 1.5 || r.Rate > 2 || r.ETASeconds == nil || *r.ETASeconds < 150 || *r.ETASeconds > 200 {
		t.Errorf("2 a second, 300 left: %+v", r)
	}
	b.exec(`UPDATE replays SET state = 'paused'`)
	if r := read(); r.Rate == 0 || r.ETASeconds != nil {
		t.Errorf("a pause has no known end: %+v", r)
	}
	b.exec(`UPDATE replays SET state = 'done', done = 400, finished_at = started_at + interval '100 seconds'`)
	if r := read(); r.Rate != 4 || r.ETASeconds != nil {
		t.Errorf("a finished one: %+v", r)
	}
}

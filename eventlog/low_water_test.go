package eventlog_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postroad/event"
	"postroad/eventlog"
)

// put sets something of a subscriber aside.
const (
	putHeld = `WITH k AS (INSERT INTO held_keys (subscriber, resource_name, resource_key) VALUES ($1, 'Property', 'k') ON CONFLICT DO NOTHING)
		INSERT INTO held_events (subscriber, sequence, resource_name, resource_key) VALUES ($1, $2, 'Property', 'k')`
	putDead = `INSERT INTO dead_letters (subscriber, sequence, resource_name, resource_key, reason, last_error)
		VALUES ($1, $2, 'Property', 'k', 'exhausted', 'HTTP 422')`
	putReplay = `INSERT INTO replays (subscriber, id, state, selection, after_sequence, through_sequence, total, source, cursor)
		VALUES ($1, 1, 'paused', '{}', $2, 99, 9, 'test', $2)`
	putSeek = `WITH m AS (UPDATE runs SET moves = 1, lease = gen_random_uuid() WHERE id = $1)
		INSERT INTO controls (subscriber, version, request_id, kind, args, source)
		VALUES ($1, 1, 'r', 'seek', jsonb_build_object('from', 0, 'to', $2::bigint), 'test')`
)

// TestRetainKeepsWhatIsSetAside: a subscriber's position is not all that it may
// still be sent.
func TestRetainKeepsWhatIsSetAside(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		put  string
		at   int64
		then string
		want int64
	}{
		"nothing":             {want: 9},
		"a held event":        {put: putHeld, at: 4, want: 3},
		"a dead letter":       {put: putDead, at: 5, want: 4},
		"a replay":            {put: putReplay, at: 2, want: 2},
		"a finished replay":   {put: putReplay, at: 2, then: `UPDATE replays SET state = 'done'`, want: 9},
		"a seek to come":      {put: putSeek, at: 6, want: 6},
		"a seek that is over": {put: putSeek, at: 6, then: `WITH m AS (UPDATE runs SET moves = 0) UPDATE controls SET result = 'applied'`, want: 9},
		"of a tombstone":      {put: putDead, at: 5, then: `UPDATE runs SET deleted = true`, want: 12},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, eventlog.Config{})
			b.append(b.feed, records(12)...)
			b.subscribe(b.feed, "acme", 9, "{}", "")
			if test.put != "" {
				b.exec(test.put, "acme", test.at)
			}
			if test.then != "" {
				b.exec(test.then)
			}
			b.grow(b.feed, 12, time.Hour)
			b.keep(b.feed, time.Minute, 0)
			must(t, b.log.Retain(t.Context(), 100))
			if floor := b.floor(b.feed); floor != test.want {
				t.Errorf("floor at %d, want %d", floor, test.want)
			}
			pinned, err := b.log.Pinned(t.Context(), time.Minute, 10)
			must(t, err)
			if test.want == 12 {
				if len(pinned) != 0 {
					t.Errorf("pinned: %+v", pinned)
				}
				return
			}
			if len(pinned) != 1 || pinned[0].Low != test.want || pinned[0].Cursor != 9 || pinned[0].Subscriber != "acme" {
				t.Errorf("pinned: %+v", pinned)
			}
		})
	}
}

// TestRetainRemovesWhatIsSetAside: a hard age takes held events, which are lost,
// and dead letters, which were given up before; replays go on above the floor.
func TestRetainRemovesWhatIsSetAside(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 100} {
		b := setup(t, eventlog.Config{})
		b.append(b.feed, records(12)...)
		// 6 waits for its next attempt; 7 to 9 are dealt with, 8 by being held.
		b.subscribe(b.feed, "acme", 5, "{}", "settled = '{7,9}', scanned = 9")
		b.subscribe(b.feed, "other", 12, "{}", "")
		for _, n := range []int64{2, 4, 8, 11} {
			b.exec(putHeld, "acme", n)
		}
		b.exec(`INSERT INTO held_keys (subscriber, resource_name, resource_key) VALUES ('other', 'Property', 'z')`)
		b.exec(`INSERT INTO held_events (subscriber, sequence, resource_name, resource_key) VALUES ('other', 3, 'Property', 'z')`)
		for _, n := range []int64{1, 3, 12} {
			b.exec(putDead, "acme", n)
		}
		b.exec(putReplay, "acme", 2)
		b.exec(`UPDATE replays SET settled = '{4,5,7,11}', event_attempt = 2,
			failing = '[{"sequence": 3, "attempts": 2, "wait_us": 1}, {"sequence": 12, "attempts": 1, "wait_us": 5}]'`)
		b.grow(b.feed, 9, time.Hour)
		b.keep(b.feed, 0, time.Minute)
		must(t, b.log.Retain(t.Context(), most))
		want := map[string]lostRow{"acme": {4, 8, true}, "other": {1, 3, true}} // 6, and 2, 4, 8
		// 6 comes before 8: what is noted last is the greatest.
		if diff := cmp.Diff(want, b.lost()); diff != "" || b.floor(b.feed) != 9 {
			t.Errorf("floor at %d; lost (-want +got):\n%s", b.floor(b.feed), diff)
		}
		text := func(sql string) string {
			var s string
			must(t, b.pool.QueryRow(t.Context(), sql).Scan(&s))
			return s
		}
		if got := text(`SELECT concat(array(SELECT sequence FROM held_events ORDER BY 1), array(SELECT subscriber FROM held_keys), array(SELECT sequence FROM dead_letters))`); got != "{11}{acme}{12}" {
			t.Errorf("set aside: %s", got)
		}
		if got := text(`SELECT concat_ws(' ', cursor, settled, event_attempt, failing, state) FROM replays`); got != `9 {10,11} 0 [{"wait_us": 5, "attempts": 1, "sequence": 12}] paused` {
			t.Errorf("replay: %s", got)
		}
	}
}

// TestEraseWhatConsumersAnswered: an answer may quote what was sent.
func TestEraseWhatConsumersAnswered(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	other := b.newFeed("other", "")
	b.append(b.feed, record("k"), record("x"))
	b.subscribe(b.feed, "acme", 2, "{}", "")
	b.subscribe(other, "elsewhere", 0, "{}", "")
	for _, id := range []string{"acme", "elsewhere"} {
		b.exec(putHeld, id, 1)
		b.exec(putDead, id, 1)
	}
	b.exec(`INSERT INTO dead_letters (subscriber, sequence, resource_name, resource_key, reason, last_error) VALUES ('acme', 2, 'Property', 'x', 'exhausted', 'x')`)
	b.exec(`UPDATE held_keys SET last_error = 'no such owner: Jane Doe'`)
	_, err := b.log.Erase(t.Context(), b.feed.ID, event.Key{ResourceName: "Property", ResourceRecordKey: "k"})
	must(t, err)
	var left []string
	must(t, b.pool.QueryRow(t.Context(), `SELECT array(SELECT concat_ws('/', subscriber, resource_key) FROM (
		SELECT subscriber, resource_key FROM held_keys WHERE last_error IS NOT NULL
		UNION ALL SELECT subscriber, resource_key FROM dead_letters WHERE last_error IS NOT NULL) a ORDER BY 1)`).Scan(&left))
	if got := strings.Join(left, " "); got != "acme/x elsewhere/k elsewhere/k" {
		t.Errorf("answers are left to %s", got)
	}
}

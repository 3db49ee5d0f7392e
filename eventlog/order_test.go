package eventlog_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/testkit"
)

// orderedLog is a log as a publisher and a reader see it.
type orderedLog interface {
	publish(ctx context.Context, key string) error
	// publishLate draws a number for an event and commits it when told to.
	publishLate(t *testing.T, key string) (commit func())
	// readAfter returns the numbers and keys of the events above after.
	readAfter(ctx context.Context, after int64) ([]int64, []string, error)
}

// orderFaults publishes from 16 publishers while a reader goes on from the last
// number it saw, as every reader of a log does. It returns the keys the reader
// never saw, or saw out of order. One event is committed late: after its number
// was drawn, and after others had every chance to overtake it. blocked says
// that the others wait for it instead.
func orderFaults(t *testing.T, log orderedLog, blocked func() bool) []string {
	const publishers, each = 16, 40
	var seen []string
	var faults []string
	after := int64(0)
	read := func() {
		numbers, keys, err := log.readAfter(t.Context(), after)
		must(t, err)
		for i, n := range numbers {
			if n <= after {
				faults = append(faults, keys[i])
			}
			after = n
			seen = append(seen, keys[i])
		}
	}

	commit := log.publishLate(t, "late")
	var wait sync.WaitGroup
	done := make(chan struct{})
	for p := range publishers {
		wait.Go(func() {
			for i := range each {
				if err := log.publish(t.Context(), fmt.Sprintf("%d/%d", p, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() { wait.Wait(); close(done) }()

	testkit.Eventually(t, soon, func() bool { return len(seen) > 0 || blocked() || func() bool { read(); return false }() },
		"somebody overtakes the late event, or waits for it")
	read()
	commit()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		read()
	}

	expected := []string{"late"}
	for p := range publishers {
		for i := range each {
			expected = append(expected, fmt.Sprintf("%d/%d", p, i))
		}
	}
	got := map[string]bool{}
	for _, key := range seen {
		if got[key] {
			faults = append(faults, key)
		}
		got[key] = true
	}
	for _, key := range expected {
		if !got[key] {
			faults = append(faults, key)
		}
	}
	return faults
}

// ourLog is the log under test.
type ourLog struct{ *bundle }

func (l ourLog) publish(ctx context.Context, key string) error {
	_, err := l.log.Append(ctx, l.feed, []event.Event{record(key)})
	return err
}

func (l ourLog) publishLate(t *testing.T, key string) func() {
	tx, err := l.connect().Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), `SELECT append_events($1, false, '1 day', '{1}', NULL, NULL, NULL, '{Property}', ARRAY[$2],
		NULL, NULL, NULL, NULL, NULL)`, l.feed.ID, key)
	must(t, err)
	return func() { must(t, tx.Commit(t.Context())) }
}

func (l ourLog) readAfter(ctx context.Context, after int64) (numbers []int64, keys []string, err error) {
	page, err := l.log.Read(ctx, l.feed.ID, after, 1000)
	for _, e := range page.Events {
		numbers, keys = append(numbers, e.Sequence), append(keys, e.ResourceRecordKey)
	}
	return numbers, keys, err
}

// serialLog is the log that everybody builds first.
type serialLog struct {
	*bundle
	pool *pgxpool.Pool
}

func (l serialLog) publish(ctx context.Context, key string) error {
	_, err := l.pool.Exec(ctx, `INSERT INTO serial_log (key) VALUES ($1)`, key)
	return err
}

func (l serialLog) publishLate(t *testing.T, key string) func() {
	tx, err := l.connect().Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), `INSERT INTO serial_log (key) VALUES ($1)`, key)
	must(t, err)
	return func() { must(t, tx.Commit(t.Context())) }
}

func (l serialLog) readAfter(ctx context.Context, after int64) (numbers []int64, keys []string, err error) {
	rows, err := l.pool.Query(ctx, `SELECT id, key FROM serial_log WHERE id > $1 ORDER BY id LIMIT 1000`, after)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		var key string
		if err := rows.Scan(&n, &key); err != nil {
			return nil, nil, err
		}
		numbers, keys = append(numbers, n), append(keys, key)
	}
	return numbers, keys, rows.Err()
}

func TestOrder(t *testing.T) {
	t.Parallel()
	t.Run("a reader of the log misses nothing", func(t *testing.T) {
		t.Parallel()
		b := setup(t, eventlog.Config{})
		if faults := orderFaults(t, ourLog{b}, func() bool { return b.lockWaiters() > 0 }); len(faults) > 0 {
			t.Errorf("missed, seen twice or out of order: %q", faults)
		}
		for i, e := range b.readAll(b.feed) {
			if e.Sequence != int64(i+1) {
				t.Fatalf("event %d has number %d: numbers have gaps", i, e.Sequence)
			}
		}
	})
	t.Run("two processes, one feed", func(t *testing.T) {
		t.Parallel()
		b := setup(t, eventlog.Config{})
		other := setupAt(t, b.url, eventlog.Config{})
		faults := orderFaults(t, twoProcesses{ourLog{b}, other}, func() bool { return b.lockWaiters() > 1 })
		if len(faults) > 0 {
			t.Errorf("missed, seen twice or out of order: %q", faults)
		}
	})
	t.Run("a reader of a BIGSERIAL log misses the late event", func(t *testing.T) {
		t.Parallel()
		b := setup(t, eventlog.Config{})
		b.exec(`CREATE TABLE serial_log (id bigserial PRIMARY KEY, key text NOT NULL)`)
		faults := orderFaults(t, serialLog{b, b.pool}, func() bool { return false })
		if !slices.Contains(faults, "late") {
			t.Errorf("the harness finds %q, so it does not find what it is there for", faults)
		}
	})
}

// twoProcesses publishes through two logs by turns.
type twoProcesses struct {
	ourLog
	other *bundle
}

func (l twoProcesses) publish(ctx context.Context, key string) error {
	if len(key)%2 == 0 {
		return ourLog{l.other}.publish(ctx, key)
	}
	return l.ourLog.publish(ctx, key)
}

func TestRecordedAt(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{})
	b.append(b.feed, records(3)...)
	// A clock that is set back: what is in the log seems to come from tomorrow.
	b.exec(`UPDATE events SET recorded_at = recorded_at + interval '1 day' WHERE sequence = 3`)
	b.append(b.feed, records(2)...)
	events := b.readAll(b.feed)
	for i := 1; i < len(events); i++ {
		if events[i].RecordedAt.Before(events[i-1].RecordedAt) {
			t.Errorf("event %d was recorded at %s, before the one before it", i+1, events[i].RecordedAt)
		}
	}
}

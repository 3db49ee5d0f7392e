package eventlog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/testkit"
	"postroad/store"
)

// TestPostgreSQLKilled kills the server with SIGKILL under 16 publishers and a
// follower, twice.
func TestPostgreSQLKilled(t *testing.T) {
	t.Parallel()
	cluster := testkit.Cluster(t)
	must(t, cluster.CreateDatabase(t.Context(), "log"))
	url := cluster.URL("log")
	must(t, store.Migrate(t.Context(), url))
	b := setupAt(t, url, eventlog.Config{PollInterval: 20 * time.Millisecond})

	var mu sync.Mutex
	stored, unknown := map[string]int64{}, map[string]bool{}
	var successes atomic.Int64
	stop := make(chan struct{})
	var wait sync.WaitGroup
	for p := range 16 {
		wait.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("%d/%d", p, i)
				result, err := b.log.Append(context.Background(), b.feed, []event.Event{record(key)})
				mu.Lock()
				switch {
				case err == nil:
					stored[key] = result.First
					successes.Add(1)
				case errors.Is(err, eventlog.ErrUnknownOutcome):
					unknown[key] = true
				case errors.Is(err, eventlog.ErrUnavailable):
				default:
					t.Errorf("append: %v", err)
				}
				mu.Unlock()
			}
		})
	}
	var last atomic.Int64
	followed := make(chan []*event.Event, 1)
	go func() { followed <- followUntil(t.Context(), b.log.Follow(b.feed.ID, 0, event.Filter{}), &last) }()

	for range 2 {
		goal := successes.Load() + 200
		testkit.Eventually(t, soon, func() bool { return successes.Load() > goal }, "publishing goes on")
		must(t, syscall.Kill(cluster.PID(), syscall.SIGKILL))
	}
	goal := successes.Load() + 200
	testkit.Eventually(t, soon, func() bool { return successes.Load() > goal }, "publishing goes on after the last crash")
	close(stop)
	wait.Wait()

	events := b.readAll(b.feed)
	inLog := map[string]int64{}
	for i, e := range events {
		if inLog[e.ResourceRecordKey] != 0 {
			t.Errorf("%s is in the log twice", e.ResourceRecordKey)
		}
		inLog[e.ResourceRecordKey] = e.Sequence
		if _, ok := stored[e.ResourceRecordKey]; !ok && !unknown[e.ResourceRecordKey] {
			t.Errorf("%s is in the log, but its publisher was told that it was not stored", e.ResourceRecordKey)
		}
		if e.Sequence != int64(i+1) {
			t.Errorf("event %d has number %d", i, e.Sequence)
		}
	}
	for key, sequence := range stored {
		if inLog[key] != sequence {
			t.Errorf("%s was stored as %d, the log has it as %d", key, sequence, inLog[key])
		}
	}

	// The follower, which lost its connections too, gets to the same end.
	last.Store(b.append(b.feed, record("last")).Last)
	seen := <-followed
	if len(seen) != len(events)+1 {
		t.Errorf("the follower saw %d events of %d", len(seen), len(events)+1)
	}
	for i, e := range seen {
		if e.Sequence != int64(i+1) {
			t.Fatalf("the follower saw event %d as number %d", e.Sequence, i+1)
		}
	}
}

// followUntil collects what a follower hands out until it handed out the event
// that last names, once it names one.
func followUntil(ctx context.Context, f *eventlog.Follower, last *atomic.Int64) []*event.Event {
	defer f.Close()
	var all []*event.Event
	for ctx.Err() == nil {
		events, scanned, err := f.Next(ctx, 500, 1<<20)
		all = append(all, events...)
		if end := last.Load(); end != 0 && scanned >= end {
			return all
		}
		if err != nil || len(events) == 0 {
			waiting, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			_ = f.Wait(waiting)
			cancel()
		}
	}
	return all
}

func TestPostgreSQLAway(t *testing.T) {
	t.Parallel()
	config, err := store.PoolConfig("postgres://nobody@127.0.0.1:1/none?sslmode=disable")
	must(t, err)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	t.Cleanup(pool.Close)
	log := eventlog.New(pool, eventlog.Config{AppendTimeout: 300 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	must(t, log.Start(context.Background()))
	t.Cleanup(log.Close)

	started := time.Now()
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			_, err := log.Append(context.Background(), eventlog.Feed{ID: 1}, records(1))
			if !errors.Is(err, eventlog.ErrUnavailable) || errors.Is(err, eventlog.ErrUnknownOutcome) {
				t.Errorf("got %v, want ErrUnavailable alone", err)
			}
			if _, retry := eventlog.RetryAfter(err); !retry {
				t.Error("another try makes sense, but the error does not say so")
			}
		})
	}
	wait.Wait()
	if took := time.Since(started); took > 2*time.Second {
		t.Errorf("publishers waited %s for an append timeout of 300 ms", took)
	}
}

// TestOutcomeUnknown loses sight of a group: its publishers are told, and
// nothing is sent again.
func TestOutcomeUnknown(t *testing.T) {
	t.Parallel()
	t.Run("before the commit", outcomeUnknownBefore)
	t.Run("after the commit", outcomeUnknownAfter)
}

func outcomeUnknownBefore(t *testing.T) {
	t.Parallel()
	b := setup(t, eventlog.Config{AppendTimeout: 300 * time.Millisecond})
	release := b.holdFeed(b.feed)
	_, err := b.log.Append(t.Context(), b.feed, []event.Event{record("once")})
	if !errors.Is(err, eventlog.ErrUnknownOutcome) || errors.Is(err, eventlog.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnknownOutcome alone", err)
	}
	if _, retry := eventlog.RetryAfter(err); retry {
		t.Error("the error says to try again, which may store the event twice")
	}
	release()
	testkit.Eventually(t, soon, func() bool {
		_, err := b.log.Append(t.Context(), b.feed, []event.Event{record("after")})
		return err == nil
	}, "publishing goes on")
	n := 0
	for _, e := range b.readAll(b.feed) {
		if e.ResourceRecordKey == "once" {
			n++
		}
	}
	if n > 1 {
		t.Errorf("the event is in the log %d times", n)
	}
}

// lossyConn loses its connection when the server has answered a request that
// carries the marker: what the request did is committed by then.
type lossyConn struct {
	net.Conn
	marker []byte
	lost   *atomic.Int64 // answers
	marked atomic.Bool
}

func (c *lossyConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, c.marker) {
		c.marked.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *lossyConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil && c.marked.Load() {
		c.lost.Add(1)
		_ = c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

func outcomeUnknownAfter(t *testing.T) {
	t.Parallel()
	var lost atomic.Int64
	url := testkit.Database(t, store.Migrate)
	config, err := store.PoolConfig(url)
	must(t, err)
	// The call is prepared anew each time otherwise, which has an answer of its own.
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	dial := config.ConnConfig.DialFunc
	config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return &lossyConn{Conn: conn, marker: []byte("marked"), lost: &lost}, err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	t.Cleanup(pool.Close)
	log := eventlog.New(pool, eventlog.Config{Logger: slog.New(slog.DiscardHandler)})
	must(t, log.Start(context.Background()))
	t.Cleanup(log.Close)

	b := setupAt(t, url, eventlog.Config{})
	if _, err = log.Append(t.Context(), b.feed, []event.Event{record("marked")}); !errors.Is(err, eventlog.ErrUnknownOutcome) {
		t.Errorf("got %v, want ErrUnknownOutcome", err)
	}
	if n := lost.Load(); n != 1 {
		t.Errorf("%d answers were lost, want one", n)
	}
	if n := len(b.readAll(b.feed)); n != 1 {
		t.Errorf("the event is in the log %d times", n)
	}
}

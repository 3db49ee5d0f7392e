package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"postroad/eventlog"
	"postroad/internal/testkit"
	"postroad/store"
	"postroad/worker"
)

func TestMain(m *testing.M) { os.Exit(testkit.Run(m)) }

const soon = 20 * time.Second

// bundle is a database, its log and store, and a signaller that takes note.
type bundle struct {
	t       *testing.T
	url     string
	pool    *pgxpool.Pool
	log     *eventlog.Log
	store   *store.Store
	feed    eventlog.Feed
	signals *signals
	queries queries
}

func setup(t *testing.T, logConfig ...eventlog.Config) *bundle {
	t.Helper()
	b := &bundle{t: t, url: testkit.Database(t, store.Migrate), signals: &signals{wakes: map[string][]int64{}}}
	pool, err := store.PoolConfig(b.url)
	b.check(err)
	pool.ConnConfig.Tracer = &b.queries
	b.pool, err = pgxpool.NewWithConfig(t.Context(), pool)
	b.check(err)
	t.Cleanup(b.pool.Close)
	following := eventlog.Config{}
	if len(logConfig) > 0 {
		following = logConfig[0]
	}
	following.ListenURL, following.Logger = b.url, silent()
	b.log = eventlog.New(b.pool, following)
	b.check(b.log.Start(context.WithoutCancel(t.Context())))
	t.Cleanup(b.log.Close)
	b.store = store.New(b.pool, nil)
	b.feed, err = b.log.Feed(t.Context(), "default")
	b.check(err)
	return b
}

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (b *bundle) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// quick is a configuration in which nothing happens by itself for as long as a
// test runs, but what the test shortens.
func quick(change func(*worker.WakerConfig)) worker.WakerConfig {
	const never = time.Hour
	c := worker.WakerConfig{
		Reload: never, Sweep: never, MoveCursors: never, Housekeeping: never, Retention: never, WakeAgain: never,
		RetryDelay: 10 * time.Millisecond, LockPoll: 20 * time.Millisecond, LockTimeout: time.Minute,
		Announce: worker.AnnounceConfig{Every: never, Lag: never, Lasting: never},
	}
	if change != nil {
		change(&c)
	}
	return c
}

// wake starts a waker, waits until it is active, hears notifications and knows
// the parked rows there are, and stops it at the end of the test or by the
// function returned.
func (b *bundle) wake(config worker.WakerConfig) (*worker.Waker, func()) {
	b.t.Helper()
	w, stop := b.start(config)
	b.eventually(func() bool { return w.Counters().Active.Load() == 1 }, "the waker is active")
	// It reloads when it becomes active and again when it hears notifications.
	b.eventually(func() bool { return w.Counters().Reloads.Load() >= 2 }, "the parked rows are known")
	return w, stop
}

func (b *bundle) start(config worker.WakerConfig) (*worker.Waker, func()) {
	w := worker.NewWaker(config, b.log, b.store, b.signals, b.url, silent())
	ctx, cancel := context.WithCancel(context.WithValue(context.WithoutCancel(b.t.Context()), &b.queries, true))
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	stop := sync.OnceFunc(func() {
		cancel()
		<-done
	})
	b.t.Cleanup(stop)
	return w, stop
}

func (b *bundle) eventually(condition func() bool, what string) {
	b.t.Helper()
	testkit.Eventually(b.t, soon, condition, what)
}

// publish appends one event and returns its number.
func (b *bundle) publish(resourceName, eventType string) int64 {
	b.t.Helper()
	events := eventsOf(b.log.Append, fmt.Sprintf(`[{"resourceName":%q,"resourceRecordKey":"1","eventType":%q}]`, resourceName, eventType))
	result, err := b.log.Append(b.t.Context(), b.feed, events)
	b.check(err)
	return result.Last
}

// eventsOf decodes events as the type that Append takes.
func eventsOf[E any](_ func(context.Context, eventlog.Feed, []E) (eventlog.Result, error), text string) []E {
	var events []E
	if err := json.Unmarshal([]byte(text), &events); err != nil {
		panic(err)
	}
	return events
}

// insert makes subscribers <prefix>1 to <prefix>n with a filter. columns and
// values are of runs.
func (b *bundle) insert(prefix string, n int, filter, columns, values string) {
	b.t.Helper()
	_, err := b.pool.Exec(b.t.Context(), `
		WITH made AS (
			INSERT INTO subscribers (id, feed_id, config, secrets)
			SELECT $1 || i, $2, jsonb_build_object('id', $1 || i, 'filter', replace($4, '#', i::text)::jsonb), ''
			FROM generate_series(1, $3::integer) i RETURNING id, feed_id
		) INSERT INTO runs (id, feed_id, `+columns+`) SELECT id, feed_id, `+values+` FROM made`,
		prefix, b.feed.ID, n, filter)
	b.check(err)
}

// park makes parked subscribers with the cursor given; their generations differ.
func (b *bundle) park(prefix string, n int, filter string, cursor int64) {
	b.t.Helper()
	b.insert(prefix, n, filter, "cursor, parked, generation", fmt.Sprintf("%d, true, nextval('park_generations')", cursor))
}

func (b *bundle) generation(id string) int64 {
	b.t.Helper()
	var generation int64
	b.check(b.pool.QueryRow(b.t.Context(), `SELECT generation FROM runs WHERE id = $1`, id).Scan(&generation))
	return generation
}

func (b *bundle) exec(sql string, args ...any) {
	b.t.Helper()
	_, err := b.pool.Exec(b.t.Context(), sql, args...)
	b.check(err)
}

// signals is a Signaller that takes note.
type signals struct {
	mu      sync.Mutex
	wakes   map[string][]int64
	stops   []string
	running map[string]bool
	err     error
	block   chan struct{} // Wake waits for its end
}

// Wake implements worker.Signaller.
func (s *signals) Wake(ctx context.Context, id string, generation int64) error {
	s.mu.Lock()
	block := s.block
	s.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.wakes[id] = append(s.wakes[id], generation)
	return nil
}

// Stop implements worker.Signaller.
func (s *signals) Stop(_ context.Context, id string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stops = append(s.stops, id)
	return !s.running[id], s.err
}

func (s *signals) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *signals) of(id string) []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]int64(nil), s.wakes[id]...)
}

func (s *signals) subscribers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.wakes)
}

// woken waits until a subscriber was woken n times, each time from generation.
func (b *bundle) woken(id string, n int, generation int64) {
	b.t.Helper()
	b.eventually(func() bool { return len(b.signals.of(id)) >= n }, fmt.Sprintf("%s is woken %d times", id, n))
	for _, got := range b.signals.of(id) {
		if got != generation {
			b.t.Errorf("%s woken from generation %d, want %d", id, got, generation)
		}
	}
}

const property = `{"resourceNames": ["Property"]}`

func TestWakerWakes(t *testing.T) {
	t.Parallel()
	t.Run("a new event", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.park("acme", 1, property, 0)
		b.park("other", 1, `{"resourceNames": ["Member"]}`, 0)
		b.wake(quick(nil))
		b.publish("Property", "")
		b.woken("acme1", 1, b.generation("acme1"))
		if got := b.signals.of("other1"); got != nil {
			t.Errorf("a row that nothing matches was woken: %v", got)
		}
	})
	t.Run("an event from before it was active", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.park("acme", 1, property, b.publish("Member", ""))
		b.publish("Property", "")
		b.publish("Member", "")
		b.wake(quick(nil))
		b.woken("acme1", 1, b.generation("acme1"))
	})
	t.Run("an event from before the row was announced", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.park("first", 1, `{"resourceNames": ["Member"]}`, 0) // the feed is followed already
		b.wake(quick(nil))
		b.publish("Property", "")
		b.park("late", 1, property, 0)
		b.check(b.store.AnnounceParked(t.Context(), "late1"))
		b.woken("late1", 1, b.generation("late1"))
	})
	t.Run("a row that no notification told of", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.wake(quick(func(c *worker.WakerConfig) { c.Reload = 20 * time.Millisecond }))
		b.publish("Property", "")
		b.park("acme", 1, property, 0)
		b.woken("acme1", 1, b.generation("acme1"))
	})
	t.Run("a filter that changed", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.park("acme", 1, `{"resourceNames": ["Member"]}`, 0)
		b.publish("Property", "")
		b.wake(quick(nil))
		b.exec(`UPDATE subscribers SET config = config || '{"filter": {}}' WHERE id = 'acme1'`)
		b.exec(`UPDATE runs SET desired_version = 1, applied_version = 1 WHERE id = 'acme1'`)
		b.check(b.store.AnnounceParked(t.Context(), "acme1"))
		b.woken("acme1", 1, b.generation("acme1"))
	})
	t.Run("a row parked again by its new generation", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.park("acme", 1, property, 0)
		b.wake(quick(nil))
		b.exec(`UPDATE runs SET generation = nextval('park_generations') WHERE id = 'acme1'`)
		b.check(b.store.AnnounceParked(t.Context(), "acme1"))
		b.publish("Property", "")
		b.eventually(func() bool {
			n := len(b.signals.of("acme1"))
			return n > 0 && b.signals.of("acme1")[n-1] == b.generation("acme1")
		},
			"it is woken from its last parking")
	})
	t.Run("a row below a raised floor by what is above it", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.park("acme", 1, property, 0)
		b.park("gone", 1, `{"resourceNames": ["Member"]}`, 0)
		b.exec(`UPDATE feeds SET floor_sequence = $2 WHERE id = $1`, b.feed.ID, b.publish("Member", ""))
		b.publish("Property", "")
		b.wake(quick(nil))
		b.woken("acme1", 1, b.generation("acme1"))
		if got := b.signals.of("gone1"); got != nil {
			t.Errorf("a removed event woke a row: %v", got)
		}
	})
	t.Run("a followed feed whose floor passes it by", func(t *testing.T) {
		t.Parallel()
		b := setup(t, eventlog.Config{RingEvents: 1})
		b.park("acme", 1, property, 0)
		w, _ := b.wake(quick(nil))
		b.publish("Office", "")
		b.eventually(func() bool { return w.Counters().Pages.Load() > 0 }, "the feed is followed")
		b.exec(`WITH log AS (
				INSERT INTO events (feed_id, sequence, recorded_at, xid, resource_name, resource_key)
				SELECT $1, i, clock_timestamp(), CASE WHEN i = 9 THEN pg_current_xact_id() END, CASE WHEN i = 5 THEN 'Property' ELSE 'Office' END, '1'
				FROM generate_series(2, 9) i)
			UPDATE feeds SET floor_sequence = 3 WHERE id = $1`, b.feed.ID)
		b.woken("acme1", 1, b.generation("acme1"))
	})
	t.Run("a row that is ahead of the waker by later events only", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.park("ahead", 1, property, 2)
		b.park("acme", 1, property, 1)
		b.park("last", 1, `{"resourceNames": ["Member"]}`, 0)
		w, _ := b.wake(quick(func(c *worker.WakerConfig) { c.Signals = 1 })) // one after the other
		b.publish("Property", "")
		b.publish("Property", "")
		b.publish("Member", "")
		b.woken("acme1", 1, b.generation("acme1"))
		b.woken("last1", 1, b.generation("last1"))
		if got := b.signals.of("ahead1"); got != nil {
			t.Errorf("an event that was settled woke a row: %v", got)
		}
		b.publish("Property", "")
		b.woken("ahead1", 1, b.generation("ahead1"))
		b.eventually(func() bool { return w.Counters().Sent.Load() >= 3 }, "the wakes are counted")
		if got := w.Counters().Sent.Load(); got != 3 {
			t.Errorf("%d wakes, want 3", got)
		}
	})
	t.Run("a filter with more types than are indexed", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.park("acme", 1, `{"resourceNames": ["Property", "Office"], "eventTypes": ["0`+strings.Repeat(`", "0`, 98)+`", "1"]}`, 0)
		b.park("all", 1, `{}`, 0)
		b.wake(quick(nil))
		b.publish("Property", "2")
		b.woken("all1", 1, b.generation("all1"))
		if got := b.signals.of("acme1"); got != nil {
			t.Errorf("an event of another type woke a row: %v", got)
		}
		b.publish("Property", "1")
		b.woken("acme1", 1, b.generation("acme1"))
	})
	t.Run("a filter that names an event twice", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.park("twice", 1, `{"resourceNames": ["Property", "Prop*"]}`, 0)
		b.park("acme", 1, `{"resourceNames": ["Member"]}`, 0)
		b.wake(quick(nil))
		b.publish("Property", "")
		b.woken("twice1", 1, b.generation("twice1"))
		b.publish("Member", "")
		b.woken("acme1", 1, b.generation("acme1"))
	})
}

func TestWakerRepeats(t *testing.T) {
	t.Parallel()
	t.Run("a lost wake while the row is parked", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.park("acme", 1, property, 0)
		w, _ := b.wake(quick(func(c *worker.WakerConfig) { c.WakeAgain, c.WakeAgainMax = 10*time.Millisecond, 40*time.Millisecond }))
		b.publish("Property", "")
		b.woken("acme1", 5, b.generation("acme1"))
		b.exec(`UPDATE runs SET parked = false`)
		// The look that finds it unparked is the last one.
		statements := w.Counters().Statements.Load()
		b.eventually(func() bool { return w.Counters().Statements.Load() > statements }, "it looks again")
		last := len(b.signals.of("acme1")) + 1 // one may have been under way
		b.exec(`UPDATE runs SET parked = true, generation = nextval('park_generations')`)
		b.check(b.store.AnnounceParked(t.Context(), "acme1"))
		again := b.generation("acme1")
		b.eventually(func() bool { n := b.signals.of("acme1"); return n[len(n)-1] == again }, "it is woken from its new parking")
		for i, generation := range b.signals.of("acme1") {
			if i >= last && generation != again {
				t.Errorf("wake %d names generation %d, which was over", i, generation)
			}
		}
	})
	t.Run("a wake that could not be sent", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.park("acme", 1, property, 0)
		b.signals.fail(errors.New("Temporal is away"))
		w, _ := b.wake(quick(nil))
		b.publish("Property", "")
		b.eventually(func() bool { return w.Counters().Failed.Load() > 1 }, "it tries")
		b.signals.fail(nil)
		b.woken("acme1", 1, b.generation("acme1"))
	})
}

func TestWakerLearnsWhileSignalsBlock(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.signals.block = make(chan struct{})
	b.park("blocked", 5, property, 0)
	b.publish("Property", "")
	w, _ := b.wake(quick(func(c *worker.WakerConfig) { c.Signals = 2 }))
	b.park("late", 20, property, 0)
	for i := range 20 {
		b.check(b.store.AnnounceParked(t.Context(), fmt.Sprintf("late%d", i+1)))
	}
	b.eventually(func() bool { return w.Counters().Statements.Load() >= 40 }, "each row is read and matched meanwhile")
	if n := b.signals.subscribers(); n > 0 {
		t.Errorf("%d signals got through", n)
	}
	close(b.signals.block)
	b.eventually(func() bool { return b.signals.subscribers() == 25 }, "all are woken afterwards")
}

// TestWakerMatchesWhileRowsAreRead holds up the reading of rows that were told
// of: rows that are known are woken meanwhile.
func TestWakerMatchesWhileRowsAreRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.park("acme", 1, property, 0)
	w, _ := b.wake(quick(nil))
	b.publish("Office", "")
	b.eventually(func() bool { return w.Counters().Pages.Load() >= 1 }, "the row is in the index")
	generation := b.generation("acme1")
	tx, err := b.pool.Begin(t.Context())
	b.check(err)
	defer func() { b.check(tx.Rollback(context.WithoutCancel(t.Context()))) }()
	_, err = tx.Exec(t.Context(), `LOCK TABLE runs IN ACCESS EXCLUSIVE MODE`)
	b.check(err)
	statements := w.Counters().Statements.Load()
	b.check(b.store.AnnounceParked(t.Context(), "other"))
	b.eventually(func() bool { return w.Counters().Statements.Load() > statements }, "the row told of is being read")
	b.publish("Property", "")
	b.woken("acme1", 1, generation)
}

func TestWakerIndex(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// Alike in what most filters are alike in, so that one level of index would
	// look at all of them.
	b.park("type", 5_000, `{"resourceNames": ["Property"], "eventTypes": ["type#"]}`, 0)
	b.park("name", 5_000, `{"resourceNames": ["Resource#", "Pre#*"]}`, 0)
	b.park("acme", 1, `{"resourceNames": ["Prop*"], "eventTypes": ["price"]}`, 0)
	w, _ := b.wake(quick(nil))
	b.publish("Office", "") // all rows are in the index when this one is through
	c := w.Counters()
	b.eventually(func() bool { return c.Pages.Load() >= 1 }, "a first event is matched")
	attempts, statements, pages := c.MatchAttempts.Load(), c.Statements.Load(), c.Pages.Load()
	const events = 20
	for range events {
		b.publish("Property", "status")
	}
	b.publish("Property", "price")
	b.woken("acme1", 1, b.generation("acme1"))
	if got := c.MatchAttempts.Load() - attempts; got != 1 {
		t.Errorf("%d rows were tried, want the one that matches", got)
	}
	if got := c.Statements.Load() - statements; got != 0 {
		t.Errorf("%d queries, want none", got)
	}
	if got := c.Pages.Load() - pages; got > events+1 {
		t.Errorf("%d reads of events, want at most one for each of %d", got, events+1)
	}
	if n := b.signals.subscribers(); n != 1 {
		t.Errorf("%d subscribers woken, want 1", n)
	}
}

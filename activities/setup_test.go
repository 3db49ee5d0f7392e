package activities_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"postroad/activities"
	"postroad/contract"
	"postroad/delivery"
	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/testkit"
	"postroad/store"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(childURLEnv); url != "" {
		child(url)
	}
	code := testkit.Run(m)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "left running:", err)
		code = 1
	}
	os.Exit(code)
}

// bundle is one worker's activities over a database of the test's own.
type bundle struct {
	*activities.Activities
	t     *testing.T
	url   string
	pool  *pgxpool.Pool
	store *store.Store
	log   *eventlog.Log
	feed  eventlog.Feed
	end   func() // ends it before the test does
}

// fast are periods that tests need not wait for. Deliver returns at every wait.
var fast = activities.Config{
	Linger: 300 * time.Millisecond, Touch: 50 * time.Millisecond, LeaseTrust: 200 * time.Millisecond,
	ControlPoll: 20 * time.Millisecond, AttemptsEvery: 20 * time.Millisecond,
	DrainRequests: 2 * time.Second, ReleaseTimeout: time.Second, SitOut: -1,
}

// setup makes a worker over a new database; changes are made to fast.
func setup(t *testing.T, changes ...func(*activities.Config)) *bundle {
	t.Helper()
	return setupOn(t, testkit.Database(t, store.Migrate), changes...)
}

// setupOn makes a worker over a database that may have others.
func setupOn(t *testing.T, url string, changes ...func(*activities.Config)) *bundle {
	t.Helper()
	cfg := fast
	for _, change := range changes {
		change(&cfg)
	}
	return setupWith(t, url, cfg)
}

func setupWith(t *testing.T, url string, cfg activities.Config) *bundle {
	t.Helper()
	b := &bundle{t: t, url: url}
	closeAll, err := b.open(cfg)
	check(t, err)
	b.end = sync.OnceFunc(closeAll)
	t.Cleanup(b.end)
	b.feed, err = b.log.Feed(t.Context(), "default")
	check(t, err)
	return b
}

// open builds the worker; the function returned ends it.
func (b *bundle) open(cfg activities.Config) (closeAll func(), err error) {
	poolConfig, err := store.PoolConfig(b.url)
	if err != nil {
		return nil, err
	}
	if b.pool, err = pgxpool.NewWithConfig(context.Background(), poolConfig); err != nil {
		return nil, err
	}
	sealer, err := store.NewSealer([store.KeyBytes]byte{1})
	if err != nil {
		return nil, err
	}
	b.store = store.New(b.pool, sealer)
	logger := slog.New(slog.DiscardHandler)
	b.log = eventlog.New(b.pool, eventlog.Config{ListenURL: b.url, PollInterval: 20 * time.Millisecond, ScanRows: 5, Logger: logger})
	if err := b.log.Start(context.Background()); err != nil {
		return nil, err
	}
	cfg.Log, cfg.Store, cfg.ListenURL = b.log, b.store, b.url
	if cfg.Logger == nil {
		cfg.Logger = logger
	}
	if cfg.Client == nil {
		cfg.Client = newClient("test")
	}
	b.Activities = activities.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	b.Start(ctx)
	cancel() // only Close ends what it started
	return func() {
		b.Close()
		cfg.Client.Close()
		b.log.Close()
		b.pool.Close()
	}, nil
}

func newClient(version string) *delivery.Client {
	return delivery.NewClient(delivery.Config{
		Guard: delivery.GuardConfig{AllowHTTP: true, AllowLoopback: true}, Version: version,
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// create stores the subscriber acme, owed everything, with steps of
// milliseconds.
func (b *bundle) create(url string, change func(*event.Subscriber)) {
	b.t.Helper()
	sub := event.Subscriber{ID: "acme", Endpoint: event.Endpoint{URL: url, Timeout: event.Duration(time.Second)}, Start: event.Start{Where: "beginning"}}
	sub.Signing.Secret = delivery.NewSigningSecret()
	sub.Retry.Schedule = []event.Duration{event.Duration(10 * time.Millisecond), event.Duration(20 * time.Millisecond)}
	sub = sub.Defaulted()
	if change != nil {
		change(&sub)
	}
	if errs := sub.Validate(true); len(errs) > 0 {
		b.t.Fatal(errs)
	}
	public, secrets, _ := sub.SplitSecrets(event.Secrets{})
	_, err := b.store.Create(b.t.Context(), public, secrets)
	check(b.t, err)
}

func (b *bundle) publish(events ...event.Event) eventlog.Result {
	b.t.Helper()
	result, err := b.log.Append(b.t.Context(), b.feed, events)
	check(b.t, err)
	return result
}

// deliver runs Deliver once.
func (b *bundle) deliver() contract.DeliverResult {
	b.t.Helper()
	// One that does not end is drained, and then its outcome is a wrong one.
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*waitMax)
	defer cancel()
	result, err := b.Deliver(ctx, contract.DeliverInput{Subscriber: "acme"})
	check(b.t, err)
	return result
}

// drive does what the workflow does, until the outcome is one of those given.
func (b *bundle) drive(until ...contract.Outcome) contract.DeliverResult {
	b.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		result := b.deliver()
		for _, outcome := range until {
			if result.Outcome == outcome {
				return result
			}
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("still %+v", result)
		}
		select {
		case <-time.After(time.Duration(result.RemainingMillis) * time.Millisecond):
		case <-b.t.Context().Done():
		}
	}
}

func (b *bundle) row() store.Run {
	b.t.Helper()
	row, err := b.store.Run(b.t.Context(), "acme")
	check(b.t, err)
	return row
}

// running is a Deliver in the background.
type running struct {
	t      *testing.T
	result chan contract.DeliverResult
	failed chan error
}

// start runs Deliver once in the background.
func (b *bundle) start(ctx context.Context) *running {
	b.t.Helper()
	r := &running{t: b.t, result: make(chan contract.DeliverResult, 1), failed: make(chan error, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		result, err := b.Deliver(ctx, contract.DeliverInput{Subscriber: "acme"})
		if err != nil {
			r.failed <- err
			return
		}
		r.result <- result
	}()
	b.t.Cleanup(func() { // before the worker is closed
		b.Drain()
		<-done
	})
	return r
}

// waitMax is how long tests wait for what must happen.
const waitMax = 20 * time.Second

func (r *running) want(outcome contract.Outcome) contract.DeliverResult {
	r.t.Helper()
	select {
	case result := <-r.result:
		if result.Outcome != outcome {
			r.t.Fatalf("Deliver returned %+v, want %s", result, outcome)
		}
		return result
	case err := <-r.failed:
		r.t.Fatal(err)
	case <-time.After(waitMax):
		r.t.Fatal("Deliver did not return")
	}
	return contract.DeliverResult{}
}

// follow does what workflow and waker do, for as long as ctx lasts: it runs
// Deliver and waits for what it says to wait for. A parked row is woken only if
// the log holds a match above its cursor, or a control came.
func (b *bundle) follow(ctx context.Context, id string) {
	for ctx.Err() == nil {
		result, err := b.Deliver(ctx, contract.DeliverInput{Subscriber: id})
		pause := time.Duration(result.RemainingMillis) * time.Millisecond
		due := func() bool { return false }
		switch {
		case err != nil:
			pause = 20 * time.Millisecond
		case result.Outcome == contract.OutcomeParked:
			if pause == 0 {
				pause = time.Hour
			}
			due = func() bool { return b.wakeDue(ctx, id) }
		case result.Outcome == contract.OutcomeHalted, result.Outcome == contract.OutcomePaused:
			pause, due = time.Hour, func() bool {
				row, err := b.store.Run(ctx, id)
				return err == nil && row.Runnable()
			}
		}
		for until := time.Now().Add(pause); time.Now().Before(until) && ctx.Err() == nil && !due(); {
			select {
			case <-ctx.Done():
			case <-time.After(min(2*time.Millisecond, time.Until(until))):
			}
		}
	}
}

// wakeDue is the waker's rule for a parked row.
func (b *bundle) wakeDue(ctx context.Context, id string) bool {
	row, parked, err := b.store.ParkedRow(ctx, id)
	if err != nil {
		return false
	}
	if !parked {
		return true // by a control: a plain wake
	}
	match, _, err := b.log.FirstMatch(ctx, row.FeedID, row.Cursor, 0, row.Filter)
	return err == nil && match != 0
}

// followAll follows subscribers until the test ends.
func (b *bundle) followAll(ids ...string) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, id := range ids {
		all.Go(func() { b.follow(ctx, id) })
	}
	b.t.Cleanup(func() {
		cancel()
		all.Wait()
	})
}

func (b *bundle) control(kind string) store.ControlResult {
	b.t.Helper()
	result, err := b.store.Control(b.t.Context(), store.ControlRequest{Subscriber: "acme", Kind: kind, Source: "test"})
	check(b.t, err)
	return result
}

// configure changes acme's configuration.
func (b *bundle) configure(change func(*event.Subscriber, *event.Secrets)) store.ControlResult {
	b.t.Helper()
	loaded, err := b.store.Load(b.t.Context(), "acme")
	check(b.t, err)
	change(&loaded.Subscriber, &loaded.Secrets)
	_, result, err := b.store.Replace(b.t.Context(), loaded.Subscriber, loaded.Secrets, store.Change{})
	check(b.t, err)
	return result
}

// wantInForce waits until a control is in force, a second at most.
func (b *bundle) wantInForce(version int64) {
	b.t.Helper()
	testkit.Eventually(b.t, time.Second, func() bool {
		inForce, err := b.store.InForce(b.t.Context(), "acme", version)
		check(b.t, err)
		return inForce
	}, "the control is in force")
}

func (b *bundle) exec(sql string, args ...any) {
	b.t.Helper()
	_, err := b.pool.Exec(b.t.Context(), sql, args...)
	check(b.t, err)
}

// hold runs a statement in a transaction of its own, which keeps its locks
// until release is called. It is safe to be called by a receiver's script.
func (b *bundle) hold(sql string) (release func()) {
	conn, err := pgx.Connect(context.Background(), b.url)
	if err == nil {
		_, err = conn.Exec(context.Background(), "BEGIN; "+sql)
	}
	if err != nil {
		b.t.Error(err)
		return func() {}
	}
	return sync.OnceFunc(func() { _ = conn.Close(context.Background()) })
}

// sessions reports whether a session of this database, not the asking one, is as
// the condition over pg_stat_activity says.
func (b *bundle) sessions(condition string, args ...any) bool {
	b.t.Helper()
	var found bool
	check(b.t, b.pool.QueryRow(b.t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND `+condition+`)`, args...).Scan(&found))
	return found
}

// arrivals are the sequences in the bodies of accepted requests, in order.
func arrivals(t *testing.T, requests []testkit.Request, accepted func(testkit.Request) bool) []int64 {
	t.Helper()
	type member struct {
		Sequence int64 `json:"EntityEventSequence"`
	}
	var list []int64
	for _, r := range requests {
		if !accepted(r) {
			continue
		}
		var body struct {
			member
			Value []member `json:"value"`
		}
		check(t, json.Unmarshal(r.Body, &body))
		if body.Value == nil {
			body.Value = []member{body.member}
		}
		for _, m := range body.Value {
			list = append(list, m.Sequence)
		}
	}
	return list
}

// answers remembers how a script answered.
type answers struct {
	mu       sync.Mutex
	statuses map[int]int
}

// note returns the answer and remembers it for request n.
func (a *answers) note(n int, answer testkit.Answer) testkit.Answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.statuses == nil {
		a.statuses = map[int]int{}
	}
	a.statuses[n] = answer.Status
	return answer
}

func (a *answers) accepted(r testkit.Request) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	status, answered := a.statuses[r.N]
	return answered && status == 0
}

package activities_test

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"postroad/activities"
	"postroad/contract"
	"postroad/delivery"
	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/testkit"
	"postroad/store"
)

func TestMain(m *testing.M) { os.Exit(testkit.Run(m)) }

// bundle is one worker's activities over a database of the test's own.
type bundle struct {
	*activities.Activities
	t     *testing.T
	url   string
	pool  *pgxpool.Pool
	store *store.Store
	log   *eventlog.Log
	feed  eventlog.Feed
}

// fast are periods that tests need not wait for.
var fast = activities.Config{
	Linger: 300 * time.Millisecond, Touch: 50 * time.Millisecond, LeaseTrust: 200 * time.Millisecond,
	ControlPoll: 20 * time.Millisecond, AttemptsEvery: 20 * time.Millisecond,
	DrainRequests: 2 * time.Second, ReleaseTimeout: time.Second,
}

func setup(t *testing.T) *bundle {
	t.Helper()
	return setupWith(t, testkit.Database(t, store.Migrate), fast)
}

func setupWith(t *testing.T, url string, cfg activities.Config) *bundle {
	t.Helper()
	b := &bundle{t: t, url: url}
	poolConfig, err := store.PoolConfig(url)
	check(t, err)
	b.pool, err = pgxpool.NewWithConfig(context.Background(), poolConfig)
	check(t, err)
	t.Cleanup(b.pool.Close)
	sealer, err := store.NewSealer([store.KeyBytes]byte{1})
	check(t, err)
	b.store = store.New(b.pool, sealer)
	logger := slog.New(slog.DiscardHandler)
	b.log = eventlog.New(b.pool, eventlog.Config{ListenURL: url, PollInterval: 20 * time.Millisecond, Logger: logger})
	check(t, b.log.Start(context.Background()))
	t.Cleanup(b.log.Close)
	b.feed, err = b.log.Feed(t.Context(), "default")
	check(t, err)
	cfg.Log, cfg.Store, cfg.ListenURL, cfg.Logger = b.log, b.store, url, logger
	cfg.Client = delivery.NewClient(delivery.Config{Guard: delivery.GuardConfig{AllowHTTP: true, AllowLoopback: true}})
	t.Cleanup(cfg.Client.Close)
	b.Activities = activities.New(cfg)
	b.Start(context.Background())
	t.Cleanup(b.Close)
	return b
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
	result, err := b.Deliver(b.t.Context(), contract.DeliverInput{Subscriber: "acme"})
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

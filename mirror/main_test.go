package mirror_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/testkit"
	"postroad/mirror"
	"postroad/store"
)

func TestMain(m *testing.M) { os.Exit(testkit.Run(m)) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// logFeed is a feed of the log itself. appended, where set, is called before
// each append and may refuse it.
type logFeed struct {
	log      *eventlog.Log
	name     string
	appended func(events []event.Event) error
}

func newFeed(t testing.TB) *logFeed {
	t.Helper()
	config, err := store.PoolConfig(testkit.Database(t, store.Migrate))
	must(t, err)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	must(t, err)
	t.Cleanup(pool.Close)
	log := eventlog.New(pool, eventlog.Config{})
	must(t, log.Start(context.Background()))
	t.Cleanup(log.Close)
	_, err = log.CreateFeed(t.Context(), eventlog.FeedSpec{Name: "copy", Sequences: eventlog.SequencesSupplied})
	must(t, err)
	return &logFeed{log: log, name: "copy"}
}

func (f *logFeed) Position(ctx context.Context) (mirror.Position, error) {
	feed, err := f.log.Feed(ctx, f.name)
	return mirror.Position{Head: feed.Head, Whole: max(feed.FloorSequence, feed.CompactedThrough)}, err
}

func (f *logFeed) Append(ctx context.Context, events []event.Event) error {
	if f.appended != nil {
		if err := f.appended(events); err != nil {
			return err
		}
	}
	feed, err := f.log.Feed(ctx, f.name)
	if err != nil {
		return err
	}
	_, err = f.log.Append(ctx, feed, events)
	var conflict *eventlog.ConflictError
	if errors.As(err, &conflict) {
		return errors.Join(mirror.ErrConflict, err)
	}
	return err
}

func (f *logFeed) Records(ctx context.Context, after int64, limit int) ([]event.Event, error) {
	feed, err := f.log.Feed(ctx, f.name)
	if err != nil {
		return nil, err
	}
	page, err := f.log.Read(ctx, feed.ID, after, limit)
	return page.Events, err
}

// all reads the whole feed.
func (f *logFeed) all(t testing.TB) []event.Event {
	t.Helper()
	var all []event.Event
	for after := int64(0); ; after = all[len(all)-1].Sequence {
		page, err := f.Records(t.Context(), after, 1000)
		must(t, err)
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
	}
}

// quick has every period short.
func quick(config mirror.Config) mirror.Config {
	config.Poll, config.RetryDelay, config.RetryDelayMax = 5*time.Millisecond, time.Millisecond, 5*time.Millisecond
	if config.Horizon == 0 {
		config.Horizon = 50 * time.Millisecond
	}
	if config.Recheck == 0 {
		config.Recheck = time.Hour
	}
	return config
}

package store_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"postroad/event"
	"postroad/store"
)

// TestCreateParked: who has nothing to wait for is parked from the beginning, and
// the wakers hear of it.
func TestCreateParked(t *testing.T) {
	b := setup(t)
	told := b.listen(store.ParkedChannel)
	create := func(id string, start event.Start) bool {
		sub := subscriber(id)
		sub.Start = start
		_, parked, err := b.CreateParked(t.Context(), sub, event.Secrets{})
		check(t, err)
		row, listed, err := b.ParkedRow(t.Context(), id)
		check(t, err)
		if listed != parked || listed && row.Generation == 0 {
			t.Errorf("%s: parked %t, but listed %t under generation %d", id, parked, listed, row.Generation)
		}
		return parked
	}
	if !create("first", event.Start{Where: "beginning"}) {
		t.Error("not parked in an empty feed")
	}
	if id := told(); id != "first" {
		t.Errorf("told of %q", id)
	}
	b.publish(0, 4, 5)
	if !create("now", event.Start{Where: "now"}) {
		t.Error("not parked at the head")
	}
	if create("behind", event.Start{Where: "beginning"}) {
		t.Error("parked with events above its start")
	}
	b.exec(`UPDATE runs SET checked_at = checked_at - interval '1 hour'`)
	swept, err := b.SweepRows(t.Context(), time.Minute, 10)
	if diff := cmp.Diff([]string{"behind"}, swept); err != nil || diff != "" {
		t.Errorf("the sweep wakes: %v, %s", err, diff)
	}
	taken, err := b.TakeLease(t.Context(), "first", uuid.New())
	if err != nil || !taken.Held || taken.Stale || taken.Run.Cursor != 0 {
		t.Errorf("taken: %+v, %v", taken, err)
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	t.Run("returns what Get then reads", func(t *testing.T) {
		b := setup(t)
		sub := subscriber("acme")
		sub.Filter.ResourceNames = []string{"Property"}
		created, err := b.Create(t.Context(), sub, event.Secrets{Token: "t", Headers: map[string]string{"X-Key": "v"}})
		check(t, err)
		got, err := b.Get(t.Context(), "acme")
		check(t, err)
		if diff := cmp.Diff(created, got); diff != "" {
			t.Error(diff)
		}
		if got.Version != 1 || got.FeedName != "default" || got.FeedEpoch != 1 || !got.Subscriber.Auth.TokenSet {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("start", func(t *testing.T) {
		b := setup(t)
		b.publish(0, 4, 5, 9)
		b.exec(`UPDATE feeds SET floor_sequence = 3`)
		for id, c := range map[string]struct {
			start event.Start
			want  int64
		}{
			"now":       {event.Start{Where: "now"}, 9},
			"beginning": {event.Start{Where: "beginning"}, 3},
			"head":      {event.Start{Where: "sequence", Sequence: 9}, 9},
			"between":   {event.Start{Where: "sequence", Sequence: 6}, 6},
			"floor":     {event.Start{Where: "sequence", Sequence: 1}, 3},
		} {
			b.create(id, c.start)
			run, err := b.Run(t.Context(), id)
			check(t, err)
			if run.Cursor != c.want {
				t.Errorf("%s: cursor %d, want %d", id, run.Cursor, c.want)
			}
		}
		sub := subscriber("above")
		sub.Start = event.Start{Where: "sequence", Sequence: 10}
		_, err := b.Create(t.Context(), sub, event.Secrets{})
		var above *store.StartAboveHeadError
		if !errors.As(err, &above) || above.Start != 10 || above.Head != 9 {
			t.Errorf("above the head: %v", err)
		}
		if _, err := b.Get(t.Context(), "above"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("it was created all the same: %v", err)
		}
	})
	t.Run("now in a feed that is empty above its floor", func(t *testing.T) {
		b := setup(t)
		b.exec(`UPDATE feeds SET floor_sequence = 40`)
		b.create("acme", event.Start{Where: "now"})
		if run, err := b.Run(t.Context(), "acme"); err != nil || run.Cursor != 40 {
			t.Errorf("cursor %d, %v", run.Cursor, err)
		}
	})
	t.Run("feed unknown or deleted", func(t *testing.T) {
		b := setup(t)
		b.exec(`INSERT INTO feeds (name, deleted_at) VALUES ('gone', now())`)
		for _, feed := range []string{"none", "gone"} {
			sub := subscriber("acme")
			sub.Feed = feed
			if _, err := b.Create(t.Context(), sub, event.Secrets{}); !errors.Is(err, store.ErrFeedNotFound) {
				t.Errorf("%s: %v", feed, err)
			}
		}
	})
	t.Run("a feed being deleted is waited for", func(t *testing.T) {
		b := setup(t)
		b.exec(`INSERT INTO feeds (name) VALUES ('tenant')`)
		tx, err := b.pool.Begin(t.Context())
		check(t, err)
		_, err = tx.Exec(t.Context(), `UPDATE feeds SET deleted_at = now() WHERE name = 'tenant'`)
		check(t, err)
		created := make(chan error, 1)
		go func() {
			sub := subscriber("acme")
			sub.Feed = "tenant"
			_, err := b.Create(t.Context(), sub, event.Secrets{})
			created <- err
		}()
		b.awaitLockWaiters(1)
		check(t, tx.Commit(t.Context()))
		if err := <-created; !errors.Is(err, store.ErrFeedNotFound) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("one id at once: one wins", func(t *testing.T) {
		b := setup(t)
		errs := make([]error, 6)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { _, errs[i] = b.Create(t.Context(), subscriber("acme"), event.Secrets{}) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else if !errors.Is(err, store.ErrExists) {
				t.Errorf("got %v", err)
			}
		}
		if won != 1 {
			t.Errorf("%d created it", won)
		}
	})
	t.Run("without a master key", func(t *testing.T) {
		b := setup(t)
		_, err := store.New(b.pool, nil).Create(t.Context(), subscriber("acme"), event.Secrets{})
		if !errors.Is(err, store.ErrNoSealer) {
			t.Errorf("got %v", err)
		}
	})
}

func TestList(t *testing.T) {
	b := setup(t)
	b.exec(`INSERT INTO feeds (name) VALUES ('tenant')`)
	for i, id := range []string{"a", "b", "c", "d"} {
		sub := subscriber(id)
		sub.Feed = []string{"default", "tenant"}[i%2]
		sub.Owner = []string{"ann", "bob"}[i/2]
		_, err := b.Create(t.Context(), sub, event.Secrets{})
		check(t, err)
	}
	_, err := b.Delete(t.Context(), "d", store.Change{})
	check(t, err)
	for name, c := range map[string]struct {
		filter store.ListFilter
		after  string
		limit  int
		want   string
	}{
		"all but tombstones": {store.ListFilter{}, "", 10, "a b c"},
		"page":               {store.ListFilter{}, "a", 1, "b"},
		"feed":               {store.ListFilter{Feed: "tenant"}, "", 10, "b"},
		"owner":              {store.ListFilter{Owner: "bob"}, "", 10, "c"},
		"no limit":           {store.ListFilter{}, "", 0, "a"},
	} {
		list, err := b.List(t.Context(), c.filter, c.after, c.limit)
		check(t, err)
		var ids []string
		for _, r := range list {
			ids = append(ids, r.Subscriber.ID)
		}
		if got := strings.Join(ids, " "); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	feed := value[int64](b, `SELECT id FROM feeds WHERE name = 'tenant'`)
	if n, err := b.CountByFeed(t.Context(), feed); err != nil || n != 1 {
		t.Errorf("CountByFeed: %d, %v", n, err)
	}
}

func TestLoad(t *testing.T) {
	b := setup(t)
	now := value[time.Time](b, `SELECT clock_timestamp()`)
	secrets := event.Secrets{
		Token: "t", Password: "p", Value: "v", Headers: map[string]string{"X-Key": "k"},
		Signing: []event.SigningSecret{
			{Secret: "whsec_current"},
			{Secret: "whsec_overlapping", ExpiresAt: now.Add(time.Hour).UTC()},
			{Secret: "whsec_expired", ExpiresAt: now.Add(-time.Second).UTC()},
		},
	}
	_, err := b.Create(t.Context(), subscriber("acme"), secrets)
	check(t, err)
	loaded, err := b.Load(t.Context(), "acme")
	check(t, err)
	want := secrets
	want.Signing = want.Signing[:2]
	if diff := cmp.Diff(want, loaded.Secrets); diff != "" {
		t.Error(diff)
	}
	if left := loaded.SigningValidFor; len(left) != 2 || left[0] != 0 || left[1] <= 50*time.Minute || left[1] > time.Hour {
		t.Errorf("SigningValidFor is %v", left)
	}
	otherSealer, err := store.NewSealer([store.KeyBytes]byte{9})
	check(t, err)
	if _, err := store.New(b.pool, otherSealer).Load(t.Context(), "acme"); !errors.Is(err, store.ErrWrongKey) {
		t.Errorf("with another key: %v", err)
	}
	b.create("bravo", event.Start{Where: "now"})
	b.exec(`UPDATE subscribers SET secrets = (SELECT secrets FROM subscribers WHERE id = 'acme') WHERE id = 'bravo'`)
	if _, err := b.Load(t.Context(), "bravo"); !errors.Is(err, store.ErrSealBroken) {
		t.Errorf("with another subscriber's secrets: %v", err)
	}
	if _, err := b.Load(t.Context(), "none"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
}

// TestSecretsLeakNowhere plants secrets in every place, takes every path that
// writes them, and looks for them in everything the database holds.
func TestSecretsLeakNowhere(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	sub := subscriber("acme")
	sub.Auth = event.Auth{Type: event.AuthBasic, Username: "u", Token: "canary-a", Password: "canary-b", Value: "canary-c"}
	sub.Endpoint.Headers = map[string]string{"X-Key": "canary-d"}
	sub.Signing.Secret = "canary-e"
	_, secrets, errs := sub.SplitSecrets(event.Secrets{})
	check(t, errs.Err())
	// The unredacted form is handed over: the store itself must not trust it.
	_, err := b.Create(ctx, sub, secrets)
	check(t, err)
	sub.Auth.Password = "canary-f"
	secrets.Password = "canary-f"
	_, _, err = b.Replace(ctx, sub, secrets, store.Change{})
	check(t, err)
	_, _, err = b.RotateSigningSecret(ctx, "acme", "canary-g", time.Hour, store.Change{})
	check(t, err)
	b.mustHoldNo("canary")
	_, err = b.Delete(ctx, "acme", store.Change{})
	check(t, err)
	b.mustHoldNo("canary")
	b.mustHoldNo("consumer.example")
	if n := value[int](b, `SELECT length(secrets) FROM subscribers`); n != 0 {
		t.Errorf("the tombstone keeps %d bytes of secrets", n)
	}
}

// mustHoldNo fails if any table holds the text, as text, or in bytes as they
// are.
func (b *bundle) mustHoldNo(planted string) {
	b.t.Helper()
	rows, err := b.pool.Query(b.t.Context(), `SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND n.nspname = 'public'`)
	check(b.t, err)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	check(b.t, err)
	if len(tables) < 8 {
		b.t.Fatalf("only these tables: %v", tables)
	}
	hexed := fmt.Sprintf("%x", planted)
	for _, table := range tables {
		n := value[int](b, `SELECT count(*) FROM `+table+` t WHERE t::text LIKE '%' || $1 || '%' OR t::text LIKE '%' || $2 || '%'`, planted, hexed)
		if n > 0 {
			b.t.Errorf("%s holds %q", table, planted)
		}
	}
}

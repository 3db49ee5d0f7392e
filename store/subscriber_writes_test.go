package store_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"postroad/event"
	"postroad/store"
)

func TestReplace(t *testing.T) {
	t.Parallel()
	t.Run("is a control, in force at once where nobody delivers", func(t *testing.T) {
		b := setup(t)
		b.create("acme", event.Start{Where: "now"})
		sub := subscriber("acme")
		sub.Label = "changed"
		record, result, err := b.Replace(t.Context(), sub, event.Secrets{Token: "t"}, store.Change{})
		check(t, err)
		if record.Version != 2 || record.Subscriber.Label != "changed" || !record.Subscriber.Auth.TokenSet {
			t.Errorf("record is %+v", record)
		}
		if result != (store.ControlResult{Version: 1, InForce: true}) {
			t.Errorf("result is %+v", result)
		}
		got, err := b.Get(t.Context(), "acme")
		check(t, err)
		if diff := cmp.Diff(record, got); diff != "" {
			t.Error(diff)
		}
		if kind := value[string](b, `SELECT kind FROM controls WHERE subscriber = 'acme' AND version = 1`); kind != "configure" {
			t.Errorf("the control is %s", kind)
		}
	})
	t.Run("waits for the holder of the lease, who is told", func(t *testing.T) {
		b := setup(t)
		b.create("acme", event.Start{Where: "now"})
		_, err := b.TakeLease(t.Context(), "acme", uuid.New())
		check(t, err)
		controls, parked := b.listen(store.ControlsChannel), b.listen(store.ParkedChannel)
		sub := subscriber("acme")
		sub.Filter.ResourceNames = []string{"Media"}
		_, result, err := b.Replace(t.Context(), sub, event.Secrets{}, store.Change{})
		check(t, err)
		if result != (store.ControlResult{Version: 1}) {
			t.Errorf("result is %+v", result)
		}
		if a, p := controls(), parked(); a != "acme" || p != "acme" {
			t.Errorf("notified %q and %q", a, p)
		}
	})
	t.Run("nothing changed is no control", func(t *testing.T) {
		b := setup(t)
		sub := subscriber("acme")
		secrets := event.Secrets{Token: "t", Signing: []event.SigningSecret{{Secret: "whsec_s"}}}
		_, err := b.Create(t.Context(), sub, secrets)
		check(t, err)
		record, result, err := b.Replace(t.Context(), sub, secrets, store.Change{})
		check(t, err)
		if record.Version != 1 || result != (store.ControlResult{Version: 0, InForce: true}) {
			t.Errorf("got version %d, %+v", record.Version, result)
		}
		secrets.Token = "other"
		if record, _, err = b.Replace(t.Context(), sub, secrets, store.Change{}); err != nil || record.Version != 2 {
			t.Errorf("a changed secret: version %d, %v", record.Version, err)
		}
	})
	t.Run("feed and start are fixed", func(t *testing.T) {
		b := setup(t)
		b.create("acme", event.Start{Where: "sequence", Sequence: 0})
		feed, start := subscriber("acme"), subscriber("acme")
		feed.Feed, feed.Start = "tenant", event.Start{Where: "sequence", Sequence: 0}
		start.Start.Where = "beginning"
		for member, sub := range map[string]event.Subscriber{"feed": feed, "start": start} {
			_, _, err := b.Replace(t.Context(), sub, event.Secrets{}, store.Change{})
			var immutable *store.ImmutableError
			if !errors.As(err, &immutable) || immutable.Member != member {
				t.Errorf("%s: %v", member, err)
			}
		}
	})
	t.Run("unknown, or a tombstone", func(t *testing.T) {
		b := setup(t)
		b.create("gone", event.Start{Where: "now"})
		_, err := b.Delete(t.Context(), "gone", store.Change{})
		check(t, err)
		for _, id := range []string{"none", "gone"} {
			if _, _, err := b.Replace(t.Context(), subscriber(id), event.Secrets{}, store.Change{}); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: %v", id, err)
			}
		}
	})
	t.Run("of many that name one version, one wins", func(t *testing.T) {
		b := setup(t)
		version := b.create("acme", event.Start{Where: "now"}).Version
		errs := make([]error, 6)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				sub := subscriber("acme")
				sub.Description = string(rune('a' + i))
				_, _, errs[i] = b.Replace(t.Context(), sub, event.Secrets{}, store.Change{IfMatch: &version})
			})
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else if !errors.Is(err, store.ErrVersionMismatch) {
				t.Errorf("got %v", err)
			}
		}
		if n := value[int](b, `SELECT count(*) FROM controls`); won != 1 || n != 1 {
			t.Errorf("%d won, %d controls", won, n)
		}
	})
}

// TestReplace_backoff: what ends a wait, and what does not.
func TestReplace_backoff(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		class  string
		change func(*event.Subscriber, *event.Secrets)
		ends   bool
	}{
		"endpoint":                 {store.WaitEndpoint, func(s *event.Subscriber, _ *event.Secrets) { s.Endpoint.URL += "2" }, true},
		"endpoint, event refused":  {store.WaitRecord, func(s *event.Subscriber, _ *event.Secrets) { s.Endpoint.URL += "2" }, true},
		"header value":             {store.WaitEndpoint, func(_ *event.Subscriber, x *event.Secrets) { x.Headers = map[string]string{"X-A": "2"} }, true},
		"auth":                     {store.WaitEndpoint, func(s *event.Subscriber, _ *event.Secrets) { s.Auth.Username = "u" }, true},
		"token alone":              {store.WaitEndpoint, func(_ *event.Subscriber, x *event.Secrets) { x.Token = "2" }, true},
		"format":                   {store.WaitEndpoint, func(s *event.Subscriber, _ *event.Secrets) { s.Format = event.FormatRaw }, true},
		"label":                    {store.WaitEndpoint, func(s *event.Subscriber, _ *event.Secrets) { s.Label = "l" }, false},
		"filter":                   {store.WaitEndpoint, func(s *event.Subscriber, _ *event.Secrets) { s.Filter.EventTypes = []string{"x"} }, false},
		"endpoint, consumer asked": {store.WaitAsked, func(s *event.Subscriber, _ *event.Secrets) { s.Endpoint.URL += "2" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			sub, secrets := subscriber("acme"), event.Secrets{Token: "1", Headers: map[string]string{"X-A": "1"}}
			_, err := b.Create(t.Context(), sub, secrets)
			check(t, err)
			b.exec(`UPDATE runs SET not_before = clock_timestamp() + interval '1 hour', wait_class = $1, wait_reason = 'HTTP 503',
				failures = 3, failing_since = clock_timestamp()`, c.class)
			c.change(&sub, &secrets)
			_, _, err = b.Replace(t.Context(), sub, secrets, store.Change{})
			check(t, err)
			run, err := b.Run(t.Context(), "acme")
			check(t, err)
			ended := run.NotBefore == nil && run.Failures == 0 && run.FailingSince == nil && run.WaitClass == nil
			kept := run.NotBefore != nil && run.Failures == 3 && run.FailingSince != nil
			if ended != c.ends || kept == c.ends {
				t.Errorf("ended %t, kept %t: %+v", ended, kept, run)
			}
			if run.Probe != c.ends {
				t.Errorf("probe is %t", run.Probe)
			}
		})
	}
}

func TestRotateSigningSecret(t *testing.T) {
	t.Parallel()
	signing := func(b *bundle) (names []string, left []time.Duration) {
		loaded, err := b.Load(b.t.Context(), "acme")
		check(b.t, err)
		for _, s := range loaded.Secrets.Signing {
			names = append(names, s.Secret)
		}
		return names, loaded.SigningValidFor
	}
	rotate := func(b *bundle, secret string, overlap time.Duration) store.Record {
		b.t.Helper()
		record, _, err := b.RotateSigningSecret(b.t.Context(), "acme", secret, overlap, store.Change{})
		check(b.t, err)
		return record
	}
	start := func(t *testing.T) *bundle {
		b := setup(t)
		_, err := b.Create(t.Context(), subscriber("acme"), event.Secrets{Token: "t", Signing: []event.SigningSecret{{Secret: "s0"}}})
		check(t, err)
		return b
	}
	t.Run("old ones overlap, and an earlier end stands", func(t *testing.T) {
		b := start(t)
		rotate(b, "s1", time.Hour)
		if record := rotate(b, "s2", 24*time.Hour); record.Version != 3 || !record.Subscriber.Signing.SecretSet {
			t.Errorf("record is %+v", record)
		}
		names, left := signing(b)
		if diff := cmp.Diff([]string{"s2", "s1", "s0"}, names); diff != "" {
			t.Fatal(diff)
		}
		if left[0] != 0 || left[1] < 23*time.Hour || left[1] > 24*time.Hour || left[2] > time.Hour || left[2] < 50*time.Minute {
			t.Errorf("valid for %v", left)
		}
		if secrets, err := b.Secrets(t.Context(), "acme"); err != nil || secrets.Token != "t" {
			t.Errorf("other secrets: %+v, %v", secrets, err)
		}
	})
	t.Run("a shorter overlap cuts a longer one, none ends all", func(t *testing.T) {
		b := start(t)
		rotate(b, "s1", 24*time.Hour)
		rotate(b, "s2", time.Hour)
		if _, left := signing(b); len(left) != 3 || left[2] > time.Hour {
			t.Errorf("valid for %v", left)
		}
		rotate(b, "s3", 0)
		if names, _ := signing(b); len(names) != 1 || names[0] != "s3" {
			t.Errorf("left: %v", names)
		}
	})
	t.Run("back to an old one", func(t *testing.T) {
		b := start(t)
		rotate(b, "s1", time.Hour)
		rotate(b, "s0", time.Hour)
		names, left := signing(b)
		if diff := cmp.Diff([]string{"s0", "s1"}, names); diff != "" || left[0] != 0 {
			t.Errorf("%s %v", diff, left)
		}
	})
	t.Run("few are kept", func(t *testing.T) {
		b := start(t)
		for _, s := range []string{"s1", "s2", "s3", "s4", "s5", "s6"} {
			rotate(b, s, time.Hour)
		}
		names, _ := signing(b)
		if diff := cmp.Diff([]string{"s6", "s5", "s4", "s3", "s2"}, names); diff != "" {
			t.Error(diff)
		}
	})
}

func TestDelete(t *testing.T) {
	t.Parallel()
	t.Run("leaves a tombstone until it is purged", func(t *testing.T) {
		b := setup(t)
		ctx := t.Context()
		b.create("acme", event.Start{Where: "now"})
		result, err := b.Delete(ctx, "acme", store.Change{})
		check(t, err)
		if result != (store.ControlResult{Version: 1, InForce: true}) {
			t.Errorf("result is %+v", result)
		}
		_, errGet := b.Get(ctx, "acme")
		_, errLoad := b.Load(ctx, "acme")
		_, errStatus := b.Status(ctx, "acme")
		_, errAgain := b.Delete(ctx, "acme", store.Change{})
		for name, err := range map[string]error{"get": errGet, "load": errLoad, "status": errStatus, "delete": errAgain} {
			if !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := b.Create(ctx, subscriber("acme"), event.Secrets{}); !errors.Is(err, store.ErrDeleting) {
			t.Errorf("create: %v", err)
		}
		check(t, b.Purge(ctx, "acme"))
		if n := value[int](b, `SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM controls) + (SELECT count(*) FROM subscribers)`); n != 0 {
			t.Errorf("%d rows are left", n)
		}
		if record := b.create("acme", event.Start{Where: "now"}); record.Version != 1 {
			t.Errorf("version %d", record.Version)
		}
	})
	t.Run("another version is not deleted", func(t *testing.T) {
		b := setup(t)
		b.create("acme", event.Start{Where: "now"})
		version := int64(7)
		if _, err := b.Delete(t.Context(), "acme", store.Change{IfMatch: &version}); !errors.Is(err, store.ErrVersionMismatch) {
			t.Errorf("got %v", err)
		}
		_, err := b.Get(t.Context(), "acme")
		check(t, err)
	})
	t.Run("purge leaves the living alone", func(t *testing.T) {
		b := setup(t)
		b.create("acme", event.Start{Where: "now"})
		check(t, b.Purge(t.Context(), "acme"))
		check(t, b.Purge(t.Context(), "none"))
		_, err := b.Get(t.Context(), "acme")
		check(t, err)
	})
	t.Run("creating the id while it is deleted and purged", func(t *testing.T) {
		b := setup(t)
		ctx := t.Context()
		b.create("acme", event.Start{Where: "now"})
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := b.Delete(ctx, "acme", store.Change{}); err != nil {
				t.Errorf("delete: %v", err)
			}
			if err := b.Purge(ctx, "acme"); err != nil {
				t.Errorf("purge: %v", err)
			}
		})
		created := 0
		for created == 0 && ctx.Err() == nil {
			_, err := b.Create(ctx, subscriber("acme"), event.Secrets{})
			switch {
			case err == nil:
				created++
			case !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrDeleting):
				t.Fatalf("create: %v", err)
			}
		}
		wg.Wait()
		if n := value[int](b, `SELECT count(*) FROM runs r JOIN subscribers s USING (id) WHERE NOT r.deleted`); n != 1 {
			t.Errorf("%d subscribers", n)
		}
	})
}

// listen returns a function that waits for the next notification of a channel.
func (b *bundle) listen(channel string) func() string {
	b.t.Helper()
	conn, err := pgx.Connect(b.t.Context(), b.url)
	check(b.t, err)
	b.t.Cleanup(func() { conn.Close(b.t.Context()) })
	_, err = conn.Exec(b.t.Context(), `LISTEN `+channel)
	check(b.t, err)
	return func() string {
		b.t.Helper()
		n, err := conn.WaitForNotification(b.t.Context())
		check(b.t, err)
		return n.Payload
	}
}

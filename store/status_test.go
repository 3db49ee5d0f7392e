package store_test

import (
	"errors"
	"testing"
	"time"

	"postroad/event"
	"postroad/store"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	beginning := event.Start{Where: "beginning"}
	status := func(b *bundle) store.Status {
		b.t.Helper()
		s, err := b.Status(b.t.Context(), "acme")
		check(b.t, err)
		return s
	}
	t.Run("behind", func(t *testing.T) {
		b := setup(t)
		b.create("acme", beginning)
		b.publish(time.Hour, 1)
		b.publish(10*time.Minute, 2, 3, 7)
		b.exec(`UPDATE runs SET cursor = 1, in_flight = 2, range_attempt = 3, last_error = 'HTTP 500'`)
		s := status(b)
		if s.State != store.StateActive || s.Reason != "sending; 6 events behind" || s.Cursor != 1 || s.Head != 7 || s.LagEvents != 6 {
			t.Errorf("got %+v", s)
		}
		if s.LagSeconds < 600 || s.LagSeconds > 700 {
			t.Errorf("lagSeconds is %f", s.LagSeconds)
		}
		if s.Subscriber != "acme" || s.Feed != "default" || s.InFlight != 2 || s.Attempt != 3 || s.LastError != "HTTP 500" {
			t.Errorf("got %+v", s)
		}
	})
	t.Run("a parked row counts as scanned to the head", func(t *testing.T) {
		b := setup(t)
		b.create("acme", beginning)
		b.publish(time.Hour, 1, 2)
		b.exec(`UPDATE runs SET parked = true`)
		if s := status(b); s.State != store.StateIdle || s.LagEvents != 0 || s.LagSeconds != 0 || s.Head != 2 {
			t.Errorf("got %+v", s)
		}
	})
	t.Run("caught up without being parked", func(t *testing.T) {
		b := setup(t)
		b.publish(time.Hour, 1, 2)
		b.create("acme", event.Start{Where: "now"})
		if s := status(b); s.State != store.StateIdle || s.LagEvents != 0 || s.LagSeconds != 0 {
			t.Errorf("got %+v", s)
		}
	})
	t.Run("events hidden below the floor are no lag in time", func(t *testing.T) {
		b := setup(t)
		b.create("acme", beginning)
		b.publish(time.Hour, 1)
		b.publish(time.Minute, 2)
		b.exec(`UPDATE feeds SET floor_sequence = 1`)
		if s := status(b); s.LagSeconds > 100 || s.LagSeconds < 60 {
			t.Errorf("lagSeconds is %f", s.LagSeconds)
		}
	})
	t.Run("times are told only while they count", func(t *testing.T) {
		b := setup(t)
		b.create("acme", beginning)
		b.exec(`UPDATE runs SET not_before = now() + interval '1 hour', wait_class = 'asked', wait_reason = 'HTTP 429',
			paused = true, paused_until = now() + interval '2 hours', desired_version = 4, applied_version = 3`)
		s := status(b)
		if s.State != store.StatePaused || s.RetryAt == nil || s.PausedUntil == nil || !s.PausedUntil.After(*s.RetryAt) {
			t.Errorf("got %+v", s)
		}
		if s.DesiredVersion != 4 || s.AppliedVersion != 3 {
			t.Errorf("got %+v", s)
		}
		b.exec(`UPDATE runs SET not_before = now() - interval '1 hour', paused_until = now() - interval '1 hour'`)
		if s := status(b); s.RetryAt != nil || s.PausedUntil != nil || s.State != store.StateIdle {
			t.Errorf("got %+v", s)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		if _, err := setup(t).Status(t.Context(), "none"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
}

package eventlog_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postroad/event"
	"postroad/eventlog"
	"postroad/internal/testkit"
)

// groups returns how many groups were stored, and how many events.
func (b *bundle) groups() (groups uint64, events float64) {
	b.t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(b.log.Collectors()...)
	families, err := registry.Gather()
	must(b.t, err)
	for _, f := range families {
		if f.GetName() == "postroad_append_group_events" {
			h := f.GetMetric()[0].GetHistogram()
			return h.GetSampleCount(), h.GetSampleSum()
		}
	}
	b.t.Fatal("no metric of groups")
	return 0, 0
}

// TestGroupsWaitForThoseAnswered: publishers that come back are stored together,
// not in two halves, and whoever waits for one that does not come back is let go
// when the log closes.
func TestGroupsWaitForThoseAnswered(t *testing.T) {
	t.Parallel()
	const publishers, rounds = 6, 40
	s := setup(t, eventlog.Config{GatherMax: hourly})
	var answered atomic.Int64
	enough := make(chan struct{})
	var running sync.WaitGroup
	for range publishers {
		running.Go(func() {
			for {
				_, err := s.log.Append(context.Background(), s.feed, []event.Event{record("r")})
				if errors.Is(err, eventlog.ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				if answered.Add(1) == publishers*rounds {
					close(enough)
				}
			}
		})
	}
	select {
	case <-enough:
	case <-time.After(soon):
		t.Fatalf("%d events in %s", answered.Load(), soon)
	}
	s.log.Close()
	running.Wait()
	// The first groups are of whoever was first.
	if groups, events := s.groups(); float64(groups) > events/publishers+publishers {
		t.Errorf("%v events of %d publishers in %d groups", events, publishers, groups)
	}
}

// TestNobodyWaitsForOneWhoStaysAway: one publisher waits for nobody, and one
// whose companions went away is let go in time.
func TestNobodyWaitsForOneWhoStaysAway(t *testing.T) {
	t.Parallel()
	t.Run("alone", func(t *testing.T) {
		t.Parallel()
		s := setup(t, eventlog.Config{GatherMax: hourly})
		for range 20 {
			s.append(s.feed, record("r"))
		}
	})
	t.Run("left behind", func(t *testing.T) {
		t.Parallel()
		s := setup(t, eventlog.Config{GatherMax: 20 * time.Millisecond})
		for range 20 {
			var both sync.WaitGroup
			for range 2 {
				both.Go(func() { s.append(s.feed, record("r")) })
			}
			both.Wait()
			s.append(s.feed, record("r"))
		}
	})
}

// TestKeptConnectionsAreGivenBack: a log that closes leaves the pool whole.
func TestKeptConnectionsAreGivenBack(t *testing.T) {
	t.Parallel()
	s := setup(t, eventlog.Config{})
	s.append(s.feed, record("r"))
	s.log.Close()
	// What the end of the log cancelled is cut off behind its back.
	testkit.Eventually(t, soon, func() bool { return s.pool.Stat().AcquiredConns() == 0 }, "a connection is not given back")
}

// TestKeptConnectionsGiveWay: what is kept for the next group is not kept from
// those who wait for a connection of a pool that is used up.
func TestKeptConnectionsGiveWay(t *testing.T) {
	t.Parallel()
	const rounds, most = 20, 10 * time.Second
	s := setup(t, eventlog.Config{})
	for range s.pool.Config().MaxConns - 1 {
		conn, err := s.pool.Acquire(t.Context())
		must(t, err)
		defer conn.Release()
	}
	began := time.Now()
	for range rounds {
		s.append(s.feed, record("r"))
		s.exec(`SELECT 1`)
	}
	if took := time.Since(began); took > most {
		t.Errorf("%d appends, each with a query after it, took %s", rounds, took)
	}
}

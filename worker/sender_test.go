package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/time/rate"

	"postroad/store"
)

// note is a Signaller that notes when, after began, it was asked for what.
type note struct {
	began time.Time
	mu    sync.Mutex
	sent  []sent
	fails int           // how often to fail first
	takes time.Duration // each
}

type sent struct {
	At         time.Duration
	ID         string
	Generation int64
}

// Wake implements Signaller.
func (n *note) Wake(_ context.Context, id string, generation int64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sent = append(n.sent, sent{time.Since(n.began), id, generation})
	if n.fails > 0 {
		n.fails--
		return errors.New("Temporal is away")
	}
	time.Sleep(n.takes) //nolint:forbidigo // in a synctest bubble
	return nil
}

// Stop implements Signaller.
func (*note) Stop(context.Context, string) (bool, error) { return true, nil }

func TestSender(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for name, tt := range map[string]struct {
		fails  int
		takes  time.Duration
		limit  rate.Limit // 0: none
		parked func(at time.Duration) (bool, error)
		script func(*sender)
		want   []sent
	}{
		"repeats ever later while parked": {
			script: func(x *sender) { x.send("a", 7) },
			want:   []sent{{0, "a", 7}, {30 * s, "a", 7}, {90 * s, "a", 7}, {210 * s, "a", 7}, {330 * s, "a", 7}},
		},
		"stops once not parked": {
			parked: func(at time.Duration) (bool, error) { return at < 80*s, nil },
			script: func(x *sender) { x.send("a", 7) },
			want:   []sent{{0, "a", 7}, {30 * s, "a", 7}},
		},
		"tries again when the row cannot be read": {
			parked: func(at time.Duration) (bool, error) {
				if at < 38*s {
					return false, errors.New("PostgreSQL is away")
				}
				return at < 60*s, nil
			},
			script: func(x *sender) { x.send("a", 7) },
			want:   []sent{{0, "a", 7}, {40 * s, "a", 7}},
		},
		"a failure is tried again soon and does not count": {
			fails:  2,
			parked: func(at time.Duration) (bool, error) { return at < 60*s, nil },
			script: func(x *sender) { x.send("a", 7) },
			want:   []sent{{0, "a", 7}, {5 * s, "a", 7}, {10 * s, "a", 7}, {40 * s, "a", 7}},
		},
		"a plain wake is sent once, another parking's wake makes way": {
			script: func(x *sender) {
				x.send("a", 7)
				time.Sleep(10 * s) //nolint:forbidigo // in a synctest bubble
				x.send("a", 7)     // known
				x.send("a", 0)
				time.Sleep(10 * s) //nolint:forbidigo // in a synctest bubble
				x.send("a", 0)
			},
			want: []sent{{0, "a", 7}, {10 * s, "a", 0}, {20 * s, "a", 0}},
		},
		"all pass one token bucket": {
			limit: 1,
			script: func(x *sender) {
				for _, id := range []string{"a", "b", "c"} {
					x.send(id, 0)
					time.Sleep(s / 10) //nolint:forbidigo // in a synctest bubble
				}
			},
			want: []sent{{0, "a", 0}, {s, "b", 0}, {2 * s, "c", 0}},
		},
		"forgotten while it is being sent it is not repeated": {
			takes: 2 * s,
			script: func(x *sender) {
				x.send("a", 7)
				time.Sleep(s)    //nolint:forbidigo // in a synctest bubble
				x.forget("a", 8) // of another parking
				x.forget("a", 7)
			},
			want: []sent{{0, "a", 7}},
		},
		"forgotten before its repeat it is not repeated": {
			script: func(x *sender) {
				x.send("a", 7)
				time.Sleep(10 * s) //nolint:forbidigo // in a synctest bubble
				x.forget("a", 7)
			},
			want: []sent{{0, "a", 7}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				limit := tt.limit
				if limit == 0 {
					limit = rate.Inf
				}
				n := &note{began: time.Now(), fails: tt.fails, takes: tt.takes}
				x := &sender{
					signaller: n, limiter: rate.NewLimiter(limit, 1), concurrency: 2, timeout: 15 * s,
					again: 30 * s, againMax: 120 * s, afterError: 5 * s, yieldAfter: time.Hour, yield: func() {}, reach: &reach{}, logger: slog.New(slog.DiscardHandler),
					counters: &Counters{}, byID: map[string]*wake{}, poked: make(chan struct{}, 1),
					parked: func(context.Context, string, int64) (bool, error) {
						if tt.parked == nil {
							return true, nil
						}
						return tt.parked(time.Since(n.began))
					},
				}
				ctx, cancel := context.WithTimeout(t.Context(), 400*s)
				defer cancel()
				done := make(chan struct{})
				go func() {
					defer close(done)
					x.run(ctx)
				}()
				tt.script(x)
				<-done
				if diff := cmp.Diff(tt.want, n.sent); diff != "" {
					t.Errorf("signals (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// stuckOne is a Temporal that refuses the signals of one workflow.
type stuckOne struct{}

func (stuckOne) Wake(_ context.Context, id string, _ int64) error {
	if id == "stuck" {
		return errors.New("it has too many signals")
	}
	return nil
}

func (stuckOne) Stop(context.Context, string) (bool, error) { return true, nil }

// TestSweepOfOneThatFails: a process whose other signals arrive reaches Temporal.
func TestSweepOfOneThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		yields := 0
		w := &turn{Waker: NewWaker(WakerConfig{}, nil, nil, stuckOne{}, "", slog.New(slog.DiscardHandler))}
		sender, sweeper := w.newSenders(func() { yields++ })
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { sender.run(ctx) })
		running.Go(func() { sweeper.run(ctx) })
		sweeper.send("stuck", 0)
		for range 100 {
			sender.send("other", 0)
			<-time.After(5 * time.Second)
		}
		cancel()
		running.Wait()
		if yields > 0 {
			t.Errorf("it yielded %d times", yields)
		}
	})
}

func TestBoard(t *testing.T) {
	t.Parallel()
	at := func(generation, version int64) store.ParkedRow {
		return store.ParkedRow{ID: "a", FeedID: 1, Generation: generation, Version: version}
	}
	t.Run("a row told of late replaces nothing newer", func(t *testing.T) {
		t.Parallel()
		b := newBoard()
		for _, step := range []struct {
			row  store.ParkedRow
			news bool
		}{{at(5, 1), true}, {at(5, 1), false}, {at(4, 9), false}, {at(5, 0), false}, {at(5, 2), true}, {at(6, 2), true}, {at(5, 3), false}} {
			if news := b.learn(step.row); news != step.news {
				t.Errorf("generation %d, version %d: news %t, want %t", step.row.Generation, step.row.Version, news, step.news)
			}
		}
		if r := b.rows["a"]; r.Generation != 6 || b.feeds[1].rows != 1 {
			t.Errorf("kept generation %d, %d rows", r.Generation, b.feeds[1].rows)
		}
	})
	t.Run("nothing is taken once the turn is over", func(t *testing.T) {
		t.Parallel()
		b := newBoard()
		b.learn(at(5, 1))
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if f := b.take(ended); f != nil {
			t.Error("work that cannot be done was taken")
		}
	})
	t.Run("one worker at a time has a feed, and what comes meanwhile is done next", func(t *testing.T) {
		t.Parallel()
		b := newBoard()
		b.learn(at(5, 1))
		f := b.take(t.Context())
		b.changed(map[int64]int64{1: 10, 2: 10})
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if other := b.take(ended); other != nil {
			t.Error("a second worker got the feed")
		}
		b.done(f, false)
		if f = b.take(t.Context()); f == nil || f.head != 10 {
			t.Errorf("the feed is not worked on again: %+v", f)
		}
		b.done(f, false)
		if other := b.take(ended); other != nil {
			t.Error("the feed is worked on without need")
		}
	})
	t.Run("a feed without rows is forgotten", func(t *testing.T) {
		t.Parallel()
		b := newBoard()
		b.learn(at(5, 1))
		b.done(b.take(t.Context()), false)
		b.forget("a")
		b.done(b.take(t.Context()), false)
		if len(b.feeds) > 0 {
			t.Errorf("%d feeds are left", len(b.feeds))
		}
	})
}

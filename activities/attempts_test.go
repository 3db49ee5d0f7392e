package activities

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postroad/store"
)

// writtenGroups is a PostgreSQL that notes how many attempts each COPY holds.
type writtenGroups struct {
	mu     sync.Mutex
	groups []int
	during func() // of the first COPY
	err    error
}

func (g *writtenGroups) insert(_ context.Context, rows *store.AttemptRows) error {
	g.mu.Lock()
	during, err := g.during, g.err
	g.during = nil
	if err == nil {
		g.groups = append(g.groups, rows.Len())
	}
	g.mu.Unlock()
	if during != nil {
		during()
	}
	return err
}

func TestAttemptsWriter(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, g *writtenGroups, most int) (*attemptsWriter, func()) {
		w := newAttemptsWriter(g.insert, most, 200*time.Millisecond, newCounters(), slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { w.run(ctx) })
		return w, func() { cancel(); running.Wait() }
	}
	add := func(w *attemptsWriter, n int) {
		for range n {
			w.add(&store.Attempt{Subscriber: "acme", Class: "success"})
		}
	}
	t.Run("what comes while a group is written waits for its time", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			g := &writtenGroups{}
			w, stop := start(t, g, 100_000)
			g.during = func() { add(w, 3) }
			add(w, attemptsGroupMax)
			synctest.Wait()
			if len(g.groups) != 1 || g.groups[0] != attemptsGroupMax || w.queued() != 3 {
				t.Errorf("groups of %v, %d are left", g.groups, w.queued())
			}
			<-time.After(200 * time.Millisecond)
			synctest.Wait()
			if len(g.groups) != 2 || g.groups[1] != 3 || w.queued() != 0 {
				t.Errorf("groups of %v, %d are left", g.groups, w.queued())
			}
			stop()
		})
	})
	t.Run("what is left is written at the end", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			g := &writtenGroups{}
			w, stop := start(t, g, 100_000)
			add(w, 2*attemptsGroupMax+5)
			stop()
			if n := w.queued(); n != 0 || len(g.groups) != 3 {
				t.Errorf("groups of %v, %d are left", g.groups, n)
			}
		})
	})
	t.Run("the queue is bounded in number and in bytes", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			g := &writtenGroups{err: errors.New("away")}
			w, stop := start(t, g, 10)
			add(w, 10)
			if room, _ := w.hasRoom(); room {
				t.Error("there is room for an 11th")
			}
			stop()
			w, stop = start(t, g, 100_000)
			for range attemptsQueueBytesMax >> 20 {
				w.add(&store.Attempt{Sequences: make([]int64, 1<<20/12)})
			}
			room, made := w.hasRoom()
			if room {
				t.Errorf("there is room behind %d attempts", w.queued())
			}
			g.mu.Lock()
			g.err = nil
			g.mu.Unlock()
			<-made
			stop()
			if room, _ := w.hasRoom(); !room {
				t.Error("there is no room in an empty queue")
			}
		})
	})
}

package activities

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"postroad/store"
)

// Attempts in one COPY, and how long the last one may take when the worker
// stops.
const (
	attemptsGroupMax     = 2000
	attemptsTimeout      = 10 * time.Second
	attemptsRetry        = 500 * time.Millisecond
	attemptsFinalTimeout = 3 * time.Second
)

// attemptsWriter writes what happened to each request, after the settlement it
// belongs to: a crash may lose the last moment of attempts, never a
// settlement. Its queue is bounded; a full one closes the send gate.
type attemptsWriter struct {
	insert   func(context.Context, []store.Attempt) error
	max      int
	every    time.Duration
	counters *Counters
	logger   *slog.Logger

	mu    sync.Mutex
	queue []store.Attempt
	room  chan struct{} // closed and made anew when room appears
	full  chan struct{} // kicked when a group is full
}

func newAttemptsWriter(insert func(context.Context, []store.Attempt) error, most int, every time.Duration, counters *Counters, logger *slog.Logger) *attemptsWriter {
	return &attemptsWriter{
		insert: insert, max: most, every: every, counters: counters, logger: logger,
		room: make(chan struct{}), full: make(chan struct{}, 1),
	}
}

// hasRoom reports whether another attempt fits; else the channel closes when
// one does.
func (w *attemptsWriter) hasRoom() (bool, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue) < w.max, w.room
}

func (w *attemptsWriter) queued() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue)
}

// add queues an attempt. A request that was in flight when the queue filled is
// still recorded: the bound may be passed by one a lane of each run.
func (w *attemptsWriter) add(a store.Attempt) {
	w.mu.Lock()
	w.queue = append(w.queue, a)
	n := len(w.queue)
	w.mu.Unlock()
	if n >= attemptsGroupMax {
		select {
		case w.full <- struct{}{}:
		default:
		}
	}
}

// run writes until ctx ends, and then what is left, once.
func (w *attemptsWriter) run(ctx context.Context) {
	ticker := time.NewTicker(w.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			final, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptsFinalTimeout)
			defer cancel()
			for w.writeGroup(final) {
			}
			return
		case <-ticker.C:
		case <-w.full:
		}
		for w.writeGroup(ctx) {
		}
	}
}

// writeGroup writes one group and reports whether more may be waiting. A group
// that PostgreSQL refuses is dropped, with a word in the log; one that cannot
// be written now stays.
func (w *attemptsWriter) writeGroup(ctx context.Context) bool {
	w.mu.Lock()
	group := w.queue[:min(len(w.queue), attemptsGroupMax)]
	w.mu.Unlock()
	if len(group) == 0 {
		return false
	}
	tryCtx, cancel := context.WithTimeout(ctx, attemptsTimeout)
	err := w.insert(tryCtx, group)
	cancel()
	if err != nil && !store.DataRefused(err) {
		w.logger.Warn("attempts delayed", "attempts", len(group), "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(attemptsRetry):
		}
		return false
	}
	if err != nil {
		w.counters.AttemptsRefused.Add(int64(len(group)))
		w.logger.Error("attempts refused", "attempts", len(group), "error", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = w.queue[len(group):]
	if len(w.queue) == 0 {
		w.queue = nil // lets go of the written ones
	}
	close(w.room)
	w.room = make(chan struct{})
	return len(w.queue) > 0
}

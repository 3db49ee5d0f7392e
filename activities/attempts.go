package activities

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"postroad/store"
)

// Attempts in one COPY, what may be queued of them in bytes, and how long the last
// COPY may take when the worker stops.
const (
	attemptsGroupMax      = 4000
	attemptsGroupBytesMax = 4 << 20
	attemptsQueueBytesMax = 32 << 20
	// attemptBytesUsual is more than the row of most attempts takes.
	attemptBytesUsual = 512

	attemptsTimeout      = 10 * time.Second
	attemptsRetry        = 500 * time.Millisecond
	attemptsFinalTimeout = 3 * time.Second
)

// attemptsWriter writes what happened to each request, after the settlement it
// belongs to: a crash may lose the last moment of attempts, never a
// settlement. Its queue is bounded; a full one closes the send gate.
type attemptsWriter struct {
	insert   func(context.Context, *store.AttemptRows) error
	max      int
	every    time.Duration
	counters *Counters
	logger   *slog.Logger

	mu     sync.Mutex
	groups []*store.AttemptRows // to be written, each by one COPY; the last one is being filled
	count  int                  // attempts that are not written, those of writing included
	bytes  int                  // and what they take up
	spare  *store.AttemptRows   // to be filled next
	room   chan struct{}        // closed and made anew when room appears
	full   chan struct{}        // kicked when a group is full

	writing *store.AttemptRows // nil: none; of the writer's goroutine alone
}

func newAttemptsWriter(insert func(context.Context, *store.AttemptRows) error, most int, every time.Duration, counters *Counters, logger *slog.Logger) *attemptsWriter {
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
	return w.count < w.max && w.bytes < attemptsQueueBytesMax, w.room
}

func (w *attemptsWriter) queued() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// add queues an attempt. A request that was in flight when the queue filled is
// still recorded: the bound may be passed by one a lane of each run.
func (w *attemptsWriter) add(a *store.Attempt) {
	var space [attemptBytesUsual]byte
	row := store.AppendAttempt(space[:0], a) // before the lock, which all runs share
	w.mu.Lock()
	group := w.filling()
	before := group.Bytes()
	group.Append(row)
	w.count++
	w.bytes += group.Bytes() - before
	full := isFull(group)
	w.mu.Unlock()
	if full {
		select {
		case w.full <- struct{}{}:
		default:
		}
	}
}

// filling is the group that the next attempt goes to.
func (w *attemptsWriter) filling() *store.AttemptRows {
	if n := len(w.groups); n > 0 && !isFull(w.groups[n-1]) {
		return w.groups[n-1]
	}
	group := w.spare
	w.spare = nil
	if group == nil {
		group = &store.AttemptRows{}
	}
	w.groups = append(w.groups, group)
	return group
}

func isFull(group *store.AttemptRows) bool {
	return group.Len() >= attemptsGroupMax || group.Bytes() >= attemptsGroupBytesMax
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
			for w.writeGroup(final) && w.queued() > 0 {
			}
			return
		case <-ticker.C:
		case <-w.full:
		}
		// What came while a group was written waits for its time, too: to write a
		// few rows after the other costs PostgreSQL three times as much.
		for w.writeGroup(ctx) && w.fullWaits() {
		}
	}
}

func (w *attemptsWriter) fullWaits() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.groups) > 0 && isFull(w.groups[0])
}

// take takes the first group out, unless one is being written.
func (w *attemptsWriter) take() *store.AttemptRows {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.writing == nil && len(w.groups) > 0 {
		w.writing = w.groups[0]
		w.groups = slices.Delete(w.groups, 0, 1)
	}
	return w.writing
}

// writeGroup writes one group and reports whether it is written or dropped: one
// that PostgreSQL refuses is, with a word in the log. One that cannot be written
// now stays.
func (w *attemptsWriter) writeGroup(ctx context.Context) bool {
	group := w.take()
	if group == nil {
		return false
	}
	tryCtx, cancel := context.WithTimeout(ctx, attemptsTimeout)
	err := w.insert(tryCtx, group)
	cancel()
	if err != nil && !store.DataRefused(err) {
		w.logger.Warn("attempts delayed", "attempts", group.Len(), "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(attemptsRetry):
		}
		return false
	}
	if err != nil {
		w.counters.AttemptsRefused.Add(int64(group.Len()))
		w.logger.Error("attempts refused", "attempts", group.Len(), "error", err)
	}
	w.written(group)
	return true
}

// written makes room.
func (w *attemptsWriter) written(group *store.AttemptRows) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writing = nil
	w.count -= group.Len()
	w.bytes -= group.Bytes()
	group.Reset()
	w.spare = group
	close(w.room)
	w.room = make(chan struct{})
}

package worker

import (
	"context"
	"errors"
	"slices"
	"time"

	"postroad/store"
)

// sweepMax bounds how many neglected rows one sweep wakes; the next takes the
// others, longest neglected first.
const sweepMax = 10_000

// every calls f at once and then each period, or after retry where it failed,
// until ctx ends.
func (w *turn) every(ctx context.Context, what string, period, retry time.Duration, f func(context.Context) error) {
	for {
		wait := period
		if err := f(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			w.logger.Warn("upkeep failed", "task", what, "error", err, "retry_in", retry)
			wait = retry
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// reloadLoop reads all parked rows now and then, and when notifications may
// have been lost.
func (w *turn) reloadLoop(ctx context.Context) {
	for {
		if err := w.reloadRows(ctx); err != nil && ctx.Err() == nil {
			w.logger.Warn("parked rows not reloaded", "error", err)
			if !pause(ctx, w.config.RetryDelay) {
				return
			}
			continue
		}
		timer := time.NewTimer(w.config.Reload)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-w.reload:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (w *turn) reloadRows(ctx context.Context) error {
	round := w.board.beginReload()
	var count int64
	for after := ""; ; {
		release := w.admit(ctx)
		rows, err := w.store.ParkedRows(ctx, after, w.config.BatchMax)
		release()
		if err != nil {
			return err
		}
		for _, row := range rows {
			w.board.learn(row)
			after = row.ID
		}
		count += int64(len(rows))
		if len(rows) < w.config.BatchMax {
			break
		}
	}
	for _, row := range w.board.endReload(round) {
		w.sender.forget(row.ID, row.Generation)
	}
	w.counters.Parked.Store(count)
	w.counters.Reloads.Add(1)
	return nil
}

// moveLoop moves the cursors of rows that nothing matched, so that the lag and
// the next look at their feed stay small.
func (w *turn) moveLoop(ctx context.Context) {
	for pause(ctx, w.config.MoveCursors) {
		for moves := range slices.Chunk(w.board.moves(), w.config.BatchMax) {
			release := w.admit(ctx)
			moved, err := w.store.MoveParkedCursors(ctx, moves)
			release()
			if err != nil {
				if ctx.Err() == nil {
					w.logger.Warn("parked cursors not moved", "error", err)
				}
				break
			}
			w.counters.Moved.Add(moved)
			w.board.moved(moves)
		}
	}
}

// sweepLoop finds rows that nobody drives: their run was terminated, or its
// worker and every wake were lost.
func (w *turn) sweepLoop(ctx context.Context) {
	w.every(ctx, "sweep", w.config.Sweep, w.config.Sweep, func(ctx context.Context) error {
		release := w.admit(ctx)
		ids, err := w.store.SweepRows(ctx, w.config.Unchecked, sweepMax)
		release()
		if err != nil {
			return err
		}
		for _, id := range ids {
			w.sweeper.send(id, 0)
		}
		return w.sweepTombstones(ctx)
	})
}

// sweepTombstones removes the rows of deleted subscribers once their workflow
// has closed, and tells those that have not.
func (w *turn) sweepTombstones(ctx context.Context) error {
	release := w.admit(ctx)
	ids, err := w.store.Tombstones(ctx, w.config.BatchMax)
	release()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := w.sender.limiter.Wait(ctx); err != nil {
			return err
		}
		signalling, cancel := context.WithTimeout(ctx, w.config.SignalTimeout)
		closed, err := w.signaller.Stop(signalling, id)
		cancel()
		if err != nil {
			return err // Temporal is away, for the other ones too
		}
		if !closed {
			continue
		}
		release := w.admit(ctx)
		err = w.store.Purge(ctx, id)
		release()
		if err != nil {
			return err
		}
		w.counters.Purged.Add(1)
	}
	return nil
}

// housekeepingLoop removes what is old and makes what will be needed. What
// fails keeps nothing else from being done.
func (w *turn) housekeepingLoop(ctx context.Context) {
	w.every(ctx, "housekeeping", w.config.Housekeeping, min(w.config.Sweep, w.config.Housekeeping), func(ctx context.Context) error {
		made := w.store.EnsurePartitions(ctx, store.PartitionDaysAhead)
		_, dropped := w.store.DropOldPartitions(ctx, w.config.AttemptsDays)
		reaped := errors.Join(w.drain(ctx, w.log.ReapKeys), w.drain(ctx, w.store.ReapTokens))
		// Last, as it may take long, once after an upgrade.
		return errors.Join(made, dropped, reaped, w.store.EnsureAttemptIndexes(ctx))
	})
}

// retentionLoop raises the floors of feeds whose events are old enough, removes
// what lies below a floor, that of deleted feeds too, and compacts. It does so in
// pieces, with pauses, so that appends and deliveries have the database to
// themselves in between.
func (w *turn) retentionLoop(ctx context.Context) {
	w.every(ctx, "retention", w.config.Retention, w.config.Retention, func(ctx context.Context) error {
		raised := w.log.Retain(ctx, w.config.RemoveMax)
		for {
			removed, err := w.log.ReapDeleted(ctx, w.config.RemoveMax)
			w.counters.Removed.Add(int64(removed))
			if err != nil || removed < w.config.RemoveMax {
				return errors.Join(raised, err, w.compact(ctx))
			}
			if !pause(ctx, w.config.RemovePause) {
				return raised
			}
		}
	})
}

// compact removes events that newer ones of the same records stand for, in pieces
// as well.
func (w *turn) compact(ctx context.Context) error {
	for {
		removed, more, err := w.log.Compact(ctx, w.config.RemoveMax)
		w.counters.Compacted.Add(int64(removed))
		if err != nil || !more || !pause(ctx, w.config.RemovePause) {
			return err
		}
	}
}

// drain calls reap until it finds less than it may remove.
func (w *turn) drain(ctx context.Context, reap func(ctx context.Context, most int) (int, error)) error {
	for {
		n, err := reap(ctx, w.config.BatchMax)
		if err != nil || n < w.config.BatchMax {
			return err
		}
	}
}

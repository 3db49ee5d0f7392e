package activities

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"postroad/store"
)

// Checkpoints in one statement, and pauses between tries while PostgreSQL is
// away.
const (
	checkpointGroupMax = 1000
	checkpointRetryMin = 50 * time.Millisecond
	checkpointRetryMax = time.Second
	checkpointTimeout  = 10 * time.Second
	// checkpointBusyRetry is when a row that somebody else had locked is tried
	// again.
	checkpointBusyRetry = 20 * time.Millisecond
	// checkpointFinalTimeout bounds the last try when the process stops.
	checkpointFinalTimeout = 3 * time.Second
)

// saved is the answer to a submitted checkpoint.
type saved struct {
	store.CheckpointResult
	// sentAt is when the statement was sent, by the monotonic clock: the lease
	// held at or after it.
	sentAt time.Time
	// err is set where the checkpoint can never be written: the data was
	// refused, or the process stops.
	err error
}

// checkpointer group-commits the positions of all runs of the process: one
// statement in flight, everything that comes meanwhile goes into the next.
// While PostgreSQL is away it keeps what it has, one checkpoint a run, and
// tries again.
type checkpointer struct {
	write    func(context.Context, []*store.Checkpoint) ([]store.CheckpointResult, error)
	counters *Counters
	logger   *slog.Logger

	mu      sync.Mutex
	pending map[uuid.UUID]*submission
	kick    chan struct{}
	// written is closed when the group that is being written since began is; nil:
	// none is.
	written chan struct{}
	began   time.Time
	number  int64 // of the last try; of the writer's goroutine alone
}

// submission is the newest position of one run and those who wait for it. An
// older one that was not written yet is replaced: positions are absolute.
type submission struct {
	lease   uuid.UUID
	render  func(now time.Time) *store.Checkpoint
	waiters []func(saved)
}

func newCheckpointer(s *store.Store, counters *Counters, logger *slog.Logger) *checkpointer {
	return &checkpointer{
		write: s.WriteCheckpoints, counters: counters, logger: logger,
		pending: map[uuid.UUID]*submission{}, kick: make(chan struct{}, 1),
	}
}

// submit queues the newest checkpoint of the run that holds lease. render is
// called for each try, because waits shrink while PostgreSQL is away; done is
// called once, from the writer's goroutine, and must not block. Submissions of
// one lease must come in the order of their positions.
func (c *checkpointer) submit(lease uuid.UUID, render func(now time.Time) *store.Checkpoint, done func(saved)) {
	c.mu.Lock()
	s := c.pending[lease]
	if s == nil {
		s = &submission{lease: lease}
		c.pending[lease] = s
	}
	s.render = render
	s.waiters = append(s.waiters, done)
	c.mu.Unlock()
	c.wake()
}

func (c *checkpointer) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// again queues a submission whose row was locked, unless a newer one stands
// there: that one answers for both.
func (c *checkpointer) again(s *submission) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if newer := c.pending[s.lease]; newer != nil {
		newer.waiters = append(s.waiters, newer.waiters...)
	} else {
		c.pending[s.lease] = s
	}
	time.AfterFunc(checkpointBusyRetry, c.wake)
}

// run writes until ctx ends, and what is queued then once more.
func (c *checkpointer) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			c.last(context.WithoutCancel(ctx), c.take(0), context.Cause(ctx))
			return
		case <-c.kick:
		}
		for {
			group := c.take(checkpointGroupMax)
			if len(group) == 0 {
				break
			}
			c.writing(true)
			c.writeGroup(ctx, group)
			c.writing(false)
		}
	}
}

// last writes what stopping left over, once.
func (c *checkpointer) last(ctx context.Context, group []*submission, reason error) {
	if len(group) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkpointFinalTimeout)
	defer cancel()
	sentAt, batch := c.render(group)
	results, err := c.write(ctx, batch)
	if err != nil {
		c.logger.Warn("last checkpoints not written", "runs", len(group), "error", err)
		c.fail(group, reason)
		return
	}
	for i, s := range group {
		if results[i].Busy {
			s.resolve(saved{err: reason})
			continue
		}
		s.resolve(saved{CheckpointResult: results[i], sentAt: sentAt})
	}
}

func (c *checkpointer) render(group []*submission) (sentAt time.Time, batch []*store.Checkpoint) {
	sentAt, batch = time.Now(), make([]*store.Checkpoint, len(group))
	c.number++
	for i, s := range group {
		batch[i] = s.render(sentAt)
		batch[i].Number = c.number
	}
	return sentAt, batch
}

// writing notes that a group begins or ends to be written. What waits at its end
// is the next one.
func (c *checkpointer) writing(begins bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !begins {
		close(c.written)
		c.written = nil
	}
	if c.written == nil && (begins || len(c.pending) > 0) {
		c.written, c.began = make(chan struct{}), time.Now()
	}
}

// awaitWritten waits for a group that is being written for longer than usual, as
// it is while PostgreSQL is out of reach, and for what came meanwhile. False: it
// is not written within most.
func (c *checkpointer) awaitWritten(usual, most time.Duration) bool {
	timer := time.NewTimer(most)
	defer timer.Stop()
	for group := range 2 {
		c.mu.Lock()
		written, began := c.written, c.began
		c.mu.Unlock()
		if written == nil || group == 0 && time.Since(began) < usual {
			return true
		}
		select {
		case <-written:
		case <-timer.C:
			return false
		}
	}
	return true
}

// take removes up to most submissions, all of them for 0.
func (c *checkpointer) take(most int) []*submission {
	c.mu.Lock()
	defer c.mu.Unlock()
	group := make([]*submission, 0, len(c.pending))
	for lease, s := range c.pending {
		if most > 0 && len(group) == most {
			break
		}
		group = append(group, s)
		delete(c.pending, lease)
	}
	return group
}

// writeGroup writes until it is written. No member holds up the others: one
// whose row somebody else has locked is queued again, and where PostgreSQL
// refuses the data of one they are written one by one.
func (c *checkpointer) writeGroup(ctx context.Context, group []*submission) {
	pause := checkpointRetryMin
	for {
		sentAt, batch := c.render(group)
		tryCtx, cancel := context.WithTimeout(ctx, checkpointTimeout)
		results, err := c.write(tryCtx, batch)
		cancel()
		c.counters.Checkpoints.Observe(time.Since(sentAt).Seconds())
		c.counters.CheckpointRuns.Observe(float64(len(batch)))
		switch {
		case err == nil:
			for i, s := range group {
				if results[i].Busy {
					c.again(s)
				} else {
					s.resolve(saved{CheckpointResult: results[i], sentAt: sentAt})
				}
			}
			return
		case ctx.Err() != nil:
			c.fail(group, context.Cause(ctx))
			return
		case store.DataRefused(err) && len(group) > 1:
			for _, s := range group {
				c.writeGroup(ctx, []*submission{s})
			}
			return
		case store.DataRefused(err):
			c.logger.Error("checkpoint refused", "subscriber", batch[0].ID, "error", err)
			c.fail(group, err)
			return
		}
		c.counters.CheckpointRetries.Add(1)
		c.logger.Warn("checkpoints delayed", "runs", len(group), "retry_in", pause, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, checkpointRetryMax)
	}
}

func (c *checkpointer) fail(group []*submission, err error) {
	if err == nil {
		err = errors.New("the checkpoint writer stopped")
	}
	for _, s := range group {
		s.resolve(saved{err: err})
	}
}

func (s *submission) resolve(result saved) {
	for _, done := range s.waiters {
		done(result)
	}
}

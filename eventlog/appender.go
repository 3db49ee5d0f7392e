package eventlog

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// busyRetryAfter is what publishers are told when the queue is full: it drains
// in far less unless PostgreSQL is away.
const busyRetryAfter = time.Second

// appender stores requests in groups: one transaction per group, one feed per
// group, one group of a feed in flight.
type appender struct {
	pool   *pgxpool.Pool
	config Config
	// stored is told of each feed that grew, after the commit.
	stored  func(feed int64)
	metrics metrics
	kept    keptConns

	mu   sync.Mutex
	wake sync.Cond
	// queues holds the feeds that have requests waiting or a group in flight;
	// ready those of them that a writer may take, longest waiting first.
	queues  map[groupKey]*queue
	ready   []*queue
	events  int // waiting and in flight
	bytes   int
	open    bool
	writers sync.WaitGroup
}

// queue is what waits to be stored in one feed.
type queue struct {
	key      groupKey
	waiting  []*request
	events   int // of waiting
	inFlight bool
	gathering
}

// requestState is where a request is; it is guarded by appender.mu.
type requestState struct {
	queuedAt time.Time
	// taken by a writer; abandoned by its publisher before that.
	taken, abandoned bool
}

func newAppender(pool *pgxpool.Pool, config Config, stored func(feed int64)) *appender {
	a := &appender{pool: pool, config: config, stored: stored, metrics: newMetrics(), queues: map[groupKey]*queue{}}
	a.wake.L = &a.mu
	return a
}

func (a *appender) start() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open = true
	for range a.config.Writers {
		a.writers.Go(a.write)
	}
}

// close takes no more requests; the writers end once nothing waits.
func (a *appender) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open = false
	for _, q := range a.queues {
		if q.gathering.pending {
			a.endGathering(q)
		}
	}
	a.wake.Broadcast()
}

func (a *appender) wait() { a.writers.Wait() }

// append queues a request and waits for its answer.
func (a *appender) append(ctx context.Context, r *request) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	if err := a.enqueue(r); err != nil {
		return Result{}, err
	}
	select {
	case answer := <-r.answer:
		return answer.result, answer.err
	case <-ctx.Done():
		return a.abandon(ctx, r)
	}
}

func (a *appender) enqueue(r *request) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.open {
		return ErrClosed
	}
	full := a.events+len(r.events) > a.config.QueueEvents || a.bytes+r.bytes > a.config.QueueBytes
	if full && a.events > 0 {
		return &BusyError{busyRetryAfter}
	}
	a.events += len(r.events)
	a.bytes += r.bytes
	r.state.queuedAt = time.Now()
	q := a.queues[r.key]
	if q == nil {
		q = &queue{key: r.key}
		a.queues[r.key] = q
	}
	q.waiting = append(q.waiting, r)
	q.events += len(r.events)
	switch {
	case q.inFlight:
	case q.pending:
		if q.complete() {
			q.missed = 0
			a.endGathering(q)
		}
	case len(q.waiting) == 1:
		a.offer(q)
	}
	return nil
}

// abandon lets go of a request whose publisher no longer waits: one that no
// writer has taken is not stored.
func (a *appender) abandon(ctx context.Context, r *request) (Result, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !r.state.taken {
		r.state.abandoned = true
		return Result{}, ctx.Err()
	}
	select {
	case answer := <-r.answer:
		return answer.result, answer.err
	default:
		return Result{}, errors.Join(ErrUnknownOutcome, ctx.Err())
	}
}

// write stores groups until the appender is closed and nothing waits.
func (a *appender) write() {
	var args arguments
	defer a.kept.release()
	for {
		q, group := a.take()
		if q == nil {
			return
		}
		if len(group) > 0 {
			newBatch(q.key, group).store(a, &args)
			args.shrink()
		}
		a.done(q, group)
	}
}

// take waits for a feed that may be written and takes a group from it.
func (a *appender) take() (*queue, []*request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.ready) == 0 {
		if !a.open {
			return nil, nil
		}
		a.wake.Wait()
	}
	q := a.ready[0]
	a.ready[0] = nil
	a.ready = a.ready[1:]
	q.inFlight = true

	var group []*request
	events, bytes, taken := 0, 0, 0
	for _, r := range q.waiting {
		if !r.state.abandoned {
			if len(group) > 0 && (events+len(r.events) > a.config.GroupEvents || bytes+r.bytes > a.config.GroupBytes) {
				break
			}
			r.state.taken = true
			group = append(group, r)
			events += len(r.events)
			bytes += r.bytes
		} else {
			a.events -= len(r.events)
			a.bytes -= r.bytes
		}
		q.events -= len(r.events)
		taken++
	}
	clear(q.waiting[:taken])
	q.waiting = q.waiting[taken:]
	return q, group
}

// done gives the group's room back and its feed to the next writer.
func (a *appender) done(q *queue, group []*request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range group {
		a.events -= len(r.events)
		a.bytes -= r.bytes
	}
	q.inFlight = false
	if len(group) > 0 && a.gather(q) {
		return
	}
	a.offer(q)
}

// offer lets a writer take the feed, if anything waits in it.
func (a *appender) offer(q *queue) {
	if len(q.waiting) == 0 {
		delete(a.queues, q.key)
		return
	}
	a.ready = append(a.ready, q)
	a.wake.Signal()
}

package eventlog

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Channel is the PostgreSQL channel on which a feed's id is sent after the feed
// grew, a blank, and what the sender calls itself.
const Channel = "postroad_events"

const (
	// notifyTimeout bounds one round of notifications; who misses it polls.
	notifyTimeout = 5 * time.Second
	// notifyPause is the least time between two rounds: one after a pause is sent
	// at once, and under load what grew meanwhile is told together. A round costs
	// PostgreSQL, and every process that listens, as much as storing some events.
	notifyPause = 5 * time.Millisecond
)

// notifier tells of feeds that grew: the tail of its own process at once, and the
// other processes in a transaction of its own, as a notifying one takes a lock over
// the whole database at its commit. Both are told of all feeds that grew since the
// last time.
type notifier struct {
	pool   *pgxpool.Pool
	logger *slog.Logger
	tail   *tail
	mu     sync.Mutex
	feeds  map[int64]struct{}
	wake   chan struct{} // of capacity 1
}

func newNotifier(pool *pgxpool.Pool, config Config, tail *tail) *notifier {
	return &notifier{pool: pool, logger: config.Logger, tail: tail, feeds: map[int64]struct{}{}, wake: make(chan struct{}, 1)}
}

// note remembers that a feed grew. It does not block.
func (n *notifier) note(feed int64) {
	n.mu.Lock()
	n.feeds[feed] = struct{}{}
	n.mu.Unlock()
	signal(n.wake)
}

// signal wakes whoever waits on a channel of capacity 1.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (n *notifier) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		}
		n.mu.Lock()
		feeds := make([]int64, 0, len(n.feeds))
		for feed := range n.feeds {
			feeds = append(feeds, feed)
		}
		clear(n.feeds)
		n.mu.Unlock()
		began := time.Now()
		n.tail.tell(feeds...)
		sending, cancel := context.WithTimeout(ctx, notifyTimeout)
		_, err := n.pool.Exec(sending, `SELECT pg_notify($1, feed || ' ' || $3) FROM unnest($2::bigint[]) AS f (feed)`, Channel, feeds, n.tail.name)
		cancel()
		if err != nil && ctx.Err() == nil {
			n.logger.Debug("notification not sent: others find the events by polling", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(notifyPause - time.Since(began)):
		}
	}
}

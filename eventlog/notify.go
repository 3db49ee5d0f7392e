package eventlog

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Channel is the PostgreSQL channel on which a feed's id is sent after the feed
// grew.
const Channel = "postroad_events"

const (
	// notifyTimeout bounds one round of notifications; who misses it polls.
	notifyTimeout = 5 * time.Second
	// notifyPause is the least time between two rounds: one after a pause is sent
	// at once, and under load what grew meanwhile is told together. A round costs
	// PostgreSQL, and every process that listens, as much as storing some events.
	notifyPause = 5 * time.Millisecond
)

// notifier tells other processes of feeds that grew: in a transaction of its
// own, as a notifying one takes a lock over the whole database at its commit,
// and for all feeds that grew since the last one.
type notifier struct {
	pool   *pgxpool.Pool
	logger *slog.Logger
	mu     sync.Mutex
	feeds  map[int64]struct{}
	wake   chan struct{} // of capacity 1
}

func newNotifier(pool *pgxpool.Pool, config Config) *notifier {
	return &notifier{pool: pool, logger: config.Logger, feeds: map[int64]struct{}{}, wake: make(chan struct{}, 1)}
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
		sending, cancel := context.WithTimeout(ctx, notifyTimeout)
		_, err := n.pool.Exec(sending, `SELECT pg_notify($1, feed::text) FROM unnest($2::bigint[]) AS f (feed)`, Channel, feeds)
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

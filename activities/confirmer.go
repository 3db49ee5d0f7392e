package activities

import (
	"context"
	"sync"
	"time"

	"postroad/store"
)

// confirmer asks PostgreSQL whether leases still hold, for all runs of the
// process: one statement is under way, and those who come meanwhile go into the
// next. Ten thousand subscribers with an event now and then would else cost a
// statement for each.
type confirmer struct {
	confirm func(context.Context, []store.Lease) (map[store.Lease]int64, error)

	mu      sync.Mutex
	waiting *confirmation // those who go into the next statement; nil: nobody
	busy    bool
}

// confirmation is one statement and those who wait for it.
type confirmation struct {
	leases []store.Lease
	done   chan struct{} // closed when the rest is valid
	// sentAt is when the statement was sent, by the monotonic clock: later than all
	// of them asked, and what the leases found are good from.
	sentAt  time.Time
	desired map[store.Lease]int64
	err     error
}

func newConfirmer(s *store.Store) *confirmer { return &confirmer{confirm: s.Confirm} }

// ask returns the version of the last accepted control if the lease still holds
// its subscriber, and when the statement that found it was sent.
func (c *confirmer) ask(ctx context.Context, lease store.Lease) (desired int64, held bool, sentAt time.Time, err error) {
	c.mu.Lock()
	if c.waiting == nil {
		c.waiting = &confirmation{done: make(chan struct{})}
	}
	mine := c.waiting
	mine.leases = append(mine.leases, lease)
	if !c.busy {
		c.busy = true
		go c.run(context.WithoutCancel(ctx))
	}
	c.mu.Unlock()
	select {
	case <-mine.done:
	case <-ctx.Done():
		return 0, false, time.Time{}, ctx.Err()
	}
	desired, held = mine.desired[lease]
	return desired, held, mine.sentAt, mine.err
}

// run asks until nobody waits.
func (c *confirmer) run(ctx context.Context) {
	for {
		c.mu.Lock()
		group := c.waiting
		c.waiting = nil
		c.busy = group != nil
		c.mu.Unlock()
		if group == nil {
			return
		}
		group.sentAt = time.Now()
		group.err = bounded(ctx, func(ctx context.Context) (err error) {
			group.desired, err = c.confirm(ctx, group.leases)
			return err
		})
		close(group.done)
	}
}

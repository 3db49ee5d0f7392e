package eventlog

import "context"

// PairsMax bounds under how many pairs of its entries a filter is kept.
const PairsMax = pairsMax

// Empty reports that the index holds no value and nothing of one either.
func (x *FilterIndex[T]) Empty() bool {
	return len(x.entries) == 0 && x.names.empty() && len(x.names.lengths) == 0
}

// QueuedEvents is how many events wait to be stored or are being stored.
func (l *Log) QueuedEvents() int {
	l.appender.mu.Lock()
	defer l.appender.mu.Unlock()
	return l.appender.events
}

// RingBytes is how much all rings hold together, by their own count.
func (l *Log) RingBytes() int {
	l.tail.rings.mu.Lock()
	defer l.tail.rings.mu.Unlock()
	return l.tail.rings.total
}

// FollowedFeeds is how many feeds the tail keeps anything of.
func (l *Log) FollowedFeeds() int {
	l.tail.mu.Lock()
	defer l.tail.mu.Unlock()
	return len(l.tail.feeds)
}

// Listen hears notifications for a log that was not started.
func (l *Log) Listen(ctx context.Context) { l.tail.listen(ctx) }

// Look makes one look of a log that was not started, as if the last one had
// been made in that snapshot; empty: in the one it was made in.
func (l *Log) Look(ctx context.Context, snapshot string) error {
	if snapshot != "" {
		l.tail.snapshot = snapshot
	}
	_, err := l.tail.look(ctx)
	return err
}

// LooksAfresh reports that the next look will not go by the last one's snapshot.
func (l *Log) LooksAfresh() bool {
	l.tail.mu.Lock()
	defer l.tail.mu.Unlock()
	return l.tail.missed
}

// Waiting is how many followers wait for new events of a feed.
func (l *Log) Waiting(feed int64) int {
	f := l.tail.feedOf(feed)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waiting.Len()
}

// Begun reports that a feed that is followed has its place in the log.
func (l *Log) Begun(feed int64) bool {
	f := l.tail.feedOf(feed)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.begun
}

func (t *tail) feedOf(feed int64) *feedTail {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.feeds[feed]
}

// PageSQL is the query for a page of EntityEvents.
func (q EntityQuery) PageSQL() (sql string, args []any) { return q.pageSQL() }

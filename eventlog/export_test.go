package eventlog

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

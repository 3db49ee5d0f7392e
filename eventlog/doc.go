// Package eventlog is the log in PostgreSQL: feeds, appending to them, reading
// them and following their ends.
//
// It owns the tables feeds, events and idempotency_keys. What it promises:
// sequence numbers of a feed follow commit order, only grow and are never used
// again, so a reader at N that asks for what is above N never misses an event
// that commits later; and an event whose Append succeeded is in the log once.
//
// It refuses what does not fit the feed, but does not validate an event's
// members: publishers' input is checked before it comes here.
package eventlog

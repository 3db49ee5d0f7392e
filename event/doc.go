// Package event is the domain: events of a feed, subscribers that are owed
// them, filters and durations.
//
// It owns the meaning and the bounds of every member, and refuses what is out
// of bounds with errors that name it. It does no I/O, knows neither PostgreSQL
// nor Temporal nor HTTP, and imports the standard library only.
package event

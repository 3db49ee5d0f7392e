package activities

import (
	"sync/atomic"

	"postroad/delivery"
)

// Counters count what the activities of a process have done since it started.
type Counters struct {
	// Requests that had an answer or a fault, by its class.
	Succeeded, Gone, Asked, EndpointFailed, RecordRefused atomic.Int64
	// Canceled are requests that Postroad itself ended.
	Canceled atomic.Int64
	// Settled are events settled.
	Settled atomic.Int64
	// Fenced are runs that lost their lease to another.
	Fenced atomic.Int64
}

// requests is the counter of a class.
func (c *Counters) requests(class delivery.Class) *atomic.Int64 {
	switch class {
	case delivery.ClassSuccess:
		return &c.Succeeded
	case delivery.ClassGone:
		return &c.Gone
	case delivery.ClassAsked:
		return &c.Asked
	case delivery.ClassEndpoint:
		return &c.EndpointFailed
	case delivery.ClassRecord:
		return &c.RecordRefused
	default:
		return &c.Canceled
	}
}

// Counters returns the counters, which go on counting.
func (a *Activities) Counters() *Counters { return &a.counters }

// Runs is how many subscribers this process holds the lease of now.
func (a *Activities) Runs() int { return a.runs.count() }

// QueuedAttempts is how many attempts are not written yet.
func (a *Activities) QueuedAttempts() int { return a.attempts.queued() }

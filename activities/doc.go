// Package activities is what the Subscriber workflow calls: Deliver, which
// sends a subscriber's events for minutes at a time, and Apply, which accepts
// a control that came as a signal.
//
// It owns the hot path (lease, send gate, checkpoints, parking) and the policy
// of waits. The row in PostgreSQL is the truth: everything a run knows can be
// rebuilt from it, and a run that lost its lease can do no harm. HTTP failures
// are outcomes, never activity errors. It decides no absolute time: PostgreSQL's
// clock does.
package activities

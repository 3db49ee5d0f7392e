// Package planner decides what a subscriber is sent next: lanes, batches, the
// bisecting of refused batches, retries, waits, what is set aside, and how far
// the subscriber is.
//
// It is a pure state machine. Events go in (Offer, OfferHeld), requests come out
// (Next), answers go in (Answered), and what a checkpoint writes comes out
// (Snapshot). It does no I/O, has no clock and starts no goroutine: every time is
// its caller's. A Plan rebuilt from a snapshot that was written goes on where
// that one stood; nothing else outlives a run. It is not safe for concurrent use.
//
// It owns the order of requests and the meaning of answers. It refuses to know
// what a request looks like, when a checkpoint is due, and where events are kept.
package planner

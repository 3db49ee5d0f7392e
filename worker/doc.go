// Package worker runs what drives subscribers: two Temporal workers (one for
// workflows and Deliver, one for controls) and the waker, which tells parked
// subscribers of new events and looks after rows that nobody drives.
//
// It owns registration, the sizes of pools and the order of shutting down. It
// decides nothing about deliveries: workflows and activities do.
package worker

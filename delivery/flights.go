package delivery

import (
	"context"
	"sync"
)

// flights are the requests of a target that are under way on the direct path, so
// that the end of their context ends them all: a run's requests share one, and to
// register each of them with it costs more than to keep a list.
type flights struct {
	mu    sync.Mutex
	owner context.Context // whose they are; nil: nobody's yet
	stop  func() bool     // ends the watch over owner
	over  bool            // owner has ended
	busy  *conn           // the first of them
}

// begin puts a connection under the watch of ctx. False: the watch is another
// context's, which has requests under way.
func (f *flights) begin(ctx context.Context, c *conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.owner != ctx {
		if f.busy != nil {
			return false
		}
		if f.stop != nil {
			f.stop()
		}
		f.over = false
		f.owner, f.stop = ctx, context.AfterFunc(ctx, func() { f.end(ctx) })
	}
	if c.ended = f.over; c.ended {
		_ = c.SetDeadline(past)
	}
	if c.nextBusy = f.busy; c.nextBusy != nil {
		c.nextBusy.previousBusy = c
	}
	f.busy = c
	return true
}

// finish ends the watch over a connection and reports that the context has not
// ended its request.
func (f *flights) finish(c *conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.previousBusy != nil {
		c.previousBusy.nextBusy = c.nextBusy
	} else {
		f.busy = c.nextBusy
	}
	if c.nextBusy != nil {
		c.nextBusy.previousBusy = c.previousBusy
	}
	c.nextBusy, c.previousBusy = nil, nil
	return !c.ended
}

// end ends the reading and the writing of all requests of ctx.
func (f *flights) end(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.owner != ctx {
		return // another's by now: those of this one were over
	}
	f.over = true
	for c := f.busy; c != nil; c = c.nextBusy {
		c.ended = true
		_ = c.SetDeadline(past)
	}
}

package delivery

import (
	"slices"
	"sync"
	"time"
)

// pool keeps unused connections by origin. The one used last is taken first,
// so that the others grow old and are closed.
type pool struct {
	perOrigin int
	timeout   time.Duration

	mu      sync.Mutex
	idle    map[string][]*conn
	sweeper *time.Timer // runs while any connection is idle
	closed  bool
}

func newPool(perOrigin int, timeout time.Duration) *pool {
	return &pool{perOrigin: perOrigin, timeout: timeout, idle: map[string][]*conn{}}
}

// get takes a connection that is believed to be alive; nil: there is none.
// Its deadline becomes the request's.
func (p *pool) get(origin string, deadline time.Time) *conn {
	for {
		c := p.pop(origin)
		if c == nil {
			return nil
		}
		if time.Since(c.unused) < p.timeout && c.SetDeadline(deadline) == nil && c.alive() {
			return c
		}
		_ = c.Close()
	}
}

func (p *pool) pop(origin string) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[origin]
	if len(list) == 0 {
		return nil
	}
	c := list[len(list)-1]
	list[len(list)-1] = nil
	p.idle[origin] = list[:len(list)-1]
	return c
}

// put gives a connection back whose last answer was read to its end.
func (p *pool) put(origin string, c *conn) {
	c.unused = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle[origin]) >= p.perOrigin {
		_ = c.Close()
		return
	}
	p.idle[origin] = append(p.idle[origin], c)
	if p.sweeper == nil {
		p.sweeper = time.AfterFunc(p.timeout, p.sweep)
	}
}

// sweep closes what has been unused for too long, and comes again while
// anything is left.
func (p *pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweeper = nil
	for origin, list := range p.idle {
		old := 0
		for old < len(list) && time.Since(list[old].unused) >= p.timeout {
			_ = list[old].Close()
			old++
		}
		if list = slices.Delete(list, 0, old); len(list) > 0 {
			p.idle[origin] = list
		} else {
			delete(p.idle, origin)
		}
	}
	if len(p.idle) > 0 && !p.closed {
		p.sweeper = time.AfterFunc(p.timeout/2, p.sweep)
	}
}

// close closes all unused connections, and from now on every one that is
// given back.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.sweeper != nil {
		p.sweeper.Stop()
	}
	for _, list := range p.idle {
		for _, c := range list {
			_ = c.Close()
		}
	}
	clear(p.idle)
}

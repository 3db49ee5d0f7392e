package delivery

import (
	"maps"
	"sync"
	"time"
)

// pool keeps unused connections by origin. The one used last is taken first,
// so that the others grow old and are closed. Connections are closed while the
// pool is free for others: TLS says goodbye, to a consumer that may not read.
type pool struct {
	perOrigin, most int
	timeout         time.Duration

	mu             sync.Mutex
	idle           map[string][]*conn // by origin, the one used last at the end
	oldest, newest *conn              // the same connections in the order of their use
	count          int
	sweeper        *time.Timer // runs while any connection is idle
	closed         bool
}

func newPool(perOrigin, most int, timeout time.Duration) *pool {
	return &pool{perOrigin: perOrigin, most: most, timeout: timeout, idle: map[string][]*conn{}}
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
	p.unlink(c)
	return c
}

// put gives a connection back whose last answer was read to its end.
func (p *pool) put(origin string, c *conn) {
	c.origin, c.unused = origin, time.Now()
	if surplus := p.keep(c); surplus != nil {
		_ = surplus.Close()
	}
}

// keep adds a connection and returns the one to close instead, if any.
func (p *pool) keep(c *conn) (surplus *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle[c.origin]) >= p.perOrigin {
		return c
	}
	p.idle[c.origin] = append(p.idle[c.origin], c)
	if c.older = p.newest; c.older != nil {
		c.older.newer = c
	} else {
		p.oldest = c
	}
	p.newest = c
	p.count++
	if p.sweeper == nil {
		p.sweeper = time.AfterFunc(p.timeout, p.sweep)
	}
	if p.count > p.most {
		return p.dropOldest()
	}
	return nil
}

// dropOldest takes out the connection unused for longest, which is also the
// first of its origin.
func (p *pool) dropOldest() *conn {
	c := p.oldest
	list := p.idle[c.origin]
	copy(list, list[1:])
	list[len(list)-1] = nil
	p.idle[c.origin] = list[:len(list)-1]
	p.unlink(c)
	return c
}

func (p *pool) unlink(c *conn) {
	if c.older != nil {
		c.older.newer = c.newer
	} else {
		p.oldest = c.newer
	}
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		p.newest = c.older
	}
	c.older, c.newer = nil, nil
	p.count--
}

// sweep closes what has been unused for too long, and comes again while
// anything is left.
func (p *pool) sweep() {
	for _, c := range p.dropOld() {
		_ = c.Close()
	}
}

func (p *pool) dropOld() (old []*conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweeper = nil
	for p.oldest != nil && time.Since(p.oldest.unused) >= p.timeout {
		old = append(old, p.dropOldest())
	}
	maps.DeleteFunc(p.idle, func(_ string, list []*conn) bool { return len(list) == 0 })
	if p.count > 0 && !p.closed {
		p.sweeper = time.AfterFunc(p.timeout/2, p.sweep)
	}
	return old
}

// close closes all unused connections, and from now on every one that is
// given back.
func (p *pool) close() {
	for _, c := range p.shut() {
		_ = c.Close()
	}
}

func (p *pool) shut() (rest []*conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.sweeper != nil {
		p.sweeper.Stop()
	}
	for p.oldest != nil {
		rest = append(rest, p.dropOldest())
	}
	clear(p.idle)
	return rest
}

package eventlog

import (
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// keptMax bounds how long a connection is kept from the pool.
const keptMax = time.Second

// keptConns are connections that groups were stored over, for the next groups.
// The pool would hand them out by turns with other work, and a session that has
// not stored a group for a moment finds nothing it needs in the processor's
// caches any more.
type keptConns struct {
	mu   sync.Mutex
	idle []*keptConn // the one that came back last is taken first
}

// keptConn is a connection of the pool until it is released.
type keptConn struct {
	*pgxpool.Conn
	over bool // kept for long enough
}

// take returns a kept connection; nil: there is none.
func (k *keptConns) take() *keptConn {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.idle) == 0 {
		return nil
	}
	c := k.idle[len(k.idle)-1]
	k.idle = k.idle[:len(k.idle)-1]
	return c
}

// keep makes a kept one of a connection in use.
func (k *keptConns) keep(conn *pgxpool.Conn) *keptConn {
	c := &keptConn{Conn: conn}
	time.AfterFunc(keptMax, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		c.over = true
		if i := slices.Index(k.idle, c); i >= 0 {
			k.idle = slices.Delete(k.idle, i, i+1)
			c.Release()
		}
	})
	return c
}

// put takes a connection back. Where the pool is used up, others may wait for it.
func (k *keptConns) put(c *keptConn, pool *pgxpool.Pool) {
	all := pool.Stat()
	usedUp := all.AcquiredConns() >= all.MaxConns()
	k.mu.Lock()
	defer k.mu.Unlock()
	if c.over || usedUp || c.Conn.Conn().IsClosed() {
		c.over = true
		c.Release()
		return
	}
	k.idle = append(k.idle, c)
}

// release gives all that are not in use back to the pool.
func (k *keptConns) release() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.idle {
		c.over = true
		c.Release()
	}
	k.idle = nil
}

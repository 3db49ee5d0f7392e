package delivery

// DirectBodyBytesMax is the bound between the paths.
const DirectBodyBytesMax = directBodyBytesMax

// ForceTransport makes every request by net/http's transport.
func (c *Client) ForceTransport() { c.noDirect = true }

// Forced reports whether ForceTransport was called.
func (c *Client) Forced() bool { return c.noDirect }

// NoteHTTP1 lets a TLS endpoint take the direct path as if it had answered
// before.
func (c *Client) NoteHTTP1(t *Target) { c.http1.Store(t.origin, struct{}{}) }

// HasProxy reports whether the transport may use a proxy.
func (c *Client) HasProxy() bool { return c.transport.Proxy != nil }

// IdleConnections counts the direct path's unused connections.
func (c *Client) IdleConnections() int {
	c.conns.mu.Lock()
	defer c.conns.mu.Unlock()
	n := 0
	for _, list := range c.conns.idle {
		n += len(list)
	}
	return n
}

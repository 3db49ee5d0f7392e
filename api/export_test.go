package api

import (
	"context"
	"io"
)

// Polling is how many long polls wait for an event.
func (s *Server) Polling() int64 { return s.polling.Load() }

// CheckPermission says whether a route may be registered with the permission of
// these roles.
func CheckPermission(method, path string, roles ...string) error {
	bits := map[string]permission{
		"admin": allowAdmin, "publisher": allowPublisher, "reader": allowReader, "subscriber": allowSubscriber, "anyone": allowAnyone,
	}
	var allowed permission
	for _, role := range roles {
		allowed |= bits[role]
	}
	return allowed.check(method, path)
}

// SetCachedTokensMax bounds the tokens and the guesses remembered.
func (s *Server) SetCachedTokensMax(n int) { s.tokens.most = n }

// CachedTokens says how many of each are remembered.
func (s *Server) CachedTokens() (valid, invalid int) {
	s.tokens.mu.RLock()
	defer s.tokens.mu.RUnlock()
	return len(s.tokens.valid), len(s.tokens.invalid)
}

// Identify finds out who a header stands for.
func (s *Server) Identify(ctx context.Context, header string) error {
	_, err := s.identify(ctx, header)
	return err
}

// Streams is how many streams follow the log.
func (s *Server) Streams() int {
	s.streams.mu.Lock()
	defer s.streams.mu.Unlock()
	return len(s.streams.open)
}

// AcceptsGzip is acceptsGzip.
var AcceptsGzip = acceptsGzip

// NewGzipStream compresses what it is given into w.
func NewGzipStream(w io.Writer) (write func([]byte) error, closed func() error) {
	g := &gzipStream{}
	return func(p []byte) error { return g.write(w, p) }, func() error { return g.close(w) }
}

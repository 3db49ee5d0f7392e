package api

// Polling is how many long polls wait for an event.
func (s *Server) Polling() int64 { return s.polling.Load() }

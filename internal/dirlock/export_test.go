package dirlock

// Fd is the descriptor that the lock is held by.
func (l *Lock) Fd() int { return int(l.file.Fd()) }

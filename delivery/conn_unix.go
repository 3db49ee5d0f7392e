//go:build unix

package delivery

import (
	"errors"
	"syscall"
)

// peekSocket looks at the socket without waiting and without taking from it.
func (c *conn) peekSocket(fd uintptr) bool {
	_, _, err := syscall.Recvfrom(int(fd), c.peeked[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	if !errors.Is(err, syscall.EAGAIN) {
		c.peekError = errDead // an end, an error, or bytes that nobody asked for
	}
	return true
}

// Package ports finds free TCP ports for the servers that cannot be given a
// listener of ours. A port found here may be taken before it is used: callers
// try again with another one.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports come from below the ephemeral ranges of Linux (32768) and macOS (49152),
// so that no outgoing connection takes one while its server restarts.
const (
	firstPort = 15000
	lastPort  = 32000
)

// Free returns n different ports that nothing listens on at 127.0.0.1.
func Free(n int) ([]int, error) {
	found := make([]int, 0, n)
	seen := make(map[int]bool, n)
	for range 200 * n {
		if len(found) == n {
			break
		}
		port := firstPort + rand.IntN(lastPort-firstPort)
		if seen[port] {
			continue
		}
		seen[port] = true
		if Check(net.JoinHostPort("127.0.0.1", strconv.Itoa(port))) == nil {
			found = append(found, port)
		}
	}
	if len(found) < n {
		return nil, fmt.Errorf("find %d free ports between %d and %d: found %d", n, firstPort, lastPort, len(found))
	}
	return found, nil
}

// Check says whether address can be listened on now.
func Check(address string) error {
	listener, err := net.Listen("tcp", address) //nolint:noctx // it returns at once
	if err != nil {
		return err
	}
	return listener.Close()
}

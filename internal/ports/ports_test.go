package ports_test

import (
	"errors"
	"net"
	"strconv"
	"syscall"
	"testing"

	"postroad/internal/ports"
)

func TestFree(t *testing.T) {
	t.Parallel()
	free, err := ports.Free(20)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[int]bool)
	for _, port := range free {
		if seen[port] {
			t.Errorf("port %d comes twice", port)
		}
		seen[port] = true
	}
	if len(seen) != 20 {
		t.Errorf("%d ports, want 20", len(seen))
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:" + strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	if err := ports.Check(address); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("taken: error %v", err)
	}
	listener.Close()
	if err := ports.Check(address); err != nil {
		t.Errorf("free: %v", err)
	}
}

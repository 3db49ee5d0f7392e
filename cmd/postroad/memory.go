package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// memoryEvery is how often it is looked whether there is memory to give back.
	memoryEvery = 10 * time.Second
	// quietBytes is how much a quiet process allocates in that time, at most.
	quietBytes = 64 << 20
	// spareBytes is not worth a collection.
	spareBytes = 24 << 20
)

// memory decides when a quiet process gives memory back to the system. Go keeps
// about twice what was last in use: after ten thousand subscribers have parked,
// that is what they needed while they were at work.
type memory struct {
	allocated uint64 // in all, at the last look
	left      uint64 // what was resident after the last giving back
}

// look takes what was allocated since the start, and what is resident of the heap;
// give says that it is time to give back.
func (m *memory) look(allocated, resident uint64) (give bool) {
	quiet := allocated-m.allocated <= quietBytes
	m.allocated = allocated
	return quiet && resident > m.left+m.left/4+spareBytes
}

// giveBackMemory gives memory back, when the process is quiet, until ctx ends.
func giveBackMemory(ctx context.Context) {
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
	}
	read := func() (allocated, resident uint64) {
		metrics.Read(samples)
		for _, s := range samples[1:] {
			resident += s.Value.Uint64()
		}
		return samples[0].Value.Uint64(), resident
	}
	ticker := time.NewTicker(memoryEvery)
	defer ticker.Stop()
	m := memory{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if m.look(read()) {
			debug.FreeOSMemory() // collects first
			_, m.left = read()
		}
	}
}

package worker

import (
	"context"
	"iter"
	"sync"
)

// inbox gathers what is told until somebody takes all of it at once.
type inbox[K comparable, V any] struct {
	mu   sync.Mutex
	told map[K]V
	more chan struct{} // of capacity 1
}

func newInbox[K comparable, V any]() *inbox[K, V] {
	return &inbox[K, V]{told: map[K]V{}, more: make(chan struct{}, 1)}
}

// put has add change what was told.
func (b *inbox[K, V]) put(add func(told map[K]V)) {
	b.mu.Lock()
	add(b.told)
	b.mu.Unlock()
	poke(b.more)
}

// take yields what was told since it was taken last, whenever there is
// something, until ctx ends.
func (b *inbox[K, V]) take(ctx context.Context) iter.Seq[map[K]V] {
	return func(yield func(map[K]V) bool) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-b.more:
			}
			b.mu.Lock()
			told := b.told
			b.told = map[K]V{}
			b.mu.Unlock()
			if !yield(told) {
				return
			}
		}
	}
}

// poke wakes whoever waits on a channel of capacity 1.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

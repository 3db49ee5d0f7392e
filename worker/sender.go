package worker

import (
	"container/heap"
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// sender sends wakes: at once, and those with a generation again, ever later,
// for as long as the row is parked under it. Callers of send never wait: when
// Temporal is away a signal blocks for ten seconds.
type sender struct {
	signaller Signaller
	// parked reports whether the row is still parked under the generation.
	parked func(ctx context.Context, id string, generation int64) (bool, error)

	limiter     *rate.Limiter
	concurrency int
	timeout     time.Duration // of one signal
	again       time.Duration // before the first repeat; doubles
	againMax    time.Duration
	afterError  time.Duration
	// yieldAfter is how long signals may fail, none of them arriving, before
	// yield is called: another process may reach Temporal.
	yieldAfter time.Duration
	yield      func()
	reach      *reach
	logger     *slog.Logger
	counters   *Counters

	mu    sync.Mutex
	queue wakeQueue
	byID  map[string]*wake
	poked chan struct{} // of capacity 1
}

// reach is what is known of the way to Temporal, by all senders of a process.
type reach struct {
	mu sync.Mutex
	// failingSince is when the first signal began of those that failed since one
	// arrived; zero: the last one did.
	failingSince time.Time
}

// wake is one subscriber's next wake.
type wake struct {
	id         string
	generation int64 // 0: a plain wake, sent once
	sends      int
	due        time.Time
	delay      time.Duration // before the next repeat
	place      int           // in the queue; -1: being sent
	dead       bool          // replaced or forgotten
}

// send queues a wake, in place of the one of another parking that the subscriber
// may have had: the caller knows the row as it is now.
func (s *sender) send(id string, generation int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.byID[id]; old != nil {
		if old.generation == generation {
			return
		}
		s.drop(old)
	}
	w := &wake{id: id, generation: generation, due: time.Now(), delay: s.again}
	s.byID[id] = w
	heap.Push(&s.queue, w)
	poke(s.poked)
}

// forget drops the wake of a parking that is over.
func (s *sender) forget(id string, generation int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.byID[id]; w != nil && w.generation == generation {
		s.drop(w)
	}
}

func (s *sender) drop(w *wake) {
	w.dead = true
	if w.place >= 0 {
		heap.Remove(&s.queue, w.place)
	}
	if s.byID[w.id] == w {
		delete(s.byID, w.id)
	}
}

// run sends what is due until ctx ends.
func (s *sender) run(ctx context.Context) {
	var sending sync.WaitGroup
	defer sending.Wait()
	slots := make(chan struct{}, s.concurrency)
	for {
		w := s.next(ctx)
		if w == nil || s.limiter.Wait(ctx) != nil {
			return
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		sending.Go(func() {
			defer func() { <-slots }()
			s.attempt(ctx, w)
		})
	}
}

// next waits for the next wake that is due; nil: ctx ended.
func (s *sender) next(ctx context.Context) *wake {
	for ctx.Err() == nil {
		wait := time.Hour
		s.mu.Lock()
		if len(s.queue) > 0 {
			if wait = time.Until(s.queue[0].due); wait <= 0 {
				w := heap.Pop(&s.queue).(*wake)
				s.mu.Unlock()
				return w
			}
		}
		s.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-s.poked:
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// attempt sends one wake and queues its repeat.
func (s *sender) attempt(ctx context.Context, w *wake) {
	if w.sends > 0 && w.generation > 0 {
		parked, err := s.parked(ctx, w.id, w.generation)
		switch {
		case err != nil:
			s.logger.Warn("parked row not read", "subscriber", w.id, "error", err)
			s.requeue(w, s.afterError)
			return
		case !parked:
			s.forget(w.id, w.generation)
			return
		}
	}
	signalling, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	began := time.Now()
	err := s.signaller.Wake(signalling, w.id, w.generation)
	if ctx.Err() == nil {
		s.note(began, err)
	}
	if err != nil {
		if ctx.Err() == nil {
			s.counters.Failed.Add(1)
			s.logger.Warn("wake not sent", "subscriber", w.id, "error", err)
		}
		s.requeue(w, s.afterError)
		return
	}
	if w.generation == 0 {
		s.counters.Swept.Add(1)
		s.forget(w.id, 0)
		return
	}
	if w.sends++; w.sends > 1 {
		s.counters.Resent.Add(1)
	} else {
		s.counters.Sent.Add(1)
	}
	after := w.delay
	w.delay = min(2*w.delay, s.againMax) // once queued it is another goroutine's
	s.requeue(w, after)
}

// note remembers how signals fare, and yields to another process when they have
// failed for long.
func (s *sender) note(began time.Time, err error) {
	s.reach.mu.Lock()
	defer s.reach.mu.Unlock()
	switch {
	case err == nil:
		s.reach.failingSince = time.Time{}
	case s.reach.failingSince.IsZero():
		s.reach.failingSince = began
	}
	if err != nil && time.Since(s.reach.failingSince) >= s.yieldAfter {
		s.yield()
	}
}

func (s *sender) requeue(w *wake, after time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.dead {
		return
	}
	w.due = time.Now().Add(after)
	heap.Push(&s.queue, w)
	poke(s.poked)
}

// wakeQueue is a heap by due time.
type wakeQueue []*wake

func (q wakeQueue) Len() int           { return len(q) }
func (q wakeQueue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q wakeQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push implements heap.Interface.
func (q *wakeQueue) Push(x any) {
	w := x.(*wake)
	w.place = len(*q)
	*q = append(*q, w)
}

// Pop implements heap.Interface.
func (q *wakeQueue) Pop() any {
	old := *q
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	w.place = -1
	return w
}

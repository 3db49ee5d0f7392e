package eventlog

import "time"

const (
	// gatheredEvents is how many events make a group large enough: what more of
	// them would save of a transaction's cost is not worth waiting for.
	gatheredEvents = 128
	// missesMax bounds how many groups go without gathering after one that was in
	// vain: two to the power of it.
	missesMax = 6
)

// gathering is the wait of a queue, after a group was answered, for the
// publishers of that group: those that publish one event after the other are back
// within a moment. Without it they fall into two halves, each of which is stored
// while the other is answered, in twice as many transactions.
//
// One publisher alone never waits for another, and a wait that was in vain is not
// repeated for a while.
type gathering struct {
	pending bool
	// want is how many requests are expected: those just answered, and those that
	// waited already.
	want int
	// enough are so many of them that the wait was not in vain.
	enough int
	missed int // waits in vain, in a row
	skip   int // groups that go without a wait
	timer  *time.Timer
}

// complete reports that there is nothing more to wait for.
func (q *queue) complete() bool { return len(q.waiting) >= q.want || q.events >= gatheredEvents }

// expect notes who is about to be answered: whoever is back before the group is
// done must not be expected once more.
func (a *appender) expect(key groupKey, answered int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.queues[key]
	q.want, q.enough = answered+len(q.waiting), (answered+1)/2+len(q.waiting)
}

// gather begins the wait of a queue whose group was answered, if it is worth it.
func (a *appender) gather(q *queue) bool {
	if q.skip > 0 {
		q.skip--
		return false
	}
	if !a.open || q.want < 2 || q.complete() {
		return false
	}
	q.gathering.pending = true
	q.timer = time.AfterFunc(a.config.GatherMax, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if !q.gathering.pending {
			return // the last one came just now
		}
		if len(q.waiting) < q.enough {
			q.missed = min(q.missed+1, missesMax)
			q.skip = 1 << q.missed
		} else {
			q.missed = 0
		}
		a.endGathering(q)
	})
	return true
}

// endGathering lets the queue's next group be taken.
func (a *appender) endGathering(q *queue) {
	q.timer.Stop()
	q.gathering.pending = false
	a.offer(q)
}

package planner

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"postroad/event"
	"postroad/store"
)

// aside are the changes of what is set aside that no committed checkpoint
// carries: the last state of each event and each key, with the mark of the first
// snapshot that has it.
type aside struct {
	mark      int64 // of the last snapshot
	committed int64 // of the last one that is in the database
	held      map[int64]change[store.HeldEvent]
	dead      map[int64]change[store.DeadLetter]
	keys      map[event.Key]change[struct{}]
}

// change is what becomes of a row: it is there, or it is not.
type change[T any] struct {
	row     T
	there   bool
	version int64
}

// next is the mark of the next snapshot: the first that has a change made now.
func (a *aside) next() int64 { return a.mark + 1 }

func set[K comparable, T any](m *map[K]change[T], key K, c change[T]) {
	if *m == nil {
		*m = map[K]change[T]{}
	}
	(*m)[key] = c
}

func (a *aside) hold(e store.HeldEvent) {
	set(&a.held, e.Sequence, change[store.HeldEvent]{e, true, a.next()})
}

func (a *aside) unhold(sequence int64) {
	set(&a.held, sequence, change[store.HeldEvent]{version: a.next()})
}

func (a *aside) bury(d store.DeadLetter) {
	set(&a.dead, d.Sequence, change[store.DeadLetter]{d, true, a.next()})
}

func (a *aside) redelivered(sequence int64) {
	set(&a.dead, sequence, change[store.DeadLetter]{version: a.next()})
}

func (a *aside) keep(key event.Key) {
	set(&a.keys, key, change[struct{}]{there: true, version: a.next()})
}

func (a *aside) release(key event.Key) {
	set(&a.keys, key, change[struct{}]{version: a.next()})
}

// Unsaved is how many changes of what is set aside no committed checkpoint
// carries. Room counts them, so that they stay bounded: a caller that brings
// events has to save.
func (p *Plan) Unsaved() int { return len(p.aside.held) + len(p.aside.dead) }

// Committed says that the checkpoint of that snapshot is in the database.
func (p *Plan) Committed(mark int64) {
	a := &p.aside
	if mark <= a.committed {
		return
	}
	a.committed = mark
	forget(a.held, mark)
	forget(a.dead, mark)
	forget(a.keys, mark)
	for _, h := range p.held {
		if len(h.recent) > 0 {
			p.pruneRecent(h)
		}
	}
}

func forget[K comparable, T any](m map[K]change[T], mark int64) {
	maps.DeleteFunc(m, func(_ K, c change[T]) bool { return c.version <= mark })
}

// changes are the final states, in order of sequences and keys; nil: there are
// none.
func (p *Plan) changes(now time.Time) *store.AsideChanges {
	a := &p.aside
	if len(a.held)+len(a.dead)+len(a.keys) == 0 {
		return nil
	}
	var c store.AsideChanges
	for _, sequence := range slices.Sorted(maps.Keys(a.held)) {
		if held := a.held[sequence]; held.there {
			c.Hold = append(c.Hold, held.row)
		} else {
			c.Unhold = append(c.Unhold, sequence)
		}
	}
	for _, sequence := range slices.Sorted(maps.Keys(a.dead)) {
		if dead := a.dead[sequence]; dead.there {
			c.Dead = append(c.Dead, dead.row)
		} else {
			c.Redelivered = append(c.Redelivered, sequence)
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(a.keys), compareKeys) {
		h := p.held[key]
		if h == nil {
			c.Release = append(c.Release, key)
			continue
		}
		row := heldRow(h)
		row.Wait = max(0, h.due.Sub(now))
		c.Keys = append(c.Keys, row)
	}
	return &c
}

func compareKeys(a, b event.Key) int {
	return cmp.Or(cmp.Compare(a.ResourceName, b.ResourceName), cmp.Compare(a.ResourceRecordKey, b.ResourceRecordKey))
}

func heldRow(h *heldKey) store.HeldKey {
	return store.HeldKey{Key: h.key, Events: h.count, Attempts: h.attempts, LastStatus: h.status, LastError: h.text}
}

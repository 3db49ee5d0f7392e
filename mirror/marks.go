package mirror

import "time"

// mark says that a sequence had been handed out by a moment: it was seen then.
type mark struct {
	sequence int64
	at       time.Time
}

// marksPerHorizon bounds the marks that are kept.
const marksPerHorizon = 32

// marks remember what was seen when. Numbers are handed out in order, so that
// each number up to a mark's was handed out before the mark was made, and has
// had the time since then to be committed.
type marks struct {
	horizon time.Duration
	list    []mark // rising in both
}

// note remembers that sequence was in sight at a moment. One that follows
// another closely is left to a later look, so that marks stay few.
func (k *marks) note(sequence int64, at time.Time) {
	if n := len(k.list); n > 0 {
		last := k.list[n-1]
		if sequence <= last.sequence || at.Sub(last.at) < k.horizon/marksPerHorizon {
			return
		}
	}
	k.list = append(k.list, mark{sequence, at})
}

// settled returns the sequence up to which what a request shows that was made at
// a moment is all that will ever come: the highest that had been in sight for
// the horizon. It forgets what can no longer decide.
func (k *marks) settled(at time.Time) int64 {
	old := 0
	for old < len(k.list) && at.Sub(k.list[old].at) >= k.horizon {
		old++
	}
	if old == 0 {
		return 0
	}
	k.list = k.list[old-1:]
	return k.list[0].sequence
}

// ripe returns how long after now the first mark will have been in sight for the
// horizon that had not been at the moment before; most, where there is none.
func (k *marks) ripe(before, now time.Time, most time.Duration) time.Duration {
	for _, m := range k.list {
		if before.Sub(m.at) < k.horizon {
			return min(max(k.horizon-now.Sub(m.at), 0), most)
		}
	}
	return most
}

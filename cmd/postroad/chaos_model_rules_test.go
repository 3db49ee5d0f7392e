//go:build chaos

package main_test

import (
	"slices"
	"time"
)

// checkRepeats: an event is accepted again only after a crash, as few and as young
// ones as promised, or by another stream: since a seek back, or of a replay.
func (v *verdict) checkRepeats() {
	type place struct {
		stream   int64
		era      int
		sequence int64
	}
	last := map[place]accepted{}
	again := map[int][]accepted{} // by crash
	for _, a := range v.accepted {
		at := place{stream: a.replay, sequence: a.event.Sequence}
		if a.replay == 0 {
			for i, era := range v.eras {
				if a.at.After(era.asked) {
					at.era = i
				}
			}
		}
		before, repeated := last[at]
		last[at] = a
		if !repeated || a.replay == 0 && before.at.Before(v.eras[at.era].sure) {
			continue
		}
		crash := slices.IndexFunc(v.run.kills, func(k kill) bool { return before.at.Before(k.to) && a.at.After(k.from) })
		if crash < 0 {
			v.fault("REPEATED: event %d (%s, replay %d) was accepted at %.3f and is sent again at %.3f", a.event.Sequence, a.event.key(), a.replay,
				before.at.Sub(v.run.began).Seconds(), a.at.Sub(v.run.began).Seconds())
			continue
		}
		again[crash] = append(again[crash], before)
	}
	for crash, list := range again {
		var newest time.Time
		for _, m := range v.requests {
			if m.at.Before(v.run.kills[crash].to) {
				newest = m.at
			}
		}
		v.repeats += len(list)
		if len(list) > 2*repeatsMax {
			v.fault("REPEATED: %d events after a crash", len(list))
		}
		for _, a := range list {
			age := newest.Sub(a.end)
			v.oldest = max(v.oldest, age)
			if age > repeatAgeMax+modelAge {
				v.fault("REPEATED: after a crash event %d is sent again, which was accepted %.3f s before the last request", a.event.Sequence, age.Seconds())
			}
		}
	}
}

// checkReplays: each replay brings what it was to bring, nothing else is marked as
// one, and nothing newer comes before its end.
func (v *verdict) checkReplays() {
	steered := false // one was paused, so that others may have gone before it
	byID := map[int64]*replayed{}
	for _, p := range v.replays {
		steered = steered || p.paused
		byID[p.id] = p
		v.checkTotal(p)
		if p.total >= 0 && p.cancelled.IsZero() {
			v.checkComplete(p)
			if !steered {
				v.checkFirst(p)
			}
		}
	}
	for _, m := range v.requests {
		if m.replay == 0 {
			continue
		}
		p := byID[m.replay]
		for _, e := range m.events {
			switch {
			case p == nil || p.total < 0 || m.at.Before(p.asked):
				v.fault("MARKED: event %d is of replay %d, which there is not", e.Sequence, m.replay)
			case !p.selects(e), p.missed && !v.refused[e.key()]:
				v.fault("MARKED: event %d (%s) is of replay %d, which does not select it", e.Sequence, e.key(), m.replay)
			case !p.cancelled.IsZero() && m.at.After(p.cancelled.Add(modelLate)) && !v.refused[e.key()]:
				v.fault("MARKED: event %d is of replay %d, which was cancelled", e.Sequence, m.replay)
			}
		}
	}
}

// checkTotal: a replay was told to have as many events as the log has of it.
func (v *verdict) checkTotal(p *replayed) {
	if p.missed {
		return
	}
	most, least := int64(0), int64(0)
	for _, e := range v.feed.log {
		if !p.selects(e) {
			continue
		}
		all, one := v.matched(e, p.asked, p.sure)
		if all {
			least++
		}
		if one {
			most++
		}
	}
	if told := max(0, p.total); told < least || told > most {
		v.fault("REPLAY: %d has %d events, was told to have %d", p.id, least, p.total)
	}
}

// checkComplete: what a replay selects was accepted after it was asked for, as part
// of it unless its key was set aside.
func (v *verdict) checkComplete(p *replayed) {
	if p.missed {
		return // that no dead letter is left says so
	}
	came, marked := map[int64]bool{}, map[int64]bool{}
	for _, a := range v.accepted {
		if a.at.After(p.asked) {
			came[a.event.Sequence] = true
			marked[a.event.Sequence] = marked[a.event.Sequence] || a.replay == p.id
		}
	}
	for _, e := range v.feed.log {
		all, _ := v.matched(e, p.asked, time.Now())
		if !p.selects(e) || !all || v.gone[e.Sequence] || marked[e.Sequence] {
			continue
		}
		if !v.refused[e.key()] || !came[e.Sequence] && !v.movedOver(e, p.asked) {
			v.fault("REPLAY: event %d (%s) is missing in replay %d", e.Sequence, e.key(), p.id)
		}
	}
}

// movedOver says whether a seek since then dropped what was set aside of an event,
// and another went on above it.
func (v *verdict) movedOver(e modelEvent, since time.Time) bool {
	back := slices.ContainsFunc(v.seeks, func(s seeked) bool { return s.back && s.to < e.Sequence && s.sure.After(since) })
	over := slices.ContainsFunc(v.seeks, func(s seeked) bool { return !s.back && s.to >= e.Sequence && s.sure.After(since) })
	return back && over
}

// checkFirst: between the first request of a replay and its last one nothing else
// is sent, but what waits behind held keys.
func (v *verdict) checkFirst(p *replayed) {
	plain := func(m *made) bool {
		return !slices.ContainsFunc(m.events, func(e modelEvent) bool { return v.refused[e.key()] })
	}
	of := func(m *made) bool { return m.replay == p.id && plain(m) }
	first := slices.IndexFunc(v.requests, of)
	if first < 0 {
		return
	}
	for last := len(v.requests) - 1; last > first; last-- {
		if !of(v.requests[last]) {
			continue
		}
		for _, m := range v.requests[first:last] {
			if m.replay != p.id && plain(m) {
				v.fault("REPLAY: event %d (replay %d) is sent before the end of replay %d", m.events[0].Sequence, m.replay, p.id)
			}
		}
		return
	}
}

// checkHolds: nothing is sent while the subscriber is paused, nor, with one lane,
// while the consumer asked for a wait; and only what matches.
func (v *verdict) checkHolds() {
	for _, m := range v.requests {
		for _, p := range v.pauses {
			if m.at.After(p.asked.Add(modelLate)) && (p.sure.IsZero() || m.at.Before(p.sure)) {
				v.fault("HOLD: event %d is sent at %.3f during a pause", m.events[0].Sequence, m.at.Sub(v.run.began).Seconds())
			}
		}
		for _, e := range m.events {
			if _, one := v.matched(e, m.at.Add(-modelLate), m.at); !one && !v.refused[e.key()] {
				v.fault("FILTER: event %d (%s) does not match", e.Sequence, e.key())
			}
		}
		if m.status != 503 {
			continue
		}
		// With more lanes others go on until the answer is read, which takes its
		// time on a busy machine.
		for _, next := range v.requests {
			after := next.at.Sub(m.end)
			if after > 0 && after < time.Second && v.oneLane(m.at, next.at) && !v.crashed(m.at, next.at) && !v.resumedBetween(m.at, next.at) {
				v.fault("HOLD: event %d is sent %.3f s after a Retry-After of 1 s", next.events[0].Sequence, after.Seconds())
			}
		}
	}
}

func (v *verdict) resumedBetween(from, to time.Time) bool {
	return slices.ContainsFunc(v.resumes, func(s span) bool { return s.sure.After(from) && s.asked.Before(to) })
}

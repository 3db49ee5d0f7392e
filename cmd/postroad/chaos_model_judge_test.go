//go:build chaos

package main_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"postroad/internal/testkit"
)

const (
	// modelLate is how late a request may seem to come on a busy machine.
	modelLate = time.Second
	// modelAge is how much older than promised a repeated event may look from the
	// consumer's side: while its answer is not read, other lanes go on.
	modelAge = 2 * time.Second
)

// made is a request as the consumer recorded it.
type made struct {
	answered
	at, end time.Time
	replay  int64
	events  []modelEvent
}

// accepted is one event's acceptance.
type accepted struct {
	*made
	event modelEvent
}

// verdict is what the model finds of one history.
type verdict struct {
	*history
	requests []*made
	accepted []accepted      // in order
	refused  map[string]bool // keys of which an event was refused alone: they may have been set aside
	eras     []seeked        // the beginning, and each seek back
	repeats  int
	oldest   time.Duration
	faults   []string
}

func (v *verdict) fault(format string, args ...any) {
	v.faults = append(v.faults, fmt.Sprintf(format, args...))
}

// judge reads the logs and holds each consumer's record to the model.
func (r *modelRun) judge() {
	r.t.Helper()
	for _, f := range r.feeds {
		r.readLog(f)
	}
	by := map[*history][]testkit.Request{}
	for _, q := range r.consumer.Requests() {
		h := r.byPath[q.Path]
		by[h] = append(by[h], q)
	}
	asked := map[string]int{}
	var repeats, failed int
	var oldest time.Duration
	for _, h := range r.histories {
		v := newVerdict(h, by[h])
		v.checkLoss()
		v.checkOverlap()
		v.checkOrder()
		v.checkRepeats()
		v.checkReplays()
		v.checkHolds()
		v.checkGiven()
		repeats, oldest = repeats+v.repeats, max(oldest, v.oldest)
		asked["seeks"] += len(h.seeks)
		asked["replays"] += len(h.replays)
		asked["patches"] += len(h.configs) - 1
		asked["pauses"] += len(h.pauses)
		asked["set aside, seen"] += len(h.told)
		asked["accepted"] += len(v.accepted)
		if len(v.faults) == 0 {
			continue
		}
		if failed++; failed <= modelFailures {
			r.t.Errorf("%s\n%s\n%s", strings.Join(v.faults[:min(5, len(v.faults))], "\n"), h.story(), v.record())
		}
	}
	r.t.Logf("%d histories, %d of them wrong; %d requests, %v", len(r.histories), failed, r.consumer.Count(), asked)
	r.t.Logf("%d events were repeated after crashes, the oldest accepted %d ms before the last request", repeats, oldest.Milliseconds())
	if failed > 0 {
		r.t.Errorf("%d histories are wrong", failed)
	}
}

func (r *modelRun) readLog(f *modelFeed) {
	r.t.Helper()
	for {
		var page struct{ Events []modelEvent }
		after := len(f.log)
		if _, problem := r.call("GET", "/v1/feeds/"+f.name+"/events?limit=1000&after="+strconv.Itoa(after), nil, &page, ""); problem != nil {
			r.t.Fatal(problem)
		}
		if f.log = append(f.log, page.Events...); len(page.Events) == 0 {
			break
		}
	}
	if int64(len(f.log)) != f.published.Load() {
		r.t.Errorf("%s has %d events, %d were published", f.name, len(f.log), f.published.Load())
	}
}

func newVerdict(h *history, requests []testkit.Request) *verdict {
	v := &verdict{history: h, refused: map[string]bool{}, eras: []seeked{{back: true}}}
	for _, q := range requests {
		m := &made{answered: h.answers[q.N], at: q.At, end: q.At.Add(q.Took), events: eventsIn(q.Body)}
		m.replay, _ = strconv.ParseInt(q.Header.Get("Postroad-Replay"), 10, 64)
		if len(m.events) == 0 {
			v.fault("a request without events: %s", q.Body)
		}
		v.requests = append(v.requests, m)
		if len(m.events) == 1 && (m.status == 422 || m.status == 500) {
			v.refused[m.events[0].key()] = true
		}
	}
	slices.SortStableFunc(v.requests, func(a, b *made) int { return a.at.Compare(b.at) })
	for _, m := range v.requests {
		for i, e := range m.events {
			if i > 0 && e.Sequence <= m.events[i-1].Sequence {
				v.fault("event %d comes after %d in one request", e.Sequence, m.events[i-1].Sequence)
			}
			if m.status == 200 {
				v.accepted = append(v.accepted, accepted{m, e})
			}
		}
	}
	for _, s := range h.seeks {
		if s.back {
			v.eras = append(v.eras, s)
		}
	}
	return v
}

// record are the requests, for people.
func (v *verdict) record() string {
	var b strings.Builder
	for _, m := range v.requests {
		fmt.Fprintf(&b, "%8.3f %8.3f %d", m.at.Sub(v.run.began).Seconds(), m.end.Sub(v.run.began).Seconds(), m.status)
		if m.replay > 0 {
			fmt.Fprintf(&b, " replay %d", m.replay)
		}
		for _, e := range m.events {
			fmt.Fprintf(&b, " %d(%c%s)", e.Sequence, e.ResourceName[0], e.ResourceRecordKey)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// matched says whether an event matched every configuration, or at least one, that
// was in force between two moments.
func (v *verdict) matched(e modelEvent, from, to time.Time) (all, one bool) {
	all = true
	for i, c := range v.configs {
		if c.asked.After(to) || i+1 < len(v.configs) && v.configs[i+1].sure.Before(from) {
			continue
		}
		all, one = all && c.matches(e), one || c.matches(e)
	}
	return all, one
}

// checkLoss: since the last seek back everything that matched was accepted, unless
// a seek went over it or its dead letter was dismissed.
func (v *verdict) checkLoss() {
	era := v.eras[len(v.eras)-1]
	over := int64(0)
	for _, s := range v.seeks {
		if s.asked.After(era.asked) && !s.back {
			over = max(over, s.to)
		}
	}
	came, plain := map[int64]bool{}, map[int64]bool{}
	for _, a := range v.accepted {
		if a.at.After(era.asked) {
			came[a.event.Sequence] = true
			plain[a.event.Sequence] = plain[a.event.Sequence] || a.replay == 0
		}
	}
	for _, e := range v.feed.log {
		all, _ := v.matched(e, era.asked, time.Now())
		if e.Sequence <= max(era.to, over) || !all || v.gone[e.Sequence] {
			continue
		}
		if !came[e.Sequence] || !plain[e.Sequence] && !v.refused[e.key()] {
			v.fault("LOST: event %d (%s) was not accepted since the position was set to %d", e.Sequence, e.key(), era.to)
		}
	}
}

// crashed says whether a crash lies between two moments.
func (v *verdict) crashed(from, to time.Time) bool {
	return slices.ContainsFunc(v.run.kills, func(k kill) bool { return from.Before(k.to) && to.After(k.from) })
}

// oneLane says whether there was one lane at both moments, and all the time
// between them.
func (v *verdict) oneLane(from, to time.Time) bool {
	for i, c := range v.configs {
		settled := c.sure
		if i > 0 && v.configs[i-1].lanes != 1 {
			settled = settled.Add(modelLate)
		}
		if i == 0 {
			settled = time.Time{}
		}
		in := !c.asked.After(to) && (i+1 == len(v.configs) || v.configs[i+1].sure.After(from))
		if in && (c.lanes != 1 || settled.After(from)) {
			return false
		}
	}
	return true
}

// checkOverlap: no two requests of one key at once, with one lane no two at all,
// but for what was in flight at a crash.
func (v *verdict) checkOverlap() {
	for i, m := range v.requests {
		for _, before := range v.requests[max(0, i-200):i] {
			if !before.end.After(m.at) || before.hangs || v.crashed(before.at, m.at) {
				continue
			}
			if v.oneLane(before.at, m.at) {
				v.fault("OVERLAP: event %d is sent beside %d in one lane", m.events[0].Sequence, before.events[0].Sequence)
			}
			for _, e := range m.events {
				if slices.ContainsFunc(before.events, func(o modelEvent) bool { return o.key() == e.key() }) {
					v.fault("OVERLAP: event %d is sent while another one of %s is in flight", e.Sequence, e.key())
				}
			}
		}
	}
}

// checkOrder: what is accepted first of a key comes in order since each seek back,
// and so does all that was never refused, with one lane. Each replay too.
func (v *verdict) checkOrder() {
	for i, era := range v.eras {
		var here []accepted
		unclear := map[int64]bool{} // accepted while the seek came into force
		for _, a := range v.accepted {
			if a.replay > 0 || !a.at.After(era.asked) || i+1 < len(v.eras) && a.at.After(v.eras[i+1].asked) {
				continue
			}
			if a.at.Before(era.sure) {
				unclear[a.event.Sequence] = true
			}
			here = append(here, a)
		}
		v.inOrder(slices.DeleteFunc(here, func(a accepted) bool { return unclear[a.event.Sequence] }))
	}
	replays := map[int64][]accepted{}
	for _, a := range v.accepted {
		if a.replay > 0 {
			replays[a.replay] = append(replays[a.replay], a)
		}
	}
	for _, list := range replays {
		v.inOrder(list)
	}
}

func (v *verdict) inOrder(list []accepted) {
	seen, last := map[int64]bool{}, map[string]accepted{}
	var newest accepted
	for _, a := range list {
		if seen[a.event.Sequence] {
			continue
		}
		seen[a.event.Sequence] = true
		key := a.event.key()
		if before := last[key]; before.made != nil && before.event.Sequence > a.event.Sequence {
			v.fault("ORDER: event %d (%s) is accepted after %d", a.event.Sequence, key, before.event.Sequence)
		}
		last[key] = a
		if v.refused[key] {
			continue
		}
		if newest.made != nil && newest.event.Sequence > a.event.Sequence && v.oneLane(newest.at, a.at) {
			v.fault("ORDER: event %d is accepted after %d, in one lane", a.event.Sequence, newest.event.Sequence)
		}
		if newest.made == nil || a.event.Sequence > newest.event.Sequence {
			newest = a
		}
	}
}

// checkGiven: what was given up or is held was refused often enough, and one of
// another key was accepted since. A dead letter that a replay brings in vain is one
// as before: that of missed events, or one that the operator had given up.
func (v *verdict) checkGiven() {
	attempts := slices.MinFunc(v.configs, func(a, b configured) int { return a.attempts - b.attempts }).attempts
	missed := map[int64]bool{}
	for _, p := range v.replays {
		missed[p.id] = p.missed
	}
	for _, g := range v.told {
		by := map[int64][]*made{}
		var others []*made // that brought another key and were accepted
		again := false
		for _, m := range v.requests {
			if m.at.After(g.at) {
				break
			}
			for _, e := range m.events {
				switch {
				case m.status == 200 && e.key() != g.key():
					others = append(others, m)
				case (m.status == 422 || m.status == 500) && len(m.events) == 1 && e.key() == g.key() && (g.held || e == g.modelEvent):
					by[e.Sequence] = append(by[e.Sequence], m)
					up := v.givenUp[g.key()]
					again = m.replay > 0 && (missed[m.replay] || !g.held && !up.IsZero() && up.Before(m.at))
				}
			}
		}
		often := slices.ContainsFunc(slices.Collect(maps.Values(by)), func(list []*made) bool {
			return len(list) >= attempts && slices.ContainsFunc(others, func(m *made) bool {
				late := modelLate // other lanes' answers may have been read later than they were given
				if v.oneLane(m.at, list[0].at) {
					late = 0
				}
				return m.end.Add(late).After(list[0].at)
			})
		})
		if !often && !again {
			v.fault("SET ASIDE: event %d (%s) was refused %d times before", g.Sequence, g.key(), len(by[g.Sequence]))
		}
	}
}

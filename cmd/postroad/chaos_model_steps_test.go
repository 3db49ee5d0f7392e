//go:build chaos

package main_test

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// step does one thing to the subscriber, by chance.
func (h *history) step() {
	s := h.status()
	n := h.chance.IntN(100)
	switch {
	case s.State == "halted" && n < 60:
		h.unhalt(s)
	case h.paused && n < 30:
		h.resume()
	case n < 26:
		h.publish()
	case n < 34:
		h.pause()
	case n < 48:
		h.seek(s)
	case n < 63:
		h.askReplay(s)
	case n < 77:
		h.configure()
	case n < 85:
		h.changeMind()
	case n < 94 && s.HeldKeys > 0:
		h.steerHeld()
	case n < 96 && s.DeadLetters > 0:
		h.dismiss()
	case n < 98:
		h.steerReplay()
	default:
		h.publish()
	}
}

// publish publishes some events of few keys.
func (h *history) publish() {
	events := make([]map[string]string, 1+h.chance.IntN(20))
	for i := range events {
		events[i] = map[string]string{"resourceName": modelNames[h.chance.IntN(2)], "resourceRecordKey": strconv.Itoa(h.chance.IntN(4))}
	}
	var answer struct{ FirstSequence, LastSequence int64 }
	h.must(http.MethodPost, "/v1/feeds/"+h.feed.name+"/events", events, &answer)
	h.feed.published.Add(int64(len(events)))
}

func (h *history) pause() {
	s := h.must(http.MethodPost, h.path("/pause"), nil, nil)
	if !h.paused {
		h.paused = true
		h.pauses = append(h.pauses, span{asked: s.sure})
	}
}

func (h *history) resume() {
	h.resumed(h.must(http.MethodPost, h.path("/resume"), nil, nil))
}

func (h *history) resumed(s span) {
	h.resumes = append(h.resumes, s)
	if h.paused {
		h.paused = false
		h.pauses[len(h.pauses)-1].sure = s.asked
	}
}

// unhalt resumes a halted subscriber, or skips the event that it halted at.
func (h *history) unhalt(s modelStatus) {
	var at int64
	if _, err := fmt.Sscanf(s.Reason, "event %d ", &at); err != nil || h.chance.IntN(2) == 0 || h.paused {
		h.resume()
		return
	}
	done, problem := h.do(http.MethodPost, h.path("/skip"), map[string]any{"sequence": at}, nil)
	if problem == nil {
		h.resumes = append(h.resumes, done)
		return
	}
	h.run.fail("%s: skip of event %d, %s: %v", h.id, at, s.Reason, problem)
}

// changeMind has the consumer refuse other records from now on.
func (h *history) changeMind() {
	keys := map[string]bool{}
	for range h.chance.IntN(3) {
		keys[modelNames[h.chance.IntN(2)]+"/"+strconv.Itoa(h.chance.IntN(4))] = true
	}
	h.note("refuses %v", keys)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.poisoned = keys
}

// configure changes one thing of the configuration.
func (h *history) configure() {
	c := h.configs[len(h.configs)-1]
	patch := map[string]any{}
	switch h.chance.IntN(6) {
	case 0, 1:
		patch["lanes"] = "auto"
		if c.lanes = h.chance.IntN(17); c.lanes > 0 {
			patch["lanes"] = c.lanes
		}
	case 2:
		patch["batchSize"] = 1 + h.chance.IntN(8)
		if h.chance.IntN(6) == 0 {
			patch["batchSize"] = "auto"
		}
	case 3:
		c.names = nil
		if n := h.chance.IntN(4); n < 2 {
			c.names = modelNames[n : n+1]
		}
		patch["filter"] = map[string]any{"resourceNames": c.names}
	case 4:
		c.attempts = 1 + h.chance.IntN(4)
		patch["retry"] = retryOf(c.attempts)
	case 5:
		patch["onExhausted"] = h.policy()
	}
	c.span = h.must(http.MethodPatch, h.path(""), patch, nil)
	version := h.status().DesiredVersion
	for s := h.status(); s.AppliedVersion < version && !h.run.stopped.Load(); s = h.status() {
		<-time.After(20 * time.Millisecond)
	}
	c.sure = time.Now()
	h.configs = append(h.configs, c)
}

// seek moves the subscriber. It goes forward to a place only while it is paused,
// as it is known then what lies before it.
func (h *history) seek(s modelStatus) {
	if h.paused || h.chance.IntN(3) == 0 {
		h.quietSeek()
		return
	}
	switch h.chance.IntN(4) {
	case 0:
		done := h.must(http.MethodPost, h.path("/seek"), map[string]any{"to": "now"}, nil)
		h.seeks = append(h.seeks, seeked{span: done, to: h.status().Head})
	case 1:
		done := h.must(http.MethodPost, h.path("/seek"), map[string]any{"to": "beginning"}, nil)
		h.seeks = append(h.seeks, seeked{span: done, back: true})
	default: // while requests are in flight
		to := h.chance.Int64N(s.Cursor + 1)
		done := h.must(http.MethodPost, h.path("/seek"), map[string]any{"to": map[string]any{"sequence": to}}, nil)
		h.seeks = append(h.seeks, seeked{span: done, to: to, back: true})
	}
}

// quietSeek moves a paused subscriber, and looks at what is set aside before and
// after.
func (h *history) quietSeek() {
	paused := h.paused
	h.pause()
	s := h.awaitRest()
	held, dead := h.heldSequences(), h.lookDead()
	to := h.chance.Int64N(s.Head + 1)
	done := h.must(http.MethodPost, h.path("/seek"), map[string]any{"to": map[string]any{"sequence": to}}, nil)
	h.seeks = append(h.seeks, seeked{span: done, to: to, back: to <= s.Cursor})
	after := h.status()
	if h.run.stopped.Load() {
		return
	}
	if after.Cursor != to {
		h.wrong("after a seek to %d it is at %d", to, after.Cursor)
	}
	if to <= s.Cursor {
		above := func(n int64) bool { return n > to }
		held, dead = slices.DeleteFunc(held, above), slices.DeleteFunc(dead, above)
	}
	if now := h.heldSequences(); !slices.Equal(now, held) {
		h.wrong("after a seek from %d to %d events %v are held, want %v", s.Cursor, to, now, held)
	}
	if now := h.lookDead(); !slices.Equal(now, dead) {
		h.wrong("after a seek from %d to %d events %v are given up, want %v", s.Cursor, to, now, dead)
	}
	if !paused {
		h.resume()
	}
}

// awaitRest waits until what was in flight at a pause is recorded. A request that
// a crash cut off is in flight in the status as long as nobody sends.
func (h *history) awaitRest() (s modelStatus) {
	const rest, longest = 500 * time.Millisecond, 3 * time.Second
	since := time.Now()
	for last := (modelStatus{Cursor: -1}); !h.run.stopped.Load(); last = s {
		if s = h.status(); s.Cursor != last.Cursor || s.HeldKeys != last.HeldKeys || s.DeadLetters != last.DeadLetters {
			since = time.Now()
		}
		if still := time.Since(since); still > longest || still > rest && s.InFlight == 0 {
			return s
		}
		<-time.After(50 * time.Millisecond)
	}
	return s
}

// wrong tells of what is wrong, and goes on.
func (h *history) wrong(format string, args ...any) {
	h.note("WRONG: "+format, args...)
	h.run.t.Errorf("%s: %s\n%s", h.id, fmt.Sprintf(format, args...), h.story())
}

// askReplay asks for a replay of a range, of some keys of it, or of what was missed.
func (h *history) askReplay(s modelStatus) {
	if s.Head == 0 {
		return
	}
	if s.DeadLetters > 0 && h.chance.IntN(2) == 0 {
		h.lookDead()
		h.replay(map[string]any{"select": "missed"}, &replayed{missed: true, through: math.MaxInt64})
		return
	}
	from := 1 + h.chance.Int64N(s.Head)
	p := &replayed{after: from - 1, through: from + h.chance.Int64N(s.Head-from+1)}
	in := map[string]any{"fromSequence": from, "toSequence": p.through}
	switch h.chance.IntN(4) {
	case 0:
		p.names = modelNames[:1]
		in["resourceNames"] = p.names
	case 1:
		var keys []map[string]any
		for n := range 1 + h.chance.IntN(3) {
			p.keys = append(p.keys, modelNames[0]+"/"+strconv.Itoa(n))
			keys = append(keys, recordOf(p.keys[n]))
		}
		in["keys"] = keys
	}
	h.replay(in, p)
}

func (h *history) replay(in map[string]any, p *replayed) {
	var answer struct{ ID, Total int64 }
	s, problem := h.do(http.MethodPost, h.path("/replays"), in, &answer)
	p.span, p.id, p.total = s, answer.ID, answer.Total
	switch {
	case problem == nil:
	case problem.Status == http.StatusUnprocessableEntity:
		p.total = -1
	default:
		h.run.fail("%s: replay %v: %v", h.id, in, problem)
	}
	h.replays = append(h.replays, p)
}

func recordOf(key string) map[string]any {
	name, record, _ := strings.Cut(key, "/")
	return map[string]any{"resourceName": name, "resourceRecordKey": record}
}

// steerReplay pauses, resumes or cancels the newest replay.
func (h *history) steerReplay() {
	if len(h.replays) == 0 || h.replays[len(h.replays)-1].total < 0 {
		return
	}
	p := h.replays[len(h.replays)-1]
	path := h.path(fmt.Sprintf("/replays/%d", p.id))
	if n := h.chance.IntN(5); n > 1 {
		if _, problem := h.do(http.MethodPost, path+[]string{"/pause", "/resume", "/pause"}[n-2], nil, nil); problem == nil {
			p.paused = true
		}
		return
	}
	if s, problem := h.do(http.MethodDelete, path, nil, nil); problem == nil {
		p.cancelled = s.sure
	}
}

// steerHeld does something about a held key. It may be held no longer.
func (h *history) steerHeld() {
	if keys := h.lookHeld(); len(keys) > 0 {
		verb := []string{"retry", "retry", "skip", "release"}[h.chance.IntN(4)]
		key := keys[h.chance.IntN(len(keys))]
		if _, known := h.givenUp[key]; !known && verb != "retry" {
			h.givenUp[key] = time.Now()
		}
		_, _ = h.do(http.MethodPost, h.path("/held-keys/"+verb), recordOf(key), nil)
	}
}

// lookHeld lists the held keys.
func (h *history) lookHeld() (keys []string) {
	var list struct {
		HeldKeys []struct {
			modelEvent
			Since         time.Time
			FirstSequence int64
		}
	}
	h.get("/held-keys", &list)
	for _, k := range list.HeldKeys {
		k.Sequence = k.FirstSequence
		keys = append(keys, k.key())
		h.told = append(h.told, given{k.modelEvent, k.Since, true})
	}
	return keys
}

func (h *history) heldSequences() (sequences []int64) {
	for _, key := range h.lookHeld() {
		var list struct{ Events []struct{ Sequence int64 } }
		name, record, _ := strings.Cut(key, "/")
		h.get("/held-keys/events?limit=1000&"+url.Values{"resourceName": {name}, "resourceRecordKey": {record}}.Encode(), &list)
		for _, e := range list.Events {
			sequences = append(sequences, e.Sequence)
		}
	}
	slices.Sort(sequences)
	return sequences
}

// lookDead lists the dead letters.
func (h *history) lookDead() (sequences []int64) {
	var list struct {
		DeadLetters []struct {
			modelEvent
			At     time.Time
			Reason string
		}
	}
	h.get("/dead-letters?limit=1000", &list)
	for _, d := range list.DeadLetters {
		sequences = append(sequences, d.Sequence)
		if d.Reason == "exhausted" {
			h.told = append(h.told, given{d.modelEvent, d.At, false})
		}
	}
	return sequences
}

// dismiss forgets the first dead letter.
func (h *history) dismiss() {
	if dead := h.lookDead(); len(dead) > 0 {
		h.must(http.MethodPost, h.path("/dead-letters/dismiss"), map[string]any{"sequences": dead[:1]}, nil)
		h.gone[dead[0]] = true
	}
}

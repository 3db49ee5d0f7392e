package planner

import (
	"net/http"
	"time"

	"postroad/delivery"
	"postroad/event"
)

// What event.Auto may find. Both together carry inFlightMax events at most.
const (
	autoBatchMax = event.BatchSizeMax
	autoLanesMax = 64
	inFlightMax  = 10_000
)

// batchSlow is how long a request may take before its batch is grown no further;
// one that takes twice as long is halved.
const batchSlow = time.Second

// latencySlack is what answers may take longer without it meaning anything.
const latencySlack = 10 * time.Millisecond

// auto finds the batch size and the lanes as TCP finds a window: each doubles
// while it is used to the full and all is well, is halved at a sign of too much,
// and from then on grows by small steps. Too much is a 413, a request that timed
// out, a batch that takes long, or, for lanes, answers that take twice as long as
// the fastest did. An answer to a request from before the last change says nothing.
type auto struct {
	batch, lanes         int
	tuneBatch, tuneLanes bool
	batchMet, lanesMet   bool // too much was met: no more doubling
	// recent is what a request takes, smoothed, since the last change; fastest the
	// least of that since the batch size changed.
	fastest, recent time.Duration
	full            int // answers since the last change to requests in full use
	changes         int
}

func newAuto(cfg Config, state State) auto {
	a := auto{
		batch: max(1, cfg.BatchSize.Or(state.LearnedBatch)), lanes: max(1, cfg.Lanes.Or(state.LearnedLanes)),
		tuneBatch: cfg.BatchSize == event.Auto, tuneLanes: cfg.Lanes == event.Auto,
		batchMet: state.LearnedBatch > 0, lanesMet: state.LearnedLanes > 0,
	}
	if a.tuneLanes {
		a.lanes = min(a.lanes, autoLanesMax, max(1, inFlightMax/a.batch))
	}
	if a.tuneBatch {
		a.batch = min(a.batch, autoBatchMax, max(1, inFlightMax/a.lanes))
	}
	return a
}

// batch is the batch size just now.
func (p *Plan) batch() int { return p.auto.batch }

// answered learns from an answer; inUse is how many requests were in flight, it
// included.
func (a *auto) answered(r *Request, answer *delivery.Answer, inUse int) {
	if !a.tuneBatch && !a.tuneLanes || r.changes != a.changes || r.kind != kindNew {
		return
	}
	switch {
	case answer.Status == http.StatusRequestEntityTooLarge && len(r.Events) > 1:
		a.shrinkBatch(len(r.Events))
	case answer.Fault.Code == delivery.CodeTimeout || answer.Fault.Code == delivery.CodeConnectTimeout:
		if inUse > 1 {
			a.shrinkLanes()
		}
		if len(r.Events) > 1 {
			a.shrinkBatch(len(r.Events))
		}
	case answer.Class == delivery.ClassSuccess:
		a.measure(answer.Duration)
		a.judge(r, inUse)
	}
}

// measure smooths what requests take.
func (a *auto) measure(took time.Duration) {
	const weight = 8
	if a.recent == 0 {
		a.recent = took
	}
	a.recent += (took - a.recent) / weight
	if a.fastest == 0 || a.recent < a.fastest || a.lanes == 1 {
		a.fastest = a.recent // one lane is as fast as it gets
	}
}

func (a *auto) judge(r *Request, inUse int) {
	switch {
	case a.tuneLanes && a.lanes > 1 && a.recent > 2*a.fastest+latencySlack:
		a.shrinkLanes()
	case a.tuneBatch && len(r.Events) > 1 && a.recent > 2*batchSlow:
		a.shrinkBatch(len(r.Events))
	case inUse >= a.lanes || len(r.Events) >= a.batch:
		if a.full++; a.full >= a.lanes {
			a.grow(inUse >= a.lanes, len(r.Events) >= a.batch && a.recent < batchSlow)
		}
	}
}

// grow takes the next step up of what is used to the full.
func (a *auto) grow(lanes, batch bool) {
	was := [2]int{a.lanes, a.batch}
	if a.tuneLanes && lanes {
		a.lanes = min(larger(a.lanes, a.lanesMet), autoLanesMax, max(1, inFlightMax/a.batch))
	}
	if a.tuneBatch && batch {
		a.batch = min(larger(a.batch, a.batchMet), autoBatchMax, max(1, inFlightMax/a.lanes))
	}
	if was != [2]int{a.lanes, a.batch} {
		a.changed(was[1] != a.batch)
	}
}

func larger(n int, met bool) int {
	if met {
		return n + max(1, n/16)
	}
	return 2 * n
}

func (a *auto) shrinkLanes() {
	if a.tuneLanes && a.lanes > 1 {
		a.lanes, a.lanesMet = a.lanes/2, true
		a.changed(false)
	}
}

// shrinkBatch halves the size that was too much.
func (a *auto) shrinkBatch(size int) {
	if a.tuneBatch && size > 1 {
		a.batch, a.batchMet = size/2, true
		a.changed(true)
	}
}

func (a *auto) changed(batch bool) {
	a.changes++
	a.full, a.recent = 0, 0
	if batch {
		a.fastest = 0
	}
}

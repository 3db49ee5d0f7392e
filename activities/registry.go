package activities

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"postroad/internal/pglisten"
	"postroad/store"
)

// slotsBusy is the part of the slots in use above which runs make room.
const slotsBusy = 0.8

// registry knows the runs of this process, so that controls reach them. A
// subscriber can have two for a moment: a fenced one and its successor.
type registry struct {
	mu    sync.Mutex
	runs  map[string]map[*run]struct{}
	seats map[string]map[seat]struct{} // of each Deliver
	n     atomic.Int64
	// sitting are those that sit a wait out: they have a slot and no run.
	sitting atomic.Int64
}

// seat is told of controls of its subscriber. It has capacity 1.
type seat chan struct{}

func newRegistry() *registry {
	return &registry{runs: map[string]map[*run]struct{}{}, seats: map[string]map[seat]struct{}{}}
}

// seat makes a Deliver known to rouse until it leaves.
func (g *registry) seat(id string) (s seat, leave func()) {
	s = make(seat, 1)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.seats[id] == nil {
		g.seats[id] = map[seat]struct{}{}
	}
	g.seats[id][s] = struct{}{}
	return s, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.seats[id], s)
		if len(g.seats[id]) == 0 {
			delete(g.seats, id)
		}
	}
}

// rouse has those who sit a wait of this subscriber out look at the row again.
func (g *registry) rouse(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := range g.seats[id] {
		s.rouse()
	}
}

func (g *registry) rouseAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, seats := range g.seats {
		for s := range seats {
			s.rouse()
		}
	}
}

func (s seat) rouse() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// settle forgets what it was told: the row is about to be read.
func (s seat) settle() {
	select {
	case <-s:
	default:
	}
}

func (g *registry) add(r *run) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.runs[r.id] == nil {
		g.runs[r.id] = map[*run]struct{}{}
	}
	g.runs[r.id][r] = struct{}{}
	g.n.Add(1)
}

func (g *registry) remove(r *run) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.runs[r.id], r)
	if len(g.runs[r.id]) == 0 {
		delete(g.runs, r.id)
	}
	g.n.Add(-1)
}

func (g *registry) of(id string) []*run {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]*run, 0, len(g.runs[id]))
	for r := range g.runs[id] {
		list = append(list, r)
	}
	return list
}

func (g *registry) each(f func(*run)) {
	g.mu.Lock()
	var list []*run
	for _, runs := range g.runs {
		for r := range runs {
			list = append(list, r)
		}
	}
	g.mu.Unlock()
	for _, r := range list {
		f(r)
	}
}

func (g *registry) count() int { return int(g.n.Load()) }

// slots is how many are in use, near enough.
func (g *registry) slots() int { return g.count() + int(g.sitting.Load()) }

// pressed reports that runs must make room: more than 80 % of the slots are in
// use.
func (a *Activities) pressed() bool { return a.pressedBy(a.runs.slots()) }

func (a *Activities) pressedBy(runs int) bool {
	return float64(runs) > slotsBusy*float64(a.cfg.Slots)
}

// enter makes r known. Where it is the one that makes slots short, those that
// linger or sit a wait out are told.
func (a *Activities) enter(r *run) {
	a.runs.add(r)
	if slots := a.runs.slots(); a.pressedBy(slots) && !a.pressedBy(slots-1) {
		a.runs.each((*run).wake)
		a.runs.rouseAll()
	}
}

// watchControls tells runs of controls: at once by NOTIFY, and by one query
// per period over a partial index, should a notification be lost.
func (a *Activities) watchControls(ctx context.Context) {
	look := make(chan struct{}, 1)
	poke := func() {
		select {
		case look <- struct{}{}:
		default:
		}
	}
	if a.cfg.ListenURL != "" {
		var listening sync.WaitGroup
		defer listening.Wait()
		listening.Go(func() {
			err := pglisten.Listen(ctx, pglisten.Config{URL: a.cfg.ListenURL, Logger: a.cfg.Logger},
				map[string]func(string){store.ControlsChannel: func(id string) {
					a.runs.rouse(id)
					if len(a.runs.of(id)) > 0 {
						poke()
					}
				}}, func() { a.runs.rouseAll(); poke() })
			if err != nil {
				a.cfg.Logger.Error("cannot listen for controls, polling instead", "error", err)
			}
		})
	}
	ticker := time.NewTicker(a.cfg.ControlPoll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look:
		case <-ticker.C:
		}
		if a.runs.count() == 0 {
			continue
		}
		var pending map[string]int64
		err := bounded(ctx, func(ctx context.Context) (err error) {
			pending, err = a.cfg.Store.PendingControls(ctx)
			return err
		})
		if err != nil {
			continue // the runs themselves find out: no checkpoint gets through either
		}
		for id, version := range pending {
			for _, r := range a.runs.of(id) {
				r.controlSeen(version)
			}
		}
	}
}

package worker

import (
	"context"
	"time"

	"postroad/store"
)

// overviewLoop looks now and then at how all subscribers fare. One process per
// database does, so that none is counted twice.
func (w *turn) overviewLoop(ctx context.Context) {
	defer w.overview.Store(nil)
	w.every(ctx, "overview", w.config.Overview, w.config.Overview, func(ctx context.Context) error {
		defer w.admit(ctx)()
		o, err := w.store.Overview(ctx)
		if err != nil {
			return err // what was seen last stays, with its time
		}
		w.overview.Store(o)
		return nil
	})
}

// Overview is how all subscribers fared at the last look; nil where this is not
// the active waker, or has not looked yet.
func (w *Waker) Overview() *store.Overview { return w.overview.Load() }

// LastActive is when this was the active waker last; zero: never since the
// process started.
func (w *Waker) LastActive() time.Time {
	if w.counters.Active.Load() == 1 {
		return time.Now()
	}
	if at := w.lastActive.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

package worker_test

import (
	"testing"
	"time"

	"postroad/store"
	"postroad/worker"
)

// TestWakerOverview: the active waker looks at how all fare, again and again,
// and forgets it with its turn.
func TestWakerOverview(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publish("Property", "")
	b.insert("behind", 2, `{}`, "cursor", "0")
	b.park("parked", 1, property, 1)
	w, stop := b.wake(quick(func(c *worker.WakerConfig) { c.Overview = often }))
	if w.LastActive().IsZero() {
		t.Error("it does not know that it is active")
	}
	seen := func(halted, active, idle int64) func() bool {
		return func() bool {
			o := w.Overview()
			return o != nil && o.States[store.StateHalted].Subscribers == halted && o.States[store.StateActive].Subscribers == active &&
				o.States[store.StateActive].LagEvents == active && o.States[store.StateIdle].Subscribers == idle && len(o.Worst) == 2
		}
	}
	b.eventually(seen(0, 2, 1), "all are seen")
	b.exec(`UPDATE runs SET halted_reason = 'it was refused' WHERE id = 'behind1'`)
	b.eventually(seen(1, 1, 1), "the halted one is seen")
	other, _ := b.start(quick(nil))
	stop()
	if w.Overview() != nil {
		t.Error("it goes on showing what it saw when it was active")
	}
	if at := w.LastActive(); time.Since(at) > soon || at.IsZero() {
		t.Errorf("it was active last at %s", at)
	}
	b.eventually(func() bool { return other.Overview() != nil }, "the next one looks")
}

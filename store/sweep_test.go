package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postroad/event"
	"postroad/store"
)

// TestSweepRows_control: a control of a row that nobody holds is a reason to
// look, at the next sweep; the wake that was sent with it may be lost.
func TestSweepRows_control(t *testing.T) {
	b := setup(t)
	swept := func() []string {
		ids, err := b.SweepRows(t.Context(), time.Minute, 100)
		check(t, err)
		return ids
	}
	control := func(kind string) {
		_, err := b.Control(t.Context(), store.ControlRequest{Subscriber: "a", Kind: kind})
		check(t, err)
	}
	b.create("a", event.Start{Where: "beginning"})
	if ids := swept(); len(ids) != 0 {
		t.Errorf("swept %v when it was made", ids)
	}
	control(store.ControlPause)
	if ids := swept(); len(ids) != 0 {
		t.Errorf("swept %v while paused", ids)
	}
	control(store.ControlResume)
	if diff := cmp.Diff([]string{"a"}, swept()); diff != "" {
		t.Errorf("resumed (-want +got):\n%s", diff)
	}
	b.exec(`UPDATE runs SET lease = gen_random_uuid(), checked_at = clock_timestamp() WHERE id = 'a'`)
	control(store.ControlResume)
	if ids := swept(); len(ids) != 0 {
		t.Errorf("swept %v, which somebody holds", ids)
	}
}

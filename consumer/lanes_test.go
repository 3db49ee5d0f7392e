package consumer

import (
	"context"
	"slices"
	"sync"
	"testing"
)

// A replay is handed over whole, however far the consumer is, and moves its
// position nowhere.
func TestHandlerReplays(t *testing.T) {
	t.Parallel()
	h, books := setup(t)
	books.at = Position{2, 50}
	for i, row := range []struct {
		id, body string
		replay   int64
		applied  []int64 // so far
	}{
		{"acme_7_r3", single(7), 3, []int64{7}},
		{"acme_7_r3", single(7), 3, []int64{7, 7}},
		{"acme_r5_8-60_r12", batch(8, 60), 12, []int64{7, 7, 8, 60}},
		{"acme_r5_51", single(51), 0, []int64{7, 7, 8, 60, 51}},
		{"acme_r5_50", single(50), 0, []int64{7, 7, 8, 60, 51}},
	} {
		r := request(row.body, "Webhook-Id", row.id, "Webhook-Signature", sign(secret, row.id, now.Unix(), row.body), "Postroad-Previous-Sequence", "50")
		if resp := serve(h, r); resp.StatusCode != 200 || !slices.Equal(books.applied, row.applied) {
			t.Fatalf("row %d: status %d, applied %v, want %v", i, resp.StatusCode, books.applied, row.applied)
		}
		if got := books.batches[len(books.batches)-1]; got.ID == row.id && (got.Replay != row.replay || got.Gap != nil) {
			t.Errorf("row %d: replay %d, gap %v", i, got.Replay, got.Gap)
		}
		if want := map[bool]int64{true: 51, false: 50}[i >= 3]; books.at.Sequence != want {
			t.Errorf("row %d: the position is %d, want %d", i, books.at.Sequence, want)
		}
	}
	later := Position{3, 1}
	if left := (Batch{Epoch: 2, Replay: 1, Last: 7, Events: []Event{{Sequence: 7, highest: 7}}}).After(later); len(left.Events) != 0 || left.Position() != later {
		t.Errorf("a replay of the feed's last life: %+v", left)
	}
}

// Without a Store nothing is taken for a repeat, and lanes do not wait for each
// other.
func TestHandlerWithoutStore(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var applied []int64
	both := make(chan struct{})
	h, _ := setup(t, func(cfg *Config) {
		cfg.Store = nil
		cfg.Handle = func(_ context.Context, b Batch) error {
			mu.Lock()
			applied = append(applied, b.Events[0].Sequence)
			if len(applied) == 2 {
				close(both)
			}
			mu.Unlock()
			<-both
			return nil
		}
	})
	var group sync.WaitGroup
	for _, sequence := range []int64{9, 8} {
		group.Go(func() {
			if resp := serve(h, request(single(sequence))); resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
	group.Wait()
	serve(h, request(single(8)))
	if len(applied) != 3 {
		t.Errorf("applied %v, want 8, 9 and 8 again", applied)
	}
}

package activities

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"postroad/store"
)

// TestConfirmer: while a statement is under way those who ask wait for the next,
// which is sent after they asked, and go into it together.
func TestConfirmer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const runs = 100
		var groups []int
		c := &confirmer{confirm: func(_ context.Context, leases []store.Lease) (map[store.Lease]int64, error) {
			groups = append(groups, len(leases))
			<-time.After(time.Second)
			held := map[store.Lease]int64{}
			for _, l := range leases {
				if l.Subscriber != "fenced" {
					held[l] = 7
				}
			}
			return held, nil
		}}
		began := time.Now()
		var asking sync.WaitGroup
		ask := func(subscriber string, wantHeld bool, sent time.Duration) {
			asking.Go(func() {
				desired, held, sentAt, err := c.ask(t.Context(), store.Lease{Subscriber: subscriber, ID: uuid.New()})
				if err != nil || held != wantHeld || held && desired != 7 || sentAt.Sub(began) != sent {
					t.Errorf("%s: version %d, held %t, sent after %s: %v", subscriber, desired, held, sentAt.Sub(began), err)
				}
			})
		}
		ask("first", true, 0)
		synctest.Wait()
		<-time.After(time.Millisecond) // the first statement is under way
		for i := range runs {
			ask(fmt.Sprint("sub-", i), true, time.Second)
		}
		ask("fenced", false, time.Second)
		asking.Wait()
		if len(groups) != 2 || groups[0] != 1 || groups[1] != runs+1 {
			t.Errorf("statements for %d leases, want 1 and %d", groups, runs+1)
		}
		ask("later", true, time.Since(began))
		asking.Wait()
	})
}

// TestConfirmerFails: all who asked together learn that PostgreSQL did not
// answer, and who stops waiting does not wait for it.
func TestConfirmerFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("away")
		c := &confirmer{confirm: func(context.Context, []store.Lease) (map[store.Lease]int64, error) {
			<-time.After(time.Second)
			return nil, away
		}}
		ctx, cancel := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		for _, tt := range []struct {
			ctx  context.Context
			want error
		}{{t.Context(), away}, {ctx, context.Canceled}} {
			asking.Go(func() {
				_, held, _, err := c.ask(tt.ctx, store.Lease{Subscriber: "acme", ID: uuid.New()})
				if held || !errors.Is(err, tt.want) {
					t.Errorf("held %t, %v, want %v", held, err, tt.want)
				}
			})
		}
		synctest.Wait()
		cancel()
		asking.Wait()
		time.Sleep(2 * time.Second) //nolint:forbidigo // the clock is a fake: a round that nobody waits for any more ends too
	})
}

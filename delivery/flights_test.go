package delivery_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"postroad/delivery"
	"postroad/event"
	"postroad/internal/testkit"
)

// TestDoEnded ends the context that the requests of a target share: those under
// way end, one that comes after does not start, and another context's is not
// touched.
func TestDoEnded(t *testing.T) { eachPath(t, testDoEnded) }

func testDoEnded(t *testing.T, newTestClient clientMaker) {
	const lanes = 8
	arrived, answer := make(chan struct{}, lanes+1), make(chan struct{})
	receiver := testkit.NewReceiver(t, testkit.ReceiverOptions{Script: func(int, *testkit.Request) testkit.Answer {
		arrived <- struct{}{}
		<-answer
		return testkit.Answer{Status: 204}
	}})
	c := newTestClient(t)
	target := targetOf(t, c, event.Subscriber{Endpoint: event.Endpoint{URL: receiver.URL()}}, event.Secrets{}, time.Time{})
	r := delivery.Request{Events: testEvents(1), Attempt: 1}
	ctx, end := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	ended := make([]delivery.Answer, lanes)
	for i := range lanes {
		sending.Go(func() { ended[i] = c.Do(ctx, target, r) })
	}
	for range lanes {
		<-arrived
	}
	other := make(chan delivery.Answer, 1)
	go func() { other <- c.Do(t.Context(), target, r) }()
	<-arrived
	end()
	sending.Wait()
	for _, a := range append(ended, c.Do(ctx, target, r)) {
		if a.Class != delivery.ClassCanceled {
			t.Errorf("answer %+v", a)
		}
	}
	close(answer)
	if a := <-other; a.Class != delivery.ClassSuccess {
		t.Errorf("another context's answer %+v", a)
	}
	// The target goes on with whoever comes next.
	for range 3 {
		if a := c.Do(t.Context(), target, r); a.Class != delivery.ClassSuccess {
			t.Errorf("answer %+v", a)
		}
	}
}

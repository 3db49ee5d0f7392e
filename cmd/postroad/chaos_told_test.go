//go:build chaos

package main_test

import (
	"net/http"
	"testing"
	"time"

	"postroad/internal/testkit"
)

// TestChaosTold: an endpoint that fails for a minute is told of once, and so is
// that it works again.
func TestChaosTold(t *testing.T) {
	t.Parallel()
	r := newRoad(t, sharedAPI(t), "failing", func(int, *testkit.Request) testkit.Answer {
		return testkit.Answer{Status: http.StatusServiceUnavailable}
	}, map[string]any{"retry": map[string]any{"schedule": []string{"5s"}}})
	p := newPager(r, "failing-pager")
	defer p.end()
	r.publish(numbered(3))
	_, at := p.await("subscriber.retrying", r.name, 3*time.Minute)
	failed := at.Sub(r.consumer.Requests()[0].At)
	t.Logf("told %s after the first failure", failed.Round(10*time.Millisecond))
	if failed < time.Minute || failed > time.Minute+6*time.Second+toldMax {
		t.Errorf("told %s after the first failure", failed)
	}
	r.consumer.SetScript(nil)
	r.awaitCursor(waitMax, 3)
	if d, _ := p.await("subscriber.recovered", r.name, waitMax); d.From != "retrying" {
		t.Errorf("recovered from %q", d.From)
	}
}

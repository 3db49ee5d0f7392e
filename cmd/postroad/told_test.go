package main_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"postroad/contract"
	"postroad/internal/testkit"
)

// toldMax is how soon people hear of what became of a subscriber.
const toldMax = 10 * time.Second

// told is what a notice says, as far as the tests look.
type told struct {
	Type, Text, Subscriber, Feed, State, Reason, From string
	Cursor, Head                                      int64
	LagSeconds                                        *float64
}

// pager is a webhook on the feed _system. The stack is shared: what it is told
// of other tests' subscribers is passed over.
type pager struct {
	t        *testing.T
	name     string
	consumer *testkit.Receiver
}

// newPager has subscriber name follow the feed _system from now on.
func newPager(r *road, name string) *pager {
	r.t.Helper()
	p := &pager{t: r.t, name: name, consumer: testkit.NewReceiver(r.t, testkit.ReceiverOptions{})}
	r.call(http.MethodPost, "/v1/subscribers", map[string]any{
		"id": name, "feed": "_system", "format": "raw", "endpoint": map[string]any{"url": p.consumer.URL()},
	}, nil)
	return p
}

// end deletes the subscriber: the next tests have no use for it.
func (p *pager) end() { on(p.t, "subscriber", "delete", p.name).want(p.t, ok) }

// await waits until it was told that of a subscriber, and returns what and when.
func (p *pager) await(kind, subscriber string, most time.Duration) (found told, at time.Time) {
	p.t.Helper()
	testkit.Eventually(p.t, most, func() bool {
		for _, r := range p.consumer.Requests() {
			var d told
			if err := json.Unmarshal(r.Body, &d); err != nil {
				p.t.Fatalf("%s: %v", r.Body, err)
			}
			if d.Type != r.Header.Get("Postroad-Event-Type") {
				p.t.Fatalf("an event of type %s: %s", r.Header.Get("Postroad-Event-Type"), r.Body)
			}
			if d.Type == kind && d.Subscriber == subscriber {
				found, at = d, r.At
				p.t.Logf("told: %s", r.Body)
				return true
			}
		}
		return false
	}, kind+" of "+subscriber+" is told")
	return found, at
}

// TestTold: a webhook on _system hears soon that a subscriber halted, was
// disabled or fell behind, and that it recovered.
func TestTold(t *testing.T) {
	t.Parallel()
	refuse := func(status int) testkit.Script {
		return func(int, *testkit.Request) testkit.Answer { return testkit.Answer{Status: status} }
	}
	r := newRoad(t, sharedAPI(t), "told", refuse(http.StatusUnprocessableEntity), map[string]any{
		"retry": map[string]any{"eventAttempts": 2, "schedule": []string{"10ms"}}, "alert": map[string]any{"lagSeconds": 1},
	})
	p := newPager(r, "told-pager")
	defer p.end()

	r.publish(numbered(1))
	halted, at := p.await("subscriber.halted", r.name, waitMax)
	status := r.status()
	if halted.State != contract.StateHalted || halted.Reason != status.Reason || halted.Feed != r.name || halted.Head != 1 || halted.Cursor != 0 {
		t.Errorf("told %+v, the status is %+v", halted, status)
	}
	if strings.Contains(halted.Text, r.consumer.URL()) {
		t.Errorf("it shows the endpoint: %s", halted.Text)
	}
	took := at.Sub(r.consumer.Requests()[1].At)
	t.Logf("from the request that halted it to the webhook: %s", took.Round(time.Millisecond))
	if took > toldMax {
		t.Errorf("the halt was told after %s, want %s", took, toldMax)
	}
	p.await("subscriber.behind", r.name, waitMax) // a halted one too

	r.consumer.SetScript(nil)
	r.control(contract.SignalResume)
	r.awaitCursor(waitMax, 1)
	if d, _ := p.await("subscriber.recovered", r.name, waitMax); d.From != "halted" {
		t.Errorf("recovered first from %q", d.From)
	}

	r.consumer.SetScript(refuse(http.StatusGone))
	r.publish(numbered(1))
	if d, _ := p.await("subscriber.disabled", r.name, waitMax); d.Reason != r.status().Reason {
		t.Errorf("told %+v", d)
	}
	if n := strings.Count(p.all(r.name), "subscriber.halted"); n != 1 {
		t.Errorf("the halt was told %d times", n)
	}
	on(t, "publish", "--feed", "_system", "-").want(t, usage)
	on(t, "subscriber", "create", "told-cli", "--feed", r.name, "--endpoint", p.consumer.URL(), "--alert-lag", "1.5s").want(t, usage).contains(t, "whole seconds")
	on(t, "subscriber", "create", "told-cli", "--feed", r.name, "--endpoint", p.consumer.URL(), "--alert-lag", "5m").want(t, ok)
	on(t, "subscriber", "get", "told-cli").want(t, ok).contains(t, `"lagSeconds": 300`)
	on(t, "subscriber", "update", "told-cli", "--alert-lag", "never").want(t, ok)
	if text := on(t, "subscriber", "get", "told-cli").want(t, ok).stdout; strings.Contains(text, "lagSeconds") {
		t.Errorf("the alert is still there: %s", text)
	}
}

// all is everything told of a subscriber.
func (p *pager) all(subscriber string) string {
	var all strings.Builder
	for _, r := range p.consumer.Requests() {
		if strings.Contains(string(r.Body), `"subscriber":"`+subscriber+`"`) {
			all.Write(r.Body)
		}
	}
	return all.String()
}

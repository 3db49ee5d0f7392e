package main_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	main "postroad/cmd/postroad"
	"postroad/contract"
	"postroad/internal/testkit"
)

// publishDemo publishes the sample's 298 events to a feed of the shared stack.
func publishDemo(t *testing.T, feed string) {
	t.Helper()
	invoke(t, main.Invocation{
		Args: []string{"publish", "-", "--feed", feed, "--data-dir", stack(t)}, Stdin: strings.NewReader(string(main.DemoEvents())), WorkDir: t.TempDir(),
	}).want(t, ok)
}

// TestMoves does to a paused subscriber what moves it, and asks for replays:
// nothing is sent, so that each step can be seen.
func TestMoves(t *testing.T) {
	t.Parallel()
	sub := func(args ...string) result { return on(t, append([]string{"subscriber"}, args...)...) }
	on(t, "feed", "create", "moves").want(t, ok)
	sub("create", "moves", "--feed", "moves", "--endpoint", "http://127.0.0.1:9/", "--start", "beginning",
		"--lanes", "8", "--batch-size", "auto", "--on-exhausted", "hold", "--compact", "catchUp").want(t, ok)
	sub("get", "moves").want(t, ok).contains(t, `"lanes": 8`, `"batchSize": "auto"`, `"onExhausted": "hold"`, `"compact": "catchUp"`)
	sub("update", "moves", "--batch-size", "100", "--compact", "never").want(t, ok)
	if r := sub("get", "moves").want(t, ok).contains(t, `"batchSize": 100`); strings.Contains(r.stdout, "catchUp") {
		t.Errorf("it still compacts: %s", r.stdout)
	}
	sub("update", "moves", "--lanes", "64", "--batch-size", "1000").want(t, failed).contains(t, "10000")
	sub("pause", "moves").want(t, ok)
	publishDemo(t, "moves")

	sub("seek", "moves", "--to", "100").want(t, ok).contains(t, "moves is paused")
	on(t, "status", "moves").want(t, ok).contains(t, "100 of 298")
	sub("seek", "moves", "--to", "299").want(t, failed).contains(t, "above the head of the feed, which is 298")
	sub("seek", "moves", "--to", "beginning").want(t, ok)
	on(t, "status", "moves").want(t, ok).contains(t, "0 of 298")
	sub("seek", "moves", "--to", "2000-01-01T00:00:00Z").want(t, ok)
	sub("seek", "moves", "--to", "now", "--json").want(t, ok).contains(t, `"cursor": 298`)
	sub("seek", "nobody", "--to", "now").want(t, notFound)

	sub("skip", "moves", "5").want(t, conflict).contains(t, "not halted")
	sub("held", "moves").want(t, ok).contains(t, "no key of moves is held")
	sub("held", "moves", "--key", "Property/235021").want(t, notFound)
	for _, verb := range []string{"retry", "skip", "release"} {
		sub("held-"+verb, "moves", "Property/235021").want(t, notFound).contains(t, "No event of this record waits")
	}
	sub("dead-letters", "moves").want(t, ok).contains(t, "no dead letters")
	sub("dismiss", "moves", "5", "6").want(t, ok).contains(t, "dismissed 0 dead letters")

	replay := func(args ...string) result { return sub(append([]string{"replay", "moves"}, args...)...) }
	sub("replays", "moves").want(t, ok).contains(t, "no replays")
	replay("--from", "10", "--to", "19", "--dry-run").want(t, ok).contains(t, "10 events, 10 to 19")
	replay("--since", "1h", "--until", "0s", "--dry-run", "--json").want(t, ok).contains(t, `"total": 298`)
	replay("--from", "20", "--to", "19").want(t, failed).contains(t, "toSequence", "before the beginning")
	replay("--from", "299").want(t, failed).contains(t, "above the head")
	replay("--resource", "NoSuchResource").want(t, failed).contains(t, "nothing to send again")
	replay("--missed").want(t, failed).contains(t, "no dead letters")
	replay("--from", "10", "--to", "19").want(t, ok).contains(t, "replay 1 of moves: 10 events, 10-19")
	replay("--from", "1").want(t, ok).contains(t, "replay 2 of moves: 298 events, 1-298")
	on(t, "status", "moves").want(t, ok).contains(t, "1: 0 of 10")
	sub("replays", "moves").want(t, ok).contains(t, "10-19", "0 of 298, queued")
	sub("replay-pause", "moves", "1").want(t, ok).contains(t, "replay 1 of moves is paused: 0 of 10 events")
	sub("replay-resume", "moves", "1").want(t, ok)
	sub("replay-cancel", "moves", "1").want(t, ok).contains(t, "is cancelled")
	sub("replay-resume", "moves", "1").want(t, conflict).contains(t, "can no longer be changed")
	sub("replay-cancel", "moves", "7").want(t, notFound)
	var list struct {
		Replays []struct {
			ID    int64
			State string
		}
	}
	if err := json.Unmarshal([]byte(sub("replays", "moves", "--json").want(t, ok).stdout), &list); err != nil || len(list.Replays) != 2 || list.Replays[0].ID != 2 {
		t.Errorf("replays: %+v, %v", list, err)
	}
}

// TestSignalMoves sends seeks and replays through the Temporal UI. There is no
// plain one: without a payload that can be read, and done, nothing happens.
func TestSignalMoves(t *testing.T) {
	t.Parallel()
	r := newRoad(t, sharedAPI(t), "signal-moves", nil, nil)
	ui := openUI(t, r)
	r.control(contract.ControlPause)
	r.publish(numbered(20))
	version := r.status().DesiredVersion
	send := func(signal, data string) { ui.signalWith(r.name, signal, "json/plain", []byte(data)) }
	// Signals are taken in their order: once the good one has its effect, those
	// before it had theirs.
	for _, useless := range []string{``, `{"sequence":`, `{"sequence":"5"}`, `[5]`, `{}`, `{"sequence":21}`, `{"sequence":-1}`, `{"to":"end"}`, `{"to":"now","sequence":5}`} {
		send(contract.SignalSeek, useless)
	}
	ui.signalWith(r.name, contract.SignalSeek, "binary/encrypted", []byte("\x00\x01\xff"))
	send(contract.SignalSeek, `{"sequence":7}`)
	r.awaitCursor(waitMax, 7)
	send(contract.SignalSeek, `{"to":"now"}`)
	r.awaitCursor(waitMax, 20)

	for _, useless := range []string{``, `{}`, `{"fromSequence":"1"}`, `{"toSequence":5,"resourceNames":[]}`, `{"fromSequence":9,"toSequence":5}`, `{"fromSequence":21}`, `{"missed":true}`} {
		send(contract.SignalReplay, useless)
	}
	send(contract.SignalReplay, `{"fromSequence":5,"toSequence":9}`)
	var list struct {
		Replays []struct{ ID, FromSequence, ToSequence, Total int64 }
	}
	testkit.Eventually(t, waitMax, func() bool {
		r.call(http.MethodGet, "/v1/subscribers/"+r.name+"/replays", nil, &list)
		return len(list.Replays) > 0
	}, "there is a replay")
	if one := list.Replays[0]; len(list.Replays) != 1 || one.FromSequence != 5 || one.ToSequence != 9 || one.Total != 5 {
		t.Errorf("replays: %+v", list.Replays)
	}
	if s := r.status(); s.DesiredVersion != version+3 || s.State != contract.StatePaused {
		t.Errorf("%d controls, want 3: %+v", s.DesiredVersion-version, s)
	}
}

// TestSignalMovesWhileSending seeks back and replays, by signals, while requests
// are under way: the events come again in order, and new ones after them.
func TestSignalMovesWhileSending(t *testing.T) {
	t.Parallel()
	const total, replayed = 400, 50
	r := newRoad(t, sharedAPI(t), "signal-moves-busy", slow(5*time.Millisecond), nil)
	temporal := sharedTemporal(t)
	r.publish(numbered(total))
	r.consumer.WaitFor(t, 100, waitMax)
	signalThrough(t, temporal, r.name, contract.SignalSeek, contract.SeekSignal{Sequence: new(int64(0))})
	r.consumer.WaitFor(t, 200, waitMax)
	signalThrough(t, temporal, r.name, contract.SignalReplay, contract.ReplaySignal{FromSequence: new(int64(1)), ToSequence: new(int64(replayed))})
	r.awaitCursor(waitMax, total)

	var sent, again []testkit.Request
	for _, request := range r.consumer.Requests() {
		if request.Header.Get("Postroad-Replay") == "" {
			sent = append(sent, request)
		} else {
			again = append(again, request)
		}
	}
	back := slices.IndexFunc(sent[1:], func(q testkit.Request) bool { return firstOf(t, q) == 1 }) + 1
	if back < 100 || back == total {
		t.Fatalf("the seek came into force after %d requests", back)
	}
	onceInOrder(t, sent[:back], back)
	onceInOrder(t, sent[back:], total)
	onceInOrder(t, again, replayed)
	if last := sent[len(sent)-1]; again[replayed-1].N > last.N {
		t.Error("the replay ended after new events")
	}
}

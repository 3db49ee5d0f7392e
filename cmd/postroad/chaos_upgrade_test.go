//go:build chaos

package main_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postroad/contract"
	"postroad/internal/apiclient"
)

// buildRelease builds the last release of releases.txt as it runs in production.
func buildRelease(t *testing.T) (program, name string) {
	t.Helper()
	text, err := os.ReadFile("../../releases.txt")
	if err != nil {
		t.Fatal(err)
	}
	var commit string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] != "#" {
			name, commit = fields[0], fields[1]
		}
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "source.tar")
	git := exec.Command("git", "-c", "safe.directory=*", "archive", "-o", source, commit)
	git.Dir = "../.."
	if output, err := git.CombinedOutput(); err != nil {
		t.Fatalf("the source of %s is not here: this test needs a clone with all history (git fetch --unshallow): %v: %s", name, err, output)
	}
	program = filepath.Join(dir, "postroad")
	build := exec.Command("/bin/sh", "-c",
		"mkdir source && tar -xf source.tar -C source && cd source && go build -tags slim -buildvcs=false -o ../postroad ./cmd/postroad")
	build.Dir = dir
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", name, err, output)
	}
	return program, name
}

// load publishes to roads in turn, a key for each event, through whichever API
// runs, until it is stopped.
type load struct {
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	ways   []*apiclient.Client
	roads  []*road
	stored map[*road]int
	again  int // tries beyond the first
}

func startLoad(t *testing.T, pause time.Duration, way *apiclient.Client, roads ...*road) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{stop: cancel, ways: []*apiclient.Client{way}, roads: roads, stored: map[*road]int{}}
	l.running.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			l.publish(t, i)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	})
	t.Cleanup(l.finish)
	return l
}

func (l *load) publish(t *testing.T, i int) {
	key := http.Header{"Idempotency-Key": {"load-" + strconv.Itoa(i)}}
	for try := 0; t.Context().Err() == nil; try++ {
		l.mu.Lock()
		r, way := l.roads[i%len(l.roads)], l.ways[(i+try)%len(l.ways)]
		l.mu.Unlock()
		_, err := way.Do(t.Context(), apiclient.Request{
			Method: http.MethodPost, Path: "/v1/feeds/" + r.name + "/events", Header: key,
			In: map[string]string{"resourceName": "Property", "resourceRecordKey": strconv.Itoa(i)},
		}, nil)
		l.mu.Lock()
		if err == nil {
			l.stored[r]++
			l.again += try
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		if try == 50 {
			t.Errorf("publish to %s: %v", r.name, err)
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}

// through makes these the APIs that it publishes through, and tells the roads.
func (l *load) through(apis ...*instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ways = nil
	for _, a := range apis {
		l.ways = append(l.ways, a.api)
	}
	for _, r := range l.roads {
		r.api = apis[len(apis)-1].api
	}
}

func (l *load) add(roads ...*road) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.roads = append(l.roads, roads...)
}

func (l *load) finish() {
	l.stop()
	l.running.Wait()
}

// owners counts the subscribers that each worker delivers to now.
func (p *topology) owners(roads []*road) map[int]int {
	p.t.Helper()
	temporal := dialTemporal(p.t, p.temporal.address)
	owners := map[int]int{}
	for _, r := range roads {
		run, err := temporal.DescribeWorkflowExecution(p.t.Context(), contract.SubscriberWorkflowID(r.name), "")
		if err != nil {
			p.t.Fatalf("describe the run of %s: %v", r.name, err)
		}
		for _, pending := range run.GetPendingActivities() {
			var pid int
			if _, err := fmt.Sscanf(pending.GetLastWorkerIdentity(), "%d@", &pid); err == nil {
				owners[pid]++
			}
		}
	}
	return owners
}

// TestChaosUpgrade goes from the last release to this code and back, one process
// after the other, under load: events come once and in order all the while. What
// it goes back to was started before the migration: v0.1.0 does not start at a
// newer schema.
func TestChaosUpgrade(t *testing.T) {
	t.Parallel()
	const backlog, more = 4000, 50
	program, name := buildRelease(t)
	after := newUnmigrated(t)
	before := after.of(program)
	before.migrate()
	oldAPI, oldWorker := before.api(), before.worker()
	lastAPI, lastWorker := before.api(), before.worker()
	var roads []*road
	makeRoad := func(api *instance) *road {
		r := newRoad(t, api.api, "road-"+strconv.Itoa(len(roads)+1), slow(20*time.Millisecond), nil)
		r.publish(numbered(backlog))
		roads = append(roads, r)
		return r
	}
	for range 6 {
		makeRoad(oldAPI)
	}
	load := startLoad(t, 5*time.Millisecond, oldAPI.api, slices.Clone(roads)...)
	goOn := func(when string) {
		t.Helper()
		began := time.Now()
		for _, r := range roads {
			r.awaitSince(began, more, recoverMax)
		}
		t.Logf("%s: %d more events each within %.1f s", when, more, time.Since(began).Seconds())
	}
	control := func(r *road) {
		t.Helper()
		r.control(contract.ControlPause)
		r.awaitPaused()
		r.control(contract.ControlResume)
	}
	goOn(name)

	after.migrate()
	goOn(name + " on the schema of this code")
	control(roads[0])
	newAPI, newWorker := after.api(), after.worker()
	load.through(oldAPI, newAPI)
	for tries := 0; after.owners(roads)[newWorker.cmd.Process.Pid] < 2; tries++ {
		if tries == 30 {
			t.Fatal("the new worker is given nothing to deliver")
		}
		r := makeRoad(newAPI)
		load.add(r)
		r.consumer.WaitFor(t, more, waitMax)
	}
	goOn("both side by side")
	control(roads[1])
	owners := after.owners(roads)
	old := owners[oldWorker.cmd.Process.Pid] + owners[lastWorker.cmd.Process.Pid]
	t.Logf("%s delivers to %d, this code to %d", name, old, owners[newWorker.cmd.Process.Pid])
	if old == 0 || owners[newWorker.cmd.Process.Pid] == 0 {
		t.Error("one of the two delivers nothing: this shows nothing")
	}
	load.through(newAPI)
	t.Logf("%s stopped in %.1f s and %.1f s", name, oldAPI.terminate().Seconds(), oldWorker.terminate().Seconds())
	goOn("without the first of " + name)
	control(roads[2])

	// And back: the binaries alone, the schema stays.
	load.through(lastAPI)
	newAPI.terminate()
	newWorker.terminate()
	goOn(name + " alone on the schema of this code")
	control(roads[3])
	load.finish()
	for _, r := range roads {
		r.consumer.SetScript(nil)
	}
	for _, r := range roads {
		n := backlog + load.stored[r]
		r.awaitCursor(deliveredMax, n)
		onceInOrder(t, r.consumer.Requests(), n)
	}
	t.Logf("%d subscribers, each event once and in order; %d publishes were tried again", len(roads), load.again)
	lastWorker.terminate()
}

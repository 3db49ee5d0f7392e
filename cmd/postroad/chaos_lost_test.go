//go:build chaos

package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"

	"postroad/internal/testkit"
)

// TestChaosTemporalLost loses all that Temporal knows, in mid-run: with a stack
// in one process, whose Temporal comes back empty and as the same cluster, with
// a worker that goes on meanwhile, and with another cluster in its place.
func TestChaosTemporalLost(t *testing.T) {
	t.Parallel()
	t.Run("file deleted", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		s := makeStates(t, r.child.ready(r.dir), r.temporal())
		r.child.killTree()
		files, err := filepath.Glob(filepath.Join(r.dir, "temporal-*.db*"))
		if err != nil || len(files) == 0 {
			t.Fatalf("Temporal's files: %v, %v", files, err)
		}
		for _, file := range files {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
		s.lost = r.restart()
		s.moved(r.child.ready(r.dir), r.temporal())
		s.check()
		s.active.checkOrder(len(testkit.Lines(t, "sdk-go")), s.lost)
	})
	t.Run("under a worker that goes on", func(t *testing.T) {
		t.Parallel()
		split := newSplit(t)
		worker := split.worker()
		s := makeStates(t, split.api, dialTemporal(t, split.temporal.TemporalAddress))
		split.stopTemporal()
		empty := t.TempDir()
		id, err := os.ReadFile(filepath.Join(split.dir, "cluster-id"))
		if err == nil {
			err = os.WriteFile(filepath.Join(empty, "cluster-id"), id, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.lost = time.Now()
		startTemporal(t, empty, split.temporal.TemporalAddress)
		s.check()
		onceInOrder(t, s.active.consumer.Requests(), len(testkit.Lines(t, "sdk-go")))
		if worker.ended() {
			t.Error("the worker ended with its Temporal")
		}
	})
	t.Run("another cluster", func(t *testing.T) {
		t.Parallel()
		split := newSplit(t)
		worker := split.worker()
		address := split.temporal.TemporalAddress
		s := makeStates(t, split.api, dialTemporal(t, address))
		split.stopTemporal()
		worker.terminate()
		s.lost = time.Now()
		startTemporal(t, t.TempDir(), address)
		refused := split.start("worker")
		if code := refused.wait(startMax); code != failed || !strings.Contains(refused.stderr.String(), "--adopt-cluster") {
			t.Errorf("a worker of another cluster ended with code %d: %s", code, refused.stderr.String())
		}
		adopting := split.worker("--adopt-cluster")
		s.check()
		onceInOrder(t, s.active.consumer.Requests(), len(testkit.Lines(t, "sdk-go")))
		adopting.terminate()
		split.worker() // the other cluster is the right one now
	})
}

// TestChaosTerminateAll ends every workflow in the Temporal UI.
func TestChaosTerminateAll(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := makeStates(t, r.child.ready(r.dir), r.temporal())
	ui := openUI(t, s.idle)
	for _, road := range append(s.all(), s.deleting) {
		ui.post(road.name, "terminate", map[string]any{"reason": "by hand"})
	}
	for _, road := range append(s.all(), s.deleting) {
		if status := describe(t, s.temporal, road.name).GetStatus(); status != enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED {
			t.Fatalf("the run of %s is %s", road.name, status)
		}
	}
	s.lost = time.Now()
	s.check()
	onceInOrder(t, s.active.consumer.Requests(), len(testkit.Lines(t, "sdk-go")))
}

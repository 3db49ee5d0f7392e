package bench

import (
	"context"
	"os"
	"time"
)

// Processes that are told apart.
const (
	processProduct  = "postroad" // Temporal is in it
	processDatabase = "postgresql"
	processReceiver = "receiver"
	processClient   = "bench" // what publishes and watches
)

// Resources is what a measured stretch took.
type Resources struct {
	// Deliveries is how many there were in it, which what follows is per.
	Deliveries int     `json:"deliveries"`
	Seconds    float64 `json:"seconds"`
	// Processes is by process: postroad (Temporal is in it), postgresql (all of its
	// processes), receiver, and bench, which publishes. Empty: the system does not
	// tell.
	Processes map[string]ProcessUse `json:"processes,omitempty"`
	// Per delivery: statements sent to PostgreSQL (0: the server does not count
	// them), transactions that wrote, bytes of write-ahead log, and events in
	// Temporal's histories (0: not known, there are too many of them).
	Statements    float64 `json:"statements,omitempty"`
	Transactions  float64 `json:"transactions"`
	WALBytes      float64 `json:"walBytes"`
	HistoryEvents float64 `json:"historyEvents,omitempty"`
	// MostTime are the statements that took PostgreSQL the most time.
	MostTime []Statement `json:"mostTime,omitempty"`
}

// ProcessUse is what one process took.
type ProcessUse struct {
	CPUSecondsPer1000 float64 `json:"cpuSecondsPer1000"`
	// MemoryPeakBytes is the most resident memory that was seen, looked at several
	// times a second.
	MemoryPeakBytes int64 `json:"memoryPeakBytes"`
}

// productCPU is the CPU time of the product and its database per 1,000
// deliveries, in seconds; 0: not measured.
func (r *Resources) productCPU() float64 {
	return r.Processes[processProduct].CPUSecondsPer1000 + r.Processes[processDatabase].CPUSecondsPer1000
}

// sampleEvery is how often memory is looked at.
const sampleEvery = 200 * time.Millisecond

// watch runs the measured stretch, in which there are so many deliveries, and
// says in the result what it took.
func (m *measurement) watch(ctx context.Context, deliveries int, stretch func() error) error {
	history, known, err := m.historyEvents(ctx)
	if err != nil {
		return err
	}
	counts, err := m.databaseCounts(ctx)
	if err != nil {
		return err
	}
	if err := m.startProfile(ctx); err != nil {
		return err
	}
	before, started := m.usage(), time.Now()
	peaks := m.samplePeaks(ctx)
	err = stretch()
	r := &Resources{Deliveries: deliveries, Seconds: time.Since(started).Seconds(), Processes: map[string]ProcessUse{}}
	memory := peaks()
	if err != nil {
		return err
	}
	for name, after := range m.usage() {
		r.Processes[name] = ProcessUse{
			CPUSecondsPer1000: r.per(1000 * (after.cpu - before[name].cpu).Seconds()),
			MemoryPeakBytes:   max(memory[name], after.memory),
		}
	}
	m.result.Resources = r
	if err := m.stopProfile(ctx); err != nil {
		return err
	}
	if err := m.countSince(ctx, r, counts); err != nil {
		return err
	}
	now, still, err := m.historyEvents(ctx)
	if known && still {
		r.HistoryEvents = r.per(float64(now - history))
	}
	return err
}

func (r *Resources) per(all float64) float64 { return all / float64(max(r.Deliveries, 1)) }

// usage is that of each process now.
func (r *run) usage() map[string]usage {
	all := map[string]usage{}
	for name, pids := range map[string][]int{
		processProduct: r.productPIDs(), processDatabase: append(children(r.cluster.PID()), r.cluster.PID()),
		processReceiver: {r.receiver.pid()}, processClient: {os.Getpid()},
	} {
		if u, ok := usageOf(pids...); ok {
			all[name] = u
		}
	}
	return all
}

// productPIDs are the product's process and what delivers beside it.
func (r *run) productPIDs() []int {
	pids := []int{r.product.pid()}
	if r.beside != nil {
		pids = append(pids, r.beside.pid())
	}
	return pids
}

// samplePeaks looks at the memory until the function it returns is called, which
// says the most of each process.
func (r *run) samplePeaks(ctx context.Context) func() map[string]int64 {
	ctx, cancel := context.WithCancel(ctx)
	peaks, done := map[string]int64{}, make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(sampleEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			for name, u := range r.usage() {
				peaks[name] = max(peaks[name], u.memory)
			}
		}
	}()
	return func() map[string]int64 {
		cancel()
		<-done
		return peaks
	}
}

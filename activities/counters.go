package activities

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"postroad/delivery"
)

// classes are all classes of answers.
var classes = [...]delivery.Class{
	delivery.ClassSuccess, delivery.ClassGone, delivery.ClassAsked, delivery.ClassEndpoint, delivery.ClassRecord, delivery.ClassCanceled,
}

// Counters count what the activities of a process have done since it started.
// Histograms are written without a lock.
type Counters struct {
	// Requests are the times of requests that had an answer or a fault, in
	// seconds; requests is each class's part of it.
	Requests *prometheus.HistogramVec
	requests [len(classes) + 1]prometheus.Observer
	// Settled are events settled.
	Settled atomic.Int64
	// Fenced are runs that lost their lease to another.
	Fenced atomic.Int64
	// InFlight are requests under way now; Delivering Delivers that run now.
	InFlight, Delivering atomic.Int64
	// Checkpoints are the times of statements that write checkpoints, failed
	// ones included, in seconds; CheckpointRuns how many runs each held.
	Checkpoints, CheckpointRuns prometheus.Histogram
	// CheckpointRetries are statements that were made again because PostgreSQL
	// was away or slow.
	CheckpointRetries atomic.Int64
	// AttemptsRefused are attempts that PostgreSQL refused, and so are not
	// recorded.
	AttemptsRefused atomic.Int64
}

func newCounters() *Counters {
	c := &Counters{
		Requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "postroad_request_duration_seconds", Help: "Time of a request to a consumer, from dial to the end of the answer, by the answer's class.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15, 30, 60},
		}, []string{"class"}),
		Checkpoints: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "postroad_checkpoint_duration_seconds", Help: "Time of one statement that writes positions, failed ones included.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		CheckpointRuns: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "postroad_checkpoint_runs", Help: "Subscribers whose position one statement writes.",
			Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000},
		}),
	}
	for _, class := range classes {
		c.requests[class] = c.Requests.WithLabelValues(class.String())
	}
	return c
}

// answered counts a request.
func (c *Counters) answered(answer *delivery.Answer) {
	if of := c.requests[answer.Class]; of != nil {
		of.Observe(answer.Duration.Seconds())
	}
}

// Counters returns the counters, which go on counting.
func (a *Activities) Counters() *Counters { return a.counters }

// Runs is how many subscribers this process holds the lease of now.
func (a *Activities) Runs() int { return a.runs.count() }

// QueuedAttempts is how many attempts are not written yet.
func (a *Activities) QueuedAttempts() int { return a.attempts.queued() }

// AttemptsQueue is how many unwritten attempts close the gate.
func (a *Activities) AttemptsQueue() int { return a.cfg.AttemptsQueue }

// Slots is how many Delivers this process runs at once.
func (a *Activities) Slots() int { return a.cfg.Slots }

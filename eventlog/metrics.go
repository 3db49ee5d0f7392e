package eventlog

import "github.com/prometheus/client_golang/prometheus"

// metrics are what the log observes of itself, beside the queue, which is looked
// at when somebody asks.
type metrics struct {
	groupEvents, duration prometheus.Histogram
}

func newMetrics() metrics {
	return metrics{
		groupEvents: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "postroad_append_group_events", Help: "Events stored in one transaction.",
			Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000},
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "postroad_append_duration_seconds", Help: "Time of one transaction that stores events, failed ones included.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
}

// readCounts count the queries for events of those who follow the log.
type readCounts struct{ tail, behind prometheus.Counter }

func newReadCounts() (readCounts, prometheus.Collector) {
	reads := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "postroad_log_reads_total",
		Help: "Queries for events by those who follow the log: by the tail, once for all at the head, or by one that is behind it.",
	}, []string{"by"})
	return readCounts{tail: reads.WithLabelValues("tail"), behind: reads.WithLabelValues("behind")}, reads
}

// Collectors are the log's metrics, for a registry of the caller's.
func (l *Log) Collectors() []prometheus.Collector {
	queue := func(name, help string, read func(a *appender) int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "postroad_append_queue_" + name, Help: help}, func() float64 {
			l.appender.mu.Lock()
			defer l.appender.mu.Unlock()
			return float64(read(l.appender))
		})
	}
	return []prometheus.Collector{
		l.readsCollector, l.appender.metrics.groupEvents, l.appender.metrics.duration,
		queue("events", "Events that wait to be stored or are being stored.", func(a *appender) int { return a.events }),
		queue("bytes", "About how many bytes these events hold.", func(a *appender) int { return a.bytes }),
		queue("events_max", "Events beyond which publishers are told that the queue is full.", func(a *appender) int { return a.config.QueueEvents }),
	}
}

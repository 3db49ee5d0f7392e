package main

import (
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"postroad/store"
	"postroad/worker"
)

// docs/METRICS.md lists every metric; a test holds it to what is served.

// newRegistry holds what every process shows.
func newRegistry(pool *pgxpool.Pool, log []prometheus.Collector) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newPoolCollector(pool))
	registry.MustRegister(log...)
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "postroad_build_info", Help: "1, with the version as a label.", ConstLabels: prometheus.Labels{"version": version()},
	}, func() float64 { return 1 }))
	return registry
}

func gauge(name, help string, read func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "postroad_" + name, Help: help}, read)
}

func counter(name, help string, value *atomic.Int64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "postroad_" + name, Help: help}, func() float64 { return float64(value.Load()) })
}

// registerWaker shows the waker's counters as metrics, and, while it is the
// active one, what it saw of all subscribers.
func registerWaker(registry *prometheus.Registry, waker *worker.Waker) {
	c := waker.Counters()
	value := func(v *atomic.Int64) func() float64 { return func() float64 { return float64(v.Load()) } }
	registry.MustRegister(
		gauge("waker_active", "1 while this process's waker is the active one.", value(&c.Active)),
		gauge("waker_last_active_timestamp_seconds", "When this process's waker was the active one last; 0: never.", func() float64 {
			if at := waker.LastActive(); !at.IsZero() {
				return float64(at.UnixMilli()) / 1000
			}
			return 0
		}),
		gauge("waker_parked", "Parked subscribers known at the last reload.", value(&c.Parked)),
		counter("waker_match_attempts_total", "Parked subscribers tried with a new event: those that its index does not rule out.", &c.MatchAttempts),
		counter("waker_statements_total", "Queries about single parked subscribers or feeds.", &c.Statements),
		counter("waker_pages_total", "Reads of new events, each for all parked subscribers of a feed.", &c.Pages),
		counter("waker_reloads_total", "Reads of all parked subscribers.", &c.Reloads),
		counter("waker_sent_total", "Wakes sent for the first time.", &c.Sent),
		counter("waker_resent_total", "Wakes sent again.", &c.Resent),
		counter("waker_failed_total", "Wakes that could not be sent.", &c.Failed),
		counter("waker_moved_total", "Cursors of parked subscribers moved past what they do not match.", &c.Moved),
		counter("waker_swept_total", "Wakes for subscribers that nobody had looked at.", &c.Swept),
		counter("waker_purged_total", "Deleted subscribers whose rows were removed.", &c.Purged),
		counter("waker_removed_events_total", "Events removed from the log by its feed's retention.", &c.Removed),
		gauge("sources_followed", "Feeds whose source this process follows.", value(&c.Sources)),
		gauge("sources_failing", "Feeds whose source could not be read the last time.", value(&c.SourcesFailing)),
		counter("source_events_total", "Events taken from the sources of feeds.", &c.SourceEvents),
		counter("source_late_events_total", "Events of sources that came too late to be taken, or whose sequence became another record's.", &c.SourceLate),
		counter("source_faults_total", "Readings of sources that failed.", &c.SourceFaults),
		counter("waker_compacted_events_total", "Events removed from the log because newer ones of their records stand for them.", &c.Compacted),
		counter("waker_announced_total", "Notices put into the feed _system.", &c.Announced),
		overviewCollector{waker.Overview},
	)
}

// registerDeliveries shows what the deliveries count as metrics.
func registerDeliveries(registry *prometheus.Registry, d *worker.Deliveries) {
	c := d.Counters()
	registry.MustRegister(
		c.Requests, c.Checkpoints, c.CheckpointRuns,
		counter("events_settled_total", "Events that a subscriber's endpoint took.", &c.Settled),
		counter("fenced_total", "Runs that lost their lease to another.", &c.Fenced),
		counter("checkpoint_retries_total", "Statements that write positions made again, because PostgreSQL was away or slow.", &c.CheckpointRetries),
		counter("attempts_refused_total", "Attempts that PostgreSQL refused, and so are not recorded.", &c.AttemptsRefused),
		gauge("requests_in_flight", "Requests to consumers under way.", func() float64 { return float64(c.InFlight.Load()) }),
		gauge("runs", "Subscribers whose lease this process holds.", func() float64 { return float64(d.Runs()) }),
		gauge("slots_used", "Deliveries that run, of subscribers that wait for an event too.", func() float64 { return float64(c.Delivering.Load()) }),
		gauge("slots", "The most deliveries that run at once.", func() float64 { return float64(d.Slots()) }),
		gauge("attempts_queued", "Attempts that are not written yet.", func() float64 { return float64(d.QueuedAttempts()) }),
		gauge("attempts_queue_max", "Unwritten attempts beyond which nothing is sent.", func() float64 { return float64(d.AttemptsQueue()) }),
	)
}

// overviewCollector shows how all subscribers fare, from the process whose waker
// is the active one. Of single subscribers only the worst have a series.
type overviewCollector struct{ read func() *store.Overview }

var (
	overviewAt       = prometheus.NewDesc("postroad_overview_timestamp_seconds", "When it was last looked at how all subscribers fare.", nil, nil)
	overviewStates   = prometheus.NewDesc("postroad_subscribers", "Subscribers in a state.", []string{"state"}, nil)
	overviewLag      = prometheus.NewDesc("postroad_lag_events", "Events not scanned by the subscribers in a state, summed over them.", []string{"state"}, nil)
	overviewLagMax   = prometheus.NewDesc("postroad_lag_events_max", "Events not scanned by the one furthest behind of the subscribers in a state.", []string{"state"}, nil)
	overviewAge      = prometheus.NewDesc("postroad_lag_seconds_max", "Age of the oldest event that one of the subscribers in a state has not scanned.", []string{"state"}, nil)
	overviewWorstLag = prometheus.NewDesc("postroad_subscriber_lag_events", "Events not scanned, of the 20 subscribers furthest behind.", []string{"subscriber"}, nil)
)

// Describe implements prometheus.Collector.
func (c overviewCollector) Describe(all chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{overviewAt, overviewStates, overviewLag, overviewLagMax, overviewAge, overviewWorstLag} {
		all <- d
	}
}

// Collect implements prometheus.Collector.
func (c overviewCollector) Collect(all chan<- prometheus.Metric) {
	o := c.read()
	if o == nil {
		return
	}
	send := func(d *prometheus.Desc, value float64, labels ...string) {
		all <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	send(overviewAt, float64(o.At.UnixMilli())/1000)
	for state, of := range o.States {
		send(overviewStates, float64(of.Subscribers), state)
		send(overviewLag, float64(of.LagEvents), state)
		send(overviewLagMax, float64(of.LagEventsMax), state)
		send(overviewAge, of.LagMax.Seconds(), state)
	}
	for _, worst := range o.Worst {
		send(overviewWorstLag, float64(worst.Events), worst.Subscriber)
	}
}

// poolCollector shows what the pool of connections is doing.
type poolCollector struct {
	pool                                                *pgxpool.Pool
	max, acquired, idle, waited, total, waits, canceled *prometheus.Desc
}

func newPoolCollector(pool *pgxpool.Pool) *poolCollector {
	describe := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("postroad_database_connections_"+name, help, nil, nil)
	}
	return &poolCollector{
		pool:     pool,
		max:      describe("max", "Most connections the pool opens."),
		acquired: describe("acquired", "Connections in use."),
		idle:     describe("idle", "Connections open and not in use."),
		total:    describe("acquired_total", "Connections handed out so far."),
		waited:   describe("waited_total", "Connections handed out so far that had to be waited for."),
		waits:    describe("wait_seconds_total", "Time waited for connections so far."),
		canceled: describe("canceled_total", "Waits for a connection that were given up."),
	}
}

// Describe implements prometheus.Collector.
func (c *poolCollector) Describe(all chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.max, c.acquired, c.idle, c.total, c.waited, c.waits, c.canceled} {
		all <- d
	}
}

// Collect implements prometheus.Collector.
func (c *poolCollector) Collect(all chan<- prometheus.Metric) {
	s := c.pool.Stat()
	send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64) {
		all <- prometheus.MustNewConstMetric(d, kind, value)
	}
	send(c.max, prometheus.GaugeValue, float64(s.MaxConns()))
	send(c.acquired, prometheus.GaugeValue, float64(s.AcquiredConns()))
	send(c.idle, prometheus.GaugeValue, float64(s.IdleConns()))
	send(c.total, prometheus.CounterValue, float64(s.AcquireCount()))
	send(c.waited, prometheus.CounterValue, float64(s.EmptyAcquireCount()))
	send(c.waits, prometheus.CounterValue, s.EmptyAcquireWaitTime().Seconds())
	send(c.canceled, prometheus.CounterValue, float64(s.CanceledAcquireCount()))
}
